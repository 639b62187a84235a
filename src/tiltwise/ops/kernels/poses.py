"""Agreement of particle images with slices of a reference, and its derivatives: kernel of ops/poses/refinement.py."""

import numba
import numpy as np

TERMS = 22  # per particle and tilt: see ops/poses/refinement.py, slice_terms


@numba.njit(inline="always")
def _value_and_slope(grid, xi, yi, zi, fx, fy, fz):
    """Trilinear value in the cell at indices xi, yi, zi, and its slope along x, y, z."""
    one = np.float32(1.0)
    g000, g001 = grid[zi, yi, xi], grid[zi, yi, xi + 1]
    g010, g011 = grid[zi, yi + 1, xi], grid[zi, yi + 1, xi + 1]
    g100, g101 = grid[zi + 1, yi, xi], grid[zi + 1, yi, xi + 1]
    g110, g111 = grid[zi + 1, yi + 1, xi], grid[zi + 1, yi + 1, xi + 1]
    d00, d01, d10, d11 = g001 - g000, g011 - g010, g101 - g100, g111 - g110
    c00, c01, c10, c11 = g000 + fx * d00, g010 + fx * d01, g100 + fx * d10, g110 + fx * d11
    e0, e1 = c01 - c00, c11 - c10
    b0, b1 = c00 + fy * e0, c10 + fy * e1
    along_x = (one - fz) * (d00 + fy * (d01 - d00)) + fz * (d10 + fy * (d11 - d10))
    return b0 + fz * (b1 - b0), along_x, e0 + fz * (e1 - e0), b1 - b0


@numba.njit(inline="always")
def _add(total, observed, value, turn0, turn1, turn2, ux, uy):
    """Add one frequency: observed, model value, its derivatives by the turn; shifting by x, y gives i ux V, i uy V."""
    vr, vi = value.real, value.imag
    r0, i0, r1, i1, r2, i2 = turn0.real, turn0.imag, turn1.real, turn1.imag, turn2.real, turn2.imag
    er, ei = observed.real - vr, observed.imag - vi
    power = vr * vr + vi * vi
    total[0] += observed.real * vr + observed.imag * vi
    total[1] += power
    total[2] += r0 * er + i0 * ei
    total[3] += r1 * er + i1 * ei
    total[4] += r2 * er + i2 * ei
    slope = ei * vr - er * vi  # Re(conj(i u V) e) / u
    total[5] += ux * slope
    total[6] += uy * slope
    total[7] += r0 * r0 + i0 * i0
    total[8] += r0 * r1 + i0 * i1
    total[9] += r0 * r2 + i0 * i2
    total[10] += r1 * r1 + i1 * i1
    total[11] += r1 * r2 + i1 * i2
    total[12] += r2 * r2 + i2 * i2
    q0, q1, q2 = i0 * vr - r0 * vi, i1 * vr - r1 * vi, i2 * vr - r2 * vi
    total[13] += ux * q0
    total[14] += uy * q0
    total[15] += ux * q1
    total[16] += uy * q1
    total[17] += ux * q2
    total[18] += uy * q2
    total[19] += ux * ux * power
    total[20] += ux * uy * power
    total[21] += uy * uy * power


@numba.njit(cache=True, fastmath=True, parallel=True)
def slice_terms(grid, data, transfer, rotations, points, poses, shifts, terms):
    """Fill terms (particle, tilt, 22); data and transfer (particle, tilt, point).

    poses (particle, 3, 3) are rotations times grid steps per frequency; shifts (particle, tilt, 2) are in radians per
    frequency. Turning the reference by w (right-handed, about its own axes) changes the slice by w · (grad V x k);
    moving the particle by (x, y) in the image multiplies it by exp(-i k·(x, y)).
    """
    centre, last, radius = grid.shape[0] // 2, grid.shape[2] - 2, int(np.abs(points).max())
    for p in numba.prange(data.shape[0]):
        columns = np.empty(radius + 1, np.complex64)
        rows = np.empty(2 * radius + 1, np.complex64)
        total = np.empty(TERMS, np.float32)
        for t in range(data.shape[1]):
            m = rotations[t] @ poses[p]
            for k in range(radius + 1):
                columns[k] = np.exp(1j * k * shifts[p, t, 0])
            for k in range(-radius, radius + 1):
                rows[k + radius] = np.exp(1j * k * shifts[p, t, 1])
            total[:] = 0.0
            for n in range(data.shape[2]):
                a = transfer[p, t, n]
                if a == 0.0:
                    continue
                kx, ky = points[n, 0], points[n, 1]
                x = kx * m[0, 0] + ky * m[1, 0]
                y = kx * m[0, 1] + ky * m[1, 1]
                z = kx * m[0, 2] + ky * m[1, 2]
                observed = data[p, t, n] * columns[int(kx)] * rows[int(ky) + radius]
                ux, uy = np.float32(-kx), np.float32(-ky)
                if x < 0.0:  # the mirror image: everything conjugate
                    x, y, z, observed, ux, uy = -x, -y, -z, observed.conjugate(), -ux, -uy
                x0, y0, z0 = int(x), int(np.floor(y)), int(np.floor(z))
                if x0 > last or y0 < -centre or y0 >= centre or z0 < -centre or z0 >= centre:
                    continue
                fx, fy, fz = np.float32(x - x0), np.float32(y - y0), np.float32(z - z0)
                v, dx, dy, dz = _value_and_slope(grid, x0, y0 + centre, z0 + centre, fx, fy, fz)
                xa, ya, za = a * np.float32(x), a * np.float32(y), a * np.float32(z)
                _add(total, observed, a * v, dy * za - dz * ya, dz * xa - dx * za, dx * ya - dy * xa, ux, uy)
            for j in range(TERMS):
                terms[p, t, j] = total[j]
