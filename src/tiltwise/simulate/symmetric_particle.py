"""A procedural particle of given mass, size and point group: an asymmetric unit of helices, and its mates.

The unit is the cell of a generic point among its images under the group; helices keep from its walls the distance that
they keep from each other, so that mates do not clash. Its outline is a union of balls, the same for all mates.
"""

import math
from dataclasses import dataclass

import numpy as np
from scipy.spatial import cKDTree
from scipy.spatial.transform import Rotation

from tiltwise.data.atoms import Atoms
from tiltwise.data.errors import InputError
from tiltwise.ops.symmetry import symmetry_rotations
from tiltwise.simulate.specimen import (
    DOMAIN_SPACING,
    RESIDUE_VOLUME,
    RESIDUE_WEIGHT,
    depth_in_lobes,
    helix_lattice,
    long_runs,
    residue_atoms,
    scattered_points,
)

_ATOM_MASS = {"C": 12.011 + 1.3 * 1.008, "N": 14.007 + 1.1 * 1.008, "O": 15.999 + 0.1 * 1.008}
"""Da, with the mean number of hydrogens that the potential gives to an atom of a protein."""
_FILLED = 0.75  # part of the outline that is protein
_WALL = 4.0  # Å, of a helix axis from the walls of its cell; within a cell helices are 10.2 Å apart
_DOMAIN_WALL = 3.5  # Å, of a helix axis from the wall between two domains of one unit
_SKIN = 2.5  # Å, of a helix axis below the envelope
_CLASH = 2.0  # Å; of atoms of two mates nearer than this both are left out
_ONE_DOMAIN = 4e5  # Å3; units smaller than this are not cut into domains
_ATTEMPTS = 6  # at a unit that holds its mass
_FRAMES = 24  # turns of the helices of a domain tried, of which the one with most residues is taken
_DRAWS = 30  # outlines drawn, of which the one nearest to the diameter is taken
_PROBES = 6000  # points on which the volume of an outline is counted


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class _Envelope:
    """Where atoms may be: a ball, or what a cylinder about z cuts out of it."""

    radius: float
    """Å."""
    width: float
    """Radius of the cylinder, Å."""

    def holds(self, points: np.ndarray, skin: float) -> np.ndarray:
        """(point,) bool: whether points (point, 3) lie at least `skin` Å within."""
        across = np.linalg.norm(points[:, :2], axis=1)
        return (np.linalg.norm(points, axis=1) <= self.radius - skin) & (across <= self.width - skin)


def symmetric_particle(
    mass: float, diameter: float, symmetry: str, seed: int, *, width: float | None = None, b_factor: float = 30.0
) -> Atoms:
    """Atoms of a particle of `mass` Da within `diameter` Å (and 0.8 of it or more), exactly symmetric about the origin.

    The group's setting is that of ops/symmetry.py. Mates follow one another, the asymmetric unit first. `width` bounds
    the diameter across z. Raises InputError where the mass does not fit into the diameter.
    """
    rng = np.random.default_rng([seed, 3])
    group = symmetry_rotations(symmetry).numpy()
    envelope = _Envelope(radius=diameter / 2, width=(width or diameter) / 2)
    volume = mass / RESIDUE_WEIGHT * RESIDUE_VOLUME / _FILLED
    lobes = _outline(volume, group, envelope, rng)
    units = (_unit_atoms(mass / len(group), lobes, group, envelope, rng) for _ in range(_ATTEMPTS))
    position, element = next((unit for unit in units if unit is not None), (None, None))
    if position is None:
        raise InputError(
            f"a particle of {mass / 1e3:.0f} kDa does not fit into a diameter of {diameter:.0f} Å and a width of "
            f"{width or diameter:.0f} Å"
        )
    mates = np.concatenate([position @ g.T for g in group])
    if len(group) == 1:
        mates = mates - mates.mean(axis=0)
    elif symmetry.strip().upper().startswith("C"):
        mates = mates - [0.0, 0.0, mates[:, 2].mean()]
    return Atoms(position=mates, element=np.tile(element, len(group)), b_factor=np.full(len(mates), float(b_factor)))


