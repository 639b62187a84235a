"""A run as the user sees it: bars on a terminal, plain lines elsewhere, JSON lines for programs."""

import json
import statistics
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn

from tiltwise.cli.tables import show_figures
from tiltwise.data.errors import InputError
from tiltwise.project.events import Event
from tiltwise.project.records import to_json
from tiltwise.project.run import RunSummary, plan_run, run_project

FAILURES = 3
_QUIET_S = 10.0


class TimeLeft:
    """How long items and steps still take, from those that are done: medians, so that one odd series says little."""

    def __init__(self) -> None:
        self.workers = 1
        self._total: dict[str, int] = {}
        self._ended: Counter[str] = Counter()
        self._seconds: dict[str, list[float]] = defaultdict(list)
        self._started: dict[tuple[str, str], float] = {}

    def note(self, event: Event) -> None:
        """Learn from an event."""
        if event.kind == "run_started":
            self._total, self.workers = dict(event.total or {}), event.workers
        elif event.kind == "item_started":
            self._started[event.step, event.item] = time.monotonic()
        elif event.kind == "item_again":
            self._ended[event.step] -= 1
        elif event.kind in ("item_done", "item_failed", "item_skipped"):
            self._ended[event.step] += 1
            if event.kind == "item_done":
                self._seconds[event.step].append(event.seconds)

    def of_item(self, event: Event) -> float | None:
        """Seconds left for the item of a progress event; None while too little is done to tell."""
        elapsed = time.monotonic() - self._started.get((event.step, event.item), time.monotonic())
        return elapsed * (1 - event.fraction) / event.fraction if event.fraction > 0.02 and elapsed > 1 else None

    def of_step(self, step: str) -> float | None:
        """Seconds left for the items of a step that are not done; None while none is."""
        left = self.count(step) - self._ended[step]
        if not self._seconds[step] or left <= 0:
            return None
        return statistics.median(self._seconds[step]) * -(-left // self.workers)

    def count(self, step: str) -> int:
        """Items of a step in this run."""
        return max(self._total.get(step, 0), self._ended[step])

    def ended(self, step: str) -> int:
        """Items of a step that have ended."""
        return self._ended[step]


class JsonLines:
    """Every event as one JSON object a line."""

    def __call__(self, event: Event) -> None:
        told = {name: value for name in event.__slots__ if (value := getattr(event, name)) or name == "kind"}
        click.echo(json.dumps(told, ensure_ascii=False))
        sys.stdout.flush()


class PlainLines:
    """One line for each item that starts or ends, one for what it plans, and now and then one for how far it is."""

    def __init__(self) -> None:
        self._time = TimeLeft()
        self._planned: set[tuple[str, str]] = set()
        self._spoken: dict[tuple[str, str], float] = {}

    def __call__(self, event: Event) -> None:
        self._time.note(event)
        line = self._line(event)
        if line:
            click.echo(line)

    def _line(self, event: Event) -> str:
        name = f"{event.step} {event.item}"
        if event.kind == "item_progress":
            if event.fraction == 0:
                new = (event.step, event.item) not in self._planned
                self._planned.add((event.step, event.item))
                return f"{name}: {event.message}" if new else ""
            now = time.monotonic()
            if now - self._spoken.setdefault((event.step, event.item), now) < _QUIET_S:
                return ""
            self._spoken[event.step, event.item] = now
            return f"{name}: {event.fraction:.0%} {event.message}{_left(self._time.of_item(event))}"
        count = f"{self._time.ended(event.step)} of {self._time.count(event.step)}"
        left = _left(self._time.of_step(event.step), ", ")
        lines = {
            "run_started": self._opening(event),
            "item_started": f"{name}: started",
            "item_done": f"{name}: done in {event.seconds:.1f} s ({count}{left})",
            "item_failed": f"{name}: failed: {event.message}",
            "item_skipped": f"{name}: skipped: {event.message}",
            "item_again": f"{name}: again: {event.message}",
        }
        return lines.get(event.kind, "")

    def _opening(self, event: Event) -> str:
        total = sum((event.total or {}).values())
        return f"{total} items to do, {event.workers} at once with {event.threads} threads each" if total else ""


class Bars:
    """A bar for each step and for each item at work."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._time = TimeLeft()
        self._steps: dict[str, TaskID] = {}
        self._items: dict[tuple[str, str], TaskID] = {}
        self._planned: set[tuple[str, str]] = set()

    def __call__(self, event: Event) -> None:
        self._time.note(event)
        key = (event.step, event.item)
        if event.kind == "run_started":
            for step, count in (event.total or {}).items():
                self._steps[step] = self._progress.add_task(step, total=count, note="")
        elif event.kind == "item_started":
            self._items[key] = self._progress.add_task(f"  {event.item}", total=1.0, note="")
        elif event.kind == "item_progress" and event.fraction == 0:
            if key not in self._planned:
                self._planned.add(key)
                self._progress.console.print(f"{event.step} {event.item}: {event.message}", markup=False)
        elif event.kind == "item_progress" and key in self._items:
            note = f"{event.message}{_left(self._time.of_item(event))}"
            self._progress.update(self._items[key], completed=event.fraction, note=note)
        elif event.kind.startswith("item_"):
            self._end(event, key)

    def _end(self, event: Event, key: tuple[str, str]) -> None:
        if key in self._items:
            self._progress.remove_task(self._items.pop(key))
        if event.step in self._steps:
            left = _left(self._time.of_step(event.step)).strip(" ()")
            self._progress.update(self._steps[event.step], completed=self._time.ended(event.step), note=left)
        if event.kind != "item_done":
            self._progress.console.print(f"{event.step} {event.item}: {event.kind[5:]}: {event.message}", markup=False)


def run_and_show(folder: Path, *, as_json: bool, **request: Any) -> int:
    """Run a project, show how it goes, sum up; the exit code."""
    context, listener = make_listener(as_json)
    with context:
        summary = run_project(folder, listener=listener, preview=_preview(), **request)
    if as_json:
        told = {"kind": "summary", **{name: getattr(summary, name) for name in RunSummary.__slots__}}
        click.echo(json.dumps(told, ensure_ascii=False))
    else:
        _show_summary(summary)
    return 0 if summary.complete else FAILURES


def watch_and_show(folder: Path, watched: Path, given: dict[str, Any], *, as_json: bool, **request: Any) -> int:
    """Take series from a watched folder and run them; the exit code."""
    from tiltwise.project.watching import WatchSettings, watch_folder

    patience = {name: given.pop(name) for name in ("settle", "timeout") if name in given}
    if any(value <= 0 for value in patience.values()):
        raise InputError("--settle-s and --timeout-s are times above 0")
    if not watched.is_dir():
        raise InputError(f"{watched}: no such folder")
    interval = min(10.0, patience.get("settle", 300.0) / 3)
    paths = {name: Path(given.pop(name)) for name in ("alignment", "images") if name in given}
    settings = WatchSettings(folder=watched, interval=interval, overrides=given | paths, **patience)

    def process(names: list[str] | None) -> bool:
        return run_and_show(folder, as_json=as_json, only=names, **request) == 0

    def tell(line: str) -> None:
        click.echo(json.dumps({"kind": "watch", "message": line}, ensure_ascii=False) if as_json else line)
        sys.stdout.flush()

    tell(f"watching {watched}; stop it with Ctrl-C, the same command goes on")
    summary = watch_folder(folder, settings, process, tell=tell)
    tell(f"{len(summary.taken)} series taken, {len(summary.left)} left")
    for name, reason in summary.left.items():
        tell(f"  {name}: {reason}")
    return 0 if summary.complete else FAILURES


def demo_and_show(output: Path, *, as_json: bool, **request: Any) -> int:
    """Run the demo, show how it goes, and print its figures; the exit code."""
    from tiltwise.workflows.demo import run_demo

    context, listener = make_listener(as_json)
    with context:
        figures = run_demo(output, listener=listener, preview=_preview(), **request)
    if as_json:
        click.echo(json.dumps(to_json({"kind": "summary", **figures}), ensure_ascii=False))
    else:
        show_figures(figures)
    return 0


def simulate_and_show(output: Path, *, as_json: bool, session: dict[str, Any], **request: Any) -> int:
    """Simulate a session, show how it goes, and say where it lies; the exit code."""
    from tiltwise.workflows.scene_simulation import simulate
    from tiltwise.workflows.session_request import session_params

    params = session_params(**session)
    context, listener = make_listener(as_json)
    with context:
        told = simulate(output, params, listener=listener, **request)
    if as_json:
        click.echo(json.dumps(to_json({"kind": "summary", **told}), ensure_ascii=False))
    else:
        show_figures(told)
    return 0


def show_plan(
    folder: Path, only: Sequence[str] | None, steps: tuple[str | None, str | None], force: bool, as_json: bool
) -> int:
    """Say what a run would do."""
    rows = plan_run(folder, only=only, steps=steps, force=force)
    for row in rows:
        line = {"step": row.step, "item": row.item, "state": row.state}
        click.echo(json.dumps(line) if as_json else f"{row.step}/{row.item}: {row.state}")
    if not rows and not as_json:
        click.echo("everything is done")
    return 0


def make_listener(as_json: bool) -> tuple[AbstractContextManager[Any], Any]:
    """What shows a run, within its context: bars, plain lines or JSON lines."""
    console = Console()
    if as_json:
        return nullcontext(), JsonLines()
    if not console.is_terminal:
        return nullcontext(), PlainLines()
    columns = (
        TextColumn("{task.description}"),
        BarColumn(24),
        TextColumn("{task.completed:.4g}/{task.total:.0f}  {task.fields[note]}"),
    )
    progress = Progress(*columns, console=console, transient=True)
    return progress, Bars(progress)


def _preview() -> Any:
    """What draws the preview of an item; named here, loaded where the item is made."""
    from tiltwise.report.previews import preview

    return preview


def _show_summary(summary: RunSummary) -> None:
    counts = {
        "done": summary.done,
        "already done": summary.current,
        "failed": summary.failed,
        "skipped": summary.skipped,
    }
    said = ", ".join(f"{len(items)} {name}" for name, items in counts.items() if items) or "nothing to do"
    click.echo(f"{said} in {_duration(summary.seconds)}")
    for label, error in summary.failed.items():
        click.echo(f"  {label} failed: {error}")
    if summary.failed:
        click.echo("run again to try what failed once more; what is done stays done")


def _left(seconds: float | None, before: str = " (") -> str:
    if seconds is None:
        return ""
    return f"{before}about {_duration(seconds)} left" + (")" if before == " (" else "")


def _duration(seconds: float) -> str:
    if seconds < 100:
        return f"{seconds:.0f} s"
    minutes = seconds / 60
    return f"{minutes:.0f} min" if minutes < 100 else f"{minutes / 60:.1f} h"
