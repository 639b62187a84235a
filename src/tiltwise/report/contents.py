"""What a project holds, read once for its report: states, records, and values loaded when they are wanted."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tiltwise.data.errors import InputError
from tiltwise.pipeline import STAGES
from tiltwise.project import store
from tiltwise.project.graph import Item
from tiltwise.project.layout import ALL, import_folder
from tiltwise.project.records import Record
from tiltwise.project.state import ProjectState


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Entry:
    """One item of one step."""

    step: str
    """Name of the step."""
    stage: str
    """Name of its stage."""
    item: str
    """Name of the series, or 'all'."""
    state: str
    """done, outdated, failed or missing."""
    record: dict[str, Any]
    """Its record.json; empty where there is none."""
    folder: Path
    """Its folder."""

    @property
    def quality(self) -> dict[str, Any]:
        """The numbers that the stage recorded."""
        return self.record.get("quality") or {}

    @property
    def species(self) -> dict[str, dict[str, Any]]:
        """What was recorded of each of several kinds of particles, by name; empty where there is but one."""
        return self.quality.get("species") or {}

    @property
    def has_result(self) -> bool:
        """Whether there is something to show, be it outdated."""
        return self.record.get("state") == "done"

    @property
    def error(self) -> str:
        """The error of a failed item in one line, else empty."""
        return (self.record.get("error") or {}).get("message", "")


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Contents:
    """A project as its report sees it."""

    project: Path
    """Its folder."""
    series: tuple[str, ...]
    """Names of the imported tilt series."""
    steps: tuple[tuple[str, str], ...]
    """(step, stage) in the order of the recipe."""
    entries: tuple[Entry, ...]
    """Every item, step by step."""

    def last(self, stage: str, item: str) -> Entry | None:
        """The item of the last step of a stage that has a result."""
        found = [
            entry for entry in self.entries if entry.stage == stage and entry.item in (item, ALL) and entry.has_result
        ]
        return found[-1] if found else None

    def last_giving(self, kind: str, item: str) -> Entry | None:
        """The item of the last step that gives a kind and has a result."""
        stages = [stage.name for stage in STAGES if kind in stage.gives]
        found = [
            entry for entry in self.entries if entry.stage in stages and entry.item in (item, ALL) and entry.has_result
        ]
        return found[-1] if found else None

    def get(self, step: str, item: str) -> Entry | None:
        """The item of a step."""
        return next((entry for entry in self.entries if entry.step == step and entry.item == item), None)

    def load(self, kind: str, entry: Entry | None, series: str | None = None, species: str = "") -> Any:
        """A value that an item holds, of several the one of a name; None where it cannot be read."""
        if entry is None:
            return None
        try:
            return store.load(kind, entry.folder, self.project, series=series, species=species)
        except (InputError, OSError, KeyError):
            return None

    def tilt_series(self, name: str) -> Any:
        """The series as the last step left it, or as it was imported; None where it cannot be read."""
        known = [entry for entry in self.entries if entry.item in (name, ALL) and entry.has_result]
        for folder in [entry.folder for entry in reversed(known)] + [import_folder(self.project, name)]:
            if not any((folder / file).is_file() for file in ("tilts.star", f"tilts_{name}.star")):
                continue
            try:
                return store.load("tilt_series", folder, self.project, series=name)
            except (InputError, OSError, KeyError):
                continue
        return None


def _shown_record(state: ProjectState, item: Item) -> Record:
    """Of an earlier result where there is one, with the error of a try that failed since."""
    last, result = state.record(item) or {}, state.result(item) or {}
    return {**result, "error": last.get("error")} if result.get("state") == "done" else last


def read_contents(project: Path) -> Contents:
    """Read states and records; InputError if the folder is no project."""
    state = ProjectState(project)
    entries = []
    for item in state.items():
        step = state.recipe.steps[item.step]
        entries.append(
            Entry(
                step=step.name,
                stage=step.stage.name,
                item=item.name,
                state=state.status(item),
                record=_shown_record(state, item),
                folder=state.folder(item),
            )
        )
    state.save_digests()
    return Contents(
        project=state.project,
        series=state.series,
        steps=tuple((step.name, step.stage.name) for step in state.recipe.steps),
        entries=tuple(entries),
    )
