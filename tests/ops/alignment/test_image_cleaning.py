"""Unfit images are named; fit ones keep their place while outliers and gradients go."""

import numpy as np
import pytest
import torch
from made_series import geometry, series

from tiltwise.ops.alignment.image_cleaning import (
    Frames,
    clean_images,
    clip_outliers,
    find_faults,
    remove_gradient,
    whiten,
)
from tiltwise.ops.fourier import frequency_norm


def images_of(number, shape=(40, 50), level=30.0, seed=0):
    return np.random.default_rng(seed).poisson(level, (number, *shape)).astype(np.float32)


def test_each_fault_is_named_and_fit_images_have_none():
    images = images_of(7)
    images[1] = 0.0
    images[2] *= 0.05
    images[3, 4, 5] = np.nan
    use = np.ones(7, bool)
    use[6] = False
    faults = find_faults(images, use)
    assert [bool(fault) for fault in faults] == [False, True, True, True, False, False, False]
    assert "constant" in faults[1] and "dark" in faults[2] and "finite" in faults[3]


@pytest.mark.parametrize(("hidden", "flagged"), [(0.1, False), (0.4, True), (0.7, True)])
def test_a_grid_bar_is_told_with_how_much_it_hides(hidden, flagged):
    images = images_of(7, (128, 160))
    images[5, :, : int(hidden * 160)] *= 0.002
    faults = find_faults(images, np.ones(7, bool))
    assert [bool(fault) for fault in faults] == [False] * 5 + [flagged, False]
    if flagged:
        assert "blocked" in faults[5] and "0 % in the series" in faults[5]
        told = float(faults[5].split(" % ")[0].split()[-1])
        assert told == pytest.approx(100 * hidden, abs=100 / 16)  # blocks of a sixteenth of the side


def test_what_every_tilt_hides_is_the_specimen():
    """A lamella beside thick ice: no tilt is at fault."""
    images = images_of(7, (128, 160))
    images[:, :, :64] *= 0.01
    assert not any(find_faults(images, np.ones(7, bool)))


def test_thick_ice_at_high_tilt_is_not_dark():
    angles = np.deg2rad(np.linspace(-60, 60, 41))
    images = images_of(41) * np.exp(-1.0 / np.cos(angles)).astype(np.float32)[:, None, None]
    assert not any(find_faults(images, np.ones(41, bool)))


def test_images_without_a_mean_are_not_called_dark():
    images = images_of(5) - 30.0
    images[2] *= 0.01
    assert not any(find_faults(images, np.ones(5, bool)))


def test_outliers_are_clipped_and_the_rest_is_untouched():
    image = torch.randn(64, 64, generator=torch.Generator().manual_seed(0))
    hot = image.clone()
    hot[10, 10], hot[20, 30] = 1e4, -1e4
    clipped = clip_outliers(hot, 8.0)
    assert float(clipped.abs().max()) < 9.0
    assert int((clipped != image).sum()) == 2


def test_a_second_order_gradient_vanishes():
    y, x = torch.meshgrid(torch.linspace(-1, 1, 30), torch.linspace(-1, 1, 41), indexing="ij")
    surface = 3 + 2 * x - y + 0.5 * x * y + x**2 - 4 * y**2
    assert float(remove_gradient(surface).abs().max()) < 1e-5


@pytest.mark.parametrize("shape", [(64, 64), (63, 50), (49, 65)])
def test_the_image_centre_is_the_centre_of_the_frame(shape):
    y, x = (np.arange(n) - n // 2 for n in shape)
    spot = -np.exp(-((y[:, None] - 6) ** 2 + (x[None, :] + 9) ** 2) / 18.0).astype(np.float32)
    spot += np.random.default_rng(0).normal(0, 0.05, shape).astype(np.float32)
    made = series(geometry(3), np.repeat(spot[None], 3, axis=0))
    frames = clean_images(made, 20.0)
    side = len(frames.window)
    assert side % 2 == 0 and frames.pixel_size * side == pytest.approx(10.0 * 2 * ((max(shape) + 1) // 2))
    power = (frames.data[0].double() - frames.data[0].max() / 2).clamp_min(0)
    place = (torch.arange(side) - side // 2) * frames.pixel_size
    found = [float((power.sum(d) * place).sum() / power.sum()) for d in (0, 1)]
    assert found == pytest.approx([-90.0, 60.0], abs=3.0)


def test_excluded_images_are_not_even_read():
    images = images_of(4)
    images[2] = np.nan
    made = series(geometry(4), images)
    made.use[2] = False
    assert bool((clean_images(made, 10.0).data[2] == 0).all())


def test_whitened_frames_have_equal_power_inside_the_band():
    noise = torch.randn(1, 128, 128, generator=torch.Generator().manual_seed(1))
    frequency = frequency_norm((128, 128), 10.0)
    coloured = torch.fft.irfft2(torch.fft.rfft2(noise) / (1 + 100 * frequency), s=(128, 128))
    white = whiten(Frames(data=coloured, pixel_size=10.0, window=torch.ones(128, 128)), (600.0, 40.0))
    side = len(white.window)
    k = frequency_norm((side, side), white.pixel_size)
    power = torch.fft.rfft2(white.data[0]).abs() ** 2
    low, high = (float(power[(k > a) & (k < b)].mean()) for a, b in ((1 / 150, 1 / 80), (1 / 60, 1 / 42)))
    assert low == pytest.approx(high, rel=0.2)
    assert float(power[k > 1.4 / 40].mean()) < 0.01 * high