def _outline(
    volume: float, group: np.ndarray, envelope: _Envelope, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Centres (lobe, 3) and radii of the balls of all mates, whose union within the envelope has this volume.

    Of the connected outlines drawn it is the one that reaches nearest to the envelope's ends.
    """
    probes = rng.uniform(-1, 1, (_PROBES, 3)) * (envelope.width, envelope.width, envelope.radius)
    share = 8 * envelope.width**2 * envelope.radius / _PROBES
    probes = probes[envelope.holds(probes, 0.0)]
    number = max(1, math.ceil(6 / math.sqrt(len(group))))
    best, worst = None, math.inf
    for _ in range(_DRAWS):
        centre, size = _draw_lobes(number, group, envelope, rng)
        distance = np.linalg.norm(probes[:, None] - centre, axis=-1) / size
        nearest = np.sort(distance.min(axis=1))
        scale = float(nearest[min(int(volume / share), len(nearest) - 1)])
        reach = np.abs((np.linalg.norm(centre, axis=1) + scale * size).max() - envelope.radius)
        cost = reach + (0.0 if _is_connected(centre, scale * size) else 1e6)
        if cost < worst:
            best, worst = (centre, scale * size), cost
    return best


def _draw_lobes(
    number: int, group: np.ndarray, envelope: _Envelope, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Random balls of one unit and all their mates; sizes are relative."""
    size = rng.uniform(0.6, 1.0, number)
    centre = rng.uniform(-1, 1, (number, 3)) * (envelope.width, envelope.width, envelope.radius) * 0.75
    return np.concatenate([centre @ g.T for g in group]), np.tile(size, len(group))


def _is_connected(centre: np.ndarray, radius: np.ndarray) -> bool:
    """Whether balls hang together, each sunk into another by a fifth of its radius at least."""
    touch = np.linalg.norm(centre[:, None] - centre, axis=-1) < 0.9 * (radius[:, None] + radius)
    reached = np.zeros(len(centre), dtype=bool)
    reached[0] = True
    while True:
        grown = touch[reached].any(axis=0)
        if (grown == reached).all():
            return bool(reached.all())
        reached = grown


def _unit_atoms(
    mass: float,
    lobes: tuple[np.ndarray, np.ndarray],
    group: np.ndarray,
    envelope: _Envelope,
    rng: np.random.Generator,
) -> tuple[np.ndarray, np.ndarray] | None:
    """Positions (atom, 3) and elements of the residues of one unit that lie deepest in the outline, up to the mass.

    None where there is no room for that mass.
    """
    axis_point, azimuth, frame = _unit_helices(group, envelope, rng)
    depth = depth_in_lobes(axis_point, *lobes)
    order = np.argsort(-depth, kind="stable")[: math.ceil(1.5 * mass / RESIDUE_WEIGHT)]
    order = np.sort(order)
    position, element, residue = residue_atoms(axis_point[order], azimuth[order], frame[order], rng)
    kept = envelope.holds(position, 0.0) & ~_clashes(position, group)
    position, element, residue = position[kept], element[kept], residue[kept]
    deepest = np.argsort(-depth[order][residue], kind="stable")
    total = np.cumsum([_ATOM_MASS[str(e)] for e in element[deepest]])
    if not len(total) or total[-1] < mass:
        return None
    chosen = np.sort(deepest[: int(np.searchsorted(total, mass)) + 1])
    return position[chosen], element[chosen]


def _clashes(position: np.ndarray, group: np.ndarray) -> np.ndarray:
    """(atom,) bool: atoms of the unit nearer than _CLASH to an atom of a mate."""
    result = np.zeros(len(position), dtype=bool)
    for g in group[1:]:
        distance, _ = cKDTree(position @ g.T).query(position, distance_upper_bound=_CLASH)
        result |= np.isfinite(distance)
    return result


def _unit_helices(
    group: np.ndarray, envelope: _Envelope, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Points on helix axes (residue, 3) Å, azimuths (residue,) degrees and frames of all that one unit has room for."""
    generic = rng.normal(size=3) * (envelope.width, envelope.width, envelope.radius)
    generic *= 0.6 * envelope.radius / np.linalg.norm(generic)
    unit_volume = 2 * math.pi * envelope.width**2 * envelope.radius / len(group)
    domains = scattered_points(np.zeros(3), envelope.radius, DOMAIN_SPACING, rng)
    if unit_volume < _ONE_DOMAIN:
        domains = generic[None]
    tree = cKDTree(domains)

    def residues(index: int, trial: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        turn = Rotation.random(random_state=rng)
        if len(domains) == 1 and trial % 2:  # along z helices fill the thin wedges of high cyclic groups
            turn = Rotation.from_euler("z", rng.uniform(0, 360), degrees=True)
        frame = turn.as_matrix()
        local, azimuth = helix_lattice(1.2 * DOMAIN_SPACING, rng)
        point = domains[index] + local @ frame.T
        inside = envelope.holds(point, _SKIN) & (_depth_in_cell(point, generic, group) > _WALL)
        if len(domains) > 1:
            distance, nearest = tree.query(point, k=2)
            inside &= (nearest[:, 0] == index) & ((distance[:, 1] - distance[:, 0]) / 2 > _DOMAIN_WALL)
        inside = long_runs(inside)
        return point[inside], azimuth[inside], np.broadcast_to(frame, (int(inside.sum()), 3, 3))

    trials = range(_FRAMES if len(domains) == 1 else 4)
    chosen = [max((residues(i, t) for t in trials), key=lambda found: len(found[0])) for i in range(len(domains))]
    return tuple(np.concatenate(parts) for parts in zip(*chosen, strict=True))


def _depth_in_cell(points: np.ndarray, generic: np.ndarray, group: np.ndarray) -> np.ndarray:
    """(point,) distance, Å, from the walls between the cell of a generic point and those of its images."""
    depth = np.full(len(points), np.inf)
    for g in group[1:]:
        image = g @ generic
        towards = (generic - image) / np.linalg.norm(generic - image)
        depth = np.minimum(depth, points @ towards)
    return depth
