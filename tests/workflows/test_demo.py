"""The demo clears what an earlier demo left, and nothing else."""

import pytest

from tiltwise.data.errors import InputError
from tiltwise.workflows.demo import DemoFolders


def test_an_earlier_demo_is_cleared(tmp_path):
    folders = DemoFolders.of(tmp_path)
    for folder in (folders.data, folders.truth, folders.project):
        folder.mkdir()
    (folders.truth / "truth.json").write_text("{}")
    (tmp_path / "notes.txt").write_text("mine")
    folders.clear()
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


def test_folders_of_someone_else_are_left_alone(tmp_path):
    folders = DemoFolders.of(tmp_path)
    folders.project.mkdir()
    (folders.project / "project.toml").write_text("mine")
    with pytest.raises(InputError, match="not from a demo"):
        folders.clear()
    assert (folders.project / "project.toml").read_text() == "mine"


def test_nothing_there_is_fine(tmp_path):
    DemoFolders.of(tmp_path / "new").clear()
