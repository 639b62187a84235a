"""Watching a folder: a series is taken when it is whole and settled, once, also over a restart; never half of one."""

import errno
import json

import numpy as np
import pytest
from tiny_projects import write_series

from tiltwise.data.errors import InputError
from tiltwise.io.mrc import write_mrc
from tiltwise.project import store, watching
from tiltwise.project.create import new_project
from tiltwise.project.layout import RECIPE, list_series
from tiltwise.project.lock import project_lock
from tiltwise.project.run import run_project
from tiltwise.project.state import project_status
from tiltwise.project.watching import WatchSettings, watch_folder


class Time:
    """A clock that the watch itself moves on by sleeping, and what happens at which second."""

    def __init__(self, events=None):
        self.now, self.events = 0.0, dict(events or {})

    def clock(self):
        return self.now

    def sleep(self, seconds):
        self.now += seconds
        for moment in sorted(moment for moment in self.events if moment <= self.now):
            self.events.pop(moment)()


def mdoc(names, angles=(0, 3, -3)):
    rows = [
        f"[ZValue = {index}]\nTiltAngle = {angles[index]}\nExposureDose = 3\nSubFramePath = X:\\{name}\n"
        f"DateTime = 01-Feb-2024  10:0{index}:00\n"
        for index, name in enumerate(names)
    ]
    return "PixelSpacing = 5.0\nVoltage = 300\n\n" + "\n".join(rows)


@pytest.fixture
def begin(tmp_path):
    """Starts a watch of `live` on a made clock: settle 30 s, timeout 100 s, a look every 10 s."""
    project = new_project(tmp_path / "project")
    live = tmp_path / "live"
    live.mkdir()
    runs, lines = [], []

    def process(names):
        runs.append(names)
        return run_project(project, executor="serial", only=names).complete

    def start(events=None, process=process, timeout=100, **overrides):
        time = Time(events)
        settings = WatchSettings(folder=live, settle=30, timeout=timeout, interval=10, overrides=overrides)
        summary = watch_folder(project, settings, process, tell=lines.append, clock=time.clock, sleep=time.sleep)
        return summary, time

    return start, project, live, runs, lines


def test_series_are_taken_as_they_settle_and_all_is_run_at_the_end(begin):
    start, project, live, runs, lines = begin
    write_series(live, "A")
    summary, time = start({45: lambda: write_series(live, "B", seed=1)})
    assert summary.taken == ("A", "B") and summary.complete and not summary.left
    assert runs == [["A"], ["B"], None]
    assert {row.state for row in project_status(project)} == {"done"}
    assert lines == ["A: taken", "B: taken"] and time.now >= 180


def test_a_growing_series_is_never_taken_half(begin):
    """Images of an .mdoc come one by one, then a gap longer than a look; the .mdoc is written first, as by Tomography
    5."""
    start, project, live, runs, lines = begin
    names = [f"S_{index}.mrc" for index in range(3)]
    images = np.random.default_rng(0).normal(size=(3, 6, 4)).astype(np.float32)

    def write(index):
        return lambda: write_mrc(live / names[index], images[index], 5.0)

    (live / "S.mdoc").write_text(mdoc(names))
    summary, _ = start({5: write(0), 25: write(1), 85: write(2)}, pixel_size=5.0)
    assert summary.taken == ("S",) and summary.complete
    assert lines[0].startswith("S: not taken: 1 of 3 images are not there: its image S_2.mrc is absent")
    assert lines[-1] == "S: taken" and runs == [["S"], None]
    series = store.load("tilt_series", project / "import" / "S", project)
    assert series.use.all() and np.array_equal(series.images, images[[2, 0, 1]])


def test_a_stack_that_is_still_written_waits(begin):
    start, project, live, _, lines = begin
    whole = write_series(live, "A").read_bytes()
    (live / "A.mrc").write_bytes(whole[:1200])
    summary, _ = start({t: lambda t=t: (live / "A.mrc").write_bytes(whole[: 1200 + 10 * t]) for t in (9, 19, 29)})
    assert not summary.taken and not summary.complete and "cut short" in summary.left["A"]
    assert list_series(project) == () and len(lines) == 1
    summary, _ = start({15: lambda: (live / "A.mrc").write_bytes(whole)})
    assert summary.taken == ("A",) and summary.complete


def test_a_restart_goes_on_and_takes_nothing_twice(begin):
    start, project, live, runs, _ = begin
    write_series(live, "A")

    def killed(names):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        start(process=killed)
    assert list_series(project) == ("A",) and json.loads((project / ".watch.json").read_text())
    imported = (project / "import" / "A" / "record.json").stat().st_mtime_ns
    summary, _ = start({15: lambda: write_series(live, "B", seed=1)})
    assert summary.taken == ("B",) and runs == [["A"], ["B"], None] and summary.complete
    assert (project / "import" / "A" / "record.json").stat().st_mtime_ns == imported


def test_a_series_that_goes_on_after_a_pause_is_taken_again_whole(begin):
    start, project, live, runs, _ = begin
    write_series(live, "A", number=3)
    summary, _ = start({60: lambda: write_series(live, "A", number=5)})
    assert runs == [["A"], ["A"], None] and summary.taken == ("A",) and summary.complete
    assert store.load("tilt_series", project / "import" / "A", project).number == 5


