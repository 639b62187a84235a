"""The target put in its place: free in the ice, on the outside of membranes, or as a lattice inside spheres."""

import math

import numpy as np
from scipy.spatial.transform import Rotation

from tiltwise.data.errors import InputError
from tiltwise.ops.packing import shape_of_points
from tiltwise.params.scene import LatticeParams, TargetParams
from tiltwise.simulate import filling, region
from tiltwise.simulate.filling import Draw, Ground, Kind
from tiltwise.simulate.lattice import grow_lattice
from tiltwise.simulate.membrane_placement import Membranes
from tiltwise.simulate.membranes import HALF_THICKNESS
from tiltwise.simulate.potential import Scatterer
from tiltwise.simulate.scene import Population

_CAUTION = 6.0  # Å, by which collisions are found too early (ops/packing.py) and a leaning particle reaches down


def target_kind(target: Scatterer, params: TargetParams) -> Kind:
    """The target as a body to be placed."""
    shape = shape_of_points(target.position, params.gap + 10.0)
    return Kind(name="target", scatterer=target, shape=shape, gap=params.gap)


def free_targets(kind: Kind, params: TargetParams, ground: Ground, rng: np.random.Generator) -> list[Population]:
    """Copies anywhere in the ice: wholly within the untilted field, and as dense wholly outside it."""
    radius = kind.scatterer.radius
    check_field(ground, radius)
    within, beside = filling.anywhere_in_field(ground, radius), filling.anywhere_in_view(ground, radius)
    around = filling.number_beside(ground, params.number, radius) if params.surroundings else 0
    return filling.fill(ground, kind, ((within, params.number), (beside, around)), rng)


def membrane_targets(
    kind: Kind, params: TargetParams, ground: Ground, membranes: Membranes, rng: np.random.Generator
) -> list[Population]:
    """Copies on the outside of spheres and on either side of sheets, z along the normal but for the tilt spread."""
    if not len(membranes.radius) and not len(membranes.tile):
        raise InputError("targets on membranes need spheres or sheets of membrane, and the scene has none")
    radius = kind.scatterer.radius
    check_field(ground, radius)
    foot = -float(kind.scatterer.position[:, 2].min())
    anchor = foot + HALF_THICKNESS + kind.gap + _CAUTION if params.anchor is None else params.anchor
    draw = _on_membranes(membranes, anchor, params.tilt_spread)

    def within(number: int, rng: np.random.Generator) -> tuple[np.ndarray, Rotation]:
        return _only(draw(4 * number, rng), lambda xy: region.distance_from_field(ground.field, xy) < -radius)

    def beside(number: int, rng: np.random.Generator) -> tuple[np.ndarray, Rotation]:
        def seen(xy: np.ndarray) -> np.ndarray:
            outside = region.distance_from_field(ground.field, xy) > radius
            return outside & region.in_view(ground.field, xy, ground.ice.thickness)

        return _only(draw(4 * number, rng), seen)

    around = 0
    if params.surroundings:
        xy = draw(4000, rng)[0][:, :2]
        inside = (region.distance_from_field(ground.field, xy) < -radius).sum()
        outside = (region.distance_from_field(ground.field, xy) > radius).sum()
        around = round(params.number * 0.8 * outside / max(inside, 1))  # 0.8: membranes beside may be cut by the view
    return filling.fill(ground, kind, ((within, params.number), (beside, around)), rng)


def lattice_targets(
    kind: Kind,
    params: tuple[TargetParams, LatticeParams],
    ground: Ground,
    membranes: Membranes,
    interlocking: bool,
    rng: np.random.Generator,
) -> list[Population]:
    """A hexagonal lattice under each sphere, z outwards and x towards a neighbour.

    Sites that collide with what stands stay empty. An interlocking target, a model that may hold parts of its
    neighbours, only keeps the distance of centres from its mates. The first population are the copies wholly within
    the untilted field; the second all others.
    """
    target, lattice = params
    if not len(membranes.radius):
        raise InputError("a lattice of targets needs spheres of membrane, and the scene has none")
    index = ground.packing.add_kind(kind.shape)
    position, turns = [], []
    for centre, radius in zip(membranes.centre, membranes.radius, strict=True):
        place, turn = _lattice_poses(float(radius) - lattice.depth, lattice, target.tilt_spread, rng)
        place = place + centre
        if interlocking:
            ground.packing.insert(index, place, turn)
            accepted = np.ones(len(place), dtype=bool)
        else:
            accepted = ground.packing.place(index, place, turn, kind.gap, len(place), margin=ground.margin)
        position.append(place[accepted])
        turns.append(turn.as_quat()[accepted])
    quaternion = np.concatenate(turns)
    whole = filling.population(kind.name, kind.scatterer, np.concatenate(position), filling.rotations_of(quaternion))
    inside = region.distance_from_field(ground.field, whole.position[:, :2]) < -whole.half_extent
    return [filling.part_of(whole, inside), filling.part_of(whole, ~inside)]


