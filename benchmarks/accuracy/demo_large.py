"""The demo's pipeline on six simulated series of 1024 × 1024 px with 400 particles; figures as in summary.json."""

import shutil
import tempfile
from pathlib import Path

from tiltwise.params.simulate import SimulateParams, SpecimenParams
from tiltwise.workflows.demo import run_demo

SERIES, PER_SERIES, IMAGE_SIZE = 6, 67, 1024


def prepare() -> Path:
    """A folder for the simulation and the project."""
    return Path(tempfile.mkdtemp(prefix="tiltwise-demo-large-"))


def run(folder: Path) -> dict:
    params = SimulateParams(image_size=IMAGE_SIZE, specimen=SpecimenParams(particles=PER_SERIES))
    try:
        figures = run_demo(folder / "demo", series=SERIES, params=params)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return {key: value for key, value in figures.items() if not isinstance(value, list)}
