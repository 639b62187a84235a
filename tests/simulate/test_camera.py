"""Raw frames: whole counts whose mean is exposure · DQE(0) · intensity, evened out by the gain."""

import numpy as np
import pytest
import torch

from tiltwise.params.microscope import CameraParams
from tiltwise.simulate.camera import draw_gain, record_frame, record_image

CAMERA = CameraParams(pixel_size=2.0, image_size=256, gain_spread=0.1, dead_pixels=1e-3)


def test_raw_counts_times_gain_are_even():
    """4 Å² · 2.5 e⁻/Å² · 0.9 · 0.8 = 7.2 e⁻ a pixel; the quarters of the chip agree to 5 standard errors."""
    gain = draw_gain(CAMERA, np.random.default_rng(0))
    raw = record_frame(torch.full((256, 256), 0.8), 2.5, gain, CAMERA, np.random.default_rng(1))
    assert raw.dtype == np.uint8 and raw[gain == 0].max() == 0
    even = (raw * gain)[gain > 0]
    assert even.mean() == pytest.approx(7.2, abs=5 * np.sqrt(7.2) / 256)
    corner = (raw * gain)[:64, :64][gain[:64, :64] > 0]
    assert corner.mean() == pytest.approx(7.2, abs=5 * np.sqrt(7.2) / 64)


def test_gain_has_a_mean_of_one_and_its_dead_pixels():
    gain = draw_gain(CAMERA, np.random.default_rng(0))
    assert gain[gain > 0].mean() == pytest.approx(1.0, abs=1e-4)
    assert 20 < (gain == 0).sum() < 120  # 66 of 65536 expected, standard deviation 8
    assert gain[gain > 0].std() == pytest.approx(0.1, rel=0.3)


def test_a_signal_is_seen_by_both_ways_alike():
    """A cosine of 20 %: in the stack its amplitude falls by the MTF, in raw frames by √(DQE / DQE(0)); both to 5
    standard errors."""
    n, wave, amplitude = 256, 64, 0.2
    cosine = torch.cos(2 * torch.pi * wave * torch.arange(n) / n).expand(n, n)
    intensity = 1 + amplitude * cosine
    x = wave / (n / 2)
    image = record_image(intensity, 25.0, CAMERA, np.random.default_rng(2)).astype(float)
    mtf = 1 - 0.08 * x - 0.28 * x**2
    error = 5 * np.sqrt(2 / (n * n * 100))
    assert 2 * (image * cosine.numpy()).mean() / 100 == pytest.approx(amplitude * mtf, abs=error)
    raw = record_frame(intensity, 25.0, np.ones((n, n), np.float32), CAMERA, np.random.default_rng(3)).astype(float)
    left = np.sqrt(1 - (0.25 * x + 0.25 * x**2) / 0.9)
    assert 2 * (raw * cosine.numpy()).mean() / 90 == pytest.approx(amplitude * left, abs=error)
