"""Grids, shifts and resampling: the centre is index n // 2, for even and odd n."""

import pytest
import torch

from tiltwise.ops.fourier import (
    crop_spectrum,
    fourier_rescale,
    frequency_grid_2d,
    frequency_norm,
    shift_phase,
)


@pytest.mark.parametrize("shape", [(6, 8), (7, 9), (5, 8)])
def test_grid_is_x_then_y_in_inverse_angstrom(shape):
    grid = frequency_grid_2d(shape, 2.0)
    assert grid.shape == (shape[0], shape[1] // 2 + 1, 2)
    assert float(grid[0, 1, 0]) == pytest.approx(1 / (2.0 * shape[1])) and float(grid[0, 1, 1]) == 0
    assert float(grid[1, 0, 1]) == pytest.approx(1 / (2.0 * shape[0]))
    assert torch.allclose(grid.norm(dim=-1), frequency_norm(shape, 2.0))


def test_norm_3d():
    norm = frequency_norm((4, 6, 8), 1.5)
    assert norm.shape == (4, 6, 5)
    assert float(norm[1, 2, 3]) == pytest.approx(((1 / 6) ** 2 + (2 / 9) ** 2 + (3 / 12) ** 2) ** 0.5)


def test_shift_phase_moves_an_image():
    pixel, image = 2.0, torch.zeros(8, 10)
    image[3, 4] = 1
    phase = shift_phase(frequency_grid_2d((8, 10), pixel).double(), torch.tensor([3 * pixel, -2 * pixel]).double())
    moved = torch.fft.irfft2(torch.fft.rfft2(image.double()) * phase, s=(8, 10))
    expected = torch.roll(image, (-2, 3), (0, 1)).double()
    assert torch.allclose(moved, expected, atol=1e-6)  # float32 frequencies


@pytest.mark.parametrize("size", [24, 25])
@pytest.mark.parametrize("binning", [2, 3, 4])
def test_centre_survives_binning(size, binning):
    """A blob at n // 2 is, after binning, symmetric about m // 2; on any mix of even and odd sizes."""
    n, m = size * binning, size
    at = torch.arange(n, dtype=torch.float64) - n // 2
    blob = torch.exp(-(at**2) / (2 * (1.5 * binning) ** 2))
    image = blob[:, None] * blob
    small = fourier_rescale(image, (m, m))
    to = (torch.arange(m, dtype=torch.float64) - m // 2) * binning
    expected = torch.exp(-(to**2) / (2 * (1.5 * binning) ** 2))
    # what the Gaussian holds beyond the new Nyquist, exp(-(pi 1.5)²/2) = 1.5e-5, aliases or is cut
    assert torch.allclose(small, expected[:, None] * expected, atol=1e-4)
    assert float(small.mean()) == pytest.approx(float(image.mean()))


@pytest.mark.parametrize(("shape", "larger"), [((8, 8), (12, 16)), ((7, 9), (14, 15)), ((6, 6, 6), (9, 8, 12))])
def test_padding_then_cropping_returns_the_band(shape, larger):
    """Without the Nyquist line an array is unchanged by a larger grid and back."""
    generator = torch.Generator().manual_seed(2)
    data = torch.randn(shape, generator=generator, dtype=torch.float64)
    odd = tuple(n - 1 if n % 2 == 0 else n for n in shape)
    data = fourier_rescale(fourier_rescale(data, odd), shape)  # no Nyquist line left
    assert torch.allclose(fourier_rescale(fourier_rescale(data, larger), shape), data, atol=1e-12)


def test_crop_spectrum_keeps_values():
    data = torch.randn(8, 8, dtype=torch.float64)
    spectrum = torch.fft.rfft2(data)
    cropped = crop_spectrum(spectrum, (8, 8), (5, 5))
    assert cropped.shape == (5, 3)
    assert torch.equal(cropped[:3], spectrum[:3, :3]) and torch.equal(cropped[3:], spectrum[-2:, :3])
