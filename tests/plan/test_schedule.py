"""Schedules: angles and groups in the order of acquisition, tracking taken from the total."""

import numpy as np
import pytest

from tiltwise.params.plan import PlanParams, SessionParams, TiltingParams
from tiltwise.plan.schedule import draw_up_schedule, tilt_sequence


@pytest.mark.parametrize(
    ("settings", "angles"),
    [
        ({"scheme": "unidirectional"}, [-6, -3, 0, 3, 6]),
        ({"scheme": "unidirectional", "first_direction": -1}, [6, 3, 0, -3, -6]),
        ({"scheme": "continuous"}, [-6, -3, 0, 3, 6]),
        ({"scheme": "bidirectional", "start_tilt": -3.0}, [-3, 0, 3, 6, -6]),
        ({}, [0, 3, -3, 6, -6]),
        ({"start_tilt": 3.0}, [3, 6, 0, -3, -6]),
        ({"first_direction": -1, "group_size": 2}, [0, -3, -6, 3, 6]),
    ],
)
def test_angles(settings, angles):
    assert tilt_sequence(TiltingParams(tilt_min=-6, tilt_max=6, tilt_step=3, **settings)).tolist() == angles


def test_pretilted_lamella_keeps_its_range():
    """Start and range of a lamella of 9° pretilt: -51° to 69° about 9°, all within the range."""
    angles = tilt_sequence(TiltingParams(tilt_min=-51, tilt_max=69, start_tilt=9, tilt_step=3))
    assert angles[0] == 9 and angles.min() == -51 and angles.max() == 69 and len(angles) == 41


def test_switch_and_growth_are_in_degrees():
    tilting = TiltingParams(tilt_min=-12, tilt_max=12, tilt_step=3, switch_angle=6)
    assert tilt_sequence(tilting).tolist() == [0, 3, -3, 6, 9, 12, -6, -9, -12]
    tilting = TiltingParams(tilt_min=-12, tilt_max=12, tilt_step=3, group_growth=1, growth_angle=6)
    assert tilt_sequence(tilting).tolist() == [0, 3, -3, 6, 9, -6, -9, 12, -12]


def test_groups_are_runs_in_one_direction():
    schedule = draw_up_schedule(PlanParams(tilting=TiltingParams(tilt_min=-12, tilt_max=12, group_size=2)), 9.0)
    assert schedule.tilt_angle.tolist() == [0, 3, 6, -3, -6, 9, 12, -9, -12]
    assert schedule.group.tolist() == [0, 0, 0, 1, 1, 2, 2, 3, 3]


def test_tracking_is_damage_without_image():
    params = PlanParams(session=SessionParams(tracking_exposure=0.5))
    schedule = draw_up_schedule(params, 120.0)
    assert schedule.exposure.sum() == pytest.approx(120 - 41 * 0.5)
    assert schedule.pre_exposure[0] == 0.5
    assert np.diff(schedule.pre_exposure) == pytest.approx(schedule.exposure[:-1] + 0.5)
