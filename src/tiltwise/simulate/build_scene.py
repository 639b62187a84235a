"""From the parameters of a specimen to every body in the ice and where it lies."""

from collections.abc import Callable

import numpy as np
from scipy.spatial.transform import Rotation

from tiltwise.data.atoms import Atoms
from tiltwise.data.errors import InputError
from tiltwise.ops.packing import Bounds, Packing, shape_of_points
from tiltwise.params.scene import SceneParams, TargetParams
from tiltwise.simulate import region
from tiltwise.simulate.potential import Scatterer, scatterer_from_atoms
from tiltwise.simulate.scene import Field, IceSlab, Population, Scene
from tiltwise.simulate.symmetric_particle import symmetric_particle

_TRIES = 4_000  # poses tried for each body, on average, before the ice is called full
_BATCH = 20_000

Draw = Callable[[int, np.random.Generator], tuple[np.ndarray, Rotation]]
"""Draws about so many poses: centres (n, 3) Å, and rotations."""


def build_scene(params: SceneParams, field: Field, rng: np.random.Generator, *, model: Atoms | None = None) -> Scene:
    """The specimen of these parameters about a field; the same state of rng gives the same bits.

    The target is `model`, or else a procedural particle. No two bodies overlap. Raises InputError where so many
    bodies do not fit.
    """
    ice = region.ice_slab(params.ice, rng)
    packing = Packing(_bounds(field, ice))
    target = scatterer_from_atoms(target_atoms(params.target) if model is None else model)
    populations = _free_targets(params, field, ice, target, packing, rng)
    return Scene(populations=tuple(populations), ice=ice, film=None)


def target_atoms(params: TargetParams) -> Atoms:
    """Atoms of the procedural target."""
    numbers = (params.mass, params.diameter, params.symmetry, params.seed)
    return symmetric_particle(*numbers, width=params.width, b_factor=params.b_factor)


def _bounds(field: Field, ice: IceSlab) -> Bounds:
    x, y = region.view_extent(field, ice.thickness)
    corners = region.middle_height(ice, np.array([(a, b) for a in (-x, 0, x) for b in (-y, 0, y)]))
    z = np.abs(corners).max() + ice.thickness
    return Bounds(
        low=np.array([-x, -y, -z]),
        high=np.array([x, y, z]),
        surface=region.surface_numbers(ice),
        half_thickness=ice.thickness / 2,
    )


def _free_targets(
    params: SceneParams, field: Field, ice: IceSlab, target: Scatterer, packing: Packing, rng: np.random.Generator
) -> list[Population]:
    """The target anywhere in the ice: wholly within the untilted field, and as dense wholly outside it."""
    gap, margin, radius = params.target.gap, params.ice.margin, target.radius
    kind = packing.add_kind(shape_of_points(target.position, gap + 10.0))
    inner = field.side / 2 - radius
    if inner <= 0:
        raise InputError(f"a field of {field.side:.0f} Å does not hold a particle of radius {radius:.0f} Å")

    def within(number: int, rng: np.random.Generator) -> tuple[np.ndarray, Rotation]:
        xy = region.draw_in_field(field, radius, number, rng)
        return _turned_anyhow(region.lift_into_slab(ice, xy, margin, rng), rng)

    def beside(number: int, rng: np.random.Generator) -> tuple[np.ndarray, Rotation]:
        xy = region.draw_in_view(field, ice.thickness, number, rng, outside=radius)
        return _turned_anyhow(region.lift_into_slab(ice, xy, margin, rng), rng)

    number = params.target.number
    placed = [_fill(packing, (kind, "target"), within, number, (gap, margin), rng)]
    if params.target.surroundings:
        around = round(number * region.view_area(field, ice.thickness, radius) / (2 * inner) ** 2)
        placed.append(_fill(packing, (kind, "target"), beside, around, (gap, margin), rng))
    return [population("target", target, *poses) for poses in placed]


def population(name: str, scatterer: Scatterer, position: np.ndarray, rotation: Rotation) -> Population:
    """Copies of a body at these poses."""
    return Population(
        name=name, scatterer=scatterer, position=position, rotation=rotation, half_extent=scatterer.radius
    )


def _turned_anyhow(centre: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, Rotation]:
    return centre, Rotation.random(len(centre), random_state=rng)


def _fill(
    packing: Packing,
    kind: tuple[int, str],
    draw: Draw,
    number: int,
    room: tuple[float, float],
    rng: np.random.Generator,
) -> tuple[np.ndarray, Rotation]:
    """Poses of `number` bodies of a kind (its number, its name) with room = (gap, margin), Å, about them."""
    position, turns, tries = [np.empty((0, 3))], [np.empty((0, 4))], 0
    left = number
    while left:
        if tries > _TRIES * number:
            raise InputError(
                f"only {number - left} of {number} bodies ({kind[1]}) with {room[0]:.0f} Å between them fit into the "
                f"ice: ask for fewer, or for a thicker or wider specimen"
            )
        centre, rotation = draw(min(max(4 * left, 256), _BATCH), rng)
        tries += max(len(centre), 1)
        if not len(centre):
            continue
        accepted = packing.place(kind[0], centre, rotation, room[0], left, margin=room[1])
        position.append(centre[accepted])
        turns.append(rotation.as_quat()[accepted])
        left -= int(accepted.sum())
    quaternion = np.concatenate(turns)
    return np.concatenate(position), Rotation.from_quat(quaternion) if len(quaternion) else Rotation.identity(0)