def test_a_series_shorter_than_those_before_waits_longer(begin):
    """Paused for longer than the settle time, at 3 of 5 tilts: not taken until it has gone on; a short one is in the
    end."""
    start, project, live, runs, lines = begin
    for name in "AB":
        write_series(live, name, number=5)
    events = {50: lambda: write_series(live, "C", number=3), 170: lambda: write_series(live, "C", number=5)}
    summary, _ = start(events)
    assert summary.taken == ("A", "B", "C") and runs == [["A", "B"], ["C"], None]
    assert "C: has 3 tilts, others 5: waiting longer, it may be paused" in lines
    assert store.load("tilt_series", project / "import" / "C", project).number == 5
    events = {50 + 35 * index: lambda name=name, n=n: write_series(live, name, number=n)
              for index, (name, n) in enumerate((("D", 5), ("F", 5), ("E", 2)))}  # fmt: skip
    summary, time = start(events)
    assert summary.taken == ("D", "F", "E") and time.now > 120 + 6 * 30


def test_one_faulty_series_does_not_stop_the_others(begin):
    start, project, live, _, lines = begin
    write_series(live, "A")
    write_series(live, "B").with_suffix(".rawtlt").write_text("0\n")
    (live / "C.mdoc").write_text("not an mdoc")
    summary, _ = start()
    assert summary.taken == ("A",) and set(summary.left) == {"B", "C"} and not summary.complete
    assert "has 1 angles, but B.mrc has 3 images" in summary.left["B"]
    assert all("\n" not in line for line in lines)
    with pytest.raises(InputError, match="nowhere: no such folder"):
        watch_folder(project, WatchSettings(folder=live / "nowhere"), lambda names: True)


def test_a_timeout_shorter_than_the_settle_time_leaves_nothing_behind(begin):
    start, _, live, runs, _ = begin
    write_series(live, "A")
    summary, _ = start(timeout=20)
    assert summary.taken == ("A",) and runs == [["A"], None] and summary.complete


def test_another_run_on_the_project_is_waited_for(begin):
    """By hand, while a series settles and, the second time, while one is to be processed."""
    start, project, live, runs, lines = begin
    held = project_lock(project)
    write_series(live, "A")
    summary, time = start({15: held.__enter__, 185: lambda: held.__exit__(None, None, None)})
    assert summary.taken == ("A",) and summary.complete and runs == [["A"], None] and time.now > 185
    assert len(lines) == 2 and lines[0].startswith("waiting: ") and "another run is at work" in lines[0]
    held = project_lock(project)
    held.__enter__()
    summary, _ = start({25: lambda: held.__exit__(None, None, None)})
    assert summary.complete and runs[2:] == [["A"], ["A"], ["A"], ["A"], None] and len(lines) == 3


def test_a_fault_in_the_recipe_is_said_once_and_waited_for(begin):
    start, project, live, runs, lines = begin
    recipe, good = project / RECIPE, (project / RECIPE).read_text()
    write_series(live, "A")
    events = {15: lambda: recipe.write_text(good + "\nwrong = 1\n"), 95: lambda: recipe.write_text(good)}
    summary, _ = start(events)
    assert summary.taken == ("A",) and summary.complete and runs[-2:] == [["A"], None]
    assert len(lines) == 2 and lines[1].startswith("waiting: ") and "wrong" in lines[1]
    recipe.write_text(good + "\nwrong = 1\n")
    summary, _ = start()
    assert not summary.complete and "wrong" in lines[-1]


def test_a_full_disk_is_waited_for(begin, monkeypatch):
    start, project, live, _, lines = begin
    write = watching.write_file

    def full(path, text):
        raise OSError(errno.ENOSPC, "No space left on device", str(path))

    write_series(live, "A")
    monkeypatch.setattr(watching, "write_file", full)
    summary, _ = start({75: lambda: monkeypatch.setattr(watching, "write_file", write)})
    assert summary.taken == ("A",) and summary.complete
    assert lines == [f"waiting: {project / '.watch.json'}: No space left on device", "A: taken"]

    def full_without_a_name(path, text):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(watching, "write_file", full_without_a_name)
    for name in "BC":
        write_series(live, name, seed=1)
    summary, _ = start()
    assert not summary.complete
    assert summary.left == dict.fromkeys("BC", f"{project}: No space left on device")


def test_a_restart_knows_how_many_tilts_are_usual(begin):
    start, _, live, runs, lines = begin
    for name in "AB":
        write_series(live, name, number=5)
    start()
    write_series(live, "C", number=3)
    start({100: lambda: write_series(live, "C", number=5)})
    assert runs.count(["C"]) == 1 and "C: has 3 tilts, others 5: waiting longer, it may be paused" in lines


def test_a_series_that_was_taken_away_is_not_missed(begin):
    start, _, live, _, _ = begin
    write_series(live, "A")
    (live / "C.mdoc").write_text("not an mdoc")
    summary, _ = start({65: (live / "C.mdoc").unlink})
    assert summary.complete and not summary.left


def test_movies_are_taken_though_a_stack_lies_beside_and_a_damaged_one_is_named(begin, tmp_path):
    start, project, live, _, lines = begin
    names = [f"S_{index}.mrc" for index in range(3)]
    (tmp_path / "frames").mkdir()
    for name in names:
        write_mrc(tmp_path / "frames" / name, np.ones((4, 6, 8), np.float32), 5.0, stack=True)
    cut = tmp_path / "frames" / names[1]
    cut.write_bytes(cut.read_bytes()[:1500])
    write_mrc(live / "S.mrc", np.ones((3, 6, 8), np.float32), 5.0, stack=True)
    (live / "S.mrc.mdoc").write_text(mdoc(names))
    summary, _ = start(process=lambda names: True, images=tmp_path / "frames")
    series = store.load("tilt_series", project / "import" / "S", project)
    assert summary.taken == ("S",) and series.movies is not None and series.use.tolist() == [True, True, False]
    (line,) = lines
    assert line.startswith("S: taken; 1 of 3 tilts left out: tilt 3 ") and "cut short" in line
