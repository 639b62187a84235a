"""The spread of a Fourier shell correlation is that of its independent values; a resolution's range holds the truth."""

from functools import cache

import numpy as np
import pytest
import torch

from tiltwise.ops.filters import radial_filter
from tiltwise.ops.fsc import first_crossing, fourier_shell_correlation
from tiltwise.ops.interpolate import centred_points
from tiltwise.ops.maps.fsc_precision import LEAST_VALUES, average_shells, crossing_with_range, independent_values
from tiltwise.ops.masks import soft_sphere
from tiltwise.ops.symmetry import symmetry_rotations

N = 48


def noise(seed):
    return torch.randn(N, N, N, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


@cache
def mates():
    """(24, N³) where the turns of O bring each sample of a periodic grid: it is mapped onto itself, so exactly."""
    points = centred_points((N, N, N)).double()
    index = [(points @ turn).round().long() % N for turn in symmetry_rotations("O")]
    return torch.stack([((i[..., 2] * N + i[..., 1]) * N + i[..., 0]).flatten() for i in index])


def made_symmetric(volume):
    return volume.flatten()[mates()].mean(0).reshape(N, N, N)


@pytest.mark.parametrize("symmetric", [False, True])
def test_chance_correlations_spread_as_the_independent_values_say(symmetric):
    """Means over five shells, about twice as wide as what the mask ties together, of 16 pairs in shells 10 to 24: 48
    values of a variance, known to 20 %. Correlations that reach out of a mean lower it by some 10 % more; single shells
    of this mask spread by half the variance. Without the order it would be 24 times as much, without the mask 9."""
    mask = soft_sphere((N,) * 3, 16, 4)
    values = independent_values(N, mask, 24 if symmetric else 1)
    squares = []
    for trial in range(16):
        pair = [noise(2 * trial + i) for i in range(2)]
        pair = [made_symmetric(v) * mask if symmetric else v * mask for v in pair]
        curve = fourier_shell_correlation(*pair)
        for own in (slice(10, 15), slice(15, 20), slice(20, 25)):
            mean = (curve[own] * values[own]).sum() / values[own].sum()
            squares.append(float(mean.square() * 2 * values[own].sum()))
    assert np.mean(squares) == pytest.approx(0.9, abs=0.45)


def test_shells_are_averaged_only_where_they_hold_too_few_values():
    curve = torch.linspace(1, 0, 41, dtype=torch.float64)
    many = torch.full((41,), 2 * LEAST_VALUES, dtype=torch.float64)
    assert torch.allclose(average_shells(curve, many)[0], curve)
    few = torch.full((41,), LEAST_VALUES / 4.5, dtype=torch.float64)
    mean, number = average_shells(curve, few)
    assert torch.allclose(mean, curve)  # a straight line stays where it is
    assert float(number[20]) == pytest.approx(5 / 4.5 * LEAST_VALUES)
    assert float(number[10]) == pytest.approx(3 / 4.5 * LEAST_VALUES)  # a shell to either side is 15 % at most
    bumpy = curve + 0.2 * (-1.0) ** torch.arange(41)
    assert float((average_shells(bumpy, few)[0] - curve)[14:38].abs().max()) < 0.05


def test_the_range_holds_the_truth_and_the_figure_is_not_finer_than_it():
    """Signal that falls over noise, both octahedral: the FSC falls slowly through 0.143. Of 24 trials with a true
    crossing within the range 95 % of the time, 20 or fewer would be one in 140. The first crossing of the curve as
    it is lies below the truth by chance; the mean of the averaged one within 5 % of it."""
    frequency = torch.arange(N // 2 + 1, dtype=torch.float64) / N
    snr = 60 * torch.exp(-((frequency / 0.1) ** 2))
    true = first_crossing(frequency, snr / (1 + snr), 0.143)
    values, held, reached = independent_values(N, None, 24), 0, []
    for trial in range(24):
        signal, *halves = (made_symmetric(noise(3 * trial + i)) for i in range(3))
        signal = radial_filter(signal, frequency, snr.sqrt(), 1.0)
        curve = fourier_shell_correlation(*(signal + half for half in halves))
        found, (fine, coarse) = crossing_with_range(frequency, curve, values, 0.143)
        held += fine <= true <= coarse
        assert fine <= found <= coarse
        reached.append(found)
    assert held >= 21
    assert np.mean(reached) == pytest.approx(true, rel=0.05)
