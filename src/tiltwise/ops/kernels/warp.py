"""An image resampled along a smooth displacement, by cubic B-splines; the plain twin is scipy's map_coordinates."""

import numba
import numpy as np


@numba.njit(cache=True, fastmath=True)
def add_warped(coefficients, nodes_x, nodes_y, step, total):
    """Add to total (y, x) the spline at (x + dx, y + dy) px, with coefficients (y, x) float32 that repeat at the edges.

    nodes_x, nodes_y (j, i) float32 hold dx, dy at pixels (j · step, i · step); between them it is bilinear. The nodes
    reach beyond the last pixel.
    """
    height, width = total.shape
    for iy in range(height):
        jy = iy // step
        fy = np.float32((iy - jy * step) / step)
        for ix in range(width):
            jx = ix // step
            fx = np.float32((ix - jx * step) / step)
            a, b = (1 - fy) * (1 - fx), (1 - fy) * fx
            c, d = fy * (1 - fx), fy * fx
            dx = a * nodes_x[jy, jx] + b * nodes_x[jy, jx + 1] + c * nodes_x[jy + 1, jx] + d * nodes_x[jy + 1, jx + 1]
            dy = a * nodes_y[jy, jx] + b * nodes_y[jy, jx + 1] + c * nodes_y[jy + 1, jx] + d * nodes_y[jy + 1, jx + 1]
            # whole and fraction of the displacement, not of the position, which float32 would round
            wx, wy = np.int64(np.floor(dx)), np.int64(np.floor(dy))
            tx, ty = dx - np.float32(wx), dy - np.float32(wy)
            ux, uy = 1 - tx, 1 - ty
            ax = (ux * ux * ux / 6, (3 * tx * tx * tx - 6 * tx * tx + 4) / 6, (3 * ux * ux * ux - 6 * ux * ux + 4) / 6)
            ay = (uy * uy * uy / 6, (3 * ty * ty * ty - 6 * ty * ty + 4) / 6, (3 * uy * uy * uy - 6 * uy * uy + 4) / 6)
            zx, zy = tx * tx * tx / 6, ty * ty * ty / 6
            first_x, first_y = ix + wx - 1, iy + wy - 1
            value = np.float32(0)
            inside = first_x >= 0 and first_x + 3 < width and first_y >= 0 and first_y + 3 < height
            for m in range(4):
                row = first_y + m if inside else (first_y + m) % height
                k0, k1, k2, k3 = first_x, first_x + 1, first_x + 2, first_x + 3
                if not inside:
                    k0, k1, k2, k3 = k0 % width, k1 % width, k2 % width, k3 % width
                line = (
                    ax[0] * coefficients[row, k0]
                    + ax[1] * coefficients[row, k1]
                    + ax[2] * coefficients[row, k2]
                    + zx * coefficients[row, k3]
                )
                value += (ay[m] if m < 3 else zy) * line
            total[iy, ix] += value
