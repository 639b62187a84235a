"""A run as the command line shows it, with the tiny pipeline."""

import json
import os
import signal
from types import SimpleNamespace

import fake_stages
import pytest

from tiltwise.cli import main
from tiltwise.cli.running import PlainLines, TimeLeft
from tiltwise.project.events import Event
from tiltwise.project.executors import _PROGRESS, _file_progress, _tell
from tiltwise.project.recipe_text import set_params


@pytest.fixture
def tiltwise(capsys):
    def run(*words):
        with pytest.raises(SystemExit) as left:
            main([*map(str, words)])
        return left.value.code, capsys.readouterr().out

    return run


def test_json_lines_tell_every_event_and_end_with_the_summary(tiltwise, project):
    code, out = tiltwise("run", project, "--executor", "serial", "--json")
    told = [json.loads(line) for line in out.splitlines()]
    assert code == 0
    assert told[0] == {
        "kind": "run_started",
        "total": {"shift": 3, "fill": 3, "mean": 1},
        "workers": 1,
        "threads": told[0]["threads"],
    }
    assert {"kind": "item_progress", "step": "fill", "item": "A", "fraction": 0.5, "message": "filling"} in told
    assert told[-1]["kind"] == "summary" and len(told[-1]["done"]) == 7 and told[-1]["failed"] == {}


def test_what_a_stage_plans_is_told_once_and_before_how_far_it_is(tmp_path, capsys):
    """A later message may have replaced the first one before anybody looked."""
    task, heard, planned = SimpleNamespace(part=tmp_path), [], set()
    report = _file_progress(tmp_path / _PROGRESS)
    report(0.0, "planned 0.42 GB")
    report(1.0, "done")
    for _ in range(2):
        _tell(task, lambda _, fraction, message: heard.append((fraction, message)), planned)
    assert heard == [(0.0, "planned 0.42 GB"), (1.0, "done"), (1.0, "done")]
    shown = PlainLines()
    for fraction, message in (heard[0], heard[0], heard[1]):
        shown(Event(kind="item_progress", step="reconstruct", item="A", fraction=fraction, message=message))
    assert capsys.readouterr().out == "reconstruct A: planned 0.42 GB\n"


def test_failures_are_summed_up_with_exit_code_3(tiltwise, project):
    set_params(project, "shift", {"fail": "B"})
    code, out = tiltwise("run", project, "--executor", "serial")
    assert code == 3
    lines = out.splitlines()
    assert "shift B: failed: the images are not of this world" in lines
    assert "fill B: skipped: shift/B failed" in lines
    assert any(line.startswith("5 done, 1 failed, 1 skipped in ") for line in lines)
    assert any(line.startswith("  shift/B failed: the images are not of this world (log: ") for line in lines)
    code, out = tiltwise("status", project)
    assert out.splitlines()[:2] == ["shift          2 done, 1 failed", "  B: the images are not of this world"]


def test_a_run_that_is_told_to_end_leaves_no_half_results(tiltwise, project, monkeypatch):
    """SIGTERM, by which services and queues are stopped, does what Ctrl-C does."""
    before = signal.getsignal(signal.SIGTERM)
    monkeypatch.setattr(fake_stages, "fill", lambda *inputs, **rest: os.kill(os.getpid(), signal.SIGTERM))
    try:
        assert tiltwise("run", project, "--executor", "serial")[0] == 130
    finally:
        signal.signal(signal.SIGTERM, before)
    assert [path.name for path in sorted((project / "shift").iterdir())] == ["A", "B", "C"]
    assert not list((project / "fill").iterdir())


def test_a_stage_command_of_a_step_whose_input_is_missing(tiltwise, project):
    code, out = tiltwise("fill", project, "--size", "5", "--series", "A", "--executor", "serial")
    assert code == 3
    assert "project.toml: step fill: size = 5" in out
    assert "fill A: skipped: shift/A is missing; run that step first" in out
    assert tiltwise("shift", project, "--executor", "serial")[0] == 0
    assert tiltwise("fill", project, "--executor", "serial")[0] == 0


def test_time_left_is_the_median_of_what_is_done():
    time = TimeLeft()
    time.note(Event(kind="run_started", total={"fill": 10}, workers=2))
    assert time.of_step("fill") is None
    for seconds in (10.0, 12.0, 500.0):
        time.note(Event(kind="item_done", step="fill", item="A", seconds=seconds))
    assert time.of_step("fill") == 12.0 * 4  # 7 items left, two at once
