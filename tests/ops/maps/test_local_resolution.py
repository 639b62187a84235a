"""Local resolution: a closed form for white signal and noise, two regions of one map, and noise alone."""

import math

import numpy as np
import torch

from tiltwise.ops.filters import low_pass
from tiltwise.ops.fourier import frequency_norm
from tiltwise.ops.maps.local_resolution import (
    RELATIVE_WIDTH,
    THRESHOLD,
    band_centres,
    independent_values,
    local_correlation,
    measure_local_resolution,
)

N, VOXEL = 64, 2.0


def white(seed):
    return torch.randn(N, N, N, generator=torch.Generator().manual_seed(seed))


def damped(seed, b_factor):
    norm = frequency_norm((N, N, N), VOXEL)
    return torch.fft.irfftn(torch.fft.rfftn(white(seed)) * torch.exp(-b_factor / 4 * norm**2), s=(N, N, N))


def test_a_uniform_map_has_the_resolution_of_its_closed_form_everywhere():
    # SSNR of a half exp(-B k² / 2) / s²; FSC = SSNR / (1 + SSNR) falls to 0.143 where SSNR = 0.1669
    b_factor, noise = 300.0, 0.3
    k = math.sqrt(2 / b_factor * -math.log(THRESHOLD / (1 - THRESHOLD) * noise**2))
    signal = damped(1, b_factor)
    found = measure_local_resolution(signal + noise * white(2), signal + noise * white(3), VOXEL)
    values = 1 / found.spacing.flatten().double()
    # a band takes more power from its lower side: seen as far off as half its variance times the slope B k of the
    # logarithm; and single windows spread as correlations do, 1 / sqrt(N) over the slope of the FSC
    variance = (RELATIVE_WIDTH / 2.355 * k) ** 2 / 2
    slope = b_factor * k * THRESHOLD * (1 - THRESHOLD)
    assert abs(float(values.median()) - k - variance * b_factor * k / 2) < 0.02 * k
    assert float(values.std()) < 2 / math.sqrt(independent_values()) / slope


def test_two_regions_are_told_apart():
    n = 96
    generator = torch.Generator().manual_seed(4)
    body, *noise = (torch.randn(n, n, n, generator=generator) for _ in range(3))
    fine, coarse = low_pass(body, 6.0, VOXEL), low_pass(body, 14.0, VOXEL)
    right = (torch.arange(n) >= n // 2).float()
    signal = coarse * (1 - right) + fine * right
    found = measure_local_resolution(signal + 0.3 * noise[0], signal + 0.3 * noise[1], VOXEL)
    # the middle of each side: three windows of 14 Å from the border, whose sd there is 8 voxels. A band is seen to hold
    # the signal that stops at k0 until its share of the power, Φ(-z), is the threshold's part of the SSNR:
    # at k0 / (1 - z s / √2)
    z = float(torch.special.ndtri(torch.tensor(1 - 0.09 * THRESHOLD / (1 - THRESHOLD))))
    beyond = 1 - z * RELATIVE_WIDTH / 2.355 / math.sqrt(2)
    left_side, right_side = found.spacing[:, :, 20:28], found.spacing[:, :, n // 2 + 16 : -16]
    assert abs(float(left_side.median()) / (14.0 * beyond) - 1) < 0.07
    assert abs(float(right_side.median()) / (6.0 * beyond) - 1) < 0.07


def test_correlations_of_noise_spread_as_the_number_of_independent_values_says():
    spectra = [torch.fft.rfftn(white(seed)) for seed in (10, 11)]
    norm = frequency_norm((N, N, N), VOXEL)
    for centre in (0.12, 0.18):
        values = local_correlation(spectra, norm, centre, (N, N, N))
        assert (
            abs(float(values.std()) * math.sqrt(independent_values()) - 1) < 0.3
        )  # of some 100 windows a map, 64 voxels wide


def test_noise_has_no_resolution():
    found = measure_local_resolution(white(7), white(8), VOXEL)
    # in the first band, correlations of noise reach 0.143 in 1 % of places; the longer a place lasts the rarer it is
    assert float((found.spacing < 0.8 * found.coarsest).float().mean()) < 0.02
    assert float(found.spacing.median()) == np.float32(found.coarsest)


def test_halves_that_are_the_same_agree_to_the_last_band():
    found = measure_local_resolution(white(9), white(9), VOXEL)
    assert torch.all(found.spacing == np.float32(found.finest))


def test_bands_end_within_nyquist():
    centres = band_centres(N, VOXEL)
    assert centres[-1] * (1 + RELATIVE_WIDTH / 2) <= 1 / (2 * VOXEL) + 1e-12
    assert 5 / (N * VOXEL) <= centres[0] < 1.1 * 5 / (N * VOXEL)
