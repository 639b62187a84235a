"""What a run does and leaves alone: fingerprints, failures, resume, records."""

import json
import math
import shutil

import fake_stages
import numpy as np
import pytest
from distributed import LocalCluster
from tiny_projects import write_series

from tiltwise.data.errors import InputError
from tiltwise.io.relion import read_particles, read_tilt_series_set
from tiltwise.project import store
from tiltwise.project.importing import import_tilt_series
from tiltwise.project.recipe import RunSettings
from tiltwise.project.recipe_text import set_params
from tiltwise.project.records import read_record
from tiltwise.project.run import plan_run, run_project, share_out
from tiltwise.project.state import project_status

ALL_ITEMS = {"shift/A", "shift/B", "shift/C", "fill/A", "fill/B", "fill/C", "mean/all"}


def run(project, **request):
    return run_project(project, executor="serial", **request)


def states(project):
    return {f"{row.step}/{row.item}": row.state for row in project_status(project)}


def digests(project):
    records = [json.loads(path.read_text()) for path in sorted(project.glob("*/*/record.json"))]
    return {f"{one['step']}/{one['item']}": one["outputs"] for one in records if "step" in one}


def test_first_run_does_all_and_the_next_nothing(project):
    assert set(states(project).values()) == {"missing"}
    first = run(project, preview=fake_stages.draw)
    assert set(first.done) == ALL_ITEMS and first.complete
    assert set(states(project).values()) == {"done"}
    assert (project / "mean" / "all" / "preview.png").read_text() == "mean ['half_maps', 'particles']"
    assert "averaging" in (project / "mean" / "all" / "log.txt").read_text()
    again = run(project)
    assert not again.done and set(again.current) == ALL_ITEMS


def test_a_record_says_how_its_item_came_about(project):
    run(project)
    record = read_record(project / "mean" / "all")
    assert record["state"] == "done" and record["error"] is None
    assert record["params"] == {"seed": 3, "seconds": 0.0} and record["seed"] == 3
    assert set(record["inputs"]["particles"]) == {"A", "B", "C"}
    assert record["inputs"]["particles"]["A"] == read_record(project / "fill" / "A")["fingerprint"]
    assert record["quality"]["series"] == ["A", "B", "C"]
    assert record["packages"]["numpy"] == np.__version__
    assert record["seconds"] >= 0 and record["peak_memory_GB"] > 0.01
    assert read_record(project / "shift" / "A")["quality"]["residual_A"] == [0.0, None]


@pytest.mark.parametrize(
    ("step", "changes", "outdated"),
    [
        ("shift", {"shift": 2.0}, ALL_ITEMS),
        ("fill", {"size": 5}, {"fill/A", "fill/B", "fill/C", "mean/all"}),
        ("mean", {"seed": 4}, {"mean/all"}),
    ],
)
def test_a_changed_parameter_outdates_everything_downstream(project, step, changes, outdated):
    run(project)
    before = digests(project)
    set_params(project, step, changes)
    assert {label for label, state in states(project).items() if state == "outdated"} == outdated
    assert {f"{row.step}/{row.item}" for row in plan_run(project)} == outdated
    assert set(run(project).done) == outdated
    assert digests(project)["mean/all"] != before["mean/all"]
    set_params(project, step, {key: 3 if key == "seed" else 4 if key == "size" else 1.0 for key in changes})
    run(project)
    assert digests(project) == before


def test_a_changed_raw_file_outdates_its_own_series_and_what_takes_all(project, tmp_path):
    run(project)
    write_series(tmp_path / "raw", "B", seed=9)
    expected = {"shift/B", "fill/B", "mean/all"}
    assert {label for label, state in states(project).items() if state == "outdated"} == expected
    assert set(run(project).done) == expected


def test_a_touched_raw_file_changes_nothing(project, tmp_path):
    run(project)
    (tmp_path / "raw" / "B.mrc").touch()
    assert set(states(project).values()) == {"done"}


