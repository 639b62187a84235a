"""Back projection from straightened images, and its adjoint, for CPUs: the tomogram's y runs along contiguous memory.

Samples (column, row) are a store of planes, one for each tilt and level of depth, rows contiguous. A voxel meets tilt t
at column c0 x + c1 z + c2 and row y + s (z - zc) + margin: for one (z, x) the columns, the weights and the level are
the same for a whole block of y, so that the inner loop is two contiguous multiply-adds and no gather. The plain torch
twins in ops/tomogram/straight_projection.py say what is computed; tests hold the two together.
"""

import math

import numba
import numpy as np

EDGE = 1e-3
"""Columns this close to the first or last one are left out, as are those beyond: nothing was measured there."""
BLOCK = 64
"""Rows treated together: a tile of 64 x 64 voxels and the columns it meets stay in the second-level cache."""
_TILE = 64
NODE_STEP = 16
"""Columns and rows between the nodes at which displacements are given: of a bend that moves the specimen by 50 Å over a
quarter of a period of 1 µm, lines between nodes 160 Å apart miss 160² / 8 · 50 (π / 2 / 2500)² = 0.06 Å."""


@numba.njit(cache=True)
def _columns_inside(slope, offset, count, columns):
    """First and last x in 0..count - 1 with EDGE <= slope x + offset <= columns - 1 - EDGE."""
    low, high = EDGE, columns - 1 - EDGE
    if abs(slope) < 1e-12:
        return (0, count - 1) if low <= offset <= high else (0, -1)
    a, b = (low - offset) / slope, (high - offset) / slope
    if a > b:
        a, b = b, a
    return max(0, math.ceil(max(a, -1.0))), min(count - 1, math.floor(min(b, count)))


@numba.njit(cache=True)
def _level(c, x, y, z, count):
    """Level of depth that serves a voxel, the last one held beyond the ends."""
    return min(max(int(math.floor(c[0] * x + c[1] * y + c[2] * z + c[3])), 0), count - 1)


