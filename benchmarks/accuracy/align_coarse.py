"""The coarse stage of the alignment alone, on a simulated series of 1024 × 1024 px: shift errors and CPU seconds.

Sparse molecules through 170 px of depth at 4 Å/px, 41 tilts, noise of five times their power, shifts that walk by a
pixel a tilt. Errors (rms, px) across the tilt axis and along it, the specimen's translation taken out.
"""

import runpy
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from tiltwise.data.optics import Optics
from tiltwise.data.tilt_series import TiltSeries
from tiltwise.io.mrc import read_mrc
from tiltwise.ops.image_cleaning import clean_images
from tiltwise.ops.projection_matching import align_neighbours, prepare_level

CASES = Path(__file__).parents[3] / "shared" / "cases"
RESOLUTION, THICKNESS = 24.0, 2000.0
"""Å; resolution of six pixels. The stage starts at 80 Å, where this series comes to 1.0 px either way."""


def prepare() -> tuple[TiltSeries, np.ndarray] | None:
    """The series and its true shifts (tilt, 2) px, made by their own script; None where that is not here."""
    if not (CASES / "tilt_series.py").is_file():
        return None
    with tempfile.TemporaryDirectory(prefix="tiltwise-coarse-") as folder:
        kept, sys.argv = sys.argv, ["tilt_series.py", folder]
        try:
            runpy.run_path(str(CASES / "tilt_series.py"))
        finally:
            sys.argv = kept
        images, pixel_size = read_mrc(Path(folder) / "ts_shifted.mrc")
        angles, truth = (np.loadtxt(Path(folder) / name) for name in ("ts.tlt", "ts_shift_truth.txt"))
        return _series(np.array(images), pixel_size, angles), truth


def run(prepared: tuple[TiltSeries, np.ndarray] | None) -> dict:
    if prepared is None:
        return {"skipped": f"{CASES} is not here"}
    series, truth = prepared
    start = time.process_time()
    level = prepare_level(clean_images(series, RESOLUTION / 3), series.stage_tilt_angle, RESOLUTION, THICKNESS)
    shift = align_neighbours(level, series.nominal_tilt_axis_angle) / series.pixel_size
    seconds = time.process_time() - start
    across, along = runpy.run_path(str(CASES / "score.py"))["score_shifts"](shift, truth, series.stage_tilt_angle)[-1]
    return {"x_px": round(across, 3), "y_px": round(along, 3), "coarse_cpu_s": round(seconds, 2)}


def _series(images: np.ndarray, pixel_size: float, angles: np.ndarray) -> TiltSeries:
    number = len(angles)
    return TiltSeries(
        name="sparse",
        images=-images,  # the case's molecules are bright
        image_names=tuple(f"{i + 1:06d}@ts_shifted.mrc" for i in range(number)),
        pixel_size=pixel_size,
        optics=Optics(),
        stage_tilt_angle=angles,
        nominal_tilt_axis_angle=0.0,
        exposure=np.full(number, 3.0),
        pre_exposure=np.zeros(number),
        acquisition_order=np.argsort(np.argsort(np.abs(angles), kind="stable")),
        use=np.ones(number, bool),
        why_not=("",) * number,
    )
