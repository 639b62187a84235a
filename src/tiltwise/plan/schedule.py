"""The table of a tilt series that is still to be taken: angles, exposures and groups in the order of acquisition."""

from dataclasses import dataclass

import numpy as np

from tiltwise.ops.tilt_schemes import (
    bidirectional_sequence,
    dose_symmetric_sequence,
    steps_of_range,
    unidirectional_sequence,
)
from tiltwise.params.plan import PlanParams, TiltingParams


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Schedule:
    """All fields in the order in which the images are taken."""

    tilt_angle: np.ndarray
    """(tilt,) angle of the stage, degrees."""
    exposure: np.ndarray
    """(tilt,) of the image, e⁻/Å²."""
    pre_exposure: np.ndarray
    """(tilt,) before the image, tracking included, e⁻/Å²."""
    group: np.ndarray
    """(tilt,) number of the run of images on one side of the start, 0 first."""

    def __len__(self) -> int:
        return len(self.tilt_angle)


def draw_up_schedule(params: PlanParams, total_exposure: float) -> Schedule:
    """The schedule of a plan; total_exposure e⁻/Å² is shared out over the images, as 1 / cosᵖ of the slab's tilt.

    A tracking exposure at each tilt comes out of the total, before the image.
    """
    angle = tilt_sequence(params.tilting)
    share = np.cos(np.radians(angle - params.slab.pretilt)) ** -params.tilting.exposure_power
    tracking = params.session.tracking_exposure
    exposure = (total_exposure - tracking * len(angle)) * share / share.sum()
    before = np.concatenate([[0.0], np.cumsum(exposure + tracking)[:-1]]) + tracking
    return Schedule(tilt_angle=angle, exposure=exposure, pre_exposure=before, group=_groups(angle))


def _groups(angle: np.ndarray) -> np.ndarray:
    """(tilt,) number of the run of images on one side of the first angle, which belongs to the first run."""
    side = np.sign(angle - angle[0])
    side[0] = side[min(1, len(side) - 1)]
    return np.cumsum(np.diff(side, prepend=side[0]) != 0)


def tilt_sequence(tilting: TiltingParams) -> np.ndarray:
    """(tilt,) angles in degrees in the order of acquisition."""
    one_way = tilting.scheme in ("unidirectional", "continuous")
    start = tilting.tilt_min if one_way else tilting.start_tilt
    step = tilting.tilt_step
    below, above = steps_of_range(tilting.tilt_min, tilting.tilt_max, step, start)
    if one_way:
        steps = unidirectional_sequence(below, above)[:: tilting.first_direction]
    elif tilting.scheme == "bidirectional":
        steps = bidirectional_sequence(below, above, tilting.first_direction)
    else:
        steps = dose_symmetric_sequence(
            below,
            above,
            first_direction=tilting.first_direction,
            group_size=tilting.group_size,
            growth=(tilting.group_growth, tilting.growth_angle / step - 1e-6, tilting.growth_interval / step),
            switch=np.inf if tilting.switch_angle is None else tilting.switch_angle / step - 1e-6,
        )
    return start + step * steps