@numba.njit(cache=True, fastmath=True)
def _add_tile(tile, samples, table, t, place, count):
    """Add one tilt to a tile (x, y) of voxels that starts at place = x, y, z, y of the block in the store."""
    column, row, level, planes, origin, columns = table
    x0, y0, z, y_store = place
    offset = column[t, 0] * x0 + column[t, 1] * z + column[t, 2]
    shift = row[t, 0] * z + row[t, 1]
    base = math.floor(shift)
    g = np.float32(shift - base)
    base = int(base) + y_store
    first, last = _columns_inside(column[t, 0], offset, count, columns[t])
    for x in range(first, last + 1):
        p = offset + column[t, 0] * x
        j = int(p)
        upper = np.float32(p - j)
        lower = np.float32(1) - upper
        plane = planes[t, 0] + _level(level[t], x0 + x, y0 + BLOCK // 2, z, planes[t, 1])
        j += origin[plane]
        out, a, b = tile[x], samples[j, base : base + BLOCK + 1], samples[j + 1, base : base + BLOCK + 1]
        if row[t, 0] == 0.0:
            for y in range(BLOCK):
                out[y] += lower * a[y] + upper * b[y]
        else:
            for y in range(BLOCK):
                out[y] += (1 - g) * (lower * a[y] + upper * b[y]) + g * (lower * a[y + 1] + upper * b[y + 1])


@numba.njit(cache=True, parallel=True)
def gather(samples, tilts, table, volume, start):
    """Add the tilts to volume (z, y, x), whose first voxel is z, y = start of the tomogram. Tiles are independent."""
    depth, height, width = volume.shape
    across = (width + _TILE - 1) // _TILE
    blocks = (height + BLOCK - 1) // BLOCK
    for task in numba.prange(blocks * across):
        y0, x0 = task // across * BLOCK, task % across * _TILE
        rows, count = min(BLOCK, height - y0), min(_TILE, width - x0)
        tile = np.empty((_TILE, BLOCK), np.float32)
        for z in range(depth):
            tile[:] = 0
            for t in tilts:
                _add_tile(tile, samples, table, t, (x0, start[1] + y0, start[0] + z, y0), count)
            for y in range(rows):
                for x in range(count):
                    volume[z, y0 + y, x0 + x] += tile[x, y]


@numba.njit(cache=True, fastmath=True)
def _spread_tile(tile, samples, table, t, place, count):
    """Adjoint of `_add_tile`, for the first plane of the tilt whatever the depth."""
    column, row, _, planes, origin, columns = table
    x0, _, z, y_store = place
    offset = column[t, 0] * x0 + column[t, 1] * z + column[t, 2]
    shift = row[t, 0] * z + row[t, 1]
    base = math.floor(shift)
    g = np.float32(shift - base)
    base = int(base) + y_store
    first, last = _columns_inside(column[t, 0], offset, count, columns[t])
    for x in range(first, last + 1):
        p = offset + column[t, 0] * x
        j = int(p)
        upper = np.float32(p - j)
        lower = np.float32(1) - upper
        j += origin[planes[t, 0]]
        line, a, b = tile[x], samples[j, base : base + BLOCK + 1], samples[j + 1, base : base + BLOCK + 1]
        if row[t, 0] == 0.0:
            for y in range(BLOCK):
                a[y] += lower * line[y]
                b[y] += upper * line[y]
        else:
            for y in range(BLOCK):
                a[y] += (1 - g) * lower * line[y]
                b[y] += (1 - g) * upper * line[y]
            for y in range(BLOCK):
                a[y + 1] += g * lower * line[y]
                b[y + 1] += g * upper * line[y]


@numba.njit(cache=True, parallel=True)
def scatter(volume, tilts, table, samples, start, groups):
    """Spread volume (z, y, x) over the first planes of the tilts, added in place.

    Tilts are dealt out in groups, one a thread; what is added to a tilt and its order do not depend on the groups.
    """
    depth, height, width = volume.shape
    for group in numba.prange(groups):
        tile = np.zeros((_TILE, BLOCK), np.float32)
        for y0 in range(0, height, BLOCK):
            rows = min(BLOCK, height - y0)
            for x0 in range(0, width, _TILE):
                count = min(_TILE, width - x0)
                for z in range(depth):
                    tile[:] = 0
                    for y in range(rows):
                        for x in range(count):
                            tile[x, y] = volume[z, y0 + y, x0 + x]
                    for t in tilts[group::groups]:
                        _spread_tile(tile, samples, table, t, (x0, start[1] + y0, start[0] + z, y0), count)


@numba.njit(cache=True, fastmath=True)
def _cubic_weights(f):
    """The four values of the cubic B-spline at -1 - f, -f, 1 - f, 2 - f."""
    one, sixth = np.float32(1), np.float32(1 / 6)
    g = one - f
    a, d = g * g * g * sixth, f * f * f * sixth
    b = np.float32(2 / 3) - f * f * (one - np.float32(0.5) * f)
    return a, b, one - a - b - d, d


@numba.njit(cache=True, inline="always", fastmath=True)
def _spline_value(image, x, y):
    """Cubic B-spline with coefficients image (y, x) at a place; 0 outside the frame."""
    height, width = image.shape
    if x < 1 or y < 1 or x > width - 3 or y > height - 3:
        return np.float32(0)
    jx, jy = int(x), int(y)
    a, b, c, d = _cubic_weights(np.float32(x - jx))
    wy = _cubic_weights(np.float32(y - jy))
    total = np.float32(0)
    for i in range(4):
        line = image[jy - 1 + i]
        total += wy[i] * (a * line[jx - 1] + b * line[jx] + c * line[jx + 1] + d * line[jx + 2])
    return total


@numba.njit(cache=True, parallel=True, fastmath=True)
def resample(image, affine, out):
    """Cubic B-spline values of image (y, x), given as coefficients, on out (column, row); 0 outside the frame.

    affine (2, 3): x and y in the image are affine[0] and affine[1] times (column, row, 1). Replaces what is in out.
    """
    for p in numba.prange(out.shape[0]):
        for q in range(out.shape[1]):
            x = affine[0, 0] * p + affine[0, 1] * q + affine[0, 2]
            y = affine[1, 0] * p + affine[1, 1] * q + affine[1, 2]
            out[p, q] = _spline_value(image, x, y)


@numba.njit(cache=True, parallel=True, fastmath=True)
def resample_displaced(image, affine, nodes, out):
    """As `resample`, x and y moved by nodes (node, node, 2): given at every NODE_STEP-th column and row."""
    columns, rows = nodes.shape[0], nodes.shape[1]
    for p in numba.prange(out.shape[0]):
        n = min(p // NODE_STEP, max(columns - 2, 0))
        f = p / NODE_STEP - n
        line = (1 - f) * nodes[n] + f * nodes[min(n + 1, columns - 1)]
        for q in range(out.shape[1]):
            m = min(q // NODE_STEP, max(rows - 2, 0))
            g = q / NODE_STEP - m
            after = min(m + 1, rows - 1)
            x = affine[0, 0] * p + affine[0, 1] * q + affine[0, 2] + (1 - g) * line[m, 0] + g * line[after, 0]
            y = affine[1, 0] * p + affine[1, 1] * q + affine[1, 2] + (1 - g) * line[m, 1] + g * line[after, 1]
            out[p, q] = _spline_value(image, x, y)
