"""The slab of random matter: its power spectrum is the one that was asked for, and it follows the local defocus."""

import math

import numpy as np
import pytest
import torch

from tiltwise.ops.ctf import ctf_phase, electron_wavelength
from tiltwise.ops.exposure import exposure_amplitude
from tiltwise.params.simulate import ErrorParams, SimulateParams, SpecimenParams
from tiltwise.simulate.acquisition import acquire
from tiltwise.simulate.detector import detector_response
from tiltwise.simulate.slab_field import image_slab, slab_contrast
from tiltwise.simulate.water import water_phase_spectrum

PARAMS = SimulateParams(
    pixel_size=3.0,
    image_size=256,
    tilt_max=60,
    tilt_step=30,
    handedness=-1,
    motion_b_factor=0.0,
    specimen=SpecimenParams(thickness=200.0),  # one layer at zero tilt
    errors=ErrorParams(shift_step=0, tilt_angle=0, tilt_axis_angle=0, tilt_axis_jitter=0, defocus=0, astigmatism=0),
)
FRACTION = 0.2


@pytest.fixture(scope="module")
def series():
    return acquire(PARAMS, "slab", np.random.default_rng(0))


def test_power_spectrum_of_the_untilted_slab(series):
    """4 [(γλ)² n Σf² t q² + P_ice] CTF² DQE, in Å². A window multiplies the autocovariance by its own; the mean of n m
    powers, m of them independent of their neighbours (Hann: 1 of 2.25 a side, each twice), strays by 1 / √(n m)."""
    tilt, number = 2, 24
    assert series.geometry.tilt_angle[tilt] == 0
    random = np.random.default_rng(1)
    total, window = 0, np.outer(np.hanning(256), np.hanning(256))
    for _ in range(number):
        image = slab_contrast(series, PARAMS, FRACTION, tilt, random) * window
        total = total + np.abs(np.fft.rfft2(image)) ** 2 / (window**2).sum() * PARAMS.pixel_size**2 / number
    k = np.hypot(np.fft.fftfreq(256, 3.0)[:, None], np.fft.rfftfreq(256, 3.0)[None])
    frequency = torch.as_tensor(k)
    chi = ctf_phase(frequency, torch.tensor(float(series.ctf.defocus_u[tilt])), series.optics)
    pre, own = torch.tensor(float(series.pre_exposure[tilt])), torch.tensor(3.0)
    damage = exposure_amplitude(frequency, pre, own, 300.0)
    gamma_lambda = (1 + 300e3 / 510998.95) * electron_wavelength(300.0)
    mass = FRACTION * 1.35 * 0.6022e-3  # kDa / Å3
    dqe = detector_response(frequency * 6.0)[0]
    protein = gamma_lambda**2 * mass * 400 * torch.exp(-5.5 * frequency**2) * 200.0 * damage**2
    ice = (1 - FRACTION) * water_phase_spectrum(frequency, 200.0, 300.0)
    expected = (4 * (protein + ice) * dqe * torch.sin(chi) ** 2).numpy()
    overlap = np.fft.irfft2(np.abs(np.fft.rfft2(window)) ** 2)
    expected = np.fft.rfft2(np.fft.irfft2(expected) * overlap / overlap[0, 0]).real
    ring = np.round(k * 256 * 3.0).astype(int).ravel()
    for lo, hi in ((20, 30), (40, 50), (70, 80), (100, 110)):
        inside = (ring >= lo) & (ring < hi)
        error = 5 / math.sqrt(number * inside.sum() / 2.25**2)
        assert total.ravel()[inside].sum() == pytest.approx(expected.ravel()[inside].sum(), rel=error)


@pytest.mark.parametrize("side", [-1, 1])
def test_defocus_follows_the_tilted_plane(series, side):
    """At 60° and hand -1 patches beside the axis have their rings where defocus + h · depth says, not the mirrored."""
    tilt, number, size = 4, 40, 64
    assert series.geometry.tilt_angle[tilt] == 60
    random, start = np.random.default_rng(2), 128 - size // 2 + side * 96
    rows, columns = slice(start, start + size), slice(128 - size // 2, 128 + size // 2)
    power, window = 0, np.outer(np.hanning(size), np.hanning(size))
    for _ in range(number):
        patch = slab_contrast(series, PARAMS, FRACTION, tilt, random)[rows, columns]
        power = power + np.abs(np.fft.rfft2(patch * window)) ** 2
    # z(u) = -(u_x cos φ + u_y sin φ) tan θ for the plane z = 0, the sign of conventions.md written out
    depth = -side * 96 * 3.0 * math.sin(math.radians(85.0)) * math.tan(math.radians(60))
    k = np.hypot(np.fft.fftfreq(size, 3.0)[:, None], np.fft.rfftfreq(size, 3.0)[None])
    band, frequency = (k > 1 / 25) & (k < 1 / 9), torch.as_tensor(k)

    def agreement(depth_seen: float) -> float:
        defocus = torch.tensor(float(series.ctf.defocus_u[tilt]) + depth_seen)
        rings = torch.sin(ctf_phase(frequency, defocus, series.optics)).square().numpy()
        level = power[band] / np.polyval(np.polyfit(k[band], power[band], 3), k[band])
        return float(np.corrcoef(level, rings[band])[0, 1])

    assert agreement(-depth) > agreement(depth) + 0.01
    assert agreement(-depth) > 0.3


def test_counts_and_seed(series):
    first, second = (image_slab(series, PARAMS, FRACTION, np.random.default_rng(7)).images for _ in range(2))
    assert np.array_equal(first, second)
    path = 200.0 / np.cos(np.radians(series.geometry.tilt_angle))
    expected = series.exposure * 9.0 * np.exp(-path / PARAMS.mean_free_path)
    error = 5 * np.sqrt(expected / 256**2)
    assert np.all(np.abs(first.mean((1, 2)) - expected) < error + 0.01 * expected)
