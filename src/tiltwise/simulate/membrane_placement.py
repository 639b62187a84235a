"""Membranes put into the slab: spheres that keep apart, and parallel flat sheets."""

import math
from dataclasses import dataclass

import numpy as np
from scipy.spatial.transform import Rotation

from tiltwise.data.errors import InputError
from tiltwise.ops.packing import shape_of_points, shell_shape
from tiltwise.params.scene import MembraneParams
from tiltwise.simulate import region
from tiltwise.simulate.filling import Ground, population
from tiltwise.simulate.membranes import HALF_THICKNESS, sheet_patch, sphere_patches
from tiltwise.simulate.scene import Population

_APART = 2 * HALF_THICKNESS + 20.0  # Å between the middles of two membranes
_SHEETS_APART = 500.0  # Å; room for molecules between them
_TRIES = 20_000
_OUTLINE_REACH = 40.0  # Å, of the distance maps of patches


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Membranes:
    """Where the membranes lie."""

    centre: np.ndarray
    """(sphere, 3) Å."""
    radius: np.ndarray
    """(sphere,) of the middle of the bilayer, Å."""
    normal: np.ndarray
    """(3,) unit normal of all sheets."""
    offset: np.ndarray
    """(sheet,) distance of a sheet from the origin along the normal, Å."""
    tile: np.ndarray
    """(tile, 3) centres of the sheets' patches, Å."""
    tile_rotation: Rotation
    """(tile,) patch to specimen; z becomes the normal."""
    tile_side: float
    """Å."""


def place_membranes(
    params: MembraneParams, ground: Ground, rng: np.random.Generator
) -> tuple[Membranes, list[Population]]:
    """Draw membranes, enter them into the packing, and give their patches as populations.

    Spheres lie wholly within the slab, apart from each other, from sheets and from carbon; there are as many to the
    area beside the field. Sheets go through the field and end where a patch would leave the slab or meet the carbon.
    """
    normal, offset = _sheet_planes(params, ground, rng)
    scatterer, outline, side = sheet_patch()
    tile, turn = _tiles(normal, offset, side, ground)
    centre, radius = _spheres(params, ground, (normal, offset), rng)
    populations = []
    if len(tile):
        kind = ground.packing.add_kind(shape_of_points(outline, _OUTLINE_REACH))
        ground.packing.insert(kind, tile, turn)
        populations.append(population("membrane", scatterer, tile, turn))
    for c, r in zip(centre, radius, strict=True):
        kind = ground.packing.add_kind(shell_shape(float(r), HALF_THICKNESS))
        ground.packing.insert(kind, c[None], Rotation.identity(1))
        for patches in sphere_patches(c, float(r), Rotation.random(random_state=rng)):
            populations.append(population("membrane", patches.scatterer, patches.position, patches.rotation))
    membranes = Membranes(
        centre=centre, radius=radius, normal=normal, offset=offset, tile=tile, tile_rotation=turn, tile_side=side
    )
    return membranes, populations


