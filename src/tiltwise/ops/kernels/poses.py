"""Agreement of particle images with slices of a reference, and its derivatives: kernel of ops/poses/refinement.py.

Frequencies are taken in blocks. Each step writes what it makes of all frequencies of a block into rows of one buffer,
which stays in the first cache, so that every step is a loop over neighbours without branches: gathers and sums of many
frequencies at a time (twice as fast as all steps for one frequency after the other).
"""

import numba
import numpy as np

TERMS = 22  # per particle and tilt: see ops/poses/refinement.py, slice_terms
_BLOCK = 256  # frequencies
# Rows of the buffer: the model V, its derivatives by the turn, the image, the wave vector, where the frequency lies in
# its cell and, times the transfer, in the reference; the transfer, 1 in the reference or else 0, -1 where mirrored.
_V, _W, _X, _U, _CELL, _PLACE, _TRANSFER, _INSIDE, _MIRROR, _ROWS = 0, 2, 8, 10, 12, 15, 18, 19, 20, 21
_0, _1 = np.float32(0.0), np.float32(1.0)


@numba.njit(inline="always")
def _locate(block, corner, first, count, points, transfer, turned, layout):
    """Where frequencies lie in the reference: the corner of their cell (index into its real numbers), and the rest.

    points (2, point); turned (2, 3), rows 0 and 1 of the slice's rotation; of x < 0 the mirror image is taken. layout:
    the last cell along x, the index of the origin along y and z, and how far apart neighbours along y and z lie.
    """
    last, side, row, plane = layout
    for j in range(count):
        kx, ky = points[0, first + j], points[1, first + j]
        x = kx * turned[0, 0] + ky * turned[1, 0]
        y = kx * turned[0, 1] + ky * turned[1, 1]
        z = kx * turned[0, 2] + ky * turned[1, 2]
        sign = -_1 if x < _0 else _1
        x, y, z = x * sign, y * sign, z * sign
        x0, y0, z0 = np.floor(x), np.floor(y), np.floor(z)
        xi, yi, zi = np.int32(x0), np.int32(y0) + side, np.int32(z0) + side
        inside = (xi <= last) & (yi >= 0) & (yi < 2 * side) & (zi >= 0) & (zi < 2 * side)
        a = transfer[first + j] if inside else _0
        corner[j] = 2 * xi + yi * row + zi * plane if inside else np.int32(0)
        block[_CELL, j], block[_CELL + 1, j], block[_CELL + 2, j] = x - x0, y - y0, z - z0
        block[_PLACE, j], block[_PLACE + 1, j], block[_PLACE + 2, j] = a * x, a * y, a * z
        block[_TRANSFER, j], block[_INSIDE, j], block[_MIRROR, j] = a, _1 if inside else _0, sign
        block[_U, j], block[_U + 1, j] = -kx * sign, -ky * sign


@numba.njit(inline="always")
def _observe(block, first, count, image, column, row_of, waves_x, waves_y):
    """The image, moved by the shift whose phases waves_x and waves_y (2, frequency) hold along x and y."""
    for j in range(count):
        c, r = column[first + j], row_of[first + j]
        real = waves_x[0, c] * waves_y[0, r] - waves_x[1, c] * waves_y[1, r]
        imag = waves_x[0, c] * waves_y[1, r] + waves_x[1, c] * waves_y[0, r]
        own_real, own_imag = image[2 * (first + j)], image[2 * (first + j) + 1]
        inside = block[_INSIDE, j]
        block[_X, j] = (own_real * real - own_imag * imag) * inside
        block[_X + 1, j] = (own_real * imag + own_imag * real) * inside * block[_MIRROR, j]


@numba.njit(inline="always")
def _value_and_slope(grid, at, row, plane, fx, fy, fz):
    """Trilinear value of real or imaginary parts in the cell whose corner lies at `at`, and its slope along x, y, z."""
    g000, g001 = grid[at], grid[at + 2]
    g010, g011 = grid[at + row], grid[at + row + 2]
    g100, g101 = grid[at + plane], grid[at + plane + 2]
    g110, g111 = grid[at + plane + row], grid[at + plane + row + 2]
    d00, d01, d10, d11 = g001 - g000, g011 - g010, g101 - g100, g111 - g110
    c00, c01, c10, c11 = g000 + fx * d00, g010 + fx * d01, g100 + fx * d10, g110 + fx * d11
    e0, e1 = c01 - c00, c11 - c10
    b0, b1 = c00 + fy * e0, c10 + fy * e1
    x0, x1 = d00 + fy * (d01 - d00), d10 + fy * (d11 - d10)
    return b0 + fz * (b1 - b0), x0 + fz * (x1 - x0), e0 + fz * (e1 - e0), b1 - b0


@numba.njit(inline="always")
def _model(block, corner, count, grid, row, plane):
    """The slice under its transfer, and its derivatives by a turn w (right-handed, about the reference's own axes):
    w · (grad V x k)."""
    for part in range(2):
        for j in range(count):
            fx, fy, fz = block[_CELL, j], block[_CELL + 1, j], block[_CELL + 2, j]
            value, dx, dy, dz = _value_and_slope(grid, corner[j] + part, row, plane, fx, fy, fz)
            x, y, z = block[_PLACE, j], block[_PLACE + 1, j], block[_PLACE + 2, j]
            block[_V + part, j] = block[_TRANSFER, j] * value
            block[_W + part, j] = dy * z - dz * y
            block[_W + 2 + part, j] = dz * x - dx * z
            block[_W + 4 + part, j] = dx * y - dy * x


