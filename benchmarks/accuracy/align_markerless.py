"""Alignment without markers of simulated series, 2 Å/px, 150 and 250 nm of ice, against the truth.

Images of 2048 × 2048 px by the scene simulator (optics, counted electrons, 41 tilts of ±60°, 3 e⁻/Å² each, dose-
symmetric) of molecules of 1 and 2.3 MDa that fill 3 % of the ice, no gold. Stage angles err by 0.1° and the axis by
0.05° (sd, each tilt), the axis also by up to 1.5° in all; shifts walk by 8 Å a tilt. Nothing deforms.
"""

import os
import shutil
import tempfile
from pathlib import Path

import numpy as np
import torch

from tiltwise.data.tilt_series import TiltGeometry, TiltSeries
from tiltwise.io.acquisition import read_acquisition
from tiltwise.io.relion import read_tilt_series
from tiltwise.ops.alignment_comparison import remove_gauge
from tiltwise.ops.geometry import project_points, tilt_rotations
from tiltwise.params.align import AlignParams
from tiltwise.params.microscope import CameraParams, MicroscopeParams, MotionParams
from tiltwise.params.scene import CrowdParams, IceParams, SceneParams, TargetParams
from tiltwise.params.session import SessionParams
from tiltwise.stages.align import align
from tiltwise.workflows.scene_simulation import write_session

PIXEL, SIDE = 2.0, int(os.environ.get("TILTWISE_ALIGN_SIDE", "2048"))
CASES = {"150nm": 1500.0, "250nm": 2500.0}
"""Thickness of the ice, Å."""
POINTS = 1000


def prepare() -> Path:
    """The folder of the simulated sessions; one that is named in TILTWISE_ALIGN_SERIES is kept, and used again."""
    kept = os.environ.get("TILTWISE_ALIGN_SERIES")
    folder = Path(kept or tempfile.mkdtemp(prefix="tiltwise-markerless-"))
    for name in CASES:
        if not (folder / name).exists():
            folder.mkdir(parents=True, exist_ok=True)
            write_session(folder / name, session(name))
    return folder


def run(folder: Path) -> dict:
    figures: dict = {}
    try:
        for name in CASES:
            for key, value in measure(*read_case(folder, name), CASES[name]).items():
                figures.setdefault(key, {})[name] = value
    finally:
        if "TILTWISE_ALIGN_SERIES" not in os.environ:
            shutil.rmtree(folder, ignore_errors=True)
    return {"image_size": SIDE} | figures


def session(name: str, seed: int = 0) -> SessionParams:
    """The specimen and the microscope of a case."""
    return SessionParams(
        scene=SceneParams(
            target=TargetParams(number=max(1, round(40 * (SIDE / 2048) ** 2)), gap=4.0),
            ice=IceParams(thickness=CASES[name]),
            crowd=CrowdParams(fraction=0.03, masses=(1e6,)),
        ),
        microscope=MicroscopeParams(
            camera=CameraParams(pixel_size=PIXEL, image_size=SIDE),
            motion=MotionParams(deformation=0.0, magnification=0.0),
        ),
        seed=seed,
    )


def read_case(folder: Path, name: str) -> tuple[TiltSeries, TiltSeries]:
    """The series as the microscope leaves it, and with its true geometry."""
    return (
        read_acquisition(folder / name / "data" / "TS_01.mrc").tilt_series,
        read_tilt_series(folder / name / "truth" / "TS_01.star", root=folder / name),
    )


def measure(series: TiltSeries, truth: TiltSeries, thickness: float) -> dict:
    result = align(series, AlignParams(thickness=max(2000.0, 1.2 * thickness)))
    found = result.tilt_series
    error = reprojection_error(found.geometry, truth.geometry, thickness, found.use)[found.use] / PIXEL
    axis = remove_gauge(found.geometry, truth.geometry, found.use).tilt_axis_angle - truth.geometry.tilt_axis_angle
    patches = result.quality["patches"] or {}
    return {
        "reprojection_median_px": round(float(np.median(error)), 3),
        "reprojection_worst_px": round(float(error.max()), 3),
        "tilt_axis_error_deg": round(float(abs(np.median(axis[found.use]))), 4),
        "method": result.quality["method"],
        "patches": {key: value for key, value in patches.items() if key != "residual_A"},
        "specimen": result.quality["specimen"],
        "excluded": len(result.quality["excluded"]),
    }


def reprojection_error(found: TiltGeometry, truth: TiltGeometry, thickness: float, use: np.ndarray) -> np.ndarray:
    """(tilt,) rms distance (Å) of points of the field's specimen from where they truly appear, gauge removed."""
    half = SIDE * PIXEL / 2
    points = torch.as_tensor(np.random.default_rng(0).uniform(-1, 1, (POINTS, 3)) * [half, half, thickness / 2])
    levelled = remove_gauge(found, truth, use)
    places = [project_points(points, tilt_rotations(g), torch.as_tensor(g.shift))[0] for g in (levelled, truth)]
    return ((places[0] - places[1]) ** 2).sum(-1).mean(-1).sqrt().numpy()
