"""Small movies of known motion: a random texture, moved by a field, counted with shot noise."""

import numpy as np
from scipy.ndimage import map_coordinates, spline_filter


def texture(shape, pixel_size, rng, strength=60.0):
    """(y, x) contrast whose signal against the shot noise of 3 e⁻/Å² is strength · exp(-1500 k²)."""
    ky, kx = np.fft.fftfreq(shape[0], pixel_size)[:, None], np.fft.rfftfreq(shape[1], pixel_size)[None]
    power = strength * np.exp(-1500 * (ky**2 + kx**2)) / (3 * pixel_size**2)
    return np.fft.irfft2(np.fft.rfft2(rng.standard_normal(shape)) * np.sqrt(power), s=shape)


def make_movie(displacement, shape, pixel_size, exposure, seed=0, frames=6):
    """(frame, y, x) uint16 counts; displacement(frame, x, y) gives (..., 2) Å at x, y Å from the image centre."""
    rng = np.random.default_rng(seed)
    margin = 40
    scene = spline_filter(texture((shape[0] + 2 * margin, shape[1] + 2 * margin), pixel_size, rng))
    y, x = np.meshgrid(*((np.arange(n) - n // 2) * pixel_size for n in shape), indexing="ij")
    made = np.empty((frames, *shape), np.uint16)
    for frame in range(frames):
        moved = np.zeros((*shape, 2))
        for _ in range(4):  # what is seen at u lay at r = u - d(r)
            moved = displacement(frame, x - moved[..., 0], y - moved[..., 1])
        at = [(v - moved[..., c]) / pixel_size + n // 2 + margin for v, c, n in ((y, 1, shape[0]), (x, 0, shape[1]))]
        image = map_coordinates(scene, at, order=3, prefilter=False)
        made[frame] = rng.poisson(np.clip(exposure * pixel_size**2 * (1 + image), 0, None))
    return made
