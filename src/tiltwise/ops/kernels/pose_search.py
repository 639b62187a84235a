"""Scores of many shifts gathered for each rotation: kernel of ops/poses/search.py."""

import numba
import numpy as np

_TILE = 256  # rotations whose scores of all shifts stay in the cache between two passes


@numba.njit(parallel=True, fastmath=True, cache=True)
def gather_shifts(
    product: np.ndarray, norm: np.ndarray, score: np.ndarray, index: np.ndarray, mass: np.ndarray
) -> None:
    """Fill score, index and mass (particle, rotation) from product (particle, shift, rotation): see its plain twin.

    Every tile of rotations of a particle is one thread's, so that sums do not depend on their number.
    """
    particles, shifts, rotations = product.shape
    tiles = (rotations + _TILE - 1) // _TILE
    for job in numba.prange(particles * tiles):
        p, first = job // tiles, job % tiles * _TILE
        number = min(first + _TILE, rotations) - first
        highest, where = product[p, 0, first : first + number].copy(), np.zeros(number, np.int32)
        for s in range(1, shifts):
            row = product[p, s, first : first + number]
            for r in range(number):
                higher = row[r] > highest[r]
                highest[r] = row[r] if higher else highest[r]
                where[r] = s if higher else where[r]
        half, top = np.empty(number, np.float32), np.empty(number, np.float32)
        for r in range(number):
            n = norm[p, first + r]
            half[r] = np.float32(0.5) / (n * n)
            top[r] = half[r] * max(highest[r], np.float32(0)) ** 2
        total = np.zeros(number, np.float32)
        for s in range(shifts):
            row = product[p, s, first : first + number]
            for r in range(number):
                total[r] += np.exp(half[r] * max(row[r], np.float32(0)) ** 2 - top[r])
        for r in range(number):
            score[p, first + r] = highest[r] / norm[p, first + r]
            index[p, first + r] = where[r]
            mass[p, first + r] = top[r] + np.log(total[r])
