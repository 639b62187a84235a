"""What the record of an alignment says: figures per tilt, of the tracks, of the slab."""

from dataclasses import replace

import numpy as np

from tiltwise.data.tilt_series import TiltSeries
from tiltwise.ops.alignment.projection_matching import Alignment
from tiltwise.ops.alignment.tilt_faults import TiltScores
from tiltwise.ops.alignment.track_alignment import TrackAlignment
from tiltwise.ops.alignment.track_deformation import TrackDeformation
from tiltwise.ops.deformation import specimen_in_images

_ARROWS = 9
"""Places along each side at which a deformation is recorded."""


def matching_figures(series: TiltSeries, found: Alignment, correlation: tuple[float, float]) -> dict:
    """Of projection matching; series with its final geometry."""

    def listed(values: np.ndarray) -> list[float | None]:
        row = iter(values.tolist())
        return [round(next(row), 6) if used else None for used in series.use]

    return {
        "shift_x_A": listed(series.geometry.shift[series.use, 0]),
        "shift_y_A": listed(series.geometry.shift[series.use, 1]),
        "residual_A": listed(found.step),
        "correlation": listed(found.correlation),
        "tilt_axis_angle_deg": round(float(np.median(series.geometry.tilt_axis_angle[series.use])), 4),
        "excluded": [
            {"tilt": i, "tilt_angle_deg": float(series.stage_tilt_angle[i]), "why_not": series.why_not[i]}
            for i in np.flatnonzero(~series.use).tolist()
        ],
        "sharpness_before": correlation[0],
        "sharpness_after": correlation[1],
    }


def track_figures(series: TiltSeries, tracks: TrackAlignment | None, size: str) -> dict | None:
    """Of beads or patches; size names what their size is (diameter_A, width_A)."""
    if tracks is None:
        return None
    row = iter(tracks.residual_by_tilt().tolist())
    residual = [next(row) if used else None for used in series.use]
    return {
        "number": len(tracks.fit.state.points),
        size: round(tracks.size, 1),
        "model": tracks.model,
        "parameters": tracks.fit.parameters,
        "observations": len(tracks.observations.tilt),
        "outliers": int(tracks.outliers.sum()),
        "held_out_residual_A": round(tracks.held_out, 4),
        "held_out_residual_without_A": round(tracks.held_out_before, 4),
        "residual_A": [None if r is None or not np.isfinite(r) else round(r, 4) for r in residual],
    }


def score_figures(series: TiltSeries, scores: TiltScores | None) -> dict:
    """By how much tracks tell each tilt to be distorted and at odds with the others; nothing without tracks."""
    if scores is None:
        return {}

    def listed(values: np.ndarray) -> list[float | None]:
        row = iter(values.tolist())
        every = [next(row) if used else float("nan") for used in series.use]
        return [None if np.isnan(value) else round(value, 3) for value in every]

    return {"distortion_A": listed(scores.distortion), "misfit_A": listed(scores.misfit)}


def deformation_figures(found: TrackDeformation | None) -> dict | None:
    """Of the deformation that was tried: the widths of the priors of what was kept, the gain on held-out tracks, how
    far it moves the middle plane in each tilt, and how in the tilt where most: rows of x, y, dx, dy."""
    if found is None:
        return None
    figures = {
        "kept": dict(found.widths),
        "held_out_residual_A": round(found.held_out, 4),
        "held_out_residual_without_A": round(found.held_out_before, 4),
    }
    if not found.widths:
        return figures
    series = found.tilt_series
    along = [np.linspace(-0.45, 0.45, _ARROWS) * n * series.pixel_size for n in series.image_shape[::-1]]
    grid = np.stack(np.meshgrid(*along, 0.0), axis=-1).reshape(-1, 3)
    rigid = specimen_in_images(replace(series, deformation=None), grid)[0]
    moved = specimen_in_images(series, grid)[0] - rigid
    rms = np.sqrt((moved**2).sum(-1).mean(-1))
    rms[~series.use] = np.nan
    most = int(np.nanargmax(rms))
    return figures | {
        "moved_A": [None if np.isnan(value) else round(float(value), 3) for value in rms],
        "most_moved_tilt": most,
        "arrows_A": np.concatenate([rigid[most], moved[most]], axis=1).round(2).tolist(),
    }
