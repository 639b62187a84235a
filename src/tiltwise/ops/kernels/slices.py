"""Slices through an oversampled spectrum, on the CPU: the numba kernels beside the plain functions of
ops/particles/slices.py.

A grid is (2r + 3, 2r + 3, r + 2) over z, y, x with the origin at (r + 1, r + 1, 0) and x >= 0; the other half is the
conjugate of its mirror image. Sums run in a fixed order: the same input gives the same bits for any number of threads.
"""

import numba
import numpy as np


@numba.njit(inline="always")
def _place(point, rotation, step):
    """Position of a point of a slice in the grid, turned into x >= 0; the last value is -1 where it was mirrored."""
    kx, ky, kz = point[0], point[1], point[2]
    x = step * (kx * rotation[0, 0] + ky * rotation[1, 0] + kz * rotation[2, 0])
    y = step * (kx * rotation[0, 1] + ky * rotation[1, 1] + kz * rotation[2, 1])
    z = step * (kx * rotation[0, 2] + ky * rotation[1, 2] + kz * rotation[2, 2])
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
            x, y, z, sign = _place(points[n], rotation, step)
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
def insert(values, weights, rotations, points, step, sums):
    """Add values and weights (slice, point) to sums (group, z, y, x, 3): real part, imaginary part, weight.

    The slices are cut into as many contiguous runs as there are groups; each group is filled by one thread in order.
    """
    groups, centre, last = sums.shape[0], sums.shape[1] // 2, sums.shape[3] - 2
    for g in numba.prange(groups):
        for s in range(g * len(rotations) // groups, (g + 1) * len(rotations) // groups):
            rotation = rotations[s]
            for n in range(len(points)):
                weight = weights[s, n]
                if weight == 0.0:
                    continue
                x, y, z, sign = _place(points[n], rotation, step)
                x0, y0, z0 = int(x), int(np.floor(y)), int(np.floor(z))
                if x0 > last or y0 < -centre or y0 >= centre or z0 < -centre or z0 >= centre:
                    continue
                fx, fy, fz = np.float32(x - x0), np.float32(y - y0), np.float32(z - z0)
                real, imaginary = values[s, n].real, np.float32(sign) * values[s, n].imag
                for dz in range(2):
                    wz = fz if dz else np.float32(1.0) - fz
                    for dy in range(2):
                        wzy = wz * (fy if dy else np.float32(1.0) - fy)
                        for dx in range(2):
                            w = wzy * (fx if dx else np.float32(1.0) - fx)
                            voxel = sums[g, z0 + dz + centre, y0 + dy + centre, x0 + dx]
                            voxel[0] += w * real
                            voxel[1] += w * imaginary
                            voxel[2] += w * weight
