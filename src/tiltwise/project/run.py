"""Run a project: every item that is not done, as soon as what it takes is done."""

import shutil
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tiltwise.data.errors import InputError, machine_fault
from tiltwise.project import graph
from tiltwise.project.commit import begin, commit, repair
from tiltwise.project.decisions import Decide, decide_of
from tiltwise.project.events import Event, Listener, no_listener
from tiltwise.project.executors import Executor, open_executor
from tiltwise.project.graph import Item
from tiltwise.project.layout import (
    ALL,
    GIVEN,
    IMPORT,
    LOG,
    RECIPE,
    SERIES,
    check_project,
    failed_folder,
    given_folder,
    import_folder,
    resolve_path,
)
from tiltwise.project.lock import project_lock
from tiltwise.project.recipe import RunSettings, check_params, load_recipe
from tiltwise.project.records import read_record
from tiltwise.project.relion_files import TILT_SERIES, write_relion_files
from tiltwise.project.state import ItemStatus, ProjectState
from tiltwise.project.tasks import Input, Named, Outcome, Places, Preview, Task, failed_record, finish_part
from tiltwise.project.threads import count_cores, memory_GB


@dataclass(frozen=True, kw_only=True, slots=True)
class RunSummary:
    """What a run did."""

    done: tuple[str, ...]
    """step/item of what was made."""
    current: tuple[str, ...]
    """step/item of what was done before and still stands."""
    failed: dict[str, str]
    """step/item and error of what failed, in one line each."""
    skipped: dict[str, str]
    """step/item and reason of what could not be tried."""
    seconds: float
    """Wall time of the run, s."""

    @property
    def complete(self) -> bool:
        """Whether nothing failed and nothing was skipped."""
        return not self.failed and not self.skipped


@dataclass(frozen=True, kw_only=True, slots=True)
class Resources:
    """How the machine is shared out."""

    executor: str
    """serial, local, or the address of a Dask scheduler."""
    workers: int
    """Items worked on at once."""
    threads: int
    """Threads of an item of one series."""
    cores: int
    """Threads of an item that takes all series."""
    device: str
    """cpu or cuda."""


def run_project(
    folder: Path,
    *,
    executor: str | None = None,
    workers: int | None = None,
    only: Sequence[str] | None = None,
    steps: tuple[str | None, str | None] = (None, None),
    force: bool = False,
    listener: Listener | None = None,
    preview: Preview | None = None,
) -> RunSummary:
    """Run what is not done (with `force`, also what is) and say how it went; one failed item never stops the others.

    `only` names series: steps that take all series are then left out. `steps` names the first and the last step, None
    for either end of the recipe. `executor` (serial, local, tcp://...) and `workers` override the recipe. `preview`
    draws preview.png of each item. InputError where the request itself is at fault: no project, nothing imported, an
    unknown step or series, another run at work.

    The executor `local` starts processes: a script that calls this needs the usual `if __name__ == "__main__":`.
    """
    folder = check_project(folder)
    recipe = load_recipe(folder)
    with project_lock(folder):
        repair(folder, [IMPORT, GIVEN, *(step.name for step in recipe.steps)])
        state = ProjectState(folder)
        chosen = choose_items(state, only, steps)
        resources = share_out(recipe.run, executor, workers, len(only or state.series))
        run = _Run(state, resources, force, listener or no_listener, preview)
        return run.all(chosen)


def plan_run(
    folder: Path,
    *,
    only: Sequence[str] | None = None,
    steps: tuple[str | None, str | None] = (None, None),
    force: bool = False,
) -> list[ItemStatus]:
    """The items that run_project would make with the same arguments, with how they stand now. Changes nothing."""
    state = ProjectState(folder)
    items = [(item, state.status(item)) for item in choose_items(state, only, steps)]
    pending = set()
    for item, found in items:
        sources = [source for sources in state.sources(item).values() for source in sources]
        if force or found != "done" or any(source in pending for source in sources):
            pending.add(item)
    return [
        ItemStatus(step=state.recipe.steps[item.step].name, item=item.name, state=found, detail="")
        for item, found in items
        if item in pending
    ]


