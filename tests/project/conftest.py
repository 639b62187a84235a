"""A project with the tiny pipeline of fake_stages and series of a few pixels."""

from pathlib import Path

import pytest
from tiny_projects import install, write_series

from tiltwise.project.create import new_project
from tiltwise.project.importing import import_tilt_series


@pytest.fixture(autouse=True)
def tiny_pipeline(monkeypatch):
    """The fake stages in place of the real ones."""
    install(monkeypatch.setattr)


@pytest.fixture
def project(tmp_path) -> Path:
    """A new project with three series."""
    folder = new_project(tmp_path / "project")
    for index, name in enumerate(("A", "B", "C")):
        write_series(tmp_path / "raw", name, seed=index)
    import_tilt_series(folder, [tmp_path / "raw"])
    return folder
