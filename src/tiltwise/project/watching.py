"""Series taken into a project as the microscope finishes them.

A series is finished when its files (stack or images, .mdoc, list of angles) have not changed for the settle time,
counted by this machine's own clock from when it saw them, never from the dates of the files, which another machine's
clock has made; and when every image that its metadata name is there. One with clearly fewer tilts than those before it
waits six times as long: the microscope may have paused. Which series were taken, and what their files were
then, is kept in the project, so that a watch that was killed goes on where it was. A series whose files change after it
was taken is taken again.

What stands in the way of all series, another run at work on the project, a fault in its recipe, a full disk, is said
once and waited for.
"""

import json
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tiltwise.data.errors import InputError
from tiltwise.io.acquisition import read_acquisition, series_name
from tiltwise.io.mdoc import image_name, read_mdoc
from tiltwise.project.commit import write_file
from tiltwise.project.digests import text_digest
from tiltwise.project.importing import ImportedSeries, find_series, import_tilt_series
from tiltwise.project.layout import check_project, import_folder, list_series
from tiltwise.project.lock import BusyError
from tiltwise.project.records import read_record
from tiltwise.project.tasks import one_line

_TAKEN = ".watch.json"
_BESIDE = (".mdoc", ".rawtlt", ".tlt")
_SHORT = 0.9
"""A series with fewer tilts than this part of what is usual in the watch may be paused, and waits longer."""
_LONGER = 6
"""How many settle times it waits."""

Process = Callable[[list[str] | None], bool]
"""Runs the steps of the named series, or, for None, all that is left; gives whether all went well."""


@dataclass(frozen=True, kw_only=True, slots=True)
class WatchSettings:
    """What is watched, and how patiently."""

    folder: Path
    """Folder in which the microscope writes."""
    settle: float = 300.0
    """Time for which the files of a series must not change, s; longer than the time between two tilts."""
    timeout: float | None = None
    """Time without any change after which the watch ends, s; None: never."""
    interval: float = 10.0
    """Time between two looks, s."""
    overrides: dict[str, Any] = field(default_factory=dict)
    """What is given at import, as for `import_tilt_series`."""


@dataclass(frozen=True, kw_only=True, slots=True)
class WatchSummary:
    """What a watch did."""

    taken: tuple[str, ...]
    """Series that were taken, in order of time."""
    left: dict[str, str]
    """Series that were not, and why."""
    complete: bool
    """Whether the steps of all went well, and nothing was left."""


