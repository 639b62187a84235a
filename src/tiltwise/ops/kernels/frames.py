"""Agreement of images of particles in movie frames with a model that is shifted from frame to frame: ops/frames."""

import numba
import numpy as np


@numba.njit(inline="always")
def _fill_phases(across, down, x, y):
    """exp(i k x) for k = 0, 1 ... and exp(i k y) for k = -radius ... radius."""
    radius = len(across) - 1
    for k in range(radius + 1):
        across[k] = np.exp(1j * k * x)
    for k in range(-radius, radius + 1):
        down[k + radius] = np.exp(1j * k * y)


@numba.njit(inline="always")
def _agree(image, model, points, shift, waves, terms):
    """Fill terms (3,) of one particle in one frame, from image and model (point,); waves: room for the phases."""
    across, down = waves
    radius = len(across) - 1
    _fill_phases(across, down, shift[0], shift[1])
    total, slope_x, slope_y = 0.0, 0.0, 0.0
    for n in range(len(points)):
        kx, ky = points[n, 0], points[n, 1]
        seen, m = image[n] * across[kx] * down[ky + radius], model[n]
        total += seen.real * m.real + seen.imag * m.imag
        turn = seen.real * m.imag - seen.imag * m.real  # Im(X* m)
        slope_x += kx * turn
        slope_y += ky * turn
    terms[0], terms[1], terms[2] = total, slope_x, slope_y


@numba.njit(cache=True, fastmath=True, parallel=True)
def shifted_agreement(data, model, points, shifts, terms):
    """Fill terms (frame, particle, 3): Σ Re(X* m exp(-i k·t)) over the points, and its derivatives by t, x and y.

    data (frame, particle, point) complex64, model (particle, point) complex64, points (point, 2) int64 of kx >= 0,
    shifts t (frame, particle, 2) float64 in radians per unit of frequency.
    """
    frames, particles = data.shape[:2]
    radius = int(np.abs(points).max())
    for fp in numba.prange(frames * particles):
        f, p = fp // particles, fp % particles
        waves = np.empty(radius + 1, np.complex64), np.empty(2 * radius + 1, np.complex64)
        _agree(data[f, p], model[p], points, shifts[f, p], waves, terms[f, p])


@numba.njit(cache=True, fastmath=True)
def shifted_agreement_alone(data, model, points, shifts, terms):
    """The same in one thread: for so little that threads would wait for each other longer than they work.

    Where more programs run than there are cores such waits were most of the time. Which of the two is taken goes by the
    size of the data alone, so that results do not depend on the number of threads.
    """
    radius = int(np.abs(points).max())
    waves = np.empty(radius + 1, np.complex64), np.empty(2 * radius + 1, np.complex64)
    for f in range(data.shape[0]):
        for p in range(data.shape[1]):
            _agree(data[f, p], model[p], points, shifts[f, p], waves, terms[f, p])


@numba.njit(cache=True, fastmath=True, parallel=True)
def shell_agreement(data, model, points, shells, shifts, sums):
    """Fill sums (frame, shell) float64: Σ Re(X* m exp(-i k·t)) over particles, and over the points of each shell.

    As `shifted_agreement`; shells (point,) int64 says to which shell each point counts.
    """
    frames, particles, number = data.shape
    radius = int(np.abs(points).max())
    for f in numba.prange(frames):
        across, down = np.empty(radius + 1, np.complex64), np.empty(2 * radius + 1, np.complex64)
        sums[f] = 0.0
        for p in range(particles):
            _fill_phases(across, down, shifts[f, p, 0], shifts[f, p, 1])
            for n in range(number):
                seen = data[f, p, n] * across[points[n, 0]] * down[points[n, 1] + radius]
                m = model[p, n]
                sums[f, shells[n]] += seen.real * m.real + seen.imag * m.imag
