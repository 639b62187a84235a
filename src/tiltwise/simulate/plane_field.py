"""A cheaper slab of random matter: the image of the whole depth at once, in strips of one defocus.

The layers of a slab are independent, so the powers of their images add up. With path t / cos θ and the middle plane at
defocus Δz(u) the power of the contrast at u is
    path · M(k) · ∫ sin² χ(k; Δz + z) dz / path = path · M(k) · ½ [1 - sinc(λ k² path) cos 2χ(k; Δz(u))],
M as simulate.slab_field has it. One Gaussian random field for each of a few defoci, blended across the strips between
them, has that power everywhere, at a fraction of the cost of a field for each layer of depth.

The sign of depth is written out here and shares no code with the fits: of the level plane z = 0, turned by Ry(θ) and
then Rz(φ), the point seen at u' = (x, y) from image centre and shift lies at z = -(x cos φ + y sin φ) tan θ.
"""

import math
from functools import partial

import numpy as np
import torch

from tiltwise.data.tilt_series import TiltSeries
from tiltwise.ops.ctf import electron_wavelength
from tiltwise.params.simulate import SimulateParams
from tiltwise.simulate.slab_field import add_spread, delocalisation, electrons_reaching, matter_power_on_grid

_STEP = 150.0  # Å between defoci; blending two of them costs the rings 5 % at 5 Å, 1 % at 8 Å


def plane_contrast(
    series: TiltSeries, params: SimulateParams, protein_fraction: float, tilt: int, rng: np.random.Generator
) -> np.ndarray:
    """(y, x) float32 contrast of one tilt of a level slab through the origin, √DQE on it."""
    reach = delocalisation(series, params, tilt)
    defocus = float(series.ctf.mean_defocus[tilt]) + series.defocus_handedness * _depth(series, params, tilt, reach)
    levels = np.linspace(defocus.min(), defocus.max(), 1 + math.ceil(np.ptp(defocus) / _STEP))
    step = float(levels[1] - levels[0]) if len(levels) > 1 else 1.0  # one level at zero tilt
    ends = [(defocus.min(axis), defocus.max(axis)) for axis in (1, 0)]
    contrast = np.zeros(defocus.shape, dtype=np.float32)
    for level in levels:
        box = tuple(_reached(low, high, level, step) for low, high in ends)
        share = np.sqrt(np.clip(1 - np.abs(defocus[box] - level) / step, 0, 1), dtype=np.float32)
        matter = share * rng.standard_normal(share.shape, dtype=np.float32)
        add_spread(
            contrast, box, partial(_image, series, params, protein_fraction, (tilt, float(level))), matter, reach
        )
    return contrast[reach:-reach, reach:-reach]


def _depth(series: TiltSeries, params: SimulateParams, tilt: int, reach: int) -> np.ndarray:
    """(y, x) Å, of the field and `reach` px beyond."""
    geometry = series.geometry
    if geometry.x_tilt[tilt] != 0:
        raise ValueError(f"{series.name}: a level slab in strips knows no x-tilt, {geometry.x_tilt[tilt]:g}° is given")
    axis = (np.arange(-reach, params.image_size + reach) - params.image_size // 2) * params.pixel_size
    phi, theta = (math.radians(float(angle[tilt])) for angle in (geometry.tilt_axis_angle, geometry.tilt_angle))
    x, y = axis - geometry.shift[tilt, 0], (axis - geometry.shift[tilt, 1])[:, None]
    return -(x * math.cos(phi) + y * math.sin(phi)) * math.tan(theta)


def _reached(low: np.ndarray, high: np.ndarray, level: float, step: float) -> slice:
    """The lines, whose values lie between low and high, that come within a step of a level."""
    lines = np.flatnonzero((low < level + step) & (high > level - step))
    return slice(lines[0], lines[-1] + 1)


def _image(
    series: TiltSeries,
    params: SimulateParams,
    protein_fraction: float,
    strip: tuple[int, float],
    matter: torch.Tensor,
) -> torch.Tensor:
    """(y, x) contrast of white matter in a slab whose middle is at one defocus; strip is tilt and defocus, Å.

    With k² cos 2(az - az0) = (kx² - ky²) cos 2az0 + 2 kx ky sin 2az0 no azimuth is needed.
    """
    tilt, defocus = strip
    ky = torch.fft.fftfreq(matter.shape[0], params.pixel_size)[:, None]
    kx = torch.fft.rfftfreq(matter.shape[1], params.pixel_size)
    square = kx**2 + ky**2
    half = float(series.ctf.defocus_u[tilt] - series.ctf.defocus_v[tilt]) / 2
    twice = 2 * math.radians(float(series.ctf.astigmatism_angle[tilt]))
    astigmatic = half * ((kx**2 - ky**2) * math.cos(twice) + 2 * math.sin(twice) * kx * ky)
    wavelength = electron_wavelength(series.optics.voltage)
    cs = series.optics.spherical_aberration * 1e7
    chi = math.pi * wavelength * (astigmatic + square * (defocus - 0.5 * wavelength**2 * cs * square))
    path = electrons_reaching(series, params, tilt)[1]
    layers = torch.sinc(wavelength * path * square)
    rings = 0.5 * (1 - layers * torch.cos(2 * chi + 2 * math.asin(series.optics.amplitude_contrast)))
    power = matter_power_on_grid(series, params, protein_fraction, tilt, square.sqrt())
    transfer = (power * path * rings).clamp_min(0).sqrt() / params.pixel_size
    return torch.fft.irfft2(torch.fft.rfft2(matter) * transfer, s=matter.shape)
