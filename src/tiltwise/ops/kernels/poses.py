"""Agreement of particle images with slices of a reference, and its derivatives: kernel of ops/pose_refinement.py."""

import numba
import numpy as np

TERMS = 22  # per particle and tilt: see ops/pose_refinement.py, slice_terms


@numba.njit(cache=True, fastmath=True, parallel=True)
def slice_terms(grid, step, data, transfer, rotations, points, poses, shifts, period, terms):
    """Fill terms (particle, tilt, 22); data (particle, tilt, point), shifts (particle, tilt, 2), period box · pixel, Å.

    Turning the reference by w (right-handed, about its own axes) changes the slice by w · (grad V x k); moving the
    particle by (x, y) in the image multiplies it by exp(-2 pi i k·(x, y)).
    """
    centre, last, radius = grid.shape[0] // 2, grid.shape[2] - 2, int(np.abs(points).max())
    one = np.float32(1.0)
    for p in numba.prange(data.shape[0]):
        columns = np.empty(radius + 1, np.complex64)
        rows = np.empty(2 * radius + 1, np.complex64)
        total = np.empty(TERMS, np.float32)
        for t in range(data.shape[1]):
            m = rotations[t] @ poses[p]
            unit = 2.0 * np.pi / period
            for k in range(radius + 1):
                columns[k] = np.exp(1j * unit * k * shifts[p, t, 0])
            for k in range(-radius, radius + 1):
                rows[k + radius] = np.exp(1j * unit * k * shifts[p, t, 1])
            total[:] = 0.0
            for n in range(data.shape[2]):
                a = transfer[p, t, n]
                if a == 0.0:
                    continue
                kx, ky = points[n, 0], points[n, 1]
                x = step * (kx * m[0, 0] + ky * m[1, 0])
                y = step * (kx * m[0, 1] + ky * m[1, 1])
                z = step * (kx * m[0, 2] + ky * m[1, 2])
                back = data[p, t, n] * columns[int(kx)] * rows[int(ky) + radius]
                observed_r, observed_i = back.real, back.imag
                ux, uy = np.float32(-unit * kx), np.float32(-unit * ky)
                if x < 0.0:  # the mirror image: everything conjugate
                    x, y, z, observed_i, ux, uy = -x, -y, -z, -observed_i, -ux, -uy
                x0, y0, z0 = int(x), int(np.floor(y)), int(np.floor(z))
                if x0 > last or y0 < -centre or y0 >= centre or z0 < -centre or z0 >= centre:
                    continue
                fx, fy, fz = np.float32(x - x0), np.float32(y - y0), np.float32(z - z0)
                zi, yi = z0 + centre, y0 + centre
                g000, g001 = grid[zi, yi, x0], grid[zi, yi, x0 + 1]
                g010, g011 = grid[zi, yi + 1, x0], grid[zi, yi + 1, x0 + 1]
                g100, g101 = grid[zi + 1, yi, x0], grid[zi + 1, yi, x0 + 1]
                g110, g111 = grid[zi + 1, yi + 1, x0], grid[zi + 1, yi + 1, x0 + 1]
                d00, d01, d10, d11 = g001 - g000, g011 - g010, g101 - g100, g111 - g110
                c00, c01, c10, c11 = g000 + fx * d00, g010 + fx * d01, g100 + fx * d10, g110 + fx * d11
                e0, e1 = c01 - c00, c11 - c10
                b0, b1 = c00 + fy * e0, c10 + fy * e1
                value = a * (b0 + fz * (b1 - b0))
                dz = a * (b1 - b0)
                dy = a * (e0 + fz * (e1 - e0))
                dx = a * ((one - fz) * (d00 + fy * (d01 - d00)) + fz * (d10 + fy * (d11 - d10)))
                vr, vi = value.real, value.imag
                xf, yf, zf = np.float32(x), np.float32(y), np.float32(z)
                r0, i0 = dy.real * zf - dz.real * yf, dy.imag * zf - dz.imag * yf
                r1, i1 = dz.real * xf - dx.real * zf, dz.imag * xf - dx.imag * zf
                r2, i2 = dx.real * yf - dy.real * xf, dx.imag * yf - dy.imag * xf
                er, ei = observed_r - vr, observed_i - vi
                power = vr * vr + vi * vi
                total[0] += observed_r * vr + observed_i * vi
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
            for j in range(TERMS):
                terms[p, t, j] = total[j]
