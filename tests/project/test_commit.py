"""An item folder is whole at every instant: each rename and removal of a commit is interrupted once, and repaired."""

import contextlib
import os
import shutil

import pytest

from tiltwise.data.errors import InputError
from tiltwise.project import commit as commit_module
from tiltwise.project.commit import begin, commit, repair
from tiltwise.project.lock import project_lock


class Killed(BaseException):
    """Stands for the end of the process."""


@pytest.mark.parametrize("instant", range(4))
@pytest.mark.parametrize("there_before", [True, False])
def test_interrupted_commit_keeps_one_whole_result(tmp_path, monkeypatch, instant, there_before):
    place = tmp_path / "step" / "item"
    if there_before:
        place.mkdir(parents=True)
        (place / "result").write_text("old")
    part = begin(place)
    (part / "result").write_text("new")
    calls = iter(range(100))

    def killing(function):
        def call(*arguments):
            if next(calls) == instant:
                raise Killed
            return function(*arguments)

        return call

    with monkeypatch.context() as patch:
        patch.setattr(commit_module.os, "rename", killing(os.rename))
        patch.setattr(commit_module.shutil, "rmtree", killing(shutil.rmtree))
        with contextlib.suppress(Killed):
            commit(part, place)
    repair(tmp_path, ["step"])
    assert [path.name for path in (tmp_path / "step").iterdir()] in ([["item"]] if there_before else [["item"], []])
    if place.exists():
        assert (place / "result").read_text() in ("old", "new")


def test_repair_leaves_other_folders_alone(tmp_path):
    (tmp_path / "mine" / "x.part").mkdir(parents=True)
    repair(tmp_path, ["step"])
    assert (tmp_path / "mine" / "x.part").is_dir()


def test_two_runs_do_not_meet_in_one_project(tmp_path):
    with project_lock(tmp_path), pytest.raises(InputError, match=f"process {os.getpid()} on "), project_lock(tmp_path):
        pass
    with project_lock(tmp_path):
        pass
