"""Central slices through an oversampled spectrum, on the CPU: the numba kernels beside the plain functions of ops/slices.py.

A grid is (2r + 3, 2r + 3, r + 2) over z, y, x with the origin at (r + 1, r + 1, 0) and x >= 0; the other half is the
conjugate of its mirror image. Sums run in a fixed order, so the same input gives the same bits for any number of threads.
"""

import numba
import numpy as np


@numba.njit(inline="always")
def _place(kx, ky, rotation, step):
    """Position of the slice's point in the grid, turned into x >= 0; the last value is -1 where it was mirrored."""
    x = step * (kx * rotation[0, 0] + ky * rotation[1, 0])
    y = step * (kx * rotation[0, 1] + ky * rotation[1, 1])
    z = step * (kx * rotation[0, 2] + ky * rotation[1, 2])
    if x < 0.0:
        return -x, -y, -z, -1.0
    return x, y, z, 1.0


@numba.njit(cache=True, fastmath=True, parallel=True)
def extract(grid, rotations, points, step, result):
    """Read result (slice, point) from grid by trilinear interpolation; 0 beyond its edge."""
    centre = grid.shape[0] // 2
    last = grid.shape[2] - 2
    for s in numba.prange(len(rotations)):
        rotation = rotations[s]
        for n in range(len(points)):
            x, y, z, sign = _place(points[n, 0], points[n, 1], rotation, step)
            x0, y0, z0 = int(x), int(np.floor(y)), int(np.floor(z))
            if x0 > last or y0 < -centre or y0 >= centre or z0 < -centre or z0 >= centre:
                result[s, n] = 0.0
                continue
            fx, fy, fz = np.float32(x - x0), np.float32(y - y0), np.float32(z - z0)
            real, imaginary = np.float32(0.0), np.float32(0.0)
            for dz in range(2):
                wz = fz if dz else np.float32(1.0) - fz
                for dy in range(2):
                    wzy = wz * (fy if dy else np.float32(1.0) - fy)
                    a = grid[z0 + dz + centre, y0 + dy + centre, x0]
                    b = grid[z0 + dz + centre, y0 + dy + centre, x0 + 1]
                    real += wzy * (a.real + fx * (b.real - a.real))
                    imaginary += wzy * (a.imag + fx * (b.imag - a.imag))
            result[s, n] = complex(real, np.float32(sign) * imaginary)


@numba.njit(cache=True, fastmath=True, parallel=True)
def insert(values, weights, rotations, points, step, numerator, denominator):
    """Add values and weights (slice, point) to group g of numerator and denominator (group, z, y, x).

    The slices are cut into as many equal, contiguous runs as there are groups; each group is filled by one thread in order.
    """
    groups, centre, last = numerator.shape[0], numerator.shape[1] // 2, numerator.shape[3] - 2
    for g in numba.prange(groups):
        first, end = g * len(rotations) // groups, (g + 1) * len(rotations) // groups
        for s in range(first, end):
            rotation = rotations[s]
            for n in range(len(points)):
                weight = weights[s, n]
                if weight == 0.0:
                    continue
                x, y, z, sign = _place(points[n, 0], points[n, 1], rotation, step)
                x0, y0, z0 = int(x), int(np.floor(y)), int(np.floor(z))
                if x0 > last or y0 < -centre or y0 >= centre or z0 < -centre or z0 >= centre:
                    continue
                fx, fy, fz = np.float32(x - x0), np.float32(y - y0), np.float32(z - z0)
                value = values[s, n]
                value = complex(value.real, np.float32(sign) * value.imag)
                for dz in range(2):
                    wz = fz if dz else np.float32(1.0) - fz
                    for dy in range(2):
                        wzy = wz * (fy if dy else np.float32(1.0) - fy)
                        for dx in range(2):
                            w = wzy * (fx if dx else np.float32(1.0) - fx)
                            numerator[g, z0 + dz + centre, y0 + dy + centre, x0 + dx] += w * value
                            denominator[g, z0 + dz + centre, y0 + dy + centre, x0 + dx] += w * weight
