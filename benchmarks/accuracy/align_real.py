"""Alignment of two real HIV-1 tilt series (EMPIAR-10164): against the published one, and by beads held out of both."""

from dataclasses import replace
from pathlib import Path

import numpy as np

from tiltwise.data.tilt_series import TiltSeries
from tiltwise.io.acquisition import read_acquisition
from tiltwise.io.relion.tilt_series import read_tilt_series_set
from tiltwise.ops.alignment.beads import find_beads, track_beads
from tiltwise.ops.alignment.bundle_adjustment import Freedom, Freedoms, adjust, triangulate
from tiltwise.ops.alignment.bundle_system import BundleState
from tiltwise.ops.alignment.comparison import compare_alignments, kurtosis_ratio, remove_gauge
from tiltwise.ops.alignment.image_cleaning import clean_images
from tiltwise.ops.alignment.track_alignment import NOTHING, Tracks, held_out_residual
from tiltwise.params.align import AlignParams
from tiltwise.stages.align import align

SHARED = Path(__file__).parents[3] / "shared" / "data" / "hiv_empiar10164"
NAMES = ("TS_03", "TS_43")
FAR = 5.0
"""Shift differences (Å) beyond which a tilt is named."""


def run() -> dict:
    if not SHARED.is_dir():
        return {"skipped": f"{SHARED} is not here"}
    stacks = {name: read_acquisition(SHARED / "stacks" / f"{name}.mrc").tilt_series for name in NAMES}
    table = SHARED / "relion5" / "Tomograms" / "job006" / "tomograms.star"
    published = read_tilt_series_set(table, images={name: series.images for name, series in stacks.items()})
    figures: dict = {}
    for name, series in stacks.items():
        for key, value in measure(series, published[name]).items():
            figures.setdefault(key, {})[name] = value
    return figures


def measure(series: TiltSeries, published: TiltSeries) -> dict:
    result = align(series, AlignParams())
    ours = result.tilt_series
    comparison = compare_alignments(ours, published)
    distance = np.linalg.norm(comparison.shift_difference, axis=1)
    far = np.flatnonzero(distance > FAR)
    near = replace(ours, use=ours.use & (distance <= FAR))
    beads = result.quality["beads"]
    return {
        "method": result.quality["method"],
        "shift_rms_A": round(comparison.shift_rms, 2),
        "shift_rms_other_tilts_A": round(compare_alignments(near, published).shift_rms, 2),
        "far_tilts": {f"{ours.stage_tilt_angle[i]:.0f}": round(float(distance[i]), 1) for i in far},
        "axis_error_deg": round(comparison.axis_error, 3),
        "axis_drift_deg": round(float(np.ptp(ours.geometry.tilt_axis_angle)), 3),
        "kurtosis_ratio": round(kurtosis_ratio(ours, published), 4),
        "beads": beads and {key: value for key, value in beads.items() if key != "residual_A"},
        "bead_residual_A": beads_of_both(ours, published, beads["diameter_A"]) if beads else None,
    }


def beads_of_both(ours: TiltSeries, published: TiltSeries, diameter: float) -> dict:
    """Mean residual (Å) of the same beads placed in either geometry, with and without the far tilts.

    Beads are followed with the published geometry: what is asked is kind to it.
    """
    frames = clean_images(ours, diameter / 12)
    candidates = [find_beads(frames, i, diameter) for i in range(ours.number)]
    tracks = track_beads(candidates, published.geometry, diameter, 1500.0, 50.0)
    distance = np.linalg.norm(compare_alignments(ours, published).shift_difference, axis=1)
    without = _without(tracks, distance > FAR)
    figures: dict = {"number": len(tracks.points)}
    for who, geometry in (("ours", ours.geometry), ("published", published.geometry)):
        figures[who] = round(held_out_residual(tracks, geometry, NOTHING), 2)
        figures[f"{who}_other_tilts"] = round(held_out_residual(without, geometry, NOTHING), 2)
    return figures | {"moves_of_published_A": _moves(tracks, published)}


def _moves(tracks: Tracks, published: TiltSeries) -> dict:
    """By how much (Å) beads move the published shifts when nothing else is free, above FAR: {angle: [move, beads]}."""
    start = triangulate(tracks.observations, BundleState.undistorted(published.geometry, tracks.points))
    fit = adjust(tracks.observations, start, Freedoms(tilt_axis_angle=Freedom(deviation=0.0)))
    change = remove_gauge(fit.state.geometry, published.geometry, published.use).shift - published.geometry.shift
    move, beads = np.linalg.norm(change, axis=1), np.bincount(tracks.observations.tilt, minlength=len(change))
    far = np.flatnonzero(move > FAR)
    return {f"{published.stage_tilt_angle[i]:.0f}": [round(float(move[i]), 1), int(beads[i])] for i in far}


def _without(tracks: Tracks, tilts: np.ndarray) -> Tracks:
    keep = ~tilts[tracks.observations.tilt]
    fields = {name: getattr(tracks.observations, name)[keep] for name in ("tilt", "point", "position", "weight")}
    return replace(tracks, observations=replace(tracks.observations, **fields))
