"""Section 4 of the notes on physics: constants, transfer, damage and signal-to-noise, by the functions that images are
made with."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from optical_bench import clean_microscope, exact_series

from tiltwise.data.optics import Optics
from tiltwise.ops.ctf import ctf, ctf_phase, electron_wavelength
from tiltwise.ops.exposure import critical_exposure, exposure_amplitude
from tiltwise.ops.tilt_schemes import order_of_range
from tiltwise.params.microscope import LensParams
from tiltwise.simulate.acquisition import Scheme
from tiltwise.simulate.microscope import interaction_parameter
from tiltwise.simulate.proof import one_body, particle_snr, protein_ball


@pytest.mark.parametrize(
    ("kilovolt", "wavelength", "sigma", "form"),
    [
        (100, 0.0370144, 9.2440e-4, 0.044258),
        (200, 0.0250793, 7.2884e-4, 0.034895),
        (300, 0.0196875, 6.5262e-4, 0.031246),
    ],
)
def test_constants(kilovolt, wavelength, sigma, form):
    """4.1; γλ = σ · 47.878 V Å²."""
    assert electron_wavelength(kilovolt) == pytest.approx(wavelength, abs=5e-8)
    assert interaction_parameter(kilovolt) == pytest.approx(sigma, rel=1e-4)
    assert interaction_parameter(kilovolt) * 47.878 == pytest.approx(form, rel=1e-4)


@pytest.mark.parametrize(
    ("kilovolt", "defocus", "spacing", "chi", "value"),
    [
        (300, 3e4, 20, 4.7068, 1.0000), (300, 3e4, 10, 18.5927, 0.2540), (300, 3e4, 5, 73.7723, 0.9985),
        (300, 1e4, 10, 6.2227, 0.0604), (300, 5e4, 10, 30.9627, 0.4378), (200, 3e4, 20, 5.9751, 0.3033),
        (200, 3e4, 10, 23.6399, 0.9970),
    ],
)  # fmt: skip
def test_transfer(kilovolt, defocus, spacing, chi, value):
    """4.2."""
    optics = Optics(voltage=kilovolt, spherical_aberration=2.7, amplitude_contrast=0.07)
    k, dz = torch.tensor(1 / spacing, dtype=torch.float64), torch.tensor(defocus, dtype=torch.float64)
    assert float(ctf_phase(k, dz, optics)) == pytest.approx(chi, abs=1e-4)
    assert float(ctf(k, dz, optics)) == pytest.approx(value, abs=1e-4)


@pytest.mark.parametrize(
    ("kilovolt", "zeros"), [(300, (24.574, 17.276, 14.077, 12.178)), (200, (27.735, 19.497, 15.887))]
)
def test_zeros(kilovolt, zeros):
    """4.2; chi is a multiple of π there."""
    optics = Optics(voltage=kilovolt, spherical_aberration=2.7, amplitude_contrast=0.07)
    spacing = torch.linspace(60, 10, 500001, dtype=torch.float64)
    values = ctf(1 / spacing, torch.tensor(3e4, dtype=torch.float64), optics)
    crossing = torch.nonzero(values[1:] * values[:-1] < 0).ravel()[: len(zeros)]
    assert spacing[crossing].tolist() == pytest.approx(zeros, abs=1e-3)


def test_critical_exposure():
    """4.3."""
    spacing = torch.tensor([3.0, 4, 5, 6, 8, 10, 15, 20, 40], dtype=torch.float64)
    expected = [4.340, 5.277, 6.386, 7.652, 10.625, 14.139, 25.059, 38.726, 116.69]
    assert critical_exposure(1 / spacing, 300.0).tolist() == pytest.approx(expected, rel=2e-4)
    assert critical_exposure(1 / spacing, 200.0).tolist() == pytest.approx([0.8 * e for e in expected], rel=2e-4)


@pytest.mark.parametrize(
    ("order", "expected"),
    [
        ("unidirectional", (0.4095, 0.1729, 0.0687)),
        ("bidirectional", (0.4341, 0.2103, 0.1023)),
        ("dose_symmetric", (0.4483, 0.2207, 0.1050)),
    ],
)
def test_damage_of_schemes(order, expected):
    """4.3: mean over 41 tilts of cos θ times the amplitude left, at 20, 10 and 5 Å, 120 e⁻/Å²."""
    scheme = Scheme.of(order_of_range(order, 60.0, 3.0), 120 / 41)
    before, own = (torch.as_tensor(a) for a in (scheme.pre_exposure, scheme.exposure))
    weight = torch.as_tensor(np.cos(np.radians(scheme.tilt_angle)))
    for spacing, value in zip((20, 10, 5), expected, strict=True):
        left = exposure_amplitude(torch.tensor(1 / spacing, dtype=torch.float64), before, own, 300.0)
        assert float((weight * left).mean()) == pytest.approx(value, abs=6e-5)


@pytest.mark.parametrize(
    ("mass", "pixel_size", "expected"),
    [(3.3e6, 10.0, 0.28), (4.8e5, 5.0, 0.064), (4.8e5, 10.0, 0.20), (1.5e5, 5.0, 0.057), (1.5e5, 10.0, 0.10)],
)
def test_signal_to_noise_of_a_tilt(mass, pixel_size, expected):
    """4.4, 100 nm of ice, to the table's 30 %. The sphere lies between four pixels. (3.3 MDa at 5 Å is 33 % low: see
    docs/explanation/simulator.md.)"""
    size = 2 * round(500 / pixel_size)
    series = exact_series(size, pixel_size, axis=0.0)
    ctf = replace(series.ctf, defocus_u=np.full(3, 30000.0), defocus_v=np.full(3, 30000.0))
    series = replace(series, ctf=ctf, exposure=np.full(3, 3.0))
    params = clean_microscope(size, pixel_size, LensParams(energy_spread=0, convergence=0, mean_free_path=3150.0))
    found = []
    for seed in range(4):
        scatterer, radius = protein_ball(mass, np.random.default_rng(seed))
        body = one_body(scatterer, np.array([pixel_size / 2, pixel_size / 2, 0.0]), radius)
        found.append(particle_snr(body, series, 1, params, path=1000.0, dqe=0.8))
    assert np.mean(found) == pytest.approx(expected, rel=0.3)
