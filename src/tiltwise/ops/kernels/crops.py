"""Windows cut from an image, and points read off their spectra, compiled; plain twins in ops/particles/images.py."""

import numba
import numpy as np


@numba.njit(parallel=True, cache=True)
def cut_windows_compiled(image: np.ndarray, corner: np.ndarray, windows: np.ndarray) -> None:
    """windows (particle, n, n) of image (y, x), their first pixels at corner (particle, 2) x, y; 0 beyond the image."""
    height, width = image.shape
    size = windows.shape[1]
    for p in numba.prange(len(corner)):
        left, top = corner[p, 0], corner[p, 1]
        first, last = min(max(-left, 0), size), max(min(width - left, size), 0)
        for y in range(size):
            row = top + y
            if row < 0 or row >= height or last <= first:
                windows[p, y, :] = 0.0
                continue
            windows[p, y, :first] = 0.0
            windows[p, y, first:last] = image[row, left + first : left + last]
            windows[p, y, last:] = 0.0


@numba.njit(parallel=True, cache=True)
def read_points_compiled(
    spectrum: np.ndarray, row: np.ndarray, column: np.ndarray, down: np.ndarray, across: np.ndarray, values: np.ndarray
) -> None:
    """values (particle, point): spectrum (particle, y, x) at points, by down (particle, y), across (particle, x)."""
    for p in numba.prange(len(spectrum)):
        for i in range(len(row)):
            r, c = row[i], column[i]
            values[p, i] = spectrum[p, r, c] * (down[p, r] * across[p, c])
