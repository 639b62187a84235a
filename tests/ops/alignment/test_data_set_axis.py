"""The median of a data set's tilt axes, and which series it decides for."""

import numpy as np
import pytest

from tiltwise.ops.alignment.data_set_axis import between_axes, decide_axes, median_axis


def figures(**axes):
    return {name: {"tilt_axis_own_deg": axis, "pixel_size_A": 2.0} for name, axis in axes.items()}


def medians(decided):
    return {name: one.params["tilt_axis_median"] for name, one in decided.items()}


def test_axes_are_compared_as_lines():
    assert between_axes(-94.8, 85.2) == 0 and between_axes(89.9, -89.9) == pytest.approx(-0.2)
    axes = np.array([89.8, -89.9, 89.9, 270.1])  # 89.8, 90.1, 89.9, 90.1 as lines
    assert between_axes(median_axis(axes), 90.0) == pytest.approx(0, abs=1e-9)


def test_one_that_disagrees_gets_the_median_and_the_others_are_left_alone():
    decided = decide_axes(figures(a=85.2, b=85.3, c=-94.75, d=88.0), {})
    assert set(decided) == {"d"}
    assert between_axes(decided["d"].params["tilt_axis_median"], 85.3) == pytest.approx(0, abs=0.051)
    assert "88.0°" in decided["d"].reason and "4 series" in decided["d"].reason


@pytest.mark.parametrize(
    "axes",
    [(85.2, 88.0), (85.2, 88.0, 91.0), (85.0, 85.1, 95.0, 95.1), (85.2, None)],
)
def test_without_a_majority_of_three_nothing_is_decided(axes):
    assert not decide_axes(figures(**dict(zip("abcd", axes, strict=False))), {})


def test_axes_that_scatter_are_given_room():
    scattered = dict(zip("abcdefgh", 85 + np.array([-0.4, -0.3, -0.2, 0.0, 0.1, 0.3, 0.4, 1.2]), strict=True))
    assert not decide_axes(figures(**scattered), {})  # four deviations of 0.44° are 1.8°
    assert set(decide_axes(figures(**scattered | {"i": 87.5}), {})) == {"i"}


def test_another_magnification_has_its_own_axis():
    other = {name: {"tilt_axis_own_deg": 20.0, "pixel_size_A": 1.5} for name in "xy"}
    found = figures(a=85.2, b=85.3, c=85.2) | other
    assert not decide_axes(found, {})
    assert not decide_axes(found | {"lost": None}, {})  # of which magnification nobody knows


def test_what_failed_alone_gets_the_median_and_keeps_it_once_it_is_aligned():
    found = figures(a=85.2, b=85.2, c=85.2)
    assert medians(decide_axes(found | {"lost": None}, {})) == {"lost": 85.2}
    assert medians(decide_axes(found | figures(lost=None), {})) == {"lost": 85.2}


def test_a_median_that_hardly_moves_leaves_what_was_decided():
    found = figures(a=85.2, b=85.3, c=85.2, d=88.0)
    assert medians(decide_axes(found, {"d": {"tilt_axis_median": 85.4}})) == {"d": 85.4}
    assert medians(decide_axes(found, {"d": {"tilt_axis_median": 86.0}})) == {"d": 85.2}
    assert not decide_axes(found | figures(d=85.4), {"d": {"tilt_axis_median": 85.4}})
