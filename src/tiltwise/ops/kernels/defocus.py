"""Log likelihood of images over a grid of defocus: kernel of ops/defocus_on_images.py, beside its plain twin there."""

import numba
import numpy as np


@numba.njit(cache=True, fastmath=True, parallel=True)
def defocus_profile(cross, power, phase, turn, count, profile):
    """Add Σ_pn [-sin(χ + jδ) cross - sin²(χ + jδ) power / 2] for j = -count ... count to profile (tilt, 2 count + 1).

    cross, power, phase (χ at no change) are (particle, tilt, point); turn (point,) is δ, radians a step.
    """
    for t in numba.prange(cross.shape[1]):
        total = np.zeros(2 * count + 1)
        for n in range(cross.shape[2]):
            c1, s1 = np.cos(turn[n]), np.sin(turn[n])
            for p in range(cross.shape[0]):
                z, d = cross[p, t, n], power[p, t, n]
                if d == 0.0:
                    continue
                first = phase[p, t, n] - count * turn[n]
                c, s = np.cos(first), np.sin(first)
                for j in range(2 * count + 1):
                    total[j] -= s * (z + 0.5 * s * d)
                    c, s = c * c1 - s * s1, s * c1 + c * s1
        for j in range(2 * count + 1):
            profile[t, j] += total[j]
