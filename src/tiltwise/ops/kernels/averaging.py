"""Shell means and the Wiener division of an accumulator: kernels of ops/particles/averaging.py, with their twins
there."""

import numba
import numpy as np


@numba.njit(cache=True, parallel=True)
def shell_sums(denominator, plane, step, last, sums, counts):
    """Fill sums and counts (z, shell) with the denominator over shells |k| · box of each z; plane (z, y) is its x = 0.

    Samples beyond shell `last` are left out. Rows by z, so that the bits do not depend on the number of threads.
    """
    centre = denominator.shape[0] // 2
    for z in numba.prange(denominator.shape[0]):
        for y in range(denominator.shape[1]):
            across = (z - centre) ** 2 + (y - centre) ** 2
            for x in range(denominator.shape[2]):
                radius = np.sqrt(across + x * x) / step
                if radius <= last + 0.5:
                    shell = min(int(np.rint(radius)), last)
                    sums[z, shell] += plane[z, y] if x == 0 else denominator[z, y, x]
                    counts[z, shell] += 1


@numba.njit(cache=True, parallel=True)
def divide(numerator, denominator, planes, step, factor, floor, result):
    """Fill result (z, y, x) complex64 with numerator · factor / (denominator + floor), factor and floor (shell,).

    planes: numerator and denominator (z, y) at x = 0. Beyond the last shell, and where factor is 0, the result is 0.
    """
    centre, last = denominator.shape[0] // 2, len(factor) - 1
    for z in numba.prange(denominator.shape[0]):
        for y in range(denominator.shape[1]):
            across = (z - centre) ** 2 + (y - centre) ** 2
            for x in range(denominator.shape[2]):
                radius = np.sqrt(across + x * x) / step
                value = 0j
                if radius <= last + 0.5:
                    shell = min(int(np.rint(radius)), last)
                    above, below = numerator[z, y, x], denominator[z, y, x]
                    if x == 0:
                        above, below = planes[0][z, y], planes[1][z, y]
                    if factor[shell] > 0:
                        value = above * factor[shell] / max(below + floor[shell], 1e-30)
                result[z, y, x] = value
