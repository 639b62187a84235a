"""Kurtosis of known distributions."""

import numpy as np
import pytest
import torch

from tiltwise.ops.moments import kurtosis


def test_kurtosis_of_known_numbers():
    torch.manual_seed(0)
    assert kurtosis(torch.randn(20, 100, 100)) == pytest.approx(3, abs=4 * np.sqrt(24 / 2e5))
    assert kurtosis(torch.tensor([[[1.0, -1.0]], [[1.0, -1.0]]])) == 1