def test_a_lost_output_is_made_again(project):
    run(project)
    (project / "fill" / "B" / "tomogram.mrc").unlink()
    assert states(project)["fill/B"] == "missing"
    assert run(project).done == ("fill/B",)


def test_with_workers_to_spare_a_step_waits_for_the_one_before(project):
    """One series has to be made again: its next step must not be tried beside it, and skipped."""
    run(project)
    shutil.rmtree(project / "shift" / "C")
    summary = run_project(project, executor="local", workers=2)
    assert summary.complete and "shift/C" in summary.done and set(states(project).values()) == {"done"}


def test_one_failed_series_does_not_stop_the_others(project):
    set_params(project, "shift", {"fail": "B"})
    summary = run(project)
    assert list(summary.failed) == ["shift/B"]
    assert summary.failed["shift/B"].startswith("the images are not of this world (log: ")
    assert summary.skipped == {"fill/B": "shift/B failed"}
    assert set(summary.done) == {"shift/A", "shift/C", "fill/A", "fill/C", "mean/all"}
    assert read_record(project / "mean" / "all")["quality"]["series"] == ["A", "C"]
    assert states(project)["shift/B"] == "failed" and states(project)["mean/all"] == "done"
    assert "Traceback" in (project / "shift" / "B" / "log.txt").read_text()
    retried = run(project)
    assert list(retried.failed) == ["shift/B"] and not retried.done
    set_params(project, "shift", {"fail": ""})
    assert set(run(project).done) == ALL_ITEMS


def test_a_failure_leaves_the_earlier_result(project):
    run(project)
    earlier = {path.name: path.read_bytes() for path in (project / "shift" / "B").iterdir()}
    set_params(project, "shift", {"fail": "B"})
    summary = run(project)
    assert {path.name: path.read_bytes() for path in (project / "shift" / "B").iterdir()} == earlier
    assert str(project / "shift" / "B.failed" / "log.txt") in summary.failed["shift/B"]
    assert states(project)["shift/B"] == "failed" and states(project)["fill/B"] == "outdated"
    assert read_record(project / "mean" / "all")["quality"]["series"] == ["A", "C"]
    assert run(project).failed.keys() == {"shift/B"}
    set_params(project, "shift", {"fail": ""})  # as at first: the earlier result is that of today's recipe again
    assert states(project)["shift/B"] == "done"
    set_params(project, "shift", {"shift": 2.0})
    assert run(project).complete and not (project / "shift" / "B.failed").exists()


def test_when_all_fail_the_rest_is_skipped_with_the_reason(project):
    for name in "ABC":
        path = project / "import" / name / "tilts.star"
        path.write_text(path.read_text().replace("rlnMicrographName", "rlnSomethingElse"))
    summary = run(project)
    assert set(summary.failed) == {"shift/A", "shift/B", "shift/C"}
    assert summary.skipped["mean/all"] == "no series gave tilt series"
    assert all("rlnMicrographName" in error for error in summary.failed.values())


def test_only_from_to_and_force(project):
    assert set(run(project, only=["A"]).done) == {"shift/A", "fill/A"}
    assert set(run(project, steps=(None, "shift")).done) == {"shift/B", "shift/C"}
    summary = run(project, steps=("mean", "mean"))
    assert summary.skipped == {"mean/all": "fill/B is missing; run that step first"}
    assert set(run(project, steps=("fill", None)).done) == {"fill/B", "fill/C", "mean/all"}
    assert run(project, steps=("mean", None), force=True).done == ("mean/all",)


@pytest.mark.parametrize(
    ("request_", "message"),
    [
        ({"only": ["D"]}, "no tilt series 'D'.*A, B, C"),
        ({"steps": ("shft", None)}, "no step 'shft'.*did you mean 'shift'"),
        ({"steps": ("mean", "fill")}, "comes after"),
    ],
)
def test_a_wrong_request_is_refused(project, request_, message):
    with pytest.raises(InputError, match=message):
        run(project, **request_)


