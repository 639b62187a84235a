"""Scores of templates at voxels and their neighbours, compiled; the plain twin is in ops/picking/template_search.py."""

import numba
import numpy as np


@numba.njit(parallel=True, cache=True, fastmath=True)
def score_around(
    values: np.ndarray,
    start: np.ndarray,
    offsets: np.ndarray,
    strides: np.ndarray,
    templates: np.ndarray,
    which: np.ndarray,
    result: np.ndarray,
) -> None:
    """result (hit, 27): products of template `which` (hit,) with the values about each hit's voxel and its neighbours.

    values (voxel,) of a padded volume of strides (3,) z, y, x; start (hit,) flat index of each hit's voxel; offsets
    (point,) of a template's points from its middle; templates (template, point). Every hit has its own sums.
    """
    for h in numba.prange(len(start)):
        template = templates[which[h]]
        for row in range(9):
            base = start[h] + (row // 3 - 1) * strides[0] + (row % 3 - 1) * strides[1]
            left, middle, right = np.float32(0.0), np.float32(0.0), np.float32(0.0)
            for p in range(len(offsets)):
                at, t = base + offsets[p], template[p]
                left += t * values[at - 1]
                middle += t * values[at]
                right += t * values[at + 1]
            result[h, 3 * row], result[h, 3 * row + 1], result[h, 3 * row + 2] = left, middle, right
