"""One item of work, from its inputs on disk to a finished part folder: what a worker does.

A task is small and plain, so that it travels to any process; arrays travel as files. The part folder is synced when the
task returns; the driver alone puts it in its place.
"""

import importlib
import logging
import os
import platform
import resource
import shutil
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any, Protocol

from tiltwise.data.errors import InputError, StageError, machine_fault
from tiltwise.data.progress import Progress
from tiltwise.params.base import Params
from tiltwise.project import store
from tiltwise.project.commit import sync_tree
from tiltwise.project.digests import file_digest
from tiltwise.project.layout import LOG, PREVIEW, RECORD
from tiltwise.project.records import Record, to_json, write_record
from tiltwise.project.threads import keep_freed_memory, use_threads

_PACKAGES = ("numpy", "scipy", "torch", "numba", "mrcfile", "gemmi")

log = logging.getLogger("tiltwise")


class Preview(Protocol):
    """Draws the preview of an item; handed in from above, a plain function of a module, so that it can travel."""

    def __call__(self, stage: str, outputs: dict[str, Any], quality: dict[str, Any], path: Path) -> None: ...


@dataclass(frozen=True, kw_only=True, slots=True)
class Task:
    """Everything a worker needs to know of one item."""

    step: str
    """Name of the step."""
    item: str
    """Name of the tilt series, or 'all'."""
    stage: str
    """Name of the stage."""
    stage_version: int
    """Its version."""
    function: str
    """module:function of the stage."""
    gives: tuple[str, ...]
    """Kinds of its outputs."""
    params: Params
    """Parameters."""
    inputs: dict[str, "Places | Named | None"]
    """By kind in the order of the arguments: where to load it."""
    fingerprint: str
    """What the item is made from, as one digest."""
    input_fingerprints: dict[str, dict[str, str]]
    """The same for each input."""
    project: Path
    """Folder of the project."""
    part: Path
    """Folder to work in."""
    threads: int
    """Threads to use."""
    device: str
    """cpu or cuda."""
    preview: Preview | None
    """Draws the preview, if any."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Input:
    """Where one input lies."""

    path: Path
    """The folder of the item that holds it, or its file."""
    series: str | None
    """Of an input that holds all series, the one that is wanted; None for all."""
    species: str = ""
    """Which one of several that lie there by name."""


Places = Input | dict[str, Input]
"""Where one value lies: in one place, or by series where the item takes all series."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Named:
    """Several values of one kind."""

    places: dict[str, Places]
    """By name, where each lies."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Outcome:
    """How a task ended."""

    error: str
    """One line; empty if all went well."""
    seconds: float
    """Wall time, s."""


def run_task(task: Task, progress: Progress) -> Outcome:
    """Load, compute, save and record one item in its part folder. An error is an outcome, recorded like a result."""
    started, clock, cpu = datetime.now(UTC), time.perf_counter(), time.process_time()
    record = _start_record(task, started)
    _reset_peak_memory()
    with _item_log(task.part / LOG):
        log.info("%s/%s: stage %s with %s", task.step, task.item, task.stage, task.params.model_dump_json())
        try:
            record |= _compute(task, _logged(progress))
            record["state"], error = "done", ""
        except Exception as caught:
            error = one_line(caught, task.project)
            _discard_outputs(task.part)  # half an output is none; and where the disk is full, the record needs room
            log.error("%s\n%s", error, traceback.format_exc())
            record["error"] = {"type": type(caught).__name__, "message": error}
        seconds = time.perf_counter() - clock
        log.info("%s after %.1f s", record["state"], seconds)
    record |= {
        "packages": _packages(),
        "seconds": round(seconds, 3),
        "cpu_seconds": round(time.process_time() - cpu, 3),
    }
    try:
        finish_part(task.part, record | {"peak_memory_GB": round(_peak_memory_GB(), 3)})
    except OSError as caught:  # on a full disk, say; without a record the item counts as failed
        (task.part / RECORD).unlink(missing_ok=True)
        error = error or one_line(caught, task.project)
    return Outcome(error=error, seconds=seconds)


def failed_record(task: Task, error: str) -> Record:
    """The record of an item whose worker could not write one itself."""
    return _start_record(task, datetime.now(UTC)) | {"error": {"type": "WorkerDied", "message": error}}


def finish_part(part: Path, record: Record) -> None:
    """Write the record, last, and force the part to disk."""
    write_record(part, record)
    sync_tree(part)


def one_line(error: BaseException, place: Path | None = None) -> str:
    """What went wrong, in one line; errors that are not meant for a user carry their type. `place` is the folder that
    was written to."""
    if isinstance(error, OSError):
        return machine_fault(error, place)
    text = " ".join(str(error).split())
    return text if isinstance(error, InputError | StageError) and text else f"{type(error).__name__}: {text}"


def _compute(task: Task, progress: Progress) -> Record:
    module, name = task.function.split(":")
    stage: Callable[..., Any] = getattr(importlib.import_module(module), name)
    keep_freed_memory()
    use_threads(task.threads)
    arguments = [_load(task, kind, place) for kind, place in task.inputs.items()]
    result = stage(*arguments, task.params, device=task.device, progress=progress)
    outputs = {kind: getattr(result, kind) for kind in task.gives}
    files = {
        path.name: {"kind": kind, "bytes": path.stat().st_size, "sha256": file_digest(path)}
        for kind, value in outputs.items()
        for path in store.save(kind, value, task.part, task.project)
    }
    _draw_preview(task, outputs, result.quality)
    return {"outputs": files, "quality": to_json(result.quality)}


def _discard_outputs(part: Path) -> None:
    for path in part.iterdir():
        if path.name == LOG:
            continue
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


def _load(task: Task, kind: str, place: Places | Named | None) -> Any:
    if place is None:
        return None
    if isinstance(place, Named):
        return {name: _load(task, kind, own) for name, own in place.places.items()}
    if isinstance(place, Input):
        return store.load(kind, place.path, task.project, series=place.series, species=place.species)
    return store.join(kind, {name: store.load(kind, entry.path, task.project) for name, entry in place.items()})


def _draw_preview(task: Task, outputs: dict[str, Any], quality: dict[str, Any]) -> None:
    """A preview that cannot be drawn is no reason to lose the result it shows."""
    if task.preview is None:
        return
    try:
        task.preview(task.stage, outputs, quality, task.part / PREVIEW)
    except Exception:
        log.warning("no preview\n%s", traceback.format_exc())


def _start_record(task: Task, started: datetime) -> Record:
    return {
        "step": task.step,
        "item": task.item,
        "state": "failed",
        "stage": task.stage,
        "stage_version": task.stage_version,
        "function": task.function,
        "tiltwise": metadata.version("tiltwise"),
        "fingerprint": task.fingerprint,
        "params": task.params.model_dump(mode="json"),
        "inputs": task.input_fingerprints,
        "outputs": {},
        "quality": {},
        "error": None,
        "seed": getattr(task.params, "seed", None),
        "device": task.device,
        "threads": task.threads,
        "python": platform.python_version(),
        "machine": platform.machine(),
        "started": started.isoformat(timespec="seconds"),
    }


@cache
def _packages() -> dict[str, str]:
    return {name: metadata.version(name) for name in _PACKAGES}


def _logged(progress: Progress) -> Progress:
    """The same progress, its messages also written to the log."""
    last = ""

    def report(fraction: float, message: str) -> None:
        nonlocal last
        if message != last:
            log.info("%3.0f %% %s", 100 * fraction, message)
            last = message
        progress(fraction, message)

    return report


@contextmanager
def _item_log(path: Path) -> Iterator[None]:
    """Everything that tiltwise logs, and warnings of any library, also go to this file."""
    handler = _PatientHandler(path, encoding="utf-8", delay=True)
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)-7s %(message)s"))
    loggers = (log, logging.getLogger("py.warnings"))
    level = log.level
    logging.captureWarnings(True)
    log.setLevel(logging.INFO)
    for logger in loggers:
        logger.addHandler(handler)
    try:
        yield
    finally:
        for logger in loggers:
            logger.removeHandler(handler)
        log.setLevel(level)
        logging.captureWarnings(False)
        with suppress(OSError):
            handler.close()


class _PatientHandler(logging.FileHandler):
    """Writes a log as far as it can be written: on a full disk a failure says more than many lost lines of log."""

    def emit(self, record: logging.LogRecord) -> None:
        with suppress(OSError):
            super().emit(record)

    def handleError(self, record: logging.LogRecord) -> None:
        pass


def _reset_peak_memory() -> None:
    """Start the kernel's high-water mark anew, so that it is this item's and not that of an item before."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return


def _peak_memory_GB() -> float:
    """High-water mark of resident memory, mapped files included, GB."""
    try:
        line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) * 1024 / 1e9
    except (OSError, StopIteration):
        unit = 1 if os.uname().sysname == "Darwin" else 1024
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e9
