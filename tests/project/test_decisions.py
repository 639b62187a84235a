"""What all series decide of single ones: these are done again, once, before anything takes all series."""

import json

import pytest
from tiny_projects import write_series

from tiltwise.data.errors import InputError
from tiltwise.io.relion import read_tilt_series
from tiltwise.project.history import history_script
from tiltwise.project.importing import import_tilt_series
from tiltwise.project.recipe_text import set_params
from tiltwise.project.records import read_record
from tiltwise.project.run import run_project
from tiltwise.project.state import project_status


def run(project, **request):
    heard = []
    summary = run_project(project, executor="serial", listener=heard.append, **request)
    return summary, heard


def started(heard):
    return [f"{event.step}/{event.item}" for event in heard if event.kind == "item_started"]


def first_shift(project, series):
    return read_tilt_series(project / "shift" / series / "tilts.star", root=project).geometry.shift[0, 0]


def test_one_that_lies_apart_is_done_again_before_all_are_taken_together(project):
    set_params(project, "shift", {"astray": "B"})
    summary, heard = run(project)
    assert summary.complete and len(summary.done) == len(set(summary.done)) == 7
    order = started(heard)
    assert order.count("shift/B") == order.count("fill/B") == 2 and order.count("shift/A") == 1
    assert order.count("mean/all") == 1 and order[-1] == "mean/all"
    again = [(event.step, event.item, event.message) for event in heard if event.kind == "item_again"]
    assert again == [("shift", "B", "most start at 1"), ("fill", "B", "follows shift/B")]
    assert first_shift(project, "B") == 1.0
    assert json.loads((project / "data_set.json").read_text()) == {"shift": {"B": {"start": 1.0}}}
    assert read_record(project / "shift" / "B")["params"]["start"] == 1.0
    assert {row.state for row in project_status(project)} == {"done"}
    summary, heard = run(project)
    assert not summary.done and not started(heard)


def test_a_decision_that_no_longer_holds_is_taken_back(project):
    set_params(project, "shift", {"astray": "B"})
    run(project)
    set_params(project, "shift", {"astray": ""})
    summary, heard = run(project)
    assert summary.complete and not (project / "data_set.json").exists()
    assert {row.state for row in project_status(project)} == {"done"}


def test_what_the_recipe_sets_goes_before_what_the_data_set_decides(project):
    set_params(project, "shift", {"astray": "B", "start": 4.0})
    summary, heard = run(project)
    assert summary.complete and started(heard).count("shift/B") == 1 and first_shift(project, "B") == 4.0


def test_a_failed_series_may_be_saved_by_the_others(project):
    set_params(project, "shift", {"fail": "C", "rescue": True})
    summary, heard = run(project)
    assert summary.complete and "shift/C" in summary.done and "fill/C" in summary.done
    assert started(heard).count("shift/C") == 2


def test_what_fails_with_the_decision_too_is_not_tried_for_ever(project):
    set_params(project, "shift", {"fail": "C", "rescue": True})
    state = project / "data_set.json"
    state.write_text(json.dumps({"shift": {"C": {"start": -1.0}}}))
    set_params(project, "shift", {"fail": "C", "rescue": False, "astray": "B"})
    summary, heard = run(project)
    assert set(summary.failed) == {"shift/C"} and started(heard).count("shift/C") == 2
    summary, heard = run(project)
    assert started(heard).count("shift/C") == 1


def test_series_that_come_one_by_one_are_judged_with_those_before(project, tmp_path):
    set_params(project, "shift", {"astray": "D"})
    run(project)
    write_series(tmp_path / "later", "D")
    import_tilt_series(project, [tmp_path / "later"])
    summary, heard = run(project, only=["D"])
    assert started(heard) == ["shift/D", "fill/D", "shift/D", "fill/D"] and first_shift(project, "D") == 1.0
    assert summary.complete


def test_a_damaged_file_of_decisions_is_named(project):
    (project / "data_set.json").write_text("{")
    with pytest.raises(InputError, match=r"data_set.json: cannot be read .* decides anew"):
        run(project)
    (project / "data_set.json").write_text('{"shift": {"A": {"strat": 1}}}')
    with pytest.raises(InputError, match=r"data_set.json: shift: A: unknown key .strat.; did you mean .start."):
        run(project)


def test_the_history_holds_the_decisions(project):
    set_params(project, "shift", {"astray": "B"})
    run(project)
    assert '"start": 1.0' in history_script(project)
