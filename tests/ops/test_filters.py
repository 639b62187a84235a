"""Filters: amplitudes at the spacings that the docstrings name, measured on pure waves."""

import math

import pytest
import torch

from tiltwise.ops import filters
from tiltwise.ops.maps.sharpening import fit_b_factor, sharpen, shell_amplitude

VOXEL = 2.0


def wave(n, cycles, dims=3):
    phase = 2 * math.pi * cycles * torch.arange(n, dtype=torch.float64) / n
    return torch.cos(phase).expand(*[n] * dims).clone()


def gain(function, n, cycles, dims=3):
    data = wave(n, cycles, dims)
    return float((function(data) * data).sum() / (data * data).sum())


@pytest.mark.parametrize("n", [60, 61])
@pytest.mark.parametrize("dims", [2, 3])
def test_low_pass(n, dims):
    resolution = n * VOXEL / 12  # sample 12 of the transform
    keep = [gain(lambda d: filters.low_pass(d, resolution, VOXEL), n, k, dims) for k in (0, 6, 11, 12, 13, 20)]
    assert keep == pytest.approx([1, 1, 1, 0.5, 0, 0], abs=1e-6)


@pytest.mark.parametrize("n", [24, 25])
def test_radial_filter_meets_its_curve(n):
    curve = torch.linspace(1, 0.2, n // 2 + 1, dtype=torch.float64)
    frequency = torch.arange(n // 2 + 1, dtype=torch.float64) / (n * VOXEL)
    for k in (0, 3, 9):
        measured = gain(lambda d: filters.radial_filter(d, frequency, curve, VOXEL), n, k)
        assert measured == pytest.approx(float(curve[k]), abs=1e-6)


@pytest.mark.parametrize("n", [64, 65])
def test_the_b_factor_put_in_is_the_b_factor_found(n):
    white = torch.zeros(n, n, n, dtype=torch.float64)
    white[n // 2, n // 2, n // 2] = 1.0
    damped = sharpen(white, 120.0, VOXEL)
    frequency = torch.arange(n // 2 + 1, dtype=torch.float64) / (n * VOXEL)
    fit = fit_b_factor(frequency, shell_amplitude(damped), torch.ones_like(frequency), 4.2)
    # the rms over a shell is not the amplitude at its middle: half a shell in k, 2 k dk B / 4 of 4 Å at the fine end
    assert fit.b_factor == pytest.approx(-120, rel=0.01)
    restored = sharpen(damped, fit.b_factor, VOXEL)
    assert float(shell_amplitude(restored)[n // 3]) == pytest.approx(1, rel=0.05)


def test_no_b_factor_where_there_is_no_range_or_no_decay():
    frequency = torch.arange(33, dtype=torch.float64) / 128
    ones = torch.ones(33, dtype=torch.float64)
    short = fit_b_factor(frequency, ones, ones, 12.0)
    assert short.b_factor is None and "too few" in short.why_not
    flat = fit_b_factor(frequency, ones * (1 + 0.01 * torch.cos(torch.arange(33.0))), ones, 4.5)
    assert flat.b_factor is None and "do not fall" in flat.why_not
