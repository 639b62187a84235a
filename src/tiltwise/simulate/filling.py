"""Bodies of one kind drawn at random until as many as wanted have found room."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy.spatial.transform import Rotation

from tiltwise.data.errors import InputError
from tiltwise.ops.packing import Packing, Shape
from tiltwise.simulate import region
from tiltwise.simulate.potential import Scatterer
from tiltwise.simulate.scene import CarbonFilm, Field, IceSlab, Population

_TRIES = 1_500  # poses tried for each body, on average, before the ice is called full
_SMALL_BATCH, _BATCH = 4_000, 20_000  # poses drawn at once

Draw = Callable[[int, np.random.Generator], tuple[np.ndarray, Rotation]]
"""Draws at most so many poses: centres (n, 3) Å, and rotations."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Ground:
    """What every kind of body is placed into."""

    field: Field
    """What is imaged."""
    ice: IceSlab
    """The slab."""
    film: CarbonFilm | None
    """None without carbon."""
    margin: float
    """Least ice between a body and the surfaces of the slab, Å."""
    packing: Packing
    """The bodies that stand; filling adds to it."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Kind:
    """A body to be placed."""

    name: str
    """What it is."""
    scatterer: Scatterer
    """Its points."""
    shape: Shape
    """As collisions see it."""
    gap: float
    """Least distance from other bodies, Å."""


def fill(ground: Ground, kind: Kind, draws: tuple[tuple[Draw, int], ...], rng: np.random.Generator) -> list[Population]:
    """One population for each (draw, number), all of a kind; InputError where so many do not fit."""
    index = ground.packing.add_kind(kind.shape)
    populations = []
    for draw, number in draws:
        position, rotation = _until_full(ground, kind, index, (draw, number), rng)
        populations.append(population(kind.name, kind.scatterer, position, rotation))
    return populations


def population(name: str, scatterer: Scatterer, position: np.ndarray, rotation: Rotation) -> Population:
    """Copies of a body at these poses."""
    return Population(
        name=name, scatterer=scatterer, position=position, rotation=rotation, half_extent=scatterer.radius
    )


def part_of(whole: Population, kept: np.ndarray) -> Population:
    """The copies of a boolean index array."""
    quaternion = whole.rotation.as_quat()[kept]
    return population(whole.name, whole.scatterer, whole.position[kept], rotations_of(quaternion))


def rotations_of(quaternion: np.ndarray) -> Rotation:
    """Rotations of quaternions (n, 4), n = 0 too."""
    return Rotation.from_quat(quaternion) if len(quaternion) else Rotation.identity(0)


def anywhere_in_field(ground: Ground, inset: float) -> Draw:
    """Poses turned at random, their centres in the untilted field, `inset` Å within its edges."""

    def draw(number: int, rng: np.random.Generator) -> tuple[np.ndarray, Rotation]:
        xy = region.draw_in_field(ground.field, inset, number, rng)
        return turned_at_random(region.lift_into_slab(ground.ice, xy, ground.margin, rng), rng)

    return draw


def anywhere_in_view(ground: Ground, outside: float) -> Draw:
    """Poses turned at random, their centres in view of some tilt, more than `outside` Å outside the untilted field."""

    def draw(number: int, rng: np.random.Generator) -> tuple[np.ndarray, Rotation]:
        xy = region.draw_in_view(ground.field, ground.ice.thickness, number, rng, outside=outside)
        return turned_at_random(region.lift_into_slab(ground.ice, xy, ground.margin, rng), rng)

    return draw


def number_beside(ground: Ground, number: int, radius: float) -> int:
    """How many bodies lie wholly outside the untilted field, yet in view, where `number` lie wholly within it."""
    area = region.view_area(ground.field, ground.ice.thickness, radius)
    return round(number * area / (ground.field.side - 2 * radius) ** 2)


def turned_at_random(centre: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, Rotation]:
    """The centres, each with a uniformly random rotation."""
    return centre, Rotation.random(len(centre), random_state=rng)


def _until_full(
    ground: Ground, kind: Kind, index: int, wanted: tuple[Draw, int], rng: np.random.Generator
) -> tuple[np.ndarray, Rotation]:
    draw, number = wanted
    position, turns = [np.empty((0, 3))], [np.empty((0, 4))]
    left, tries = number, 0
    while left:
        if tries > _TRIES * number:
            raise InputError(
                f"only {number - left} of {number} bodies ({kind.name}) with {kind.gap:.0f} Å between them fit into "
                f"the ice: ask for fewer, or for a thicker or wider specimen"
            )
        centre, rotation = draw(min(max(4 * left, _SMALL_BATCH if tries else 256), _BATCH), rng)
        tries += max(len(centre), 1)
        if len(centre):
            accepted = ground.packing.place(index, centre, rotation, kind.gap, left, margin=ground.margin)
            position.append(centre[accepted])
            turns.append(rotation.as_quat()[accepted])
            left -= int(accepted.sum())
    return np.concatenate(position), rotations_of(np.concatenate(turns))
