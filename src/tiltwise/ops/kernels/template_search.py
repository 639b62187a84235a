"""Samples and scores of templates at voxels of a periodic volume, compiled; plain twins in ops/picking/places.py."""

import numba
import numpy as np


@numba.njit(cache=True)
def _wrapped(index: int, size: int) -> int:
    """An index less than a period beyond either end, brought back."""
    if index < 0:
        return index + size
    return index - size if index >= size else index


@numba.njit(parallel=True, cache=True)
def gather(volume: np.ndarray, index: np.ndarray, offsets: np.ndarray, result: np.ndarray) -> None:
    """result (hit, point): the volume (z, y, x) at each hit's voxel (hit, 3) and each offset (point, 3) from it."""
    depth, height, width = volume.shape
    for h in numba.prange(len(index)):
        for p in range(len(offsets)):
            z = _wrapped(index[h, 0] + offsets[p, 0], depth)
            y = _wrapped(index[h, 1] + offsets[p, 1], height)
            result[h, p] = volume[z, y, _wrapped(index[h, 2] + offsets[p, 2], width)]


@numba.njit(parallel=True, cache=True, fastmath=True)
def score(
    volume: np.ndarray,
    index: np.ndarray,
    offsets: np.ndarray,
    templates: np.ndarray,
    which: np.ndarray,
    result: np.ndarray,
) -> None:
    """result (hit, 27): products of template `which` (hit,) with the volume about each hit's voxel and its neighbours.

    volume (z, y, x); index (hit, 3); offsets (point, 3) of a template's points; templates (template, point). Every hit
    has its own sums, over a box of the volume that is copied first, so that its points need no bringing back.
    """
    reach = np.abs(offsets).max() + 1
    side = 2 * reach + 1
    steps = ((offsets[:, 0] + reach) * side + offsets[:, 1] + reach) * side + offsets[:, 2] + reach
    for h in numba.prange(len(index)):
        box = np.empty(side**3, dtype=volume.dtype)
        for z in range(side):
            plane = volume[_wrapped(index[h, 0] + z - reach, volume.shape[0])]
            for y in range(side):
                row = plane[_wrapped(index[h, 1] + y - reach, volume.shape[1])]
                for x in range(side):
                    box[(z * side + y) * side + x] = row[_wrapped(index[h, 2] + x - reach, volume.shape[2])]
        template = templates[which[h]]
        for near in range(9):
            base = ((near // 3 - 1) * side + near % 3 - 1) * side
            left, middle, right = np.float32(0.0), np.float32(0.0), np.float32(0.0)
            for p in range(len(steps)):
                at, t = base + steps[p], template[p]
                left += t * box[at - 1]
                middle += t * box[at]
                right += t * box[at + 1]
            result[h, 3 * near], result[h, 3 * near + 1], result[h, 3 * near + 2] = left, middle, right
