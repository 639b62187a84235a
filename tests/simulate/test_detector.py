"""The camera: mean, noise spectrum and transfer are those that define MTF and DQE."""

import numpy as np
import pytest
import torch

from tiltwise.ops.fourier import frequency_norm
from tiltwise.simulate.detector import count_electrons, detector_response


def test_mtf_of_the_camera():
    """K3 at 300 kV: 0.89 at half and 0.64 at full Nyquist (notes on physics)."""
    _, mtf = detector_response(torch.tensor([0.0, 0.5, 1.0]))
    assert mtf.tolist() == pytest.approx([1.0, 0.89, 0.64], abs=1e-6)


def test_flat_field_has_the_mean_and_the_noise_of_the_dqe():
    """Noise power per pixel is N MTF² / DQE at each frequency: 256² px averaged in bands of about 1000 frequencies, so
    3 % each."""
    n, pixel_size, expected = 256, 4.0, 3.0
    image = torch.from_numpy(count_electrons(torch.zeros(n, n), expected, pixel_size, np.random.default_rng(0)))
    counts = expected * pixel_size**2
    assert float(image.mean()) == pytest.approx(counts, rel=4 / np.sqrt(n * n * counts))
    power = (torch.fft.rfft2(image - image.mean()).abs() ** 2 / n**2).double()
    relative = frequency_norm((n, n), pixel_size) * pixel_size  # 1 at the Nyquist frequency of the physical pixel
    dqe, mtf = detector_response(relative)
    ratio = power / (counts * (mtf**2 / dqe).double())
    for low in np.arange(0.05, 0.45, 0.05):
        band = (relative > low) & (relative <= low + 0.05)
        assert float(ratio[band].mean()) == pytest.approx(1.0, abs=5 / np.sqrt(int(band.sum())))


def test_signal_is_transferred_by_the_mtf():
    n, pixel_size, expected, amplitude, wave = 128, 4.0, 3e4, 0.05, 32
    x = torch.arange(n)
    contrast = amplitude * torch.cos(2 * torch.pi * wave * x / n).expand(n, n).contiguous()
    image = torch.from_numpy(count_electrons(contrast, expected, pixel_size, np.random.default_rng(1)))
    counts = expected * pixel_size**2
    seen = 2 * float((image * torch.cos(2 * torch.pi * wave * x / n)).mean()) / counts
    _, mtf = detector_response(torch.tensor(wave / n))  # relative to Nyquist of the physical pixel, half as large
    assert seen == pytest.approx(amplitude * float(mtf), abs=5 * np.sqrt(2 / (n * n * counts)))
