"""The demo: a specimen of known truth is imaged, processed as a user would, and measured against the truth."""

import json
import shutil
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tiltwise.data.errors import InputError, StageError
from tiltwise.io.model import read_molecule
from tiltwise.params.simulate import SimulateParams
from tiltwise.project.create import new_project
from tiltwise.project.events import Event, Listener, no_listener
from tiltwise.project.importing import import_tilt_series
from tiltwise.project.records import to_json
from tiltwise.project.run import run_project
from tiltwise.project.tasks import Preview
from tiltwise.report.write import write_report
from tiltwise.workflows.evaluate import evaluate
from tiltwise.workflows.simulation import Recording, is_truth, write_simulation

SUMMARY = "summary.json"
_THICKNESS = 1000.0  # of the tomogram, Å: what a user would give for thin ice


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

    def clear(self) -> None:
        """Remove what an earlier demo left; InputError for folders that no demo has made."""
        folders = [folder for folder in (self.data, self.truth, self.project) if folder.exists()]
        if folders and not is_truth(self.truth):
            raise InputError(f"{folders[0]}: is already there and not from a demo; name another output folder")
        for folder in folders:
            shutil.rmtree(folder)

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
    folders.clear()
    params = (params or SimulateParams()).model_copy(update={"seed": seed})
    recording = _simulate(output, params, series, model, listener)
    failed = _process(folders, recording, workers, listener, preview)
    figures = {**evaluate(folders.project, folders.truth), "seed": seed}
    write_report(folders.project)
    figures["seconds"] = round(time.perf_counter() - started, 1)
    text = json.dumps(to_json(figures), indent=1, ensure_ascii=False, allow_nan=False)
    folders.summary.write_text(text + "\n", encoding="utf-8")
    if failed:
        raise StageError(f"demo: {failed}; what there is to measure is in {folders.summary}")
    return figures


def _simulate(output: Path, params: SimulateParams, series: int, model: Path | None, listener: Listener) -> Recording:
    """Image the molecule; told to the listener as one item of a step named simulate."""
    atoms = None if model is None else read_molecule(model)
    started = time.perf_counter()
    listener(Event(kind="run_started", total={"simulate": 1}, workers=1))
    listener(Event(kind="item_started", step="simulate", item="all"))

    def progress(fraction: float, message: str) -> None:
        listener(Event(kind="item_progress", step="simulate", item="all", fraction=fraction, message=message))

    recording = write_simulation(output, params, series=series, atoms=atoms, progress=progress)
    seconds = time.perf_counter() - started
    listener(Event(kind="item_done", step="simulate", item="all", seconds=seconds))
    listener(Event(kind="run_done", seconds=seconds))
    return recording


def _process(
    folders: DemoFolders, recording: Recording, workers: int | None, listener: Listener, preview: Preview | None
) -> str:
    """As a user would: a new project with the reference, the stacks imported, and run. Gives the first fault, if any.

    A user knows the molecule's size, and that the ice was thin: these two are given.
    """
    diameter = {"particle_diameter": recording.particle_diameter}
    params = {"reconstruct": {"thickness": _THICKNESS}, "pick": diameter, "refine": diameter}
    new_project(folders.project, reference=recording.reference, params=params)
    import_tilt_series(folders.project, recording.stacks)
    summary = run_project(folders.project, workers=workers, listener=listener, preview=preview)
    return next((f"{label}: {error}" for label, error in {**summary.failed, **summary.skipped}.items()), "")