def test_a_run_says_which_input_file_is_not_there(project):
    path = project / "project.toml"
    path.write_text(path.read_text().replace("# reference =", 'reference = "ref.mrc" #'))
    with pytest.raises(InputError, match=r"\[inputs\]: reference: ref.mrc: no such file"):
        run(project)


def test_a_lost_stack_fails_its_series_and_no_other(project, tmp_path):
    (tmp_path / "raw" / "B.mrc").unlink()
    summary = run(project)
    assert list(summary.failed) == ["shift/B"] and "000001@" in summary.failed["shift/B"]
    assert set(summary.done) == ALL_ITEMS - {"shift/B", "fill/B"}


def test_series_that_come_later_are_taken_up(project, tmp_path):
    run(project)
    import_tilt_series(project, [write_series(tmp_path / "more", "D", seed=5)])
    assert set(run(project).done) == {"shift/D", "fill/D", "mean/all"}
    assert read_record(project / "mean" / "all")["quality"]["series"] == ["A", "B", "C", "D"]


def test_a_stage_may_occur_twice_and_later_steps_take_the_later_one(project):
    path = project / "project.toml"
    again = '[[step]]\nname = "again"\nstage = "shift"\n\n[step.params]\nshift = 10.0\n\n[[step]]\nname = "fill"'
    path.write_text(path.read_text().replace('[[step]]\nname = "fill"', again))
    run(project)
    assert store.load("tilt_series", project / "again" / "A", project).geometry.shift.tolist() == [[11.0, 11.0]] * 3


def test_the_project_opens_as_relion_files(project):
    run(project)
    series = read_tilt_series_set(project / "tilt_series.star")
    assert set(series) == {"A", "B", "C"}
    np.testing.assert_array_equal(series["A"].geometry.shift, np.ones((3, 2)))
    assert set(read_tilt_series_set(project / "tomograms.star")) == {"A", "B", "C"}
    assert len(read_particles(project / "particles.star")) == 12


def test_events_tell_the_whole_run(project):
    events = []
    run(project, listener=events.append)
    assert events[0].total == {"shift": 3, "fill": 3, "mean": 1}
    assert {f"{e.step}/{e.item}" for e in events if e.kind == "item_done"} == ALL_ITEMS
    assert any(e.kind == "item_progress" and math.isclose(e.fraction, 0.5) for e in events)
    assert events[-1].kind == "run_done"


def test_shares_bound_workers_by_series_and_memory():
    few = share_out(RunSettings(memory_GB=8.0, item_memory_GB=4.0), "local", 16, series=100)
    assert few.workers == 2
    assert share_out(RunSettings(), "local", None, series=1).workers == 1
    assert share_out(RunSettings(), "serial", None, series=9).workers == 1


def test_local_workers_give_what_serial_gives_and_survive_a_dead_one(project):
    run(project)
    expected = digests(project)
    set_params(project, "shift", {"die": "B"})
    summary = run_project(project, executor="local", workers=2, preview=fake_stages.draw)
    assert list(summary.failed) == ["shift/B"] and "worker process died" in summary.failed["shift/B"]
    assert read_record(project / "shift" / "B.failed")["state"] == "failed"
    assert read_record(project / "shift" / "B")["outputs"] == expected["shift/B"]
    assert read_record(project / "mean" / "all")["quality"] == {"series": ["A", "C"], "threads": 1}
    set_params(project, "shift", {"die": ""})
    run_project(project, executor="local", workers=2, force=True)
    assert digests(project) == expected


def test_a_dask_scheduler_that_is_already_there_can_be_joined(project, monkeypatch):
    with LocalCluster(n_workers=1, threads_per_worker=1, host="127.0.0.1", dashboard_address=None) as cluster:
        summary = run_project(project, executor=cluster.scheduler_address, steps=("shift", "shift"))
    assert set(summary.done) == {"shift/A", "shift/B", "shift/C"}
    monkeypatch.setattr("tiltwise.project.executors._CONNECT_S", 1)
    with pytest.raises(InputError, match="no Dask scheduler at tcp://127.0.0.1:9"):
        run_project(project, executor="tcp://127.0.0.1:9")
