"""Align the images of a tilt series: without markers (ops/projection_matching.py), then by gold beads where they serve
better (ops/bead_alignment.py)."""

from dataclasses import dataclass, replace

import numpy as np

from tiltwise.data.errors import InputError, StageError
from tiltwise.data.progress import Progress, no_progress
from tiltwise.data.tilt_series import TiltGeometry, TiltSeries
from tiltwise.ops.bead_alignment import BeadAlignment, align_to_beads
from tiltwise.ops.beads import find_beads, measure_bead_diameter
from tiltwise.ops.image_cleaning import Frames, clean_images, find_faults
from tiltwise.ops.projection_matching import (
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
"""Resolutions of the first and the last level, Å; the last is at least four pixels, if it is not a parameter."""
_MARGIN = 100.0
"""Added to the measured specimen on either side, Å."""
_BEAD_PIXEL = 1 / 12
"""Pixel at which beads are located, in their diameters: a parabola through three samples of a response as smooth as
a bead errs by less than a fiftieth of a pixel."""
_DISAGREES = 0.3
"""A tilt whose correlation is below this part of what its neighbours in angle reach does not show the same specimen."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class AlignResult:
    tilt_series: TiltSeries
    """The series with its geometry set, and with unfit tilts excluded."""
    quality: dict
    """Figures per tilt and for the whole; lists are (tilt,), None where a tilt is excluded."""


def align(
    tilt_series: TiltSeries, params: AlignParams, *, device: str = "cpu", progress: Progress = no_progress
) -> AlignResult:
    """Shifts of all images and the tilt axis, from the images themselves.

    Without markers first: stretched cross-correlation along the tilt order (Guckenberger 1982), then projection
    matching from coarse to fine (Dengler 1989; Owen & Landis 1996), with the tilt angles of the stage. Where gold beads
    are found, shifts, axis and, if that serves, a drift of the axis and the tilt angles are fitted to them, and taken
    if they place held-out beads better. A tilt that is dark, or that does not agree with the others, is excluded with
    the reason, and its row of the geometry is interpolated. The axis stays in the half-turn of its prior; the origin
    is the middle of the specimen in depth, and where no common shift is left. Raises InputError where no axis is known
    or too few tilts are usable, and StageError where the result agrees less with the images than no alignment does, or
    beads are asked for and there are none.
    """
    prior = _axis_prior(tilt_series, params)
    series = _exclude(tilt_series, find_faults(tilt_series.images, tilt_series.use))
    finest = params.resolution or max(_FINE, 4 * series.pixel_size)
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
    found = _find_axis(middle, match_projections(middle, found.axis, found.shift, _reach(middle)), 1.2, 0.6)
    progress(0.45, "tilt axis searched")
    fine = _level(frames, series, finest, thickness)
    found = _find_axis(fine, match_projections(fine, found.axis, found.shift, _reach(fine)), 0.8, 0.4)
    progress(0.75, "tilt axis found")
    found = _match(fine, found.axis, found.shift, params)
    progress(0.9, "images matched to reprojections")

    before, after = _agreement(coarse, prior, np.zeros_like(found.shift)), _agreement(coarse, found.axis, found.shift)
    if after < before:
        raise StageError(
            f"{series.name}: the alignment found agrees less with the images (correlation {after:.4f}) than none at all"
            f" ({before:.4f}); check pixel size, tilt angles and tilt axis, or exclude bad tilts"
        )
    geometry = _one_axis(series.stage_tilt_angle[series.use], found)
    beads = None if params.method == "projection" else _follow_beads(frames, series, geometry, params)
    taken = beads is not None and (params.method == "beads" or beads.held_out < beads.held_out_before)
    result = replace(series, geometry=_geometry_of_all(series, beads.geometry if taken else geometry))
    quality = _quality(result, found, before, after) | _bead_quality(series, beads, taken)
    return AlignResult(tilt_series=result, quality=quality)


def _follow_beads(
    frames: Frames, series: TiltSeries, geometry: TiltGeometry, params: AlignParams
) -> BeadAlignment | None:
    """A fit to the beads of the used tilts, from a geometry for these; None where there are too few beads."""
    used = np.flatnonzero(series.use)
    diameter = measure_bead_diameter(replace(frames, data=frames.data[used]), series.stage_tilt_angle[used])
    found = None
    if diameter is not None:
        fine = clean_images(series, max(diameter * _BEAD_PIXEL, series.pixel_size), frames.data.device)
        candidates = [find_beads(fine, int(i), diameter) for i in used]
        found = align_to_beads(candidates, geometry, diameter, params.thickness)
    if found is None and params.method == "beads":
        raise StageError(f"{series.name}: too few gold beads to align by; set method of the step align to projection")
    return found


def _axis_prior(series: TiltSeries, params: AlignParams) -> float:
    axis = series.nominal_tilt_axis_angle if params.tilt_axis_angle is None else params.tilt_axis_angle
    if axis is None:
        raise InputError(f"{series.name}: no tilt axis in the metadata; set tilt_axis_angle of the step align")
    return float(axis)


def _exclude(series: TiltSeries, faults: tuple[str, ...]) -> TiltSeries:
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
            reason = f"image does not agree with the other tilts: correlation {value:.3f}, neighbours {expected:.3f}"
            faults[used[order[place]]] = reason
    result = _exclude(series, tuple(faults))
    kept = result.use[used]
    fields = {name: getattr(found, name)[kept] for name in ("shift", "step", "correlation", "correlation_before")}
    return result, replace(found, **fields)


def _agreement(level: Level, axis: float, shift: np.ndarray) -> float:
    """Mean correlation of the images with their reprojections as the shifts stand."""
    return float(match_projections(level, axis, shift, 0.0).correlation_before.mean())


def _one_axis(tilt_angle: np.ndarray, found: Alignment) -> TiltGeometry:
    number = len(tilt_angle)
    return TiltGeometry(
        tilt_angle=np.array(tilt_angle, dtype=float),
        tilt_axis_angle=np.full(number, found.axis),
        x_tilt=np.zeros(number),
        shift=found.shift,
    )


def _geometry_of_all(series: TiltSeries, found: TiltGeometry) -> TiltGeometry:
    """Geometry of all tilts from that of the used ones; what excluded ones lack is interpolated over the tilt angle."""
    stage, used = series.stage_tilt_angle, np.flatnonzero(series.use)
    order = np.argsort(stage[used], kind="stable")

    def spread(values: np.ndarray) -> np.ndarray:
        every = np.interp(stage, stage[used][order], values[order])
        every[used] = values
        return every

    return TiltGeometry(
        tilt_angle=stage + spread(found.tilt_angle - stage[used]),
        tilt_axis_angle=spread(found.tilt_axis_angle),
        x_tilt=spread(found.x_tilt),
        shift=np.stack([spread(found.shift[:, axis]) for axis in range(2)], axis=1),
    )


def _bead_quality(series: TiltSeries, beads: BeadAlignment | None, taken: bool) -> dict:
    """What the record says of beads; residual_A and the axis are theirs where they were taken."""
    if beads is None:
        return {"method": "projection", "beads": None}
    row = iter(beads.residual_by_tilt().tolist())
    residual = [next(row) if used else None for used in series.use]
    figures = {
        "number": len(beads.fit.state.points),
        "diameter_A": round(beads.diameter, 1),
        "model": beads.model,
        "parameters": beads.fit.parameters,
        "observations": len(beads.observations.tilt),
        "outliers": int(beads.outliers.sum()),
        "held_out_residual_A": round(beads.held_out, 4),
        "held_out_residual_without_A": round(beads.held_out_before, 4),
        "residual_A": [None if r is None or not np.isfinite(r) else round(r, 4) for r in residual],
    }
    if not taken:
        return {"method": "projection", "beads": figures}
    axis = round(float(np.median(beads.geometry.tilt_axis_angle)), 4)
    return {"method": "beads", "beads": figures, "residual_A": figures["residual_A"], "tilt_axis_angle_deg": axis}


def _quality(series: TiltSeries, found: Alignment, before: float, after: float) -> dict:
    def listed(values: np.ndarray) -> list[float | None]:
        row = iter(values.tolist())
        return [round(next(row), 6) if used else None for used in series.use]

    return {
        "shift_x_A": listed(series.geometry.shift[series.use, 0]),
        "shift_y_A": listed(series.geometry.shift[series.use, 1]),
        "residual_A": listed(found.step),
        "correlation": listed(found.correlation),
        "tilt_axis_angle_deg": round(found.axis, 4),
        "excluded": [
            {"tilt": i, "tilt_angle_deg": float(series.stage_tilt_angle[i]), "why_not": series.why_not[i]}
            for i in np.flatnonzero(~series.use).tolist()
        ],
        "sharpness_before": before,
        "sharpness_after": after,
    }
