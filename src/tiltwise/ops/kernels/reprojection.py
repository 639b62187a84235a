"""Reprojection of a thresholded volume without the tilt's own share, for CPUs (plain twin in
ops/alignment/reprojection.py)."""

import numba
import numpy as np

from tiltwise.ops.kernels.back_projection import row_range


@numba.njit(cache=True, inline="always", fastmath=True)
def _scatter_rest_row(own, image, line, c, span, start, threshold, lowest):
    """Only voxels above threshold + lowest, the least that the tilt itself can have given, need be looked at."""
    first, last = span
    floor = threshold + lowest
    slope_x, slope_y = np.float32(c[0, 0]), np.float32(c[1, 0])
    start_x, start_y = np.float32(start[0] + c[0, 0] * first), np.float32(start[1] + c[1, 0] * first)
    for i in range(last - first + 1):
        if line[first + i] <= floor:
            continue
        px, py = start_x + slope_x * np.float32(i), start_y + slope_y * np.float32(i)
        jx, jy = np.int32(px), np.int32(py)
        fx, fy = px - np.float32(jx), py - np.float32(jy)
        a = own[jy, jx] + fx * (own[jy, jx + 1] - own[jy, jx])
        b = own[jy + 1, jx] + fx * (own[jy + 1, jx + 1] - own[jy + 1, jx])
        rest = line[first + i] - (a + fy * (b - a)) - threshold
        if rest > 0:
            lower, upper = rest * (1 - fy), rest * fy
            image[jy, jx] += lower * (1 - fx)
            image[jy, jx + 1] += lower * fx
            image[jy + 1, jx] += upper * (1 - fx)
            image[jy + 1, jx + 1] += upper * fx


@numba.njit(cache=True, parallel=True)
def scatter_rest(volume, samples, coefficients, threshold, images):
    """For each tilt: max(volume - own samples - threshold, 0) spread over images (tilt, y, x), without races."""
    depth, height, width = volume.shape
    for t in numba.prange(images.shape[0]):
        c = coefficients[t]
        lowest = np.float32(1.0001) * np.float32(min(samples[t].min(), 0.0))  # interpolation rounds
        for iz in range(depth):
            for iy in range(height):
                first, last, column, row = row_range(c, iy, iz, images.shape[1:], width)
                span, start = (first, last), (column, row)
                _scatter_rest_row(samples[t], images[t], volume[iz, iy], c, span, start, np.float32(threshold), lowest)
