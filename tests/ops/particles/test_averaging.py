"""Shell means and the Wiener division of an accumulator: kernels against their twins."""

import numpy as np
import pytest
import torch

from tiltwise.ops.particles.averaging import (
    average_map,
    divided,
    divided_plain,
    empty_accumulator,
    merge,
    shell_means,
    shell_means_plain,
)


@pytest.fixture(scope="module")
def total():
    generator = torch.Generator().manual_seed(0)
    empty = empty_accumulator(16, 6.5)
    empty.numerator.copy_(torch.randn(empty.numerator.shape, dtype=torch.complex128, generator=generator))
    empty.denominator.copy_(torch.rand(empty.denominator.shape, dtype=torch.float64, generator=generator))
    return empty


def test_means_of_shells(total):
    assert torch.allclose(shell_means(total), shell_means_plain(total), rtol=1e-12)


def test_division(total):
    mean = shell_means(total)
    factor = torch.linspace(0.5, 2.0, len(mean), dtype=torch.float64)
    factor[3] = 0.0
    assert torch.allclose(divided(total, factor, 0.1 * mean), divided_plain(total, factor, 0.1 * mean), atol=1e-6)


def test_a_map_does_not_depend_on_the_scale_of_its_weights(total):
    """Numerator and denominator twice as large: the penalty follows the mean of the denominator, so the map stays."""
    one, two = average_map(total), average_map(merge(total, total))
    assert np.allclose(one.numpy(), two.numpy(), atol=1e-6 * float(one.abs().max()))
