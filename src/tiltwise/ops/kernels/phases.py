"""Products of complex rows, compiled: kernel of ops/steady.py."""

import numba
import numpy as np


@numba.njit(parallel=True, cache=True)
def multiply_rows(first: np.ndarray, second: np.ndarray, result: np.ndarray) -> None:
    """Fill result (a, b, n) with first · second, both (a, b, n). A row is one thread's, its tail always the same."""
    rows = result.shape[1]
    for job in numba.prange(result.shape[0] * rows):
        i, j = job // rows, job % rows
        for n in range(result.shape[2]):
            result[i, j, n] = first[i, j, n] * second[i, j, n]
