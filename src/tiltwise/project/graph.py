"""Which item takes what from where: derived from the order of the recipe and the table of stages."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from tiltwise.data.errors import InputError
from tiltwise.project.layout import ALL
from tiltwise.project.recipe import Recipe, check_named


@dataclass(frozen=True, kw_only=True, slots=True)
class Source:
    """Where a step finds one kind of input."""

    kind: str
    """Kind of the input, as in the table of stages."""
    step: int | None
    """Index of the step that gives it; None: it comes with the project."""
    path: str | None
    """File of the recipe's [inputs], or of the step's; None: it comes from a step or from the import."""
    species: str = ""
    """Which one it is of several that the step gives by name."""


@dataclass(frozen=True, order=True, slots=True)
class Item:
    """One piece of work."""

    step: int
    """Index of the step in the recipe."""
    name: str
    """Name of the tilt series, or 'all'."""


Sources = Source | Mapping[str, Source] | None
"""Of one kind: where it is found, or each of several by name; None where it is absent."""


def sources_of(recipe: Recipe, step: int, *, given: bool = False) -> dict[str, Sources]:
    """The source of each kind that a step takes, in the order of its arguments; None where an optional one is absent.
    given: what the step takes where it takes over what came with the import.

    A kind comes from where the step says, else from the nearest step before that gives it, else from the project.
    InputError if nothing gives a kind that is needed.
    """
    stage = recipe.steps[step].stage
    kinds = stage.given_takes if given else stage.takes
    return {kind.rstrip("?+"): _source(recipe, step, kind) for kind in kinds}


def each_source(source: Sources) -> dict[str, Source]:
    """The sources of one kind by name; that of a single one by the empty name."""
    if source is None:
        return {}
    return dict(source) if isinstance(source, Mapping) else {"": source}


def _source(recipe: Recipe, step: int, taken: str) -> Sources:
    kind = taken.rstrip("?+")
    asked = recipe.steps[step].inputs.get(kind)
    if isinstance(asked, Mapping):
        return {name: _asked(recipe, kind, origin) for name, origin in asked.items()}
    if asked is not None:
        return _asked(recipe, kind, asked)
    for before in range(step - 1, -1, -1):
        if kind in recipe.steps[before].stage.gives:
            check_named(recipe.steps[before], kind, "", f"step {recipe.steps[step].name!r}: inputs: {kind}")
            return Source(kind=kind, step=before, path=None)
    if kind in ("tilt_series", "given_particles"):
        return Source(kind=kind, step=None, path=None)
    path = getattr(recipe.inputs, kind, None)
    if path is not None:
        return Source(kind=kind, step=None, path=path)
    if taken.endswith("?"):
        return None
    name = recipe.steps[step].name
    raise InputError(f"step {name!r} needs {kind.replace('_', ' ')}, but no step before it gives one")


def _asked(recipe: Recipe, kind: str, origin: str) -> Source:
    """What a step's own inputs name: a file, or a step, or one of several that it gives."""
    if kind in type(recipe.inputs).model_fields:
        return Source(kind=kind, step=None, path=origin)
    name, _, species = origin.partition("/")
    return Source(kind=kind, step=recipe.step_number(name), path=None, species=species)


def per_series(recipe: Recipe, step: int) -> bool:
    """Whether a step has one item a series."""
    return recipe.steps[step].stage.per == "tilt_series"


def items_of(recipe: Recipe, step: int, series: tuple[str, ...]) -> Iterator[Item]:
    """The items of a step."""
    for name in series if per_series(recipe, step) else (ALL,):
        yield Item(step, name)


def items_before(recipe: Recipe, item: Item, series: tuple[str, ...], *, given: bool = False) -> dict[str, list[Item]]:
    """By kind, the items that an item takes its inputs from; nothing for what comes with the project."""
    before: dict[str, list[Item]] = {}
    for kind, sources in sources_of(recipe, item.step, given=given).items():
        for source in each_source(sources).values():
            if source.step is None:
                continue
            if not per_series(recipe, source.step):
                items = [Item(source.step, ALL)]
            elif per_series(recipe, item.step):
                items = [Item(source.step, item.name)]
            else:
                items = [Item(source.step, name) for name in series]
            before[kind] = [*before.get(kind, []), *items]
    return before


def label(recipe: Recipe, item: Item) -> str:
    """step/item, as it is written to a user."""
    return f"{recipe.steps[item.step].name}/{item.name}"