def check_field(ground: Ground, radius: float) -> None:
    """InputError where the field does not hold one target."""
    if ground.field.side / 2 <= radius:
        raise InputError(f"a field of {ground.field.side:.0f} Å does not hold a particle of radius {radius:.0f} Å")


def rotations_onto(normal: np.ndarray, spread: float, rng: np.random.Generator) -> Rotation:
    """(n,) rotations that bring z onto normals (n, 3) tilted by a Gaussian of sd `spread` degrees on each of two axes,
    turned about z at random."""
    spin = Rotation.from_rotvec(rng.uniform(0, 360, (len(normal), 1)) * [[0.0, 0.0, 1.0]], degrees=True)
    lean = np.column_stack([rng.normal(0, spread, (len(normal), 2)), np.zeros(len(normal))])
    across = np.cross(normal, np.where(np.abs(normal[:, 2:]) < 0.9, [[0.0, 0, 1]], [[1.0, 0, 0]]))
    across /= np.linalg.norm(across, axis=1, keepdims=True)
    frame = Rotation.from_matrix(np.stack([across, np.cross(normal, across), normal], axis=-1))
    return frame * Rotation.from_rotvec(lean, degrees=True) * spin


def _on_membranes(membranes: Membranes, anchor: float, spread: float) -> Draw:
    """Poses `anchor` Å outside the middle of membranes, as many to the area on each."""
    area = np.append(4 * math.pi * membranes.radius**2, 2 * len(membranes.tile) * membranes.tile_side**2)

    def draw(number: int, rng: np.random.Generator) -> tuple[np.ndarray, Rotation]:
        which = rng.choice(len(area), number, p=area / area.sum())
        direction = rng.normal(size=(number, 3))
        normal = direction / np.linalg.norm(direction, axis=1, keepdims=True)
        flat = which == len(membranes.radius)
        point = np.empty((number, 3))
        point[~flat] = membranes.centre[which[~flat]] + membranes.radius[which[~flat], None] * normal[~flat]
        if flat.any():
            tile = rng.integers(len(membranes.tile), size=int(flat.sum()))
            within = rng.uniform(-0.5, 0.5, (len(tile), 3)) * (membranes.tile_side, membranes.tile_side, 0.0)
            point[flat] = membranes.tile[tile] + membranes.tile_rotation[tile].apply(within)
            normal[flat] = membranes.normal * rng.choice([-1.0, 1.0], (len(tile), 1))
        return point + anchor * normal, rotations_onto(normal, spread, rng)

    return draw


def _lattice_poses(
    radius: float, params: LatticeParams, spread: float, rng: np.random.Generator
) -> tuple[np.ndarray, Rotation]:
    """Positions about the sphere's centre and rotations of one lattice, with vacancies and disorder."""
    if radius < params.spacing:
        raise InputError(f"a lattice of spacing {params.spacing:g} Å does not fit on a sphere of {radius:.0f} Å")
    normal, tangent = grow_lattice(radius, params.spacing, params.coverage, rng)
    kept = rng.random(len(normal)) >= params.defects
    normal, tangent = normal[kept], tangent[kept]
    frame = Rotation.from_matrix(np.stack([tangent, np.cross(normal, tangent), normal], axis=-1))
    lean = Rotation.from_rotvec(rng.normal(0, spread, (len(normal), 3)), degrees=True)
    return radius * normal + rng.normal(0, params.disorder, normal.shape), frame * lean


def _only(poses: tuple[np.ndarray, Rotation], accept) -> tuple[np.ndarray, Rotation]:
    centre, rotation = poses
    kept = accept(centre[:, :2])
    return centre[kept], filling.rotations_of(rotation.as_quat()[kept])
