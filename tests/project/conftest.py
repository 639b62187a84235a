"""A project with the tiny pipeline of fake_stages and series of a few pixels."""

from pathlib import Path

import fake_stages
import numpy as np
import pytest

from tiltwise import pipeline
from tiltwise.io.mrc import write_mrc
from tiltwise.project import create
from tiltwise.project.create import new_project
from tiltwise.project.importing import import_tilt_series


@pytest.fixture(autouse=True)
def tiny_pipeline(monkeypatch):
    """The fake stages in place of the real ones."""
    install(monkeypatch.setattr)


def install(set_attribute=setattr) -> None:
    set_attribute(pipeline, "STAGES", fake_stages.STAGES)
    set_attribute(pipeline, "BY_NAME", {stage.name: stage for stage in fake_stages.STAGES})
    set_attribute(create, "STARTS", {"template": {"shift": {}, "fill": {}, "mean": {}}})


def write_series(folder: Path, name: str, number: int = 3, seed: int = 0) -> Path:
    """A stack of random images and its .rawtlt."""
    folder.mkdir(parents=True, exist_ok=True)
    images = np.random.default_rng(seed).normal(size=(number, 8, 6)).astype(np.float32)
    write_mrc(folder / f"{name}.mrc", images, 5.0, stack=True)
    (folder / f"{name}.rawtlt").write_text("".join(f"{3 * index - 3}\n" for index in range(number)))
    return folder / f"{name}.mrc"


@pytest.fixture
def project(tmp_path) -> Path:
    """A new project with three series."""
    folder = new_project(tmp_path / "project")
    for index, name in enumerate(("A", "B", "C")):
        write_series(tmp_path / "raw", name, seed=index)
    import_tilt_series(folder, [tmp_path / "raw"])
    return folder
