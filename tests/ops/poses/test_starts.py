"""Which start is trusted: for the particles that did not make it, to the standard error of their differences."""

import numpy as np
import pytest
import torch

from tiltwise.ops.poses.starts import Start, standard_errors_behind, trusted_start


def start(fitted, held_out):
    return Start(map=torch.zeros(1), fitted=fitted, held_out=np.array(held_out))


def test_what_it_was_fitted_to_does_not_decide():
    assert trusted_start([start(90.0, [10.0, 11.0]), start(50.0, [12.0, 13.0])]) == 1


def test_differences_are_told_in_their_standard_errors():
    """Particles differ far more from one another than the starts do under the same particle."""
    starts = [start(0.0, [10.0, 200.0, 3000.0]), start(0.0, [8.0, 199.0, 2997.0])]
    differences = np.array([2.0, 1.0, 3.0])
    expected = differences.mean() / (differences.std(ddof=1) / np.sqrt(3))
    assert trusted_start(starts) == 0
    assert standard_errors_behind(starts, 0) == [0.0, pytest.approx(expected)]
