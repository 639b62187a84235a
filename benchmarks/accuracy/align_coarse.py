"""The coarse stage of the alignment alone, on the shared series of 1024 × 1024 px: shift errors and CPU seconds.

Sparse molecules through 170 px of depth, 41 tilts, noise of five times their power, shifts that walk by a pixel a tilt.
Errors (rms, px) across the tilt axis and along it, the specimen's translation taken out.
"""

import runpy
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
from shared_case import ABSENT, CASES, case_series, prepare

from tiltwise.ops.alignment.image_cleaning import clean_images
from tiltwise.ops.alignment.projection_matching import align_neighbours, prepare_level

__all__ = ["prepare", "run"]

RESOLUTION, THICKNESS = 24.0, 2000.0
"""Å; resolution of six pixels. The stage itself starts at 80 Å, where this series comes to 1.0 px either way."""


def run(folder: Path | None) -> dict:
    if folder is None:
        return ABSENT
    series = case_series(folder, "ts_shifted.mrc")
    series = replace(series, images=-series.images, geometry=None)
    start = time.process_time()
    level = prepare_level(clean_images(series, RESOLUTION / 3), series.stage_tilt_angle, RESOLUTION, THICKNESS)
    shift = align_neighbours(level, series.nominal_tilt_axis_angle) / series.pixel_size
    seconds = time.process_time() - start
    truth = np.loadtxt(folder / "ts_shift_truth.txt")
    across, along = runpy.run_path(str(CASES / "score.py"))["score_shifts"](shift, truth, series.stage_tilt_angle)[-1]
    return {"x_px": round(across, 3), "y_px": round(along, 3), "coarse_cpu_s": round(seconds, 2)}
