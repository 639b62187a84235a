"""Where the molecules lie in the ice, and how they are turned."""

from collections.abc import Callable, Sequence

import numpy as np
from scipy.spatial import cKDTree
from scipy.spatial.transform import Rotation

from tiltwise.data.errors import InputError

Draw = Callable[[np.random.Generator], np.ndarray]
"""Draws a centre (3,), Å, from a region."""

_TRIES = 4_000
_COARSE = 16.0  # Å; the molecule's shape is known to about half of this when collisions are looked for


def place_molecules(
    molecule: np.ndarray, regions: Sequence[tuple[int, Draw]], thickness: float, gap: float, rng: np.random.Generator
) -> list[tuple[np.ndarray, Rotation]]:
    """Positions (particle, 3) Å and uniformly random rotations of a molecule's points (point, 3), region by region.

    Each region has a number of molecules and a way to draw their centres. All points lie within the thickness about
    z = 0, and no two molecules come nearer to each other than the gap, in Å. Raises InputError if so many do not fit.
    """
    shape = coarse_shape(molecule)
    reach = float(np.linalg.norm(shape, axis=1).max())
    centres, points, placed = np.empty((0, 3)), [], []
    for number, draw in regions:
        position, rotation, tries = [], [], 0
        while len(position) < number:
            tries += 1
            if tries > _TRIES:
                raise InputError(
                    f"only {len(position)} of {number} particles with {gap:.0f} Å between them fit into the ice: ask "
                    f"for fewer particles, or for a thicker or wider specimen"
                )
            turn, centre = Rotation.random(random_state=rng), draw(rng)
            own = turn.apply(shape) + centre
            near = np.flatnonzero(np.linalg.norm(centres - centre, axis=1) < 2 * reach + gap)
            if np.abs(own[:, 2]).max() > thickness / 2 or _collides(own, [points[i] for i in near], gap):
                continue
            centres = np.concatenate([centres, centre[None]])
            points.append(own)
            position.append(centre)
            rotation.append(turn)
        turns = Rotation.concatenate(rotation) if rotation else Rotation.identity(0)
        placed.append((np.array(position).reshape(-1, 3), turns))
    return placed


def coarse_shape(molecule: np.ndarray) -> np.ndarray:
    """(cell, 3) centres of the cells of a coarse grid that hold any of the molecule's points."""
    return (np.unique(np.floor(molecule / _COARSE).astype(int), axis=0) + 0.5) * _COARSE


def _collides(own: np.ndarray, others: list[np.ndarray], gap: float) -> bool:
    if not others:
        return False
    distance, _ = cKDTree(np.concatenate(others)).query(own, distance_upper_bound=gap)
    return bool(np.isfinite(distance).any())
