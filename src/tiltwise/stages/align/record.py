"""What the record of an alignment says: figures per tilt, of the tracks, of the slab."""

import numpy as np

from tiltwise.data.tilt_series import TiltSeries
from tiltwise.ops.projection_matching import Alignment
from tiltwise.ops.track_alignment import TrackAlignment


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
