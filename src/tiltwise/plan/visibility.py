"""How well a particle is seen in one image, before any averaging: its variance over that of the noise."""

import numpy as np
import torch
from scipy.special import j0, j1

from tiltwise.ops.ctf import ctf, electron_wavelength
from tiltwise.params.plan import PlanParams
from tiltwise.plan.detectors import quantum_efficiency
from tiltwise.plan.dose import damage_amplitude
from tiltwise.plan.geometry import path_length
from tiltwise.plan.prediction import interaction, lens_of, mean_free_path, mean_transfer, middle_defocus
from tiltwise.plan.scattering import ball_amplitude, inside_power, molecule_volume
from tiltwise.plan.schedule import Schedule


def image_snr(params: PlanParams, schedule: Schedule, pixel_size: float, power: np.ndarray | None = None) -> np.ndarray:
    """(tilt,) variance of a particle's image about its mean within the outline, over that of shot noise in a pixel.

    The particle is a ball of the molecule's volume with the inner structure of `scattering_power`, the image is
    low-passed to the Nyquist frequency of a pixel of this size (Å), at the middle defocus, which carries part of the
    inner structure out of the outline, by λ Δz k. power (k,) |F|² of the inner
    structure, Å², on `visible_frequencies(pixel_size)`, if known better.
    """
    k = visible_frequencies(pixel_size)
    q = damage_amplitude(schedule, k, params.voltage) * np.exp(-params.budget.b_factor * k**2 / 4)
    radius = (3 * molecule_volume(params.target) / (4 * np.pi)) ** (1 / 3)
    inner = inside_power(params.target, k) if power is None else power
    contrast = 4 * interaction(params.voltage) ** 2 * inner * q**2 * mean_transfer(params, schedule.tilt_angle, k)
    whole = (2 * j1(2 * np.pi * k * radius) / (2 * np.pi * k * radius)) ** 2  # of a field, the mean over the disc
    left = (1 - whole) * _overlap(electron_wavelength(params.voltage) * middle_defocus(params) * k / (2 * radius))
    signal = np.trapezoid(2 * np.pi * k * contrast * left, k, axis=1) / (np.pi * radius**2)
    signal = signal + _outline_variance(params, q, k, radius)
    path = path_length(schedule.tilt_angle, params.slab.thickness, params.slab.pretilt)
    counted = schedule.exposure * np.exp(-path / mean_free_path(params))
    noise = np.trapezoid(2 * np.pi * k / quantum_efficiency(params.detector, k, params.pixel_size), k) / counted
    return signal / noise


def visible_frequencies(pixel_size: float) -> np.ndarray:
    """(500,) 1/Å up to the Nyquist frequency of a pixel."""
    return np.linspace(1e-4, 1 / (2 * pixel_size), 500)


def _overlap(distance: np.ndarray) -> np.ndarray:
    """Part of a disc that another of the same size covers, centres apart by `distance` diameters."""
    d = np.minimum(distance, 1.0)
    return 2 / np.pi * (np.arccos(d) - d * np.sqrt(1 - d**2))


def _outline_variance(params: PlanParams, q: np.ndarray, k: np.ndarray, radius: float) -> np.ndarray:
    """(tilt,) variance over the disc of the contrast of the ball alone: its radial profile is a Hankel transform."""
    middle = torch.tensor(middle_defocus(params), dtype=torch.float64)
    transfer = 2 * interaction(params.voltage) * ctf(torch.as_tensor(k), middle, lens_of(params)).numpy()
    spectrum = q * transfer * ball_amplitude(params.target, k)
    r = (np.arange(200) + 0.5) / 200 * radius
    waves = 2 * np.pi * k[:, None] * j0(2 * np.pi * k[:, None] * r) * np.gradient(k)[:, None]
    profile, area = spectrum @ waves, r / r.sum()
    return (profile**2 * area).sum(axis=1) - (profile * area).sum(axis=1) ** 2
