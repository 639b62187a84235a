"""The orders of the schemes, as their authors write them."""

import numpy as np
import pytest

from tiltwise.ops.tilt_schemes import (
    bidirectional_sequence,
    dose_symmetric_sequence,
    order_of_range,
    steps_of_range,
    unidirectional_sequence,
)


def test_hagen():
    """Hagen, Wan & Briggs 2017: 0, +s, -s, +2s, -2s ..."""
    assert (3 * dose_symmetric_sequence(3, 3)).tolist() == [0, 3, -3, 6, -6, 9, -9]
    angle, order = order_of_range("dose_symmetric", 9.0, 3.0)
    assert angle[np.argsort(order)].tolist() == [0, 3, -3, 6, -6, 9, -9]
    assert angle.tolist() == sorted(angle)


def test_serialem_groups_of_two():
    """The help of SerialEM's dialog: with a size of 2, images are taken at 0, -2, -4, +2, +4, -6, -8, 6, 8."""
    sequence = 2 * dose_symmetric_sequence(4, 4, first_direction=-1, group_size=2)
    assert sequence.tolist() == [0, -2, -4, 2, 4, -6, -8, 6, 8]


def test_growing_groups():
    """One more from the third step on, and again two steps later: groups that begin at 1, 2, 3, 5 have 1, 1, 2, 3."""
    sequence = dose_symmetric_sequence(7, 7, growth=(1, 3, 2))
    assert sequence.tolist() == [0, 1, -1, 2, -2, 3, 4, -3, -4, 5, 6, 7, -5, -6, -7]
    once = dose_symmetric_sequence(6, 6, growth=(1, 3, 0))
    assert once.tolist() == [0, 1, -1, 2, -2, 3, 4, -3, -4, 5, 6, -5, -6]


def test_switch_to_one_direction_at_the_end_of_a_group():
    sequence = dose_symmetric_sequence(6, 6, group_size=2, switch=3)
    assert sequence.tolist() == [0, 1, 2, -1, -2, 3, 4, 5, 6, -3, -4, -5, -6]


def test_uneven_sides_are_taken_to_their_ends():
    assert dose_symmetric_sequence(1, 4).tolist() == [0, 1, -1, 2, 3, 4]
    assert dose_symmetric_sequence(0, 2).tolist() == [0, 1, 2]


def test_one_and_two_directions():
    assert unidirectional_sequence(2, 1).tolist() == [-2, -1, 0, 1]
    assert bidirectional_sequence(2, 3).tolist() == [0, 1, 2, 3, -1, -2]
    assert bidirectional_sequence(2, 3, -1).tolist() == [0, -1, -2, 1, 2, 3]


@pytest.mark.parametrize(("span", "steps"), [((-60, 60, 3, 0), (20, 20)), ((-60, 60, 3, 10), (23, 16))])
def test_steps_of_a_range(span, steps):
    assert steps_of_range(*span) == steps


def test_steps_survive_rounding():
    assert steps_of_range(-0.3, 0.3, 0.1, 0.0) == (3, 3)  # 0.3 / 0.1 = 2.9999999999999996
