"""100 particles of box 64 from random rotations and ± 20 Å to two converged independent halves, against the oracle.

The case of shared_case.py: true geometry and CTF are given, poses are not. The reference is the particle low-passed to
40 Å. `oracle_ratio` as in the design's section on the measuring rod.
"""

import time
from pathlib import Path

import numpy as np
import torch
from shared_case import ABSENT, BOX, DIAMETER, anywhere, case_particles, case_reference, case_series, prepare

from tiltwise.data.maps import HalfMaps
from tiltwise.data.volume import Volume
from tiltwise.ops.masks import soft_mask_from_map
from tiltwise.ops.poses.comparison import compare_poses
from tiltwise.params.refine import RefineParams
from tiltwise.project.threads import keep_freed_memory
from tiltwise.stages.refine import refine
from tiltwise.workflows.map_scores import average_as, score_maps
from tiltwise.workflows.simulation import Truth

__all__ = ["prepare", "run"]

LOWPASS, AROUND, SEED = 40.0, 20.0, 1


def run(folder: Path | None) -> dict:
    if folder is None:
        return ABSENT
    keep_freed_memory()
    series, truth = {"TS1": case_series(folder)}, case_particles(folder)
    known = true_case(folder, series, truth)
    start = anywhere(truth, AROUND, SEED)
    params = RefineParams(
        box_size=BOX, particle_diameter=DIAMETER, reference_lowpass=LOWPASS, search_shift=1.75 * AROUND, iterations=8
    )
    began = time.perf_counter()
    result = refine(series, start, known.map, params)
    wall = time.perf_counter() - began
    kept = _indices(result.particles.position, truth.position)
    errors = compare_poses(
        result.particles.position, result.particles.rotation, truth.position[kept], truth.rotation[kept]
    )
    halves: HalfMaps = result.half_maps
    reached = {"measured": halves, "expected": average_as(result.tilt_series, result.particles, known, "expected")}
    figures = score_maps(reached, kept, known, errors.reference_motion.inverse())
    scalars = {key: value for key, value in figures.items() if not isinstance(value, list)}
    return {
        **scalars,
        "refine_wall_s": round(wall, 1),
        "resolution_fsc_A": result.quality["resolution_fsc_A"],
        "pose_error_median_deg": round(float(np.median(errors.angle)), 3),
        "pose_shift_median_A": round(float(np.median(errors.shift)), 3),
        "pose_outliers": round(float(np.mean(errors.angle > 15)), 3),
        "particles": len(result.particles),
        "iterations": len(result.quality["iterations"]),
    }


def true_case(folder: Path, series: dict, particles) -> Truth:
    """The case as a truth to be measured against."""
    reference = case_reference(folder)
    density = torch.as_tensor(np.array(reference.data, dtype=np.float32))
    mask = soft_mask_from_map(density, 0.05 * float(density.max()), 2.0, 6.0)
    return Truth(
        tilt_series=series,
        particles=particles,
        map=reference,
        mask=Volume(data=mask.numpy(), voxel_size=reference.voxel_size),
        particle_diameter=DIAMETER,
        reference_lowpass=LOWPASS,
    )


def _indices(found: np.ndarray, true: np.ndarray) -> np.ndarray:
    """For every particle found the true one it is: the nearest, 370 Å from its neighbours."""
    return np.array([int(np.argmin(np.linalg.norm(true - p, axis=1))) for p in found])