@numba.njit(inline="always")
def _add_gradient(total, block, count):
    """Add terms 0 to 6. Shifting by x, y multiplies V by i u·(x, y), so that Re(conj(i u V) e) = u Im(conj(V) e)."""
    cross, power, w0, w1, w2, x, y = _0, _0, _0, _0, _0, _0, _0
    for j in range(count):
        vr, vi, real, imag = block[_V, j], block[_V + 1, j], block[_X, j], block[_X + 1, j]
        er, ei = real - vr, imag - vi
        cross += real * vr + imag * vi
        power += vr * vr + vi * vi
        w0 += block[_W, j] * er + block[_W + 1, j] * ei
        w1 += block[_W + 2, j] * er + block[_W + 3, j] * ei
        w2 += block[_W + 4, j] * er + block[_W + 5, j] * ei
        slope = ei * vr - er * vi
        x += block[_U, j] * slope
        y += block[_U + 1, j] * slope
    for term, value in enumerate((cross, power, w0, w1, w2, x, y)):
        total[term] += value


@numba.njit(inline="always")
def _add_turns(total, block, count):
    """Add terms 7 to 12, the products of the derivatives by the turn."""
    xx, xy, xz, yy, yz, zz = _0, _0, _0, _0, _0, _0
    for j in range(count):
        xr, xi, yr, yi = block[_W, j], block[_W + 1, j], block[_W + 2, j], block[_W + 3, j]
        zr, zi = block[_W + 4, j], block[_W + 5, j]
        xx += xr * xr + xi * xi
        xy += xr * yr + xi * yi
        xz += xr * zr + xi * zi
        yy += yr * yr + yi * yi
        yz += yr * zr + yi * zi
        zz += zr * zr + zi * zi
    for term, value in enumerate((xx, xy, xz, yy, yz, zz)):
        total[7 + term] += value


@numba.njit(inline="always")
def _add_shifts(total, block, count):
    """Add terms 13 to 21, the products of the derivatives by the shift with those by the turn and with each other."""
    xx, xy, yx, yy, zx, zy, uu, uv, vv = _0, _0, _0, _0, _0, _0, _0, _0, _0
    for j in range(count):
        vr, vi, ux, uy = block[_V, j], block[_V + 1, j], block[_U, j], block[_U + 1, j]
        qx = block[_W + 1, j] * vr - block[_W, j] * vi
        qy = block[_W + 3, j] * vr - block[_W + 2, j] * vi
        qz = block[_W + 5, j] * vr - block[_W + 4, j] * vi
        power = vr * vr + vi * vi
        xx += ux * qx
        xy += uy * qx
        yx += ux * qy
        yy += uy * qy
        zx += ux * qz
        zy += uy * qz
        uu += ux * ux * power
        uv += ux * uy * power
        vv += uy * uy * power
    for term, value in enumerate((xx, xy, yx, yy, zx, zy, uu, uv, vv)):
        total[13 + term] += value


@numba.njit(inline="always")
def _fill_waves(waves, lowest, shift):
    """Phases exp(i k shift) as real and imaginary parts, k from `lowest` on."""
    for k in range(waves.shape[1]):
        waves[0, k], waves[1, k] = np.cos((k + lowest) * shift), np.sin((k + lowest) * shift)


@numba.njit(cache=True, fastmath=True, parallel=True)
def slice_terms(grid, data, transfer, rotations, points, poses, shifts, terms):
    """Fill terms (particle, tilt, 22); data and transfer (particle, tilt, point), grid complex64, C-contiguous.

    poses (particle, 3, 3) are rotations times grid steps per frequency; shifts (particle, tilt, 2) are in radians per
    frequency. Moving the particle by (x, y) in the image multiplies the slice by exp(-i k·(x, y)).
    """
    centre, last, radius = np.int32(grid.shape[0] // 2), np.int32(grid.shape[2] - 2), int(np.abs(points).max())
    row, plane = np.int32(2 * grid.shape[2]), np.int32(2 * grid.shape[1] * grid.shape[2])
    reals = grid.view(np.float32).ravel()
    wave = np.ascontiguousarray(points.T).astype(np.float32)
    column, row_of = points[:, 0].astype(np.int32), (points[:, 1] + radius).astype(np.int32)
    for p in numba.prange(data.shape[0]):
        waves_x, waves_y = np.empty((2, radius + 1), np.float32), np.empty((2, 2 * radius + 1), np.float32)
        block, corner = np.empty((_ROWS, _BLOCK), np.float32), np.empty(_BLOCK, np.int32)
        total = np.empty(TERMS, np.float32)
        for t in range(data.shape[1]):
            turned = (rotations[t] @ poses[p]).astype(np.float32)
            _fill_waves(waves_x, 0, shifts[p, t, 0])
            _fill_waves(waves_y, -radius, shifts[p, t, 1])
            image, amplitude = data[p, t].view(np.float32), transfer[p, t]
            total[:] = _0
            for first in range(0, data.shape[2], _BLOCK):
                count = min(_BLOCK, data.shape[2] - first)
                _locate(block, corner, first, count, wave, amplitude, turned, (last, centre, row, plane))
                _observe(block, first, count, image, column, row_of, waves_x, waves_y)
                _model(block, corner, count, reals, row, plane)
                _add_gradient(total, block, count)
                _add_turns(total, block, count)
                _add_shifts(total, block, count)
            for j in range(TERMS):
                terms[p, t, j] = total[j]
