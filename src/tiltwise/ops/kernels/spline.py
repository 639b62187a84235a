"""A periodic cubic B-spline of three dimensions at any points: kernel of ops/interpolate.py, whose plain twin is
`_sample_spline` there."""

import numba
import numpy as np

_TILE = 4096  # points that one thread takes at a time


@numba.njit(parallel=True, cache=True)
def sample_spline(coefficients: np.ndarray, index: np.ndarray, values: np.ndarray) -> None:
    """Fill values (point,) with the spline of coefficients (z, y, x) at index (point, 3), x, y, z from the first voxel;
    0 half a voxel and more outside. Of one floating type."""
    size_z, size_y, size_x = coefficients.shape
    points = len(index)
    for tile in numba.prange((points + _TILE - 1) // _TILE):
        weight, place = np.empty((3, 4), index.dtype), np.empty((3, 4), np.int64)
        for p in range(tile * _TILE, min((tile + 1) * _TILE, points)):
            inside = True
            for axis in range(3):
                size = coefficients.shape[2 - axis]
                x = index[p, axis]
                inside = inside and -0.5 <= x <= size - 0.5
                corner = np.floor(x)
                t = x - corner
                s = 1 - t
                weight[axis, 0] = s * s * s / 6
                weight[axis, 1] = (4 - 6 * t * t + 3 * t * t * t) / 6
                weight[axis, 2] = (4 - 6 * s * s + 3 * s * s * s) / 6
                weight[axis, 3] = t * t * t / 6
                for k in range(4):
                    place[axis, k] = (np.int64(corner) + k - 1) % size if inside else 0
            total = coefficients.dtype.type(0)
            if inside:
                for kz in range(4):
                    for ky in range(4):
                        row = coefficients[place[2, kz], place[1, ky]]
                        line = (
                            weight[0, 0] * row[place[0, 0]]
                            + weight[0, 1] * row[place[0, 1]]
                            + weight[0, 2] * row[place[0, 2]]
                            + weight[0, 3] * row[place[0, 3]]
                        )
                        total += weight[2, kz] * weight[1, ky] * line
            values[p] = total
