"""Alignment without markers of simulated series, 2 Å/px, 150 and 250 nm of ice, against the truth.

Images of 2048 × 2048 px by the scene simulator (optics, counted electrons, 41 tilts of ±60°, 3 e⁻/Å² each, dose-
symmetric) of molecules of 1 and 2.3 MDa that fill 3 % of the ice, no gold. Stage angles err by 0.1° and the axis by
0.05° (sd, each tilt), the axis also by up to 1.5° in all; shifts walk by 8 Å a tilt. Nothing deforms in the first two
cases; in the third the specimen does, by 20 Å at the edge of the field over the series, and magnifications by 1e-4.
"""

import os
import shutil
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np

from tiltwise.data.tilt_series import TiltSeries
from tiltwise.io.acquisition import read_acquisition
from tiltwise.io.relion import read_tilt_series
from tiltwise.ops.alignment.comparison import remove_gauge
from tiltwise.ops.deformation import specimen_in_images
from tiltwise.ops.geometry import tilt_rotations
from tiltwise.params.align import AlignParams
from tiltwise.params.microscope import CameraParams, MicroscopeParams, MotionParams
from tiltwise.params.scene import CrowdParams, IceParams, SceneParams, TargetParams
from tiltwise.params.session import SessionParams
from tiltwise.stages.align import align
from tiltwise.workflows.scene_simulation import write_session

PIXEL, SIDE = 2.0, int(os.environ.get("TILTWISE_ALIGN_SIDE", "2048"))
CASES = {"150nm": (1500.0, 0.0), "250nm": (2500.0, 0.0), "150nm_deforming": (1500.0, 20.0)}
"""Thickness of the ice, deformation at the edge of the field over the series, Å."""
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
            for key, value in measure(*read_case(folder, name), CASES[name][0]).items():
                figures.setdefault(key, {})[name] = value
    finally:
        if "TILTWISE_ALIGN_SERIES" not in os.environ:
            shutil.rmtree(folder, ignore_errors=True)
    return {"image_size": SIDE} | figures


def session(name: str, seed: int = 0) -> SessionParams:
    """The specimen and the microscope of a case."""
    thickness, deformation = CASES[name]
    motion = MotionParams(deformation=deformation, magnification=1e-4 if deformation else 0.0)
    return SessionParams(
        scene=SceneParams(
            target=TargetParams(number=max(1, round(40 * (SIDE / 2048) ** 2)), gap=4.0),
            ice=IceParams(thickness=thickness),
            crowd=CrowdParams(fraction=0.03, masses=(1e6,)),
        ),
        microscope=MicroscopeParams(camera=CameraParams(pixel_size=PIXEL, image_size=SIDE), motion=motion),
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
    rigid = replace(found, deformation=None)
    errors = {"": reprojection_error(found, truth, thickness), "rigid_": reprojection_error(rigid, truth, thickness)}
    axis = remove_gauge(found.geometry, truth.geometry, found.use).tilt_axis_angle - truth.geometry.tilt_axis_angle
    patches = result.quality["patches"] or {}
    deformation = result.quality["deformation"] or {}
    return {
        **{f"{kind}reprojection_median_px": round(float(np.median(e)), 3) for kind, e in errors.items()},
        **{f"{kind}reprojection_worst_px": round(float(e.max()), 3) for kind, e in errors.items()},
        "tilt_axis_error_deg": round(float(abs(np.median(axis[found.use]))), 4),
        "method": result.quality["method"],
        "patches": {key: value for key, value in patches.items() if key != "residual_A"},
        "deformation": {key: value for key, value in deformation.items() if not key.endswith(("moved_A", "arrows_A"))},
        "specimen": result.quality["specimen"],
        "excluded": len(result.quality["excluded"]),
    }


def reprojection_error(found: TiltSeries, truth: TiltSeries, thickness: float) -> np.ndarray:
    """(used tilt,) rms distance (px) of points of the field's specimen from where they truly appear.

    The gauge is that of each point: it is first moved, in 3D, to where the found series shows it best. That takes three
    numbers from two for every tilt (a single tilt off by 6 Å is told as 5.7), and all that another choice of the shape
    that counts as undeformed would only rename.
    """
    half, used = SIDE * PIXEL / 2, np.flatnonzero(found.use)
    points = np.random.default_rng(0).uniform(-1, 1, (POINTS, 3)) * [half, half, thickness / 2]
    start = remove_gauge(found.geometry, truth.geometry, found.use)
    there, here = (specimen_in_images(s, points, used)[0] for s in (truth, replace(found, geometry=start)))
    views = tilt_rotations(start).numpy()[used, :2].reshape(-1, 3)
    error = (there - here).transpose(0, 2, 1).reshape(-1, POINTS)
    error -= views @ np.linalg.lstsq(views, error, rcond=None)[0]
    return np.sqrt(2 * (error.reshape(len(used), -1) ** 2).mean(axis=1)) / PIXEL