def _sheet_planes(params: MembraneParams, ground: Ground, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Unit normal (3,) and offsets (sheet,) of parallel sheets through the field, _SHEETS_APART from one another."""
    tilt, azimuth = math.radians(params.sheet_tilt), rng.uniform(-math.pi, math.pi)
    normal = np.array([math.sin(tilt) * math.cos(azimuth), math.sin(tilt) * math.sin(azimuth), math.cos(tilt)])
    low = max(ground.ice.thickness / 2 - HALF_THICKNESS - ground.margin, 0.0)
    reach = 0.8 * ground.field.side / 2 * math.sin(tilt) + low * math.cos(tilt)
    offset: list[float] = []
    for _ in range(_TRIES):
        if len(offset) == params.sheets:
            return normal, np.array(offset)
        drawn = float(rng.uniform(-reach, reach))
        if all(abs(drawn - other) > _SHEETS_APART for other in offset):
            offset.append(drawn)
    raise InputError(f"only {len(offset)} of {params.sheets} sheets of membrane fit into the field: ask for fewer")


def _tiles(normal: np.ndarray, offset: np.ndarray, side: float, ground: Ground) -> tuple[np.ndarray, Rotation]:
    """Centres (tile, 3) and rotations of the patches of all sheets that are in view and wholly in the slab."""
    x, y = region.view_extent(ground.field, ground.ice.thickness)
    first = np.cross([0.0, 0.0, 1.0], normal)
    first = first / np.linalg.norm(first) if np.linalg.norm(first) > 1e-9 else np.array([1.0, 0.0, 0.0])
    frame = np.column_stack([first, np.cross(normal, first), normal])
    steps = np.arange(-math.ceil(math.hypot(x, y) / side), math.ceil(math.hypot(x, y) / side) + 1) * side
    grid = np.stack([a.ravel() for a in np.meshgrid(steps, steps)], axis=-1)
    centre = np.concatenate([np.empty((0, 3)), *(grid @ frame[:, :2].T + d * normal for d in offset)])
    kept = region.in_view(ground.field, centre[:, :2], ground.ice.thickness)
    for corner in np.array([(a, b, c) for a in (-1, 1) for b in (-1, 1) for c in (-1, 1)]):
        extent = np.array([side / 2, side / 2, HALF_THICKNESS])
        kept &= _is_clear(ground, centre + frame @ (corner * extent), 0.0)
    centre = centre[kept]
    turn = Rotation.from_matrix(np.tile(frame, (len(centre), 1, 1))) if len(centre) else Rotation.identity(0)
    return centre, turn


def _spheres(
    params: MembraneParams, ground: Ground, sheets: tuple[np.ndarray, np.ndarray], rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Centres (sphere, 3) and radii: those of the field first, then those beside it."""
    low, high = params.radius_min, params.radius_max
    if low > high:
        raise InputError(f"membranes: the smallest radius, {low:g} Å, is above the largest, {high:g} Å")
    area = region.view_area(ground.field, ground.ice.thickness, 0.0)
    around = round(params.spheres * area / ground.field.side**2)
    centre, radius = np.empty((0, 3)), np.empty(0)
    for number, inside in ((params.spheres, True), (around, False)):
        found = 0
        for _ in range(_TRIES):
            if found == number:
                break
            r = float(rng.uniform(low, high))
            drawn = _draw_sphere(ground, r, inside, rng)
            apart = drawn is not None and (np.linalg.norm(centre - drawn, axis=1) > radius + r + _APART).all()
            if apart and (np.abs(sheets[1] - drawn @ sheets[0]) > r + _APART).all():
                centre, radius, found = np.concatenate([centre, drawn[None]]), np.append(radius, r), found + 1
        if found < number and inside:
            raise InputError(
                f"only {found} of {number} spheres of radius {low:.0f} to {high:.0f} Å fit into a field of "
                f"{ground.field.side:.0f} Å with {ground.ice.thickness:.0f} Å of ice"
            )
    return centre, radius


def _draw_sphere(ground: Ground, radius: float, inside: bool, rng: np.random.Generator) -> np.ndarray | None:
    """A centre (3,) at which a sphere lies in the slab and outside the carbon; None if the draw was none."""
    inset = radius + HALF_THICKNESS + ground.margin
    if inset > ground.ice.thickness / 2:
        return None
    if inside:
        xy = region.draw_in_field(ground.field, 0.0, 1, rng)
    else:
        xy = region.draw_in_view(ground.field, ground.ice.thickness, 1, rng, outside=0.0)
    if not len(xy):
        return None
    centre = region.lift_into_slab(ground.ice, xy, inset, rng)
    return centre[0] if _is_clear(ground, centre, radius + HALF_THICKNESS)[0] else None


def _is_clear(ground: Ground, points: np.ndarray, around: float) -> np.ndarray:
    """(point,) bool: whether a ball of this radius lies below the slab's surfaces and outside the carbon film."""
    height = region.height_in_slab(ground.ice, points)
    clear = np.abs(height) + around <= ground.ice.thickness / 2 - ground.margin
    if ground.film is not None:
        azimuth = math.radians(ground.film.azimuth)
        along = points[:, 0] * math.cos(azimuth) + points[:, 1] * math.sin(azimuth)
        clear &= (along + around < ground.film.distance) | (
            np.abs(height - ground.film.height) - around > ground.film.thickness / 2
        )
    return clear
