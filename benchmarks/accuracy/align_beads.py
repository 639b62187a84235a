"""Alignment of simulated series with gold beads, 2 Å/px, ice of 150 and 250 nm, against the truth.

Images are counted electrons (3 e⁻/Å² a tilt, ice of 300 nm mean free path, gold of 10 nm that takes away two thirds)
of beads and of soft bodies; no optics. Stage angles err by 0.1° (sd), the axis drifts by 0.3°, shifts walk.
"""

import numpy as np
import torch

from tiltwise.data.optics import Optics
from tiltwise.data.tilt_series import TiltGeometry, TiltSeries
from tiltwise.ops.alignment.comparison import remove_gauge
from tiltwise.ops.geometry import project_points, tilt_rotations
from tiltwise.params.align import AlignParams
from tiltwise.stages.align import align

PIXEL, SIDE, TILTS, EXPOSURE, MEAN_FREE_PATH = 2.0, 1280, 41, 3.0, 3000.0
BEADS, BODIES, BEAD_RADIUS, BODY_SD = 20, 120, 50.0, 60.0
THICKNESSES = (1500.0, 2500.0)


def run() -> dict:
    figures: dict = {}
    for thickness in THICKNESSES:
        for key, value in measure(thickness).items():
            figures.setdefault(key, {})[f"{thickness / 10:.0f}nm"] = value
    return figures


def measure(thickness: float, seed: int = 0) -> dict:
    rng = np.random.default_rng([seed, int(thickness)])
    truth = true_geometry(rng)
    series = record(truth, thickness, rng)
    result = align(series, AlignParams(thickness=max(2000.0, 1.2 * thickness)))
    error = reprojection_error(result.tilt_series.geometry, truth, thickness, rng) / PIXEL
    axis = result.tilt_series.geometry.tilt_axis_angle - truth.tilt_axis_angle
    beads = result.quality["beads"] or {}
    return {
        "reprojection_median_px": round(float(np.median(error)), 3),
        "reprojection_worst_px": round(float(error.max()), 3),
        "tilt_axis_error_deg": round(float(abs(np.median(axis))), 4),
        "tilt_axis_worst_deg": round(float(np.abs(axis).max()), 4),
        "method": result.quality["method"],
        "beads": {key: value for key, value in beads.items() if key != "residual_A"},
        "excluded": len(result.quality["excluded"]),
    }


def true_geometry(rng: np.random.Generator) -> TiltGeometry:
    angles = np.linspace(-60, 60, TILTS)
    walk = np.cumsum(rng.normal(0, 15, (TILTS, 2)), axis=0)
    return TiltGeometry(
        tilt_angle=angles + rng.normal(0, 0.1, TILTS),
        tilt_axis_angle=84.3 + 0.3 * angles / 120,
        x_tilt=np.zeros(TILTS),
        shift=walk - walk[TILTS // 2],
    )


def record(truth: TiltGeometry, thickness: float, rng: np.random.Generator) -> TiltSeries:
    half = SIDE * PIXEL / 2
    beads = rng.uniform(-1, 1, (BEADS, 3)) * [0.9 * half, 0.9 * half, thickness / 2]
    bodies = rng.uniform(-1, 1, (BODIES, 3)) * [2 * half, half, thickness / 2]
    images = np.zeros((TILTS, SIDE, SIDE), np.float32)
    turns, shift = tilt_rotations(truth), torch.as_tensor(truth.shift)
    gold, soft = (project_points(torch.as_tensor(p), turns, shift)[0].numpy() for p in (beads, bodies))
    for i, angle in enumerate(np.radians(truth.tilt_angle)):
        absorbed = np.full((SIDE, SIDE), thickness / MEAN_FREE_PATH / np.cos(angle))
        for place in gold[i]:
            stamp(absorbed, place, BEAD_RADIUS, lambda d2: 1.1 * np.sqrt(np.maximum(0, 1 - d2 / BEAD_RADIUS**2)))
        for place in soft[i]:
            stamp(absorbed, place, 3 * BODY_SD, lambda d2: 0.05 * np.exp(-d2 / (2 * BODY_SD**2)))
        images[i] = rng.poisson(EXPOSURE * PIXEL**2 * np.exp(-absorbed))
    return TiltSeries(
        name=f"beads_{thickness / 10:.0f}nm",
        images=images,
        image_names=tuple(f"{i + 1:06d}@made.mrc" for i in range(TILTS)),
        pixel_size=PIXEL,
        optics=Optics(),
        stage_tilt_angle=np.linspace(-60, 60, TILTS),
        nominal_tilt_axis_angle=85.0,
        exposure=np.full(TILTS, EXPOSURE),
        pre_exposure=EXPOSURE * np.arange(TILTS),
        acquisition_order=np.arange(TILTS),
        use=np.ones(TILTS, bool),
        why_not=("",) * TILTS,
    )


def stamp(image: np.ndarray, place: np.ndarray, reach: float, profile) -> None:
    """Add profile(squared distance, Å²) about a place (x, y in Å from the image centre), in place."""
    column, row = place / PIXEL + SIDE // 2
    n = int(np.ceil(reach / PIXEL)) + 1
    y = np.arange(max(0, int(row) - n), min(SIDE, int(row) + n + 2))
    x = np.arange(max(0, int(column) - n), min(SIDE, int(column) + n + 2))
    if len(x) and len(y):
        squared = ((x - column)[None, :] ** 2 + (y - row)[:, None] ** 2) * PIXEL**2
        image[y[0] : y[-1] + 1, x[0] : x[-1] + 1] += profile(squared)


def reprojection_error(
    found: TiltGeometry, truth: TiltGeometry, thickness: float, rng: np.random.Generator
) -> np.ndarray:
    """(tilt,) rms distance (Å) of 1000 points of the field's specimen from where they truly appear, gauge removed."""
    half = SIDE * PIXEL / 2
    points = torch.as_tensor(rng.uniform(-1, 1, (1000, 3)) * [half, half, thickness / 2])
    levelled = remove_gauge(found, truth)
    places = [project_points(points, tilt_rotations(g), torch.as_tensor(g.shift))[0] for g in (levelled, truth)]
    return ((places[0] - places[1]) ** 2).sum(-1).mean(-1).sqrt().numpy()
