"""Which item takes what from where: derived from the order of the recipe and the table of stages."""

from collections.abc import Iterator
from dataclasses import dataclass

from tiltwise.data.errors import InputError
from tiltwise.project.layout import ALL
from tiltwise.project.recipe import Recipe


@dataclass(frozen=True, kw_only=True, slots=True)
class Source:
    """Where a step finds one kind of input."""

    kind: str
    """Kind of the input, as in the table of stages."""
    step: int | None
    """Index of the step that gives it; None: it comes with the project."""
    path: str | None
    """File of the recipe's [inputs]; None: it comes from a step or from the import."""


@dataclass(frozen=True, order=True, slots=True)
class Item:
    """One piece of work."""

    step: int
    """Index of the step in the recipe."""
    name: str
    """Name of the tilt series, or 'all'."""


def sources_of(recipe: Recipe, step: int, *, given: bool = False) -> dict[str, Source | None]:
    """The source of each kind that a step takes, in the order of its arguments; None where an optional one is absent.
    given: what the step takes where it takes over what came with the import.

    A kind comes from the nearest step before that gives it, else from the project. InputError if nothing gives a kind
    that is needed.
    """
    stage = recipe.steps[step].stage
    kinds = stage.given_takes if given else stage.takes
    return {kind.rstrip("?"): _source(recipe, step, kind) for kind in kinds}


def _source(recipe: Recipe, step: int, taken: str) -> Source | None:
    kind = taken.rstrip("?")
    for before in range(step - 1, -1, -1):
        if kind in recipe.steps[before].stage.gives:
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
    for kind, source in sources_of(recipe, item.step, given=given).items():
        if source is None or source.step is None:
            continue
        if not per_series(recipe, source.step):
            before[kind] = [Item(source.step, ALL)]
        elif per_series(recipe, item.step):
            before[kind] = [Item(source.step, item.name)]
        else:
            before[kind] = [Item(source.step, name) for name in series]
    return before


def label(recipe: Recipe, item: Item) -> str:
    """step/item, as it is written to a user."""
    return f"{recipe.steps[item.step].name}/{item.name}"
