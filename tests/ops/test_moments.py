"""Kurtosis of known distributions; the median of what is seen in parts."""

import numpy as np
import pytest
import torch

from tiltwise.ops.moments import kurtosis, median, slabs


def test_kurtosis_of_known_numbers():
    torch.manual_seed(0)
    assert kurtosis(torch.randn(20, 100, 100)) == pytest.approx(3, abs=4 * np.sqrt(24 / 2e5))
    assert kurtosis(torch.tensor([[[1.0, -1.0]], [[1.0, -1.0]]])) == 1


@pytest.mark.parametrize("number", [1, 2, 999, 1000])
def test_median_of_parts_is_the_lower_median_of_all(number):
    """To the bit, as numpy sorts them: of either sign, of very different sizes, with equals, infinite, or no number."""
    rng = np.random.default_rng(number)
    values = (rng.normal(size=number) * 10.0 ** rng.integers(-30, 30, number)).astype(np.float32)
    values[::5] = values[0]
    parts = torch.as_tensor(values).split(300)
    assert median(lambda: parts) == np.sort(values)[(number - 1) // 2]
    values[:: max(2, number // 3)] = -np.inf
    assert median(lambda: parts) == np.sort(values)[(number - 1) // 2]
    values[-1] = np.nan
    assert np.isnan(median(lambda: parts))


def test_slabs_are_all_planes_a_few_million_voxels_at_a_time():
    parts = slabs((1000, 1000, 1100))
    assert [one.stop - one.start for one in parts] == [3] * 333 + [1] and parts[-1].stop == 1000
    assert slabs((2, 5000, 5000)) == [slice(0, 1), slice(1, 2)] and slabs((9, 9, 9)) == [slice(0, 9)]
