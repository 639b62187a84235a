"""Sums over the tilts whose central slices overlap at a frequency, for CPUs; plain twin in
ops/tomogram/slice_weights.py."""

import numba
import numpy as np


@numba.njit(cache=True, parallel=True, fastmath=True)
def overlap_sum(frequency, direction, sines, order, power, out):
    """out (y, x) = Σ_j max(0, 1 - |k·n| sines_j) power_j(|k|), j in order of growing sine.

    frequency = (ky, kx, step of the table); direction n (2,) x, y; power (tilt, step) at multiples of the step.
    """
    ky, kx, step = frequency
    last = power.shape[1] - 2
    for iy in numba.prange(len(ky)):
        for ix in range(len(kx)):
            across = np.float32(abs(kx[ix] * direction[0] + ky[iy] * direction[1]))
            place = np.sqrt(kx[ix] * kx[ix] + ky[iy] * ky[iy]) / step
            n = min(int(place), last)
            f = np.float32(min(place - n, 1.0))
            total = np.float32(0)
            for j in order:
                part = np.float32(1) - across * sines[j]
                if part <= 0:
                    break
                total += part * (power[j, n] + f * (power[j, n + 1] - power[j, n]))
            out[iy, ix] = total