def choose_items(state: ProjectState, only: Sequence[str] | None, steps: tuple[str | None, str | None]) -> list[Item]:
    """The items of a request, step by step; InputError if it names a step or series that is not there."""
    recipe = state.recipe
    if not state.series:
        raise InputError(
            f"{state.project}: no tilt series yet; import some with: tiltwise import {state.project} PATHS"
        )
    for name in only or ():
        if name not in state.series:
            raise InputError(f"no tilt series {name!r} in the project; it holds {', '.join(state.series)}")
    first, last = (recipe.step_number(name) if name else None for name in steps)
    numbers = range(first or 0, (len(recipe.steps) - 1 if last is None else last) + 1)
    if not numbers:
        raise InputError(f"no steps to run: {steps[0]!r} comes after {steps[1]!r} in the recipe")
    for number in range(len(recipe.steps)):
        _check_sources(state, number)
    return [item for item in state.items(numbers) if not only or item.name in only]


def _check_sources(state: ProjectState, step: int) -> None:
    """InputError if nothing gives what a step takes, or a file of the recipe's [inputs] is not there."""
    for kind, sources in graph.sources_of(state.recipe, step).items():
        for source in graph.each_source(sources).values():
            if source.path is None:
                continue
            paths = (resolve_path(source.path.replace(SERIES, name), state.project) for name in state.series)
            if not any(path.is_file() for path in paths):
                raise InputError(f"{state.project / RECIPE}: [inputs]: {kind}: {source.path}: no such file")


