"""Series taken into a project as the microscope finishes them.

A series is finished when its files (stack or images, .mdoc, list of angles) have not changed for the settle time,
counted by this machine's own clock from when it saw them, never from the dates of the files, which another machine's
clock has made; and when every image that its metadata name is there. One with clearly fewer tilts than those before it
waits six times as long: the microscope may have paused. Which series were taken, and what their files were
then, is kept in the project, so that a watch that was killed goes on where it was. A series whose files change after it
was taken is taken again.
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
from tiltwise.project.importing import find_series, import_tilt_series
from tiltwise.project.layout import check_project, list_series

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
    if known := list(list_series(project)):
        process(known)  # what a run that was killed has left undone
    quiet_since = clock()
    while True:
        changed, finished = watch.look()
        if finished:
            names = watch.take(finished)
            if names:
                taken += names
                process(names)
        if changed or finished:
            quiet_since = clock()
        elif settings.timeout is not None and clock() - quiet_since >= settings.timeout:
            break
        sleep(settings.interval)
    good = not list_series(project) or process(None)
    return WatchSummary(taken=tuple(dict.fromkeys(taken)), left=dict(watch.left), complete=good and not watch.left)


class _Watch:
    """What was seen of each series, by the file that stands for it."""

    def __init__(
        self, project: Path, settings: WatchSettings, tell: Callable[[str], None], clock: Callable[[], float]
    ) -> None:
        self.project, self.settings, self.tell, self.clock = project, settings, tell, clock
        self.seen: dict[Path, tuple[str, float]] = {}
        self.judged: dict[Path, str] = {}
        self.taken = _read_taken(project)
        self.left: dict[str, str] = {}
        self.counts: dict[Path, int] = {}
        self.short: set[Path] = set()

    def look(self) -> tuple[bool, list[Path]]:
        """Whether any file has changed since the last look, and the series that are finished."""
        changed, finished = False, []
        for source in self._sources():
            state = self._state(source)
            if state != self.seen.get(source, ("", 0.0))[0]:
                changed = changed or state != self.taken.get(str(source))
                self.seen[source] = (state, self.clock())
            elif state in (self.taken.get(str(source)), self.judged.get(source)):
                continue
            elif self.clock() - self.seen[source][1] >= self.settings.settle and self._is_whole(source, state):
                finished.append(source)
            else:
                changed = changed or source in self.short
        return changed, finished

    def take(self, sources: list[Path]) -> list[str]:
        """Import the series; the names of those that were imported whole."""
        names = []
        for source in sources:
            state, name = self.seen[source][0], series_name(source)
            try:
                import_tilt_series(self.project, [source], **self.settings.overrides)
            except InputError as error:
                self._leave(source, state, str(error))
                continue
            if self._state(source) != state:  # it went on while it was read: not finished after all
                self.tell(f"{name}: has changed while it was read; waiting again")
                continue
            self.left.pop(name, None)
            self.taken[str(source)] = state
            write_file(self.project / _TAKEN, json.dumps(self.taken, indent=0, sort_keys=True))
            self.tell(f"{name}: taken")
            names.append(name)
        return names

    def _sources(self) -> list[Path]:
        try:
            return find_series([self.settings.folder])
        except InputError:
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
        others = [count for other, count in self.counts.items() if other != source]
        short = len(others) > 1 and number < _SHORT * statistics.median(others)
        waited = self.clock() - self.seen[source][1]
        if not short or waited >= _LONGER * self.settings.settle:
            self.short.discard(source)
            self.counts[source] = number
            return False
        if source not in self.short:
            usual = statistics.median(others)
            self.tell(f"{series_name(source)}: has {number} tilts, others {usual:g}: waiting longer, it may be paused")
            self.short.add(source)
        return True

    def _leave(self, source: Path, state: str, reason: str) -> None:
        self.judged[source] = state
        name = series_name(source)
        if self.left.get(name) != reason:
            self.tell(f"{name}: not taken: {reason}")
        self.left[name] = reason

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


def _read_taken(project: Path) -> dict[str, str]:
    try:
        taken = json.loads((project / _TAKEN).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return taken if isinstance(taken, dict) else {}
