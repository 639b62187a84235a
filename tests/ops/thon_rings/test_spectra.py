"""Patch spectra: their level, their statistics, and where they lie."""

import pytest
import torch

from tiltwise.ops.thon_rings.spectra import (
    bin_powers,
    binned_patch_powers,
    patch_centres,
    patch_layout,
    patch_powers,
    polar_bins,
    window_coherence,
)


@pytest.mark.parametrize(("shape", "size"), [((200, 256), 64), ((180, 181), 90), ((128, 128), 128)])
def test_windows_share_the_image_out(shape, size):
    layout = patch_layout(shape, size)
    cover = torch.zeros(shape, dtype=torch.float64)
    for y, wy in zip(layout.start_y.tolist(), layout.window_y, strict=True):
        for x, wx in zip(layout.start_x.tolist(), layout.window_x, strict=True):
            cover[y : y + size, x : x + size] += torch.outer(wy, wx) ** 2
    rim = size // 16 + 1
    assert torch.allclose(cover[rim:-rim, rim:-rim], torch.ones(1, dtype=torch.float64))
    assert float(cover.max()) <= 1 + 1e-12
    centre = patch_centres(layout).mean(0)
    assert torch.allclose(centre, torch.tensor([(shape[1] - 1) / 2, (shape[0] - 1) / 2]).double(), atol=0.5)


def test_overlapping_patches_count_for_what_they_are_worth():
    """The variance of the weighted sum of powers of white noise is the sum of the weights, so likelihoods can add."""
    generator = torch.Generator().manual_seed(3)
    layout = patch_layout((192, 192), 64)
    bins = polar_bins(64, 1.0, 0.1, 0.45, 8)
    weight = layout.independent[:, None, None] * bins.count
    sums = []
    for _ in range(400):
        powers = bin_powers(patch_powers(torch.randn(192, 192, generator=generator), layout), bins)
        sums.append(float((powers * weight).sum()))
    sums = torch.tensor(sums, dtype=torch.float64)
    assert float(sums.mean() / weight.sum()) == pytest.approx(1, abs=0.003)
    # variance of 400 draws: relative sd sqrt(2 / 400) = 0.07
    assert float(sums.var() / weight.sum()) == pytest.approx(1, abs=0.25)


def test_coherence_falls_from_one_to_nothing():
    layout = patch_layout((192, 192), 64)
    values = window_coherence(layout, torch.tensor([0.0, 10.0, 20.0, 40.0, 200.0], dtype=torch.float64))
    assert float(values[0]) == pytest.approx(1)
    assert torch.all(values.diff() < 0) and float(values[-1]) < 1e-3


def test_azimuth_runs_from_x_to_y():
    y, x = torch.meshgrid(torch.arange(64.0), torch.arange(64.0), indexing="ij")
    image = torch.cos(2 * torch.pi * (12 * x + 12 * y) / 64)  # wave vector at +45°
    bins = polar_bins(64, 1.0, 0.15, 0.4, 8)
    powers = bin_powers(patch_powers(image, patch_layout((64, 64), 64)), bins)[0]
    sector = int((powers * bins.count).sum(1).argmax())
    assert float(bins.sine[sector].mean()) > 0.8


def test_powers_binned_at_once_are_those_of_the_plain_twin():
    image = torch.randn(200, 256, generator=torch.Generator().manual_seed(5)) + 3
    layout, bins = patch_layout((200, 256), 64), polar_bins(64, 1.0, 0.1, 0.45, 8)
    plain = bin_powers(patch_powers(image, layout), bins)
    # the transforms are the same; squares and areas are rounded to 2^-24 each in the plain twin
    assert torch.allclose(binned_patch_powers(image, layout, bins), plain, rtol=4 * 2**-24, atol=0)
