"""Points onto stacks of image slabs, compiled; the plain twin is `ops.point_projection.project_points_plain`."""

import math

import numba
import numpy as np


@numba.njit(parallel=True, cache=True, fastmath=True)
def project_points_compiled(
    point: np.ndarray, weight: np.ndarray, rotation: np.ndarray, offset: np.ndarray, thickness: float, image: np.ndarray
) -> None:
    """Add every point to image (particle, slab, y, x, 2); arguments as in `project_points_to_slabs`, lengths in pixels.

    Each particle has its own images and its own thread, so the sums do not depend on the number of threads.
    """
    particles, slabs, height, width, _ = image.shape
    for p in numba.prange(particles):
        m, left, top = rotation[p], offset[p, 0] + width // 2, offset[p, 1] + height // 2
        for i in range(point.shape[0]):
            px, py, pz = point[i, 0], point[i, 1], point[i, 2]
            x = m[0, 0] * px + m[0, 1] * py + m[0, 2] * pz + left
            y = m[1, 0] * px + m[1, 1] * py + m[1, 2] * pz + top
            z = m[2, 0] * px + m[2, 1] * py + m[2, 2] * pz
            slab = min(max(int(math.floor(z / thickness + 0.5 * slabs)), 0), slabs - 1)
            column, row = int(math.floor(x)), int(math.floor(y))
            if column < 0 or row < 0 or column + 1 >= width or row + 1 >= height:
                continue
            fx, fy = x - column, y - row
            for c in range(2):
                w = weight[i, c]
                image[p, slab, row, column, c] += w * (1 - fx) * (1 - fy)
                image[p, slab, row, column + 1, c] += w * fx * (1 - fy)
                image[p, slab, row + 1, column, c] += w * (1 - fx) * fy
                image[p, slab, row + 1, column + 1, c] += w * fx * fy
