"""Fourier shell correlation on hard shells: closed forms, noise statistics, crossings, phase randomisation."""

import math

import pytest
import torch

from tiltwise.ops.fsc import (
    correct_for_mask,
    first_crossing,
    fourier_shell_correlation,
    hermitian_weight,
    randomise_phases,
    shell_index,
    shell_sums,
)


def noise(n, seed):
    return torch.randn(n, n, n, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def samples_per_shell(n):
    shape = (n, n, n)
    ones = torch.ones(n, n, n // 2 + 1, dtype=torch.float64)
    return shell_sums(ones, shell_index(shape), n // 2 + 1, hermitian_weight(shape))


@pytest.mark.parametrize("n", [24, 25])
def test_half_transform_counts_the_whole_transform(n):
    axis = torch.fft.fftfreq(n, 1 / n, dtype=torch.float64)
    radius = (axis[:, None, None] ** 2 + axis[None, :, None] ** 2 + axis[None, None, :] ** 2).sqrt()
    whole = torch.bincount((radius + 0.5).floor().long().flatten())[: n // 2 + 1]
    assert torch.equal(samples_per_shell(n).long(), whole)


@pytest.mark.parametrize("n", [24, 25])
def test_identical_is_one_and_negated_minus_one(n):
    a = noise(n, 0)
    assert torch.allclose(fourier_shell_correlation(a, a), torch.ones(n // 2 + 1).double())
    assert torch.allclose(fourier_shell_correlation(a, -3 * a), -torch.ones(n // 2 + 1).double())


@pytest.mark.parametrize("n", [40, 41])
def test_independent_noise_has_mean_zero_and_sd_one_over_root_n(n):
    pairs = 40
    scaled = torch.stack(
        [
            fourier_shell_correlation(noise(n, 2 * i), noise(n, 2 * i + 1)) * samples_per_shell(n).sqrt()
            for i in range(pairs)
        ]
    )[:, 2:]
    number = scaled.numel()
    assert abs(float(scaled.mean())) < 4 / math.sqrt(number)
    assert abs(float(scaled.std()) - 1) < 4 / math.sqrt(2 * number)
    neighbours = float((scaled[:, 1:] * scaled[:, :-1]).mean())  # hard shells share no sample
    assert abs(neighbours) < 4 / math.sqrt(number)


@pytest.mark.parametrize("n", [48, 49])
def test_known_ssnr_gives_its_closed_form(n):
    shells = shell_index((n, n, n))
    ssnr = torch.exp(2.0 - 0.2 * torch.arange(int(shells.max()) + 1, dtype=torch.float64))
    signal = torch.fft.irfftn(torch.fft.rfftn(noise(n, 1)) * ssnr[shells].sqrt(), s=(n, n, n))
    measured = fourier_shell_correlation(signal + noise(n, 2), signal + noise(n, 3))
    expected = (ssnr / (1 + ssnr))[: n // 2 + 1]
    error = (1 - expected**2) / samples_per_shell(n).sqrt()  # of a correlation coefficient from n samples
    deviation = ((measured - expected) / error)[2:]
    assert deviation.abs().max() < 4.5
    assert abs(float(deviation.square().mean()) - 1) < 4 * math.sqrt(2 / len(deviation))


def test_crossing_is_linear_between_shells_and_the_first_one():
    frequency = torch.arange(6, dtype=torch.float64) / 100
    curve = torch.tensor([1.0, 0.9, 0.5, 0.1, 0.05, 0.6])  # a rebound in noise does not count
    assert 1 / first_crossing(frequency, curve, 0.143) == pytest.approx(0.02 + 0.01 * (0.5 - 0.143) / 0.4)
    assert first_crossing(frequency, torch.ones(6), 0.143) == pytest.approx(20)
    assert first_crossing(frequency, torch.tensor([1.0, 0.1, 0.9, 0.9, 0.9, 0.9]), 0.143) == math.inf


@pytest.mark.parametrize("n", [24, 25])
def test_randomised_phases_keep_amplitudes_and_the_low_shells(n):
    volume = noise(n, 4)
    result = randomise_phases(volume, 5, torch.Generator().manual_seed(1))
    before, after = torch.fft.rfftn(volume), torch.fft.rfftn(result)
    low = shell_index((n, n, n)) < 5
    assert torch.allclose(after.abs(), before.abs(), atol=1e-9)
    assert torch.allclose(after[low], before[low], atol=1e-9)
    correlation = fourier_shell_correlation(volume, result)[5:] * samples_per_shell(n)[5:].sqrt()
    assert correlation.abs().max() < 4.5
    assert torch.equal(result, randomise_phases(volume, 5, torch.Generator().manual_seed(1)))


def test_correction_takes_out_what_the_mask_puts_in():
    true, mask = torch.full((12,), 0.4).double(), torch.full((12,), 0.3).double()
    masked = true + mask - true * mask
    corrected = correct_for_mask(masked, mask, 4)
    assert torch.allclose(corrected[6:], true[6:]) and torch.equal(corrected[:6], masked[:6])