def watch_folder(
    project: Path,
    settings: WatchSettings,
    process: Process,
    *,
    tell: Callable[[str], None] = lambda line: None,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> WatchSummary:
    """Take every series of a folder into the project once it is finished, and process it, until nothing has changed for
    the timeout; then process what takes all series. `tell` gets a line for each thing that happens.

    InputError where the folder or project is not there. One faulty series never stops the others.
    """
    project = check_project(project)
    if not settings.folder.is_dir():
        raise InputError(f"{settings.folder}: no such folder")
    watch = _Watch(project, settings, tell, clock)
    taken: list[str] = []
    undone = list(list_series(project))  # what a run that was killed has left
    quiet_since = clock()
    while True:
        undone = [name for name in undone if name in list_series(project)]
        if undone and watch.attempt(process, undone) is not None:
            undone = []
        changed, finished = watch.look()
        names = watch.take(finished)
        taken += names
        undone = list(dict.fromkeys(undone + names))
        if changed or names or watch.busy:
            quiet_since = clock()
        elif settings.timeout is not None and clock() - quiet_since >= settings.timeout:
            break
        if not names:
            sleep(settings.interval)
    good = not list_series(project) or bool(watch.attempt(process, None))
    left = watch.reasons()
    return WatchSummary(taken=tuple(dict.fromkeys(taken)), left=left, complete=good and not left)


class _Watch:
    """What was seen of each series, by the file that stands for it."""

    def __init__(
        self, project: Path, settings: WatchSettings, tell: Callable[[str], None], clock: Callable[[], float]
    ) -> None:
        self.project, self.settings, self.tell, self.clock = project, settings, tell, clock
        self.seen: dict[Path, tuple[str, float]] = {}
        self.judged: dict[Path, str] = {}
        self.taken = _read_taken(project)
        self.left: dict[Path, str] = {}
        self.counts = _known_counts(project)
        self.short: set[Path] = set()
        self.busy = False
        self.obstacle = ""

    def look(self) -> tuple[bool, list[Path]]:
        """Whether any file has changed since the last look, or any series waits; and the series that are finished."""
        changed, finished = False, []
        sources = self._sources()
        for source in sources:
            state = self._state(source)
            if state != self.seen.get(source, ("", 0.0))[0]:
                changed = changed or state != self.taken.get(str(source))
                self.seen[source] = (state, self.clock())
            elif state in (self.taken.get(str(source)), self.judged.get(source)):
                continue
            elif self.clock() - self.seen[source][1] < self.settings.settle:
                changed = True
            elif self._is_whole(source, state):
                finished.append(source)
            else:
                changed = changed or source in self.short
        for gone in self.left.keys() - set(sources):
            del self.left[gone]
        return changed, finished

    def take(self, sources: list[Path]) -> list[str]:
        """Import the series; the names of those that were imported whole."""
        names = []
        for place, source in enumerate(sources):
            state, name = self.seen[source][0], series_name(source)
            try:
                (one,) = import_tilt_series(self.project, [source], **self.settings.overrides)
                if self._state(source) != state:  # it went on while it was read: not finished after all
                    self.tell(f"{name}: has changed while it was read; waiting again")
                    continue
                taken = self.taken | {str(source): state}
                write_file(self.project / _TAKEN, json.dumps(taken, indent=0, sort_keys=True))
            except (BusyError, OSError) as error:  # no fault of the series: it is tried again at the next look
                self._wait_for(error)
                self.left |= dict.fromkeys(sources[place:], self.obstacle)
                break
            except InputError as error:
                self._leave(source, state, str(error))
                continue
            self.left.pop(source, None)
            self.taken = taken
            self._pass()
            self.tell(f"{name}: taken{_left_out(one)}")
            names.append(name)
        return names

    def attempt(self, process: Process, names: list[str] | None) -> bool | None:
        """Whether all went well; None where nothing could be tried, for a reason that lies with no series."""
        try:
            good = process(names)
        except (InputError, OSError) as error:
            self._wait_for(error)
            return None
        self._pass()
        return good

    def reasons(self) -> dict[str, str]:
        """Series that were not taken, and why."""
        return {series_name(source): reason for source, reason in self.left.items()}

    def _wait_for(self, error: Exception) -> None:
        reason, self.busy = one_line(error, self.project), isinstance(error, BusyError)
        if reason != self.obstacle:
            self.tell(f"waiting: {reason}")
        self.obstacle = reason

    def _pass(self) -> None:
        self.busy, self.obstacle = False, ""

    def _sources(self) -> list[Path]:
        try:
            return find_series([self.settings.folder], separate="images" in self.settings.overrides)
        except (InputError, OSError):
            return []

    def _is_whole(self, source: Path, state: str) -> bool:
        """Whether the settled files make a series with all its images; if not, the reason is said once."""
        given = {name: value for name, value in self.settings.overrides.items() if value is not None}
        given.pop("alignment", None)
        try:
            series = read_acquisition(source, **given).tilt_series
        except InputError as error:
            self._leave(source, state, str(error))
            return False
        absent = [reason for reason in series.why_not if reason.endswith("is absent")]
        if absent:
            self._leave(source, state, f"{len(absent)} of {series.number} images are not there: {absent[0]}")
            return False
        return not self._may_be_paused(source, series.number)

    def _may_be_paused(self, source: Path, number: int) -> bool:
        """Whether a series is shorter than those before it and has not waited the longer time."""
        others = [count for name, count in self.counts.items() if name != series_name(source)]
        short = len(others) > 1 and number < _SHORT * statistics.median(others)
        waited = self.clock() - self.seen[source][1]
        if not short or waited >= _LONGER * self.settings.settle:
            self.short.discard(source)
            self.counts[series_name(source)] = number
            return False
        if source not in self.short:
            usual = statistics.median(others)
            self.tell(f"{series_name(source)}: has {number} tilts, others {usual:g}: waiting longer, it may be paused")
            self.short.add(source)
        return True

    def _leave(self, source: Path, state: str, reason: str) -> None:
        self.judged[source] = state
        if self.left.get(source) != reason:
            self.tell(f"{series_name(source)}: not taken: {reason}")
        self.left[source] = reason

    def _state(self, source: Path) -> str:
        """Names, sizes and times of the files of a series, as one digest."""
        rows = []
        for file in sorted(set(self._files(source))):
            try:
                about = file.stat()
            except OSError:
                continue
            rows.append([str(file), about.st_size, about.st_mtime_ns])
        return text_digest(json.dumps(rows))

    def _files(self, source: Path) -> Iterator[Path]:
        yield source
        if source.suffix.lower() != ".mdoc":
            for suffix in _BESIDE:
                yield source.with_name(source.name + suffix)
                yield source.with_suffix(suffix)
            return
        try:
            sections = read_mdoc(source).images
        except InputError:
            return
        wanted = {Path(name).stem for section in sections if (name := image_name(section))}
        folder = Path(self.settings.overrides.get("images") or source.parent)
        if folder.is_dir():
            yield from (file for file in folder.iterdir() if file.stem in wanted)


def _left_out(one: ImportedSeries) -> str:
    """The tilts that import has left out, and the first reason."""
    reasons = [note for note in one.notes if " is left out: " in note]
    return f"; {len(reasons)} of {one.tilts} tilts left out: {reasons[0]}" if reasons else ""


def _known_counts(project: Path) -> dict[str, int]:
    """Tilts of the series that the project holds already, so that a restart knows what is usual."""
    records = {name: read_record(import_folder(project, name)) for name in list_series(project)}
    return {name: record["tilts"] for name, record in records.items() if record and "tilts" in record}


def _read_taken(project: Path) -> dict[str, str]:
    try:
        taken = json.loads((project / _TAKEN).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return taken if isinstance(taken, dict) else {}
