"""Log likelihood of images over a grid of defocus: kernel of ops/polishing/defocus_on_images.py, beside its plain twin
there."""

import numba
import numpy as np


@numba.njit(cache=True, fastmath=True, parallel=True)
def defocus_profile(cross, power, phase, turn, count, sums):
    """Add Σ_pn -sin(χ + jδ) cross and Σ_pn sin²(χ + jδ) power for j = -count ... count to sums (2, tilt, 2 count + 1).

    cross, power, phase (χ at no change) are (particle, tilt, point); turn (point,) is δ, radians a step.
    """
    for t in numba.prange(cross.shape[1]):
        total = np.zeros((2, 2 * count + 1))
        for n in range(cross.shape[2]):
            c1, s1 = np.cos(turn[n]), np.sin(turn[n])
            for p in range(cross.shape[0]):
                z, d = cross[p, t, n], power[p, t, n]
                if d == 0.0:
                    continue
                first = phase[p, t, n] - count * turn[n]
                c, s = np.cos(first), np.sin(first)
                for j in range(2 * count + 1):
                    total[0, j] -= s * z
                    total[1, j] += s * s * d
                    c, s = c * c1 - s * s1, s * c1 + c * s1
        for j in range(2 * count + 1):
            sums[0, t, j] += total[0, j]
            sums[1, t, j] += total[1, j]
