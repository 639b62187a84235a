"""A series matched by itself, and where its axis is not that of the data set, matched anew from that one."""

from dataclasses import replace

import numpy as np

from tiltwise.data.errors import InputError, StageError
from tiltwise.data.progress import Progress, no_progress
from tiltwise.data.tilt_series import TiltSeries
from tiltwise.ops.alignment.data_set_axis import TOLERANCE, between_axes
from tiltwise.ops.alignment.projection_matching import match_geometry
from tiltwise.params.align import AlignParams
from tiltwise.stages.align.markerless import MatchedSeries, axis_prior, match_series

_INSISTS = 3.0
"""Images insist on their own axis if it tells more of them by so many standard errors of the mean over the tilts."""


def match_in_data_set(
    series: TiltSeries, params: AlignParams, device: str, progress: Progress
) -> tuple[MatchedSeries, dict, AlignParams]:
    """The series matched, what the record says of its axis, and the parameters that led there.

    From its own prior first. If that leads to another axis than the median of the data set, or nowhere, the search
    begins anew within `TOLERANCE` of the median; should finer levels lead away from there by more than twice that, the
    axis is held at the median. Then d_i, by how much more (nats) image i and its reprojection say of each other with
    the axis of its own, is looked at over the tilts: that axis is kept if the mean of d is more than three of its
    standard errors above 0. An axis that is held (range 0) stays, whatever the median. InputError and StageError as
    `match_series` where the median leads nowhere either.
    """
    figures: dict = {"pixel_size_A": series.pixel_size, "tilt_axis_own_deg": None}
    median = params.tilt_axis_median
    if median is None or params.tilt_axis_range == 0:
        own = match_series(series, params, device, progress)
        return own, figures | {"tilt_axis_own_deg": round(own.found.axis, 4)}, params
    try:
        own = match_series(series, params, device, progress)
    except (InputError, StageError):
        own = None
    if own is not None:
        figures["tilt_axis_own_deg"] = round(own.found.axis, 4)
        if abs(between_axes(own.found.axis, median)) <= TOLERANCE:
            return own, figures, params
    progress(0.6, f"tilt axis of the data set, {median:.1f}°, tried")
    near = {"tilt_axis_angle": _in_half_turn(series, params, median), "tilt_axis_range": TOLERANCE}
    by_median = params.model_copy(update=near)
    ours = match_series(series, by_median, device, no_progress)
    if abs(between_axes(ours.found.axis, median)) > 2 * TOLERANCE:
        by_median = params.model_copy(update=near | {"tilt_axis_range": 0.0})
        ours = match_series(series, by_median, device, no_progress)
    figures |= {"tilt_axis_median_deg": median, "tilt_axis_from": "median"}
    if own is None:
        return ours, figures, by_median
    evidence = _evidence(own, ours)
    figures["tilt_axis_own_evidence"] = round(evidence, 2)
    if evidence > _INSISTS:
        return own, figures | {"tilt_axis_from": "images"}, params
    return ours, figures, by_median


def _in_half_turn(series: TiltSeries, params: AlignParams, median: float) -> float:
    """The median, turned by 180° where that is nearer to the prior: the images cannot tell the two apart."""
    try:
        prior = axis_prior(series, params)
    except InputError:
        return median
    away = (median - prior + 180.0) % 360.0 - 180.0
    return median if abs(away) <= 90.0 else median - float(np.copysign(180.0, away))


def _evidence(own: MatchedSeries, other: MatchedSeries) -> float:
    """What the images say for the first against the second, in standard errors of the mean over the tilts of both."""
    both = own.series.use & other.series.use
    shared = other.level.frames.data[both[np.flatnonzero(other.series.use)]]
    frames = replace(other.level.frames, data=shared)
    said = []
    for matched in (own, other):
        kept = both[np.flatnonzero(matched.series.use)]
        level = replace(other.level, frames=frames, tilt_angle=matched.level.tilt_angle[kept])
        found = replace(matched.found, shift=matched.found.shift[kept])
        geometry = replace(matched, level=level, found=found).geometry
        said.append(np.array([match.information for match in match_geometry(level, geometry, 0.0)]))
    gain = said[0] - said[1]
    return float(gain.mean() / (gain.std(ddof=1) / np.sqrt(len(gain)) + 1e-12))
