"""What is done, outdated, failed or missing in a project.

A fingerprint says what an item should be made from: it is computed from the recipe down to the raw files, never from
old records, so that a changed parameter marks everything downstream of it. An item is done when its record carries the
fingerprint of today.
"""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from tiltwise.data.errors import InputError
from tiltwise.params.base import Params
from tiltwise.project import graph
from tiltwise.project.decisions import read_decisions, write_decisions
from tiltwise.project.digests import Digests, text_digest
from tiltwise.project.graph import Item
from tiltwise.project.layout import (
    ALL,
    DATA_SET,
    RECORD,
    SERIES,
    check_project,
    failed_folder,
    given_folder,
    import_folder,
    item_folder,
    list_series,
    resolve_path,
)
from tiltwise.project.recipe import Recipe, check_params, load_recipe
from tiltwise.project.records import Record, outputs_present, read_record

ItemState = Literal["done", "outdated", "failed", "missing"]

TILTS = "tilts.star"
PARTICLES = "particles.star"


@dataclass(frozen=True, kw_only=True, slots=True)
class ItemStatus:
    """How one item stands."""

    step: str
    """Name of the step."""
    item: str
    """Name of the tilt series, or 'all'."""
    state: ItemState
    """done: made from today's recipe and files; outdated: from others; failed: the last try; missing: never made."""
    detail: str
    """The error of a failed item, else empty."""


