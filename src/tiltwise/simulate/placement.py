"""Where the molecules lie in the ice, and how they are turned."""

import numpy as np
from scipy.spatial import cKDTree
from scipy.spatial.transform import Rotation

from tiltwise.data.errors import InputError

_TRIES = 20_000
_COARSE = 16.0  # Å; the molecule's shape is known to about half of this when collisions are looked for


def place_molecules(
    molecule: np.ndarray, number: int, extent: tuple[float, float, float], gap: float, rng: np.random.Generator
) -> tuple[np.ndarray, Rotation]:
    """Random positions (particle, 3) Å and uniformly random rotations of a molecule's points (point, 3) Å.

    Centres lie in a box of `extent` (x, y) about the origin, all points within extent z, and no two molecules come nearer
    to each other than `gap` Å. Raises InputError if so many do not fit.
    """
    shape = coarse_shape(molecule)
    reach = float(np.linalg.norm(shape, axis=1).max())
    position, rotation, occupied = np.empty((0, 3)), [], None
    for _ in range(_TRIES):
        if len(position) == number:
            return position, Rotation.concatenate(rotation)
        turn = Rotation.random(random_state=rng)
        centre = rng.uniform(-0.5, 0.5, 3) * extent
        points = turn.apply(shape) + centre
        if np.abs(points[:, 2]).max() > extent[2] / 2:
            continue
        if occupied is not None and np.linalg.norm(position - centre, axis=1).min() < 2 * reach + gap:
            nearest, _ = occupied.query(points, distance_upper_bound=gap)
            if np.isfinite(nearest).any():
                continue
        position = np.concatenate([position, centre[None]])
        rotation.append(turn)
        occupied = cKDTree(np.concatenate([r.apply(shape) + p for r, p in zip(rotation, position, strict=True)]))
    raise InputError(
        f"only {len(position)} of {number} particles with {gap:.0f} Å between them fit into {extent[0]:.0f} × "
        f"{extent[1]:.0f} × {extent[2]:.0f} Å: ask for fewer particles, or a thicker or wider specimen"
    )


def coarse_shape(molecule: np.ndarray) -> np.ndarray:
    """(cell, 3) centres of the cells of a coarse grid that hold any of the molecule's points."""
    return (np.unique(np.floor(molecule / _COARSE).astype(int), axis=0) + 0.5) * _COARSE
