"""Alignment without markers of simulated series, 2 Å/px, 150 and 250 nm of crowded ice, against the truth.

Images of 2048 × 2048 px by the scene simulator (optics, counted electrons, 41 tilts of ±60°, 3 e⁻/Å² each, dose-
symmetric) of molecules of 1 and 2.3 MDa that fill 3 % of the ice, no gold. Stage angles err by 0.1° and the axis by
0.05° (sd, each tilt), the axis also by up to 1.5° in all; shifts walk by 8 Å a tilt. A third series also deforms, by
20 Å at its edge at the end.
"""

import os
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from tiltwise.data.deformation import SampleDeformation
from tiltwise.data.tilt_series import TiltGeometry, TiltSeries
from tiltwise.io.acquisition import read_acquisition
from tiltwise.io.frame_motion import read_motion
from tiltwise.io.relion import read_tilt_series
from tiltwise.ops.alignment_comparison import remove_gauge
from tiltwise.ops.geometry import project_points, tilt_rotations
from tiltwise.ops.motion import specimen_displacement
from tiltwise.params.align import AlignParams
from tiltwise.params.microscope import CameraParams, MicroscopeParams, MotionParams
from tiltwise.params.scene import CrowdParams, IceParams, SceneParams, TargetParams
from tiltwise.params.session import SessionParams
from tiltwise.stages.align import align
from tiltwise.workflows.scene_simulation import write_session

PIXEL, SIDE = 2.0, int(os.environ.get("TILTWISE_ALIGN_SIDE", "2048"))
CASES = {"150nm": (1500.0, 0.0), "250nm": (2500.0, 0.0), "150nm_deforming": (1500.0, 20.0)}
"""Thickness of the ice, and deformation at the edge of the field, Å."""
POINTS = 1000


@dataclass(frozen=True, slots=True, eq=False)
class Case:
    """A simulated series and what is known of it."""

    series: TiltSeries
    """As the microscope leaves it."""
    truth: TiltSeries
    """With its true geometry."""
    deformation: SampleDeformation
    """Of the specimen."""
    thickness: float
    """Å."""


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
            for key, value in measure(read_case(folder, name)).items():
                figures.setdefault(key, {})[name] = value
    finally:
        if "TILTWISE_ALIGN_SERIES" not in os.environ:
            shutil.rmtree(folder, ignore_errors=True)
    return {"image_size": SIDE} | figures


def session(name: str, seed: int = 0) -> SessionParams:
    """The specimen and the microscope of a case."""
    thickness, deformation = CASES[name]
    return SessionParams(
        scene=SceneParams(
            target=TargetParams(number=max(1, round(40 * (SIDE / 2048) ** 2)), gap=4.0),
            ice=IceParams(thickness=thickness),
            crowd=CrowdParams(fraction=0.03, masses=(1e6,)),
        ),
        microscope=MicroscopeParams(
            camera=CameraParams(pixel_size=PIXEL, image_size=SIDE),
            motion=MotionParams(deformation=deformation, magnification=0.0),
        ),
        seed=seed,
    )


def read_case(folder: Path, name: str) -> Case:
    return Case(
        series=read_acquisition(folder / name / "data" / "TS_01.mrc").tilt_series,
        truth=read_tilt_series(folder / name / "truth" / "TS_01.star", root=folder / name),
        deformation=read_motion(folder / name / "truth" / "TS_01_motion.npz")[1],
        thickness=CASES[name][0],
    )


def measure(case: Case) -> dict:
    result = align(case.series, AlignParams(thickness=max(2000.0, 1.2 * case.thickness)))
    found = result.tilt_series
    error = reprojection_error(found.geometry, case, found.use)[found.use] / PIXEL
    axis = found.geometry.tilt_axis_angle - case.truth.geometry.tilt_axis_angle
    return {
        "reprojection_median_px": round(float(np.median(error)), 3),
        "reprojection_worst_px": round(float(error.max()), 3),
        "tilt_axis_error_deg": round(float(abs(np.median(axis[found.use]))), 4),
        "method": result.quality["method"],
        "excluded": len(result.quality["excluded"]),
    }


def reprojection_error(found: TiltGeometry, case: Case, use: np.ndarray) -> np.ndarray:
    """(tilt,) rms distance (Å) of points of the field's specimen from where they truly appear, gauge removed.

    Points that move with the specimen have a place of their own for each tilt; the mean of their motion over the tilts
    is not an error of the alignment, but where they are said to lie.
    """
    truth, rng = case.truth, np.random.default_rng(0)
    half = SIDE * PIXEL / 2
    points = rng.uniform(-1, 1, (POINTS, 3)) * [half, half, case.thickness / 2]
    rotations, shift = tilt_rotations(truth.geometry), torch.as_tensor(truth.geometry.shift)
    middle = truth.pre_exposure + truth.exposure / 2
    moved = np.stack([points + specimen_displacement(case.deformation, points, float(n)) for n in middle])
    place = [
        project_points(torch.as_tensor(p), rotations[i : i + 1], shift[i : i + 1])[0][0] for i, p in enumerate(moved)
    ]
    levelled = remove_gauge(found, truth.geometry, use)
    mean = torch.as_tensor(moved[use].mean(0))
    foretold = project_points(mean, tilt_rotations(levelled), torch.as_tensor(levelled.shift))[0]
    return ((foretold - torch.stack(place)) ** 2).sum(-1).mean(-1).sqrt().numpy()
