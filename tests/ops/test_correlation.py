"""The shift found is the shift made: sign, fraction of a pixel, limit."""

import math

import pytest
import torch

from tiltwise.ops.correlation import cosine_taper, match_images
from tiltwise.ops.fourier import frequency_grid_2d, frequency_norm, shift_phase

PIXEL = 10.0


def texture(seed, side=96):
    """Random image of unit variance without frequencies above 1/30 Å."""
    noise = torch.randn(side, side, generator=torch.Generator().manual_seed(seed))
    spectrum = torch.fft.rfft2(noise) * (frequency_norm((side, side), PIXEL) < 1 / 30)
    image = torch.fft.irfft2(spectrum, s=(side, side))
    return image / image.std()


def moved(image, shift):
    frequency = frequency_grid_2d(tuple(image.shape), PIXEL)
    return torch.fft.irfft2(torch.fft.rfft2(image) * shift_phase(frequency, torch.tensor(shift)), s=image.shape)


@pytest.mark.parametrize("shift", [(0.0, 0.0), (3.7, -12.2), (-44.4, 28.1), (110.0, 5.0)])
def test_a_shift_is_found_to_a_thousandth_of_a_pixel(shift):
    image = texture(1)
    match = match_images(moved(image, shift), image, PIXEL, (500.0, 30.0), 200.0)
    assert match.shift == pytest.approx(shift, abs=1e-3 * PIXEL)
    assert match.correlation == pytest.approx(1.0, abs=1e-3)


def test_the_error_in_noise_is_that_of_the_information():
    signal, errors, ratio = texture(2), [], 0.25
    for seed in range(12):
        noise = texture(100 + seed) / math.sqrt(ratio)
        match = match_images(moved(signal, (6.0, -3.0)) + noise, signal, PIXEL, (2000.0, 30.0), 50.0)
        errors += [match.shift[0] - 6.0, match.shift[1] + 3.0]
    k = frequency_grid_2d(signal.shape, PIXEL)[..., 0]
    inside = frequency_norm(signal.shape, PIXEL) < 1 / 30
    # Cramer-Rao: 1 / variance = 2 SNR sum over half plane of (2 pi kx)²; 24 errors give their rms to 1 / sqrt(48)
    expected = float(1 / (2 * ratio * ((2 * math.pi * k) ** 2 * inside).sum()).sqrt())
    rms = math.sqrt(sum(e * e for e in errors) / len(errors))
    assert 0.6 * expected < rms < 1.5 * expected


def test_nothing_is_found_beyond_the_limit():
    image = texture(3)
    match = match_images(moved(image, (120.0, 0.0)), image, PIXEL, (500.0, 30.0), 60.0)
    assert math.hypot(*match.shift) <= 60.0 + 1.5 * PIXEL


def test_unlike_images_tell_nothing_of_each_other():
    alike = match_images(texture(4), texture(4), PIXEL, (500.0, 30.0), 30.0)
    unlike = match_images(texture(4), texture(5), PIXEL, (500.0, 30.0), 30.0)
    assert abs(unlike.correlation) < 0.15
    assert unlike.information < 0.05 * alike.information


def test_the_correlation_unmoved_is_that_before_the_shift():
    image = texture(6)
    match = match_images(moved(image, (60.0, 60.0)), image, PIXEL, (500.0, 30.0), 100.0)
    assert match.correlation > 0.99
    assert abs(match.correlation_unmoved) < 0.2


def test_the_taper_is_zero_at_the_edge_and_one_inside():
    window = cosine_taper((50, 40), 0.1)
    assert window.shape == (50, 40)
    assert float(window[0].max()) < 0.03
    assert bool((window[8:-8, 6:-6] == 1).all())
