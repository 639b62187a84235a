"""The demo: a specimen of known truth is imaged, processed as a user would, and measured against the truth."""

import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tiltwise.data.errors import InputError, StageError
from tiltwise.io.model import assembly_names, read_atoms
from tiltwise.params.simulate import SimulateParams
from tiltwise.project.create import new_project
from tiltwise.project.events import Event, Listener, no_listener
from tiltwise.project.importing import import_tilt_series
from tiltwise.project.records import to_json
from tiltwise.project.run import run_project
from tiltwise.project.tasks import Preview
from tiltwise.report.write import write_report
from tiltwise.workflows.evaluate import evaluate
from tiltwise.workflows.simulation import write_simulation

SUMMARY = "summary.json"


@dataclass(frozen=True, kw_only=True, slots=True)
class DemoFolders:
    """Where a demo puts things."""

    data: Path
    """What the microscope left behind, and the reference."""
    truth: Path
    """What only the evaluation reads."""
    project: Path
    """An ordinary project."""
    summary: Path
    """The figures."""

    @staticmethod
    def of(output: Path) -> "DemoFolders":
        """The folders of a demo's output."""
        output = Path(output).resolve()
        return DemoFolders(
            data=output / "data", truth=output / "truth", project=output / "project", summary=output / SUMMARY
        )


def run_demo(
    output: Path,
    *,
    seed: int = 0,
    model: Path | None = None,
    series: int = 3,
    params: SimulateParams | None = None,
    workers: int | None = None,
    listener: Listener = no_listener,
    preview: Preview | None = None,
) -> dict[str, Any]:
    """Simulate into output/data, process output/project from exactly those files, and measure; gives the figures.

    model is a PDB or mmCIF file instead of the procedural molecule; params everything about the session but the seed.
    The figures, with those of each series under `series`, are written to output/summary.json, and the report to
    output/project/report.html. The pipeline is given output/data/reference.mrc and reads nothing of output/truth.
    Raises InputError if the output is in use, StageError if a step fails.
    """
    started, folders = time.perf_counter(), DemoFolders.of(output)
    for folder in (folders.data, folders.truth, folders.project):
        if folder.exists():
            raise InputError(f"{folder}: is already there; remove it, or name another output folder")
    params = (params or SimulateParams()).model_copy(update={"seed": seed})
    _simulate(output, params, series, model, listener)
    _process(folders, params, workers, listener, preview)
    seconds = time.perf_counter() - started
    figures = {**evaluate(folders.project, folders.truth), "seconds": round(seconds, 1), "seed": seed}
    text = json.dumps(to_json(figures), indent=1, ensure_ascii=False, allow_nan=False)
    folders.summary.write_text(text + "\n", encoding="utf-8")
    write_report(folders.project)
    return figures


def _simulate(output: Path, params: SimulateParams, series: int, model: Path | None, listener: Listener) -> None:
    """Image the molecule; told to the listener as one item of a step named simulate."""
    atoms = None
    if model is not None:
        names = assembly_names(model)
        atoms = read_atoms(model, assembly=names[0] if names else None)
    started = time.perf_counter()
    listener(Event(kind="run_started", total={"simulate": 1}, workers=1))
    listener(Event(kind="item_started", step="simulate", item="all"))

    def progress(fraction: float, message: str) -> None:
        listener(Event(kind="item_progress", step="simulate", item="all", fraction=fraction, message=message))

    write_simulation(output, params, series=series, atoms=atoms, progress=progress)
    seconds = time.perf_counter() - started
    listener(Event(kind="item_done", step="simulate", item="all", seconds=seconds))
    listener(Event(kind="run_done", seconds=seconds))


def _process(
    folders: DemoFolders, params: SimulateParams, workers: int | None, listener: Listener, preview: Preview | None
) -> None:
    """As a user would: a new project with the reference, the stacks imported, and run."""
    new_project(folders.project, reference=folders.data / "reference.mrc")
    import_tilt_series(folders.project, [folders.data])
    summary = run_project(folders.project, workers=workers, listener=listener, preview=preview)
    if not summary.complete:
        label, error = next(iter({**summary.failed, **summary.skipped}.items()))
        raise StageError(f"demo: {label}: {error}")