class ProjectState:
    """Recipe, series and records of a project, and what follows from them."""

    def __init__(self, project: Path) -> None:
        self.project = check_project(project)
        self.recipe: Recipe = load_recipe(self.project)
        self.decisions = read_decisions(self.project)
        self.series = list_series(self.project)
        self._digests = Digests(self.project)
        self._records: dict[Item, tuple[Record | None, Record | None]] = {}
        self._fingerprints: dict[Item, str] = {}
        self._series_fingerprints: dict[str, str] = {}
        self._given: dict[Item, bool] = {}

    def items(self, steps: Iterable[int] | None = None) -> list[Item]:
        """All items, step by step."""
        numbers = range(len(self.recipe.steps)) if steps is None else steps
        return [item for step in numbers for item in graph.items_of(self.recipe, step, self.series)]

    def folder(self, item: Item) -> Path:
        """The folder of an item."""
        return item_folder(self.project, self.recipe.steps[item.step].name, item.name)

    def label(self, item: Item) -> str:
        """step/item."""
        return graph.label(self.recipe, item)

    def result(self, item: Item) -> Record | None:
        """The record in the folder of an item: of its last result, or of its last try where it never had one."""
        return self._both_records(item)[0]

    def record(self, item: Item) -> Record | None:
        """The record of an item as it stands: a failure of today's recipe goes before a result of an older one."""
        result, failure = self._both_records(item)
        if failure is None or (result is not None and result.get("fingerprint") == self.fingerprint(item)):
            return result
        return failure if failure.get("fingerprint") == self.fingerprint(item) else result

    def _both_records(self, item: Item) -> tuple[Record | None, Record | None]:
        """Of the result and of a failure beside it, read once."""
        if item not in self._records:
            folder = self.folder(item)
            self._records[item] = read_record(folder), read_record(failed_folder(folder))
        return self._records[item]

    def forget(self, item: Item) -> None:
        """Read the record of an item anew; fingerprints that may depend on its success are computed anew."""
        self._records.pop(item, None)
        self._fingerprints.clear()

    def params(self, item: Item) -> Params:
        """The parameters of an item: those of its step, and where the recipe leaves them open, what the data set has
        decided of the series."""
        step = self.recipe.steps[item.step]
        decided = self.decisions.get(step.name, {}).get(item.name, {})
        if not decided:
            return step.params
        values = {**decided, **step.params.model_dump(exclude_unset=True)}
        return check_params(type(step.params), values, f"{self.project / DATA_SET}: {step.name}: {item.name}")

    def decide(self, step: str, decided: dict[str, dict[str, Any]]) -> None:
        """Keep what the data set has decided of the series of a step, in the place of what it had before."""
        self.decisions = write_decisions(self.project, step, decided)
        self._fingerprints.clear()

    def status(self, item: Item) -> ItemState:
        """How an item stands."""
        record = self.record(item)
        if record is None:
            return "missing"
        if record.get("fingerprint") != self.fingerprint(item):
            return "outdated"
        if record.get("state") != "done":
            return "failed"
        return "done" if outputs_present(self.folder(item), record) else "missing"

    def finished(self, stage: str) -> Path:
        """The folder of the last step of a stage that takes all series; InputError if its result is not up to date."""
        for number in reversed(range(len(self.recipe.steps))):
            if self.recipe.steps[number].stage.name == stage:
                return self._up_to_date(number)
        raise InputError(f"{self.project}: the recipe has no step of the stage {stage}")

    def finished_giving(self, kind: str) -> Path:
        """The folder of the last step that gives a kind for all series at once; InputError as for `finished`."""
        for number in reversed(range(len(self.recipe.steps))):
            if kind in self.recipe.steps[number].stage.gives:
                return self._up_to_date(number)
        raise InputError(f"{self.project}: the recipe has no step that gives {kind.replace('_', ' ')}")

    def _up_to_date(self, number: int) -> Path:
        item = Item(number, ALL)
        if self.status(item) != "done":
            step = self.recipe.steps[number].name
            raise InputError(f"{self.project}: the step {step} is {self.status(item)}; run it first")
        return self.folder(item)

    def expected(self, item: Item) -> bool:
        """Whether an item gives a result, or may once it is run: not if it, or all that gives its input, failed."""
        before = self.before(item).values()
        for items in before:
            whole = [source for source in items if source.name == ALL]
            some = [source for source in items if source.name != ALL]
            if not all(map(self.expected, whole)) or (some and not any(map(self.expected, some))):
                return False
        record = self.record(item)
        return record is None or record.get("state") == "done" or record.get("fingerprint") != self.fingerprint(item)

    def before(self, item: Item) -> dict[str, list[Item]]:
        """By kind, all items that an item may take its inputs from."""
        return graph.items_before(self.recipe, item, self.series, given=self.is_given(item))

    def takes(self, item: Item) -> dict[str, graph.Sources]:
        """The source of each kind that an item takes, in the order of the arguments of its function."""
        return graph.sources_of(self.recipe, item.step, given=self.is_given(item))

    def sources(self, item: Item) -> dict[str, list[Item]]:
        """By kind, the items that an item takes its inputs from; of all series, those expected to give something."""
        before = self.before(item)
        return {
            kind: [s for s in items if len(items) == 1 or s.name == ALL or self.expected(s)]
            for kind, items in before.items()
        }

    def taken_series(self, item: Item) -> tuple[str, ...]:
        """The series an item works on: its own, or for an item that takes all, those that no step before it lost."""
        if graph.per_series(self.recipe, item.step):
            return (item.name,)
        names = [{source.name for source in items} for items in self.sources(item).values()]
        return tuple(name for name in self.series if all(name in some or graph.ALL in some for some in names))

    def is_given(self, item: Item) -> bool:
        """Whether the series came with what this step would find, so that the step takes that over: the first step of a
        stage that can, on a series imported with an alignment, or with particles."""
        if item not in self._given:
            self._given[item] = self._came_with_import(item)
        return self._given[item]

    def _came_with_import(self, item: Item) -> bool:
        stage = self.recipe.steps[item.step].stage
        earlier = any(step.stage.name == stage.name for step in self.recipe.steps[: item.step])
        if not stage.given or earlier or item.name not in self.series:
            return False
        if "given_particles" in stage.given_takes:
            return (given_folder(self.project, item.name) / RECORD).is_file()
        return bool((read_record(import_folder(self.project, item.name)) or {}).get("alignment"))

    def fingerprint(self, item: Item) -> str:
        """What an item is to be made from, as one digest."""
        if item not in self._fingerprints:
            step = self.recipe.steps[item.step]
            content = {
                "stage": step.stage.name,
                "version": step.stage.version,
                "params": self.params(item).model_dump(mode="json"),
                "inputs": self.input_fingerprints(item),
            }
            if self.is_given(item):
                content["given"] = step.stage.given
            self._fingerprints[item] = text_digest(json.dumps(content, sort_keys=True))
        return self._fingerprints[item]

    def input_fingerprints(self, item: Item) -> dict[str, dict[str, str]]:
        """By kind and item, the fingerprints of what an item takes."""
        series = self.taken_series(item)
        prints: dict[str, dict[str, str]] = {}
        for kind, sources in self.takes(item).items():
            prints[kind] = {}
            for name, source in graph.each_source(sources).items():
                found = self._source_fingerprints(source, series)
                prints[kind] |= {f"{name}: {key}": value for key, value in found.items()} if name else found
        return prints

    def _source_fingerprints(self, source: graph.Source, series: tuple[str, ...]) -> dict[str, str]:
        """Of what one source gives, by series, or of its one file or item."""
        if source.path is not None and SERIES in source.path:
            paths = {name: resolve_path(source.path.replace(SERIES, name), self.project) for name in series}
            return {name: self._digests.of(path) for name, path in paths.items()}
        if source.path is not None:
            return {"file": self._digests.of(resolve_path(source.path, self.project))}
        if source.kind == "given_particles":
            return {name: self._digests.of(given_folder(self.project, name) / PARTICLES) for name in series}
        if source.step is None:
            return {name: self.series_fingerprint(name) for name in series}
        if graph.per_series(self.recipe, source.step):
            return {name: self.fingerprint(Item(source.step, name)) for name in series}
        key = f"{graph.ALL}/{source.species}" if source.species else graph.ALL
        return {key: self.fingerprint(Item(source.step, graph.ALL))}

    def series_fingerprint(self, series: str) -> str:
        """The content of an imported series: its metadata and its images."""
        if series not in self._series_fingerprints:
            folder = import_folder(self.project, series)
            record = read_record(folder)
            if record is None or "images" not in record:
                raise InputError(f"{folder}: its record cannot be read; import the series again")
            files = [folder / TILTS, *(resolve_path(image, self.project) for image in record["images"])]
            self._series_fingerprints[series] = text_digest("\n".join(self._digests.of(file) for file in files))
        return self._series_fingerprints[series]

    def save_digests(self) -> None:
        """Remember the digests of raw files for the next start."""
        self._digests.save()


def project_status(project: Path) -> list[ItemStatus]:
    """How every item of a project stands, step by step; reads records only and loads no stage."""
    state = ProjectState(project)
    rows = []
    for item in state.items():
        error = (state.record(item) or {}).get("error") or {}
        found = state.status(item)
        detail = error.get("message", "") if found == "failed" else ""
        rows.append(ItemStatus(step=state.recipe.steps[item.step].name, item=item.name, state=found, detail=detail))
    state.save_digests()
    return rows