def share_out(settings: RunSettings, executor: str | None, workers: int | None, series: int) -> Resources:
    """Workers and threads: as many workers as cores, series and memory allow, the cores divided among them."""
    changed = {"executor": executor or settings.executor, "workers": workers or settings.workers}
    settings = check_params(RunSettings, settings.model_dump() | changed, "run")
    cores = count_cores()
    fitting = int((settings.memory_GB or memory_GB()) / settings.item_memory_GB)
    most = 1 if settings.executor == "serial" else settings.workers or min(cores, series)
    count = max(1, min(most, fitting))
    threads = settings.threads or max(1, cores // count)
    return Resources(
        executor=settings.executor, workers=count, threads=threads, cores=max(cores, threads), device=settings.device
    )


class _Run:
    """One run at work: what waits, what is with the executor, and how each item ended."""

    def __init__(
        self, state: ProjectState, resources: Resources, force: bool, listener: Listener, preview: Preview | None
    ) -> None:
        self.state = state
        self.resources = resources
        self.force = force
        self.listener = listener
        self.preview = preview
        self.waiting: dict[Item, None] = {}  # in order, and quick to look up
        self.running: dict[Item, Task] = {}
        self.done: list[str] = []
        self.current: list[str] = []
        self.failed: dict[str, str] = {}
        self.skipped: dict[str, str] = {}
        self.chosen: tuple[Item, ...] = ()
        self.decided: set[int] = set()  # steps whose series have been looked at together

    def all(self, items: list[Item]) -> RunSummary:
        """Work through the items and sum up."""
        start = time.perf_counter()
        self.chosen, self.waiting = tuple(items), dict.fromkeys(items)
        self._announce()
        executor: Executor | None = None
        try:
            while self.waiting or self.running or self._decide_together():
                for item in self._ready():
                    executor = executor or self._open_executor()
                    self._start(item, executor)
                if self.running and executor:
                    self._finish(*executor.next_ended(self._listen))
        finally:
            if executor:
                executor.close()
            self._clear_parts()
            self.state.save_digests()
        if self.done or not (self.state.project / TILT_SERIES).is_file():
            self._write_relion_files()
        return self._summary(time.perf_counter() - start)

    def _ready(self) -> list[Item]:
        """Take from those that wait what can start now; settle what turns out to be done, or impossible.

        An item that takes all series gets all cores, so it starts alone and nothing starts beside it.
        """
        ready: list[Item] = []
        for item in list(self.waiting):
            if len(self.running) + len(ready) >= self.resources.workers or any(
                other.name == ALL for other in (*self.running, *ready)
            ):
                break
            if self._must_wait(item, ready) or (item.name == ALL and (self.running or ready)):
                continue
            if item.name == ALL and self._decide_together():
                break
            del self.waiting[item]
            if reason := self._obstacle(item):
                self._skip(item, reason)
            elif not self.force and self.state.status(item) == "done":
                self.current.append(self.state.label(item))
            else:
                ready.append(item)
        return ready

    def _must_wait(self, item: Item, ready: list[Item]) -> bool:
        """Whether what it takes is at work, about to start, or waiting itself."""
        before = {source for sources in self.state.before(item).values() for source in sources}
        return any(source in busy for busy in (self.running, ready, self.waiting) for source in before)

    def _decide_together(self) -> bool:
        """Once the series of a step are through, let them decide of single ones; whether any is to be done again."""
        again = False
        for number in sorted({item.step for item in self.chosen}):
            decide = decide_of(self.state.recipe.steps[number].stage)
            at_work = any(item.step == number for item in (*self.waiting, *self.running))
            if decide is None or number in self.decided or at_work:
                continue
            self.decided.add(number)
            again = self._decide(number, decide) or again
        return again

    def _decide(self, number: int, decide: Decide) -> bool:
        """Of the series of this run alone: others are done again when they are next run."""
        state, step = self.state, self.state.recipe.steps[number]
        items = {item.name: item for item in state.items([number]) if not state.is_given(item)}
        records = {name: record for name, item in items.items() if (record := state.record(item))}
        current = {n: r for n, r in records.items() if r.get("fingerprint") == state.fingerprint(items[n])}
        found = {name: r["quality"] if r.get("state") == "done" else None for name, r in current.items()}
        before = state.decisions.get(step.name, {})
        fresh, mine = decide(found, before), {item.name for item in self.chosen if item.step == number}
        kept = {name: params for name, params in before.items() if name not in mine & current.keys()}
        state.decide(step.name, kept | {name: dict(one.params) for name, one in fresh.items() if name in mine})
        changed = [name for name in current if name in mine and state.status(items[name]) == "outdated"]
        again = [i for i in self.chosen if i.step >= number and i.name in changed]
        reasons = {name: one.reason for name, one in fresh.items()}
        for item in again:
            own = reasons.get(item.name, "agrees with the data set by itself now")
            self._forget(item, own if item.step == number else f"follows {state.label(items[item.name])}")
        self.waiting = dict.fromkeys([*again, *self.waiting])
        return bool(changed)

    def _forget(self, item: Item, reason: str) -> None:
        """How an item ended that is to be done again; nothing where it has not ended."""
        label, lists = self.state.label(item), (self.done, self.current)
        if not any(label in ended for ended in (*lists, self.failed, self.skipped)):
            return
        for ended in lists:
            ended[:] = [other for other in ended if other != label]
        for ended in (self.failed, self.skipped):
            ended.pop(label, None)
        self._tell("item_again", item, message=reason)

    def _obstacle(self, item: Item) -> str:
        """Why an item cannot be tried; empty if it can."""
        for kind, sources in self.state.sources(item).items():
            if not sources:
                return f"no series gave {kind.replace('_', ' ')}"
            for source in sources:
                label, found = self.state.label(source), self.state.status(source)
                if found == "failed" or label in self.failed:
                    return f"{label} failed"
                if label in self.skipped:
                    return f"{label} was skipped"
                if found != "done":
                    return f"{label} is {found}; run that step first"
        return ""

    def _start(self, item: Item, executor: Executor) -> None:
        self._tell("item_started", item)
        try:
            task = self._task(item)
        except OSError as error:
            self._fail(item, machine_fault(error, self.state.project))
            return
        self.running[item] = task
        executor.submit(task)

    def _task(self, item: Item) -> Task:
        step = self.state.recipe.steps[item.step]
        return Task(
            step=step.name,
            item=item.name,
            stage=step.stage.name,
            stage_version=step.stage.version,
            function=step.stage.given if self.state.is_given(item) else step.stage.function,
            gives=step.stage.gives,
            params=self.state.params(item),
            inputs={kind: self._inputs(item, sources) for kind, sources in self.state.takes(item).items()},
            fingerprint=self.state.fingerprint(item),
            input_fingerprints=self.state.input_fingerprints(item),
            project=self.state.project,
            part=begin(self.state.folder(item)),
            threads=self.resources.cores if item.name == ALL else self.resources.threads,
            device=self.resources.device,
            preview=self.preview,
        )

    def _inputs(self, item: Item, sources: graph.Sources) -> Places | Named | None:
        """Where an item loads one kind of input, or several by name."""
        if isinstance(sources, Mapping):
            return Named(places={name: self._input(item, source) for name, source in sources.items()})
        return None if sources is None else self._input(item, sources)

    def _input(self, item: Item, source: graph.Source) -> Places:
        state = self.state
        series = None if item.name == ALL else item.name
        if source.path is not None:
            return Input(path=resolve_path(source.path.replace(SERIES, item.name), state.project), series=series)
        if source.step is not None and not graph.per_series(state.recipe, source.step):
            return Input(path=state.folder(Item(source.step, ALL)), series=series, species=source.species)
        inputs = {name: Input(path=self._place(source, name), series=None) for name in state.taken_series(item)}
        return inputs if series is None else inputs[series]

    def _place(self, source: graph.Source, series: str) -> Path:
        """The folder that holds one kind of one series."""
        if source.step is not None:
            return self.state.folder(Item(source.step, series))
        folder = given_folder if source.kind == "given_particles" else import_folder
        return folder(self.state.project, series)

    def _finish(self, task: Task, outcome: Outcome) -> None:
        item = next(item for item, running in self.running.items() if running is task)
        del self.running[item]
        try:
            if read_record(task.part) is None:
                _leave_only_log(task.part)
                finish_part(task.part, failed_record(task, outcome.error))
            place = self._place_of_outcome(item, outcome)
            commit(task.part, place)
            if not outcome.error:
                shutil.rmtree(failed_folder(place), ignore_errors=True)
        except OSError as error:  # not even its failure can be written: what was there before stays
            self._fail(item, outcome.error or machine_fault(error, self.state.project), outcome.seconds)
            return
        self.state.forget(item)
        if outcome.error:
            self._fail(item, outcome.error, outcome.seconds, f" (log: {place / LOG})")
        else:
            self.done.append(self.state.label(item))
            self._tell("item_done", item, seconds=outcome.seconds)

    def _place_of_outcome(self, item: Item, outcome: Outcome) -> Path:
        """An earlier result stays where it is; a failure goes beside it."""
        place, earlier = self.state.folder(item), self.state.result(item) or {}
        return failed_folder(place) if outcome.error and earlier.get("state") == "done" else place

    def _fail(self, item: Item, reason: str, seconds: float = 0.0, more: str = "") -> None:
        self.failed[self.state.label(item)] = f"{reason}{more}"
        self._tell("item_failed", item, message=reason, seconds=seconds)

    def _write_relion_files(self) -> None:
        """What cannot be written whole is taken away, so that the next run writes it anew."""
        place = self.state.project / TILT_SERIES
        try:
            write_relion_files(self.state)
        except OSError as error:
            place.unlink(missing_ok=True)
            self.failed[place.name] = machine_fault(error, self.state.project)

    def _skip(self, item: Item, reason: str) -> None:
        self.skipped[self.state.label(item)] = reason
        self._tell("item_skipped", item, message=reason)

    def _open_executor(self) -> Executor:
        shared = self.resources
        return open_executor(shared.executor, workers=shared.workers, threads=shared.threads, cores=shared.cores)

    def _clear_parts(self) -> None:
        repair(self.state.project, [step.name for step in self.state.recipe.steps])

    def _announce(self) -> None:
        """Say what there is to do. Raw files that changed are read here, which is remembered whatever happens later."""
        items = [item for item in self.waiting if self.force or self.state.status(item) != "done"]
        self.state.save_digests()
        total = Counter(self.state.recipe.steps[item.step].name for item in items)
        shared = self.resources
        self.listener(Event(kind="run_started", total=dict(total), workers=shared.workers, threads=shared.threads))

    def _listen(self, task: Task, fraction: float, message: str) -> None:
        self.listener(Event(kind="item_progress", step=task.step, item=task.item, fraction=fraction, message=message))

    def _tell(self, kind: str, item: Item, message: str = "", seconds: float = 0.0) -> None:
        step = self.state.recipe.steps[item.step].name
        self.listener(Event(kind=kind, step=step, item=item.name, message=message, seconds=seconds))

    def _summary(self, seconds: float) -> RunSummary:
        self.listener(Event(kind="run_done", seconds=seconds))
        return RunSummary(
            done=tuple(self.done),
            current=tuple(self.current),
            failed=self.failed,
            skipped=self.skipped,
            seconds=seconds,
        )


def _leave_only_log(part: Path) -> None:
    """Take away what a dead worker left half written."""
    part.mkdir(exist_ok=True)
    for path in part.iterdir():
        if path.name != LOG:
            path.unlink()
