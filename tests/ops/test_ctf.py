"""The CTF against the reference values of the literature's formula, and against torch-ctf after its sign is flipped."""

import math

import pytest
import torch
from torch_ctf import calculate_ctf_2d

from tiltwise.data.optics import Optics
from tiltwise.ops.ctf import astigmatic_defocus, ctf, ctf_phase, electron_wavelength
from tiltwise.ops.fourier import frequency_grid_2d


def optics(voltage: float) -> Optics:
    return Optics(voltage=voltage, spherical_aberration=2.7, amplitude_contrast=0.07)


def f64(value: float) -> torch.Tensor:
    return torch.tensor(value, dtype=torch.float64)


@pytest.mark.parametrize(("voltage", "wavelength"), [(100, 0.0370144), (200, 0.0250793), (300, 0.0196875)])
def test_wavelength(voltage, wavelength):
    assert electron_wavelength(voltage) == pytest.approx(wavelength, abs=6e-8)  # half of the last digit, rounded twice


@pytest.mark.parametrize(
    ("voltage", "defocus", "spacing", "phase", "value"),
    [
        (300, 30000, 20, 4.7068, 1.0000),
        (300, 30000, 10, 18.5927, 0.2540),
        (300, 30000, 5, 73.7723, 0.9985),
        (300, 10000, 10, 6.2227, 0.0604),
        (300, 50000, 10, 30.9627, 0.4378),
        (200, 30000, 20, 5.9751, 0.3033),
        (200, 30000, 10, 23.6399, 0.9970),
    ],
)
def test_phase_and_value(voltage, defocus, spacing, phase, value):
    k = f64(1 / spacing)
    assert float(ctf_phase(k, f64(defocus), optics(voltage))) == pytest.approx(phase, abs=6e-5)
    assert float(ctf(k, f64(defocus), optics(voltage))) == pytest.approx(value, abs=6e-5)


@pytest.mark.parametrize(
    ("voltage", "zeros"), [(300, (24.574, 17.276, 14.077, 12.178)), (200, (27.735, 19.497, 15.887))]
)
def test_zeros(voltage, zeros):
    # chi = n pi; one unit of the last digit of the spacing, 1e-3 Å, moves chi by |dchi/dd| 1e-3 = 2 chi / d 1e-3
    for n, spacing in enumerate(zeros, start=1):
        chi = float(ctf_phase(f64(1 / spacing), f64(30000.0), optics(voltage)))
        assert chi == pytest.approx(n * math.pi, abs=2 * chi / spacing * 1e-3)


def test_density_is_dark_at_low_frequency_and_underfocus_positive():
    assert float(ctf(f64(0.0), f64(20000.0), optics(300))) == pytest.approx(-0.07)
    assert float(ctf_phase(f64(0.02), f64(20000.0), optics(300))) > math.asin(0.07)
    assert float(ctf(f64(0.01), f64(20000.0), optics(300))) < -0.07


def test_phase_shift_is_in_degrees():
    k, d = f64(0.05), f64(20000.0)
    plain = float(ctf_phase(k, d, optics(300)))
    assert float(ctf_phase(k, d, optics(300), 90.0)) == pytest.approx(plain + math.pi / 2)
    assert float(ctf_phase(k, d, optics(300), f64(90.0))) == pytest.approx(plain + math.pi / 2)


@pytest.mark.parametrize(("half", "angle"), [(0.0, 0.0), (0.04, 0.0), (0.04, 30.0), (0.04, 120.0)])
def test_agrees_with_torch_ctf_after_the_sign_flip(half, angle):
    """torch-ctf (and RELION's source) gives +w at the origin; it takes (u - v) / 2, in µm, and the angle from x."""
    pixel, shape = 2.0, (64, 64)
    theirs = calculate_ctf_2d(
        defocus=2.5,
        astigmatism=half,
        astigmatism_angle=angle,
        voltage=300.0,
        spherical_aberration=2.7,
        amplitude_contrast=0.07,
        phase_shift=0.0,
        pixel_size=pixel,
        image_shape=shape,
        rfft=True,
        fftshift=False,
    )
    grid = frequency_grid_2d(shape, pixel).double()
    azimuth = torch.atan2(grid[..., 1], grid[..., 0])
    local = astigmatic_defocus(azimuth, f64(25000 + 1e4 * half), f64(25000 - 1e4 * half), f64(angle))
    ours = ctf(grid.norm(dim=-1), local, optics(300))
    assert float(theirs.flatten()[0]) == pytest.approx(0.07, abs=1e-6)
    # float32 phases of 2.5 µm at 4 Å are 120 rad: 120 * 2^-24 * a few roundings
    assert float((ours + theirs.double()).abs().max()) < 2e-4


def test_relion_astigmatism_convention():
    """u lies along az0, counted from x towards y; v at right angles; 45° between them their mean."""
    u, v, angle = f64(26000.0), f64(24000.0), f64(20.0)
    for offset, expected in ((0, 26000), (90, 24000), (45, 25000), (180, 26000)):
        azimuth = torch.deg2rad(angle + offset)
        assert float(astigmatic_defocus(azimuth, u, v, angle)) == pytest.approx(expected)


@pytest.mark.parametrize("difference", [-600.0, 0.0, 600.0])
def test_any_sign_of_astigmatism_has_value_and_gradient(difference):
    u = torch.tensor(25000.0 + difference / 2, dtype=torch.float64, requires_grad=True)
    v = torch.tensor(25000.0 - difference / 2, dtype=torch.float64, requires_grad=True)
    angle = torch.tensor(35.0, dtype=torch.float64, requires_grad=True)
    grid = frequency_grid_2d((32, 32), 4.0).double()
    azimuth = torch.atan2(grid[..., 1], grid[..., 0])
    values = ctf(grid.norm(dim=-1), astigmatic_defocus(azimuth, u, v, angle), optics(300))
    assert torch.isfinite(values).all()
    values.sum().backward()
    assert all(torch.isfinite(p.grad) for p in (u, v, angle))
    # negative astigmatism is positive astigmatism at right angles
    swapped = ctf(grid.norm(dim=-1), astigmatic_defocus(azimuth, v, u, angle + 90), optics(300))
    assert torch.allclose(values, swapped, atol=1e-12)
