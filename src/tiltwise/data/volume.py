"""A density on a cubic grid: tomogram, reference, mask alike."""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Volume:
    data: np.ndarray
    """(z, y, x) any numpy-like array; density is positive. Position 0 is the centre of voxel n // 2 along each axis."""
    voxel_size: float
    """Å."""
    step: float = 1.0
    """Density of one unit of data, where these are whole numbers that stand for others; 1 as a rule."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TomogramGrid:
    """The voxels of a tomogram without their density."""

    shape: tuple[int, int, int]
    """(z, y, x) voxels."""
    voxel_size: float
    """Å."""
