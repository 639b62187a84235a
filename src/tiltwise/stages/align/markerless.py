"""Shifts and one tilt axis without markers: coarse correlation, search of the axis, projection matching; bad tilts."""

from dataclasses import dataclass, replace

import numpy as np

from tiltwise.data.errors import InputError, StageError
from tiltwise.data.progress import Progress
from tiltwise.data.tilt_series import TiltGeometry, TiltSeries
from tiltwise.ops.alignment.image_cleaning import SAMPLES, Frames, clean_images, find_faults
from tiltwise.ops.alignment.projection_matching import (
    Alignment,
    Level,
    align_neighbours,
    find_specimen,
    match_projections,
    move_origin,
    prepare_level,
    search_axis,
)
from tiltwise.params.align import AlignParams

_FEWEST_TILTS = 5
_COARSE, _FINE = 80.0, 30.0
"""Resolutions of the first and the last level, Å."""
_LARGEST = 512
"""Most pixels along a side at the last level: a field of more at that resolution tells the same shifts from more of
the specimen, and time and memory grow with the square of the side."""
_MARGIN = 100.0
"""Added to the measured specimen on either side, Å."""
_DISAGREES = 0.3
"""A tilt whose correlation is below this part of what its neighbours in angle reach does not show the same specimen."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class MatchedSeries:
    """A series whose used images are matched to the reprojections of each other."""

    series: TiltSeries
    """Without the tilts that are unfit."""
    frames: Frames
    """Its cleaned images."""
    level: Level
    """The finest, of the used tilts."""
    found: Alignment
    """Shifts and axis of the used tilts."""
    correlation: tuple[float, float]
    """Of images and reprojections on the coarsest level, unaligned and aligned."""

    @property
    def used_frames(self) -> Frames:
        """Those of the used tilts alone."""
        return replace(self.frames, data=self.frames.data[np.flatnonzero(self.series.use)])

    @property
    def geometry(self) -> TiltGeometry:
        """Of the used tilts, with the angles of the stage and one axis."""
        number = len(self.level.tilt_angle)
        return TiltGeometry(
            tilt_angle=np.array(self.level.tilt_angle, dtype=float),
            tilt_axis_angle=np.full(number, self.found.axis),
            x_tilt=np.zeros(number),
            shift=self.found.shift,
        )


def match_series(series: TiltSeries, params: AlignParams, device: str, progress: Progress) -> MatchedSeries:
    """From the images alone to shifts and axis; errors as `align` says."""
    prior = axis_prior(series, params)
    series = exclude_tilts(series, find_faults(series.images, series.use))
    finest = params.resolution or finest_resolution(series)
    frames = clean_images(series, finest / 3, device)
    progress(0.1, "images cleaned")

    coarse = _level(frames, series, max(_COARSE, finest), params.thickness)
    first = align_neighbours(coarse, prior)
    found = _find_axis(coarse, _match(coarse, prior, first, params), params.tilt_axis_range, 1.0)
    series, found = _exclude_disagreeing(series, _match(coarse, found.axis, found.shift, params))
    progress(0.3, "coarse alignment found")

    coarse = _level(frames, series, max(_COARSE, finest), params.thickness)
    depth, thickness = find_specimen(coarse, found)
    found = move_origin(found, coarse.tilt_angle, depth)
    thickness = min(params.thickness, thickness + 2 * _MARGIN)
    middle = _level(frames, series, float(np.sqrt(finest * coarse.band[1])), thickness)
    free = params.tilt_axis_range > 0
    found = _find_axis(middle, match_projections(middle, found.axis, found.shift, _reach(middle)), 1.2 * free, 0.6)
    progress(0.4, "tilt axis searched")
    fine = _level(frames, series, finest, thickness)
    found = _find_axis(fine, match_projections(fine, found.axis, found.shift, _reach(fine)), 0.8 * free, 0.4)
    progress(0.6, "tilt axis found")
    found = _match(fine, found.axis, found.shift, params)

    before, after = _agreement(coarse, prior, np.zeros_like(found.shift)), _agreement(coarse, found.axis, found.shift)
    if after < before:
        raise StageError(
            f"{series.name}: the alignment found agrees less with the images (correlation {after:.4f}) than none at all"
            f" ({before:.4f}); check pixel size, tilt angles and tilt axis, or exclude bad tilts"
        )
    return MatchedSeries(series=series, frames=frames, level=fine, found=found, correlation=(before, after))


def match_again(matched: MatchedSeries, series: TiltSeries, params: AlignParams) -> MatchedSeries:
    """The same series with fewer of its tilts in use: shifts and axis from where they stand, at the finest level."""
    kept = series.use[np.flatnonzero(matched.series.use)]
    frames = replace(matched.level.frames, data=matched.level.frames.data[np.flatnonzero(kept)])
    level = replace(matched.level, frames=frames, tilt_angle=matched.level.tilt_angle[kept])
    found = match_projections(level, matched.found.axis, matched.found.shift[kept], _reach(level))
    found = _find_axis(level, found, 0.4 * (params.tilt_axis_range > 0), 0.4)
    return replace(matched, series=series, level=level, found=_match(level, found.axis, found.shift, params))


def finest_resolution(series: TiltSeries) -> float:
    """Resolution (Å) of the last level where it is not a parameter: 30 Å, four pixels, or what 512 pixels sample."""
    side = max(series.image_shape) * series.pixel_size
    return max(_FINE, 4 * series.pixel_size, SAMPLES * side / _LARGEST)


def axis_prior(series: TiltSeries, params: AlignParams) -> float:
    """Where the search of the axis begins, degrees; InputError where nothing says."""
    axis = series.nominal_tilt_axis_angle if params.tilt_axis_angle is None else params.tilt_axis_angle
    if axis is None:
        raise InputError(f"{series.name}: no tilt axis in the metadata; set tilt_axis_angle of the step align")
    return float(axis)


def exclude_tilts(series: TiltSeries, faults: tuple[str, ...]) -> TiltSeries:
    """The series without the tilts that have a fault; reasons already given stay."""
    use = np.array([bool(used) and not fault for used, fault in zip(series.use, faults, strict=True)])
    reasons = tuple(old if old else new for old, new in zip(series.why_not, faults, strict=True))
    if use.sum() < _FEWEST_TILTS:
        faulty = next((fault for fault in faults if fault), "the others were excluded before")
        raise InputError(f"{series.name}: {int(use.sum())} usable tilts, {_FEWEST_TILTS} are needed ({faulty})")
    return replace(series, use=use, why_not=reasons)


def _level(frames: Frames, series: TiltSeries, resolution: float, thickness: float) -> Level:
    used = np.flatnonzero(series.use)
    return prepare_level(replace(frames, data=frames.data[used]), series.stage_tilt_angle[used], resolution, thickness)


def _match(level: Level, axis: float, shift: np.ndarray, params: AlignParams) -> Alignment:
    for _ in range(params.iterations):
        alignment = match_projections(level, axis, shift, _reach(level))
        shift = alignment.shift
    return alignment


def _find_axis(level: Level, found: Alignment, half_width: float, step: float) -> Alignment:
    number = int(np.ceil(half_width / step))
    offsets = np.linspace(-half_width, half_width, 2 * number + 1) if number else np.zeros(1)
    return search_axis(level, found, offsets, _reach(level))


def _reach(level: Level) -> float:
    """Largest change of a shift in one round, Å: beyond it the images of single particles are taken for each other."""
    return 3 * level.band[1]


def _exclude_disagreeing(series: TiltSeries, found: Alignment) -> tuple[TiltSeries, Alignment]:
    used = np.flatnonzero(series.use)
    order = np.argsort(series.stage_tilt_angle[used], kind="stable")
    correlation, faults = found.correlation[order], [""] * series.number
    for place, value in enumerate(correlation):
        around = np.delete(correlation, place)[max(0, place - 3) : place + 3]
        expected = float(np.median(around))
        if value < _DISAGREES * expected:
            reason = (
                f"misfit: image does not agree with the other tilts, correlation {value:.3f}, neighbours {expected:.3f}"
            )
            faults[used[order[place]]] = reason
    result = exclude_tilts(series, tuple(faults))
    kept = result.use[used]
    fields = {name: getattr(found, name)[kept] for name in ("shift", "step", "correlation", "correlation_before")}
    return result, replace(found, **fields)


def _agreement(level: Level, axis: float, shift: np.ndarray) -> float:
    """Mean correlation of the images with their reprojections as the shifts stand."""
    return float(match_projections(level, axis, shift, 0.0).correlation_before.mean())
