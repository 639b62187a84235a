"""Back projection and its adjoint for CPUs: one affine map from voxel to sample for each tilt, rows in memory order.

Samples are (tilt, y, x) with a border of one pixel of zeros; the coefficients (tilt, 2, 4) give column and row as
c0 ix + c1 iy + c2 iz + c3 of the voxel index. The interpolation is bilinear. The plain torch twins in ops/projection.py
say what is computed; tests hold the two together. Whole tomograms take kernels/straight_projection.py, which is faster
once the images are resampled; here any few images serve as they are.
"""

import math

import numba
import numpy as np

EDGE = 1e-3
"""Samples this close (px) to the outer border are left out: their weight is below it, and float32 cannot cross it."""


@numba.njit(cache=True, inline="always")
def _clip_range(first, last, slope, offset, upper):
    """Part of the index range first..last (inclusive) on which EDGE <= slope i + offset <= upper - EDGE."""
    low, high = EDGE, upper - EDGE
    if abs(slope) < 1e-12:
        if offset < low or offset > high:
            return first, first - 1
        return first, last
    a, b = (low - offset) / slope, (high - offset) / slope
    if a > b:
        a, b = b, a
    if a > last or b < first:
        return first, first - 1
    return max(first, math.ceil(a)), min(last, math.floor(b))


@numba.njit(cache=True, inline="always")
def row_range(c, iy, iz, shape, width):
    """Inclusive x range of a row whose samples fall inside the image, and the offsets of column and row."""
    column = c[0, 1] * iy + c[0, 2] * iz + c[0, 3]
    row = c[1, 1] * iy + c[1, 2] * iz + c[1, 3]
    first, last = _clip_range(0, width - 1, c[0, 0], column, shape[1] - 1)
    first, last = _clip_range(first, last, c[1, 0], row, shape[0] - 1)
    return first, last, column, row


@numba.njit(cache=True, inline="always", fastmath=True)
def _gather_row(image, line, c, first, last, column, row):
    slope_x, slope_y = np.float32(c[0, 0]), np.float32(c[1, 0])
    start_x, start_y = np.float32(column + c[0, 0] * first), np.float32(row + c[1, 0] * first)
    for i in range(last - first + 1):
        px, py = start_x + slope_x * np.float32(i), start_y + slope_y * np.float32(i)
        jx, jy = np.int32(px), np.int32(py)
        fx, fy = px - np.float32(jx), py - np.float32(jy)
        a = image[jy, jx] + fx * (image[jy, jx + 1] - image[jy, jx])
        b = image[jy + 1, jx] + fx * (image[jy + 1, jx + 1] - image[jy + 1, jx])
        line[first + i] += a + fy * (b - a)


@numba.njit(cache=True, parallel=True)
def gather(samples, coefficients, volume):
    """Add to each voxel of volume (z, y, x) the interpolated sample of every tilt. Rows are independent: no races."""
    depth, height, width = volume.shape
    block = 16
    blocks = (height + block - 1) // block
    for task in numba.prange(depth * blocks):
        iz, start = task // blocks, (task % blocks) * block
        for t in range(samples.shape[0]):
            c = coefficients[t]
            for iy in range(start, min(start + block, height)):
                first, last, column, row = row_range(c, iy, iz, samples.shape[1:], width)
                _gather_row(samples[t], volume[iz, iy], c, first, last, column, row)


@numba.njit(cache=True, inline="always", fastmath=True)
def _scatter_row(image, line, c, first, last, column, row):
    slope_x, slope_y = np.float32(c[0, 0]), np.float32(c[1, 0])
    start_x, start_y = np.float32(column + c[0, 0] * first), np.float32(row + c[1, 0] * first)
    for i in range(last - first + 1):
        value = line[first + i]
        px, py = start_x + slope_x * np.float32(i), start_y + slope_y * np.float32(i)
        jx, jy = np.int32(px), np.int32(py)
        fx, fy = px - np.float32(jx), py - np.float32(jy)
        lower, upper = value * (1 - fy), value * fy
        image[jy, jx] += lower * (1 - fx)
        image[jy, jx + 1] += lower * fx
        image[jy + 1, jx] += upper * (1 - fx)
        image[jy + 1, jx + 1] += upper * fx


@numba.njit(cache=True, parallel=True)
def scatter(volume, coefficients, images):
    """Adjoint of `gather`: spread voxels over images (tilt, y, x). Tilts are independent: no races."""
    depth, height, width = volume.shape
    for t in numba.prange(images.shape[0]):
        c = coefficients[t]
        for iz in range(depth):
            for iy in range(height):
                first, last, column, row = row_range(c, iy, iz, images.shape[1:], width)
                _scatter_row(images[t], volume[iz, iy], c, first, last, column, row)
