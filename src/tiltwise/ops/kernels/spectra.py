"""Power of complex spectra gathered into bins, and the pattern of Thon rings; plain twins in `ops.thon_rings.spectra`
and `ops.thon_rings.model`."""

import math

import numba
import numpy as np


@numba.njit(parallel=True, cache=True)
def add_powers(
    spectrum: np.ndarray, pixel: np.ndarray, index: np.ndarray, weight: np.ndarray, total: np.ndarray
) -> None:
    """Add weight |spectrum|² of the pixels (pixel,) of each patch to total (patch, bin) at index.

    spectrum (patch, y · x) complex64. Each patch has its own thread, so that sums do not depend on their number.
    """
    for p in numba.prange(spectrum.shape[0]):
        for j in range(len(pixel)):
            value = spectrum[p, pixel[j]]
            total[p, index[j]] += weight[j] * (value.real * value.real + value.imag * value.imag)


@numba.njit(parallel=True, cache=True)
def fill_pattern(
    twice_per_defocus: np.ndarray,
    rest: np.ndarray,
    lag_per_defocus: np.ndarray,
    defocus: np.ndarray,
    curve: np.ndarray,
    pattern: np.ndarray,
    slope: np.ndarray,
) -> None:
    """Fill pattern and slope: - c cos 2χ and its derivative by defocus (row, point), c held.

    2χ = twice_per_defocus · defocus + rest, both (point,); c is the square of curve, linear between whole px, at
    lag_per_defocus · defocus. pattern and slope are (row, point).
    """
    last = len(curve) - 1
    for r in numba.prange(defocus.shape[0]):
        for j in range(defocus.shape[1]):
            value = defocus[r, j]
            place = min(abs(lag_per_defocus[j] * value), last - 0.001)
            left = int(place)
            contrast = curve[left] + (place - left) * (curve[left + 1] - curve[left])
            contrast *= contrast
            twice = twice_per_defocus[j] * value + rest[j]
            pattern[r, j] = -contrast * math.cos(twice)
            slope[r, j] = contrast * twice_per_defocus[j] * math.sin(twice)
