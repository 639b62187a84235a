"""Records and values of a project, written by hand: no stage is run for them."""

from dataclasses import replace

import numpy as np
from scipy import ndimage

from tiltwise.data.optics import Ctf
from tiltwise.data.tilt_series import TiltGeometry
from tiltwise.project import store
from tiltwise.project.graph import Item
from tiltwise.project.records import write_record
from tiltwise.project.state import ProjectState

TILTS = np.arange(-60.0, 61.0, 15.0)
NUMBER = len(TILTS)


def put(project, step, item, quality, values, error=None):
    """Write an item as a run would have left it."""
    state = ProjectState(project)
    number = state.recipe.step_number(step)
    folder = state.folder(Item(number, item))
    folder.mkdir(parents=True)
    files = {
        path.name: {"kind": kind, "bytes": path.stat().st_size, "sha256": ""}
        for kind, value in values.items()
        for path in store.save(kind, value, folder, project)
    }
    record = {
        "step": step,
        "item": item,
        "state": "failed" if error else "done",
        "stage": step,
        "fingerprint": state.fingerprint(Item(number, item)),
        "params": state.recipe.steps[number].params.model_dump(mode="json"),
        "outputs": files,
        "quality": quality,
        "error": {"type": "StageError", "message": error} if error else None,
        "packages": {"numpy": "2.4"},
        "seconds": 12.3,
        "peak_memory_GB": 0.5,
        "threads": 2,
        "device": "cpu",
        "seed": 0,
        "started": "2026-11-21T02:00:00+00:00",
        "tiltwise": "0.1.0",
    }
    write_record(folder, record)


def aligned(series):
    """The series with a geometry, one tilt excluded."""
    use = np.ones(NUMBER, bool)
    use[0] = False
    geometry = TiltGeometry(
        tilt_angle=TILTS, tilt_axis_angle=np.full(NUMBER, 85.0), x_tilt=np.zeros(NUMBER), shift=np.zeros((NUMBER, 2))
    )
    return replace(series, geometry=geometry, use=use, why_not=("dark: mean below & beyond",) + ("",) * (NUMBER - 1))


def with_ctf(series):
    """The series with a fitted CTF."""
    same = np.full(NUMBER, 25000.0)
    zero = np.zeros(NUMBER)
    ctf = Ctf(
        defocus_u=same, defocus_v=same - 200, astigmatism_angle=zero, phase_shift=zero, defocus_error=zero + 80,
        fit_resolution=zero + 12,
    )  # fmt: skip
    return replace(series, ctf=ctf, defocus_handedness=-1)


def align_quality():
    rng = np.random.default_rng(1)
    return {
        "shift_x_A": rng.normal(0, 20, NUMBER).tolist(),
        "shift_y_A": rng.normal(0, 20, NUMBER).tolist(),
        "residual_A": [None, *rng.random(NUMBER - 1).tolist()],
        "correlation": rng.random(NUMBER).tolist(),
        "tilt_axis_angle_deg": 85.12,
        "deformation": {
            "kept": {"sample": 1.0},
            "held_out_residual_A": 2.04,
            "held_out_residual_without_A": 3.11,
            "moved_A": [1.0, 2.0, None, 3.0, 4.0, 5.0, 6.0, 7.0],
            "most_moved_tilt": 7,
            "arrows_A": [[x, y, x / 100, -y / 100] for x in (-500.0, 0.0, 500.0) for y in (-500.0, 0.0, 500.0)],
        },
        "sharpness_before": 1.2,
        "sharpness_after": 3.4,
    }


def defocus_quality():
    k = np.linspace(0.01, 0.1, 80)
    rings = np.sin(1500 * k**2) ** 2
    return {
        "determined": True,
        "defocus_A": [None, *np.linspace(24000, 26000, NUMBER - 1).tolist()],
        "defocus_error_A": [80.0] * NUMBER,
        "fit_resolution_A": [12.0] * NUMBER,
        "astigmatism_A": 200.0,
        "astigmatism_error_A": 14.2,
        "astigmatism_angle_deg": 30.0,
        "astigmatism_angle_error_deg": 2.1,
        "astigmatism_drift_A": 61.0,
        "astigmatism_drift_error_A": 17.0,
        "thickness_A": 1493.9,
        "thickness_error_A": 23.2,
        "specimen_slope_deg": [0.031, -0.012],
        "specimen_slope_error_deg": [0.02, 0.04],
        "handedness": -1,
        "handedness_evidence": 17.5,
        "spectrum_frequency": k.tolist(),
        "spectrum_observed": [(rings + 0.1 * i).tolist() for i in range(NUMBER)],
        "spectrum_fitted": [rings.tolist()] * NUMBER,
    }


def reconstruct_quality():
    return {
        "voxel_size_A": 10.0,
        "tilts": 8,
        "ctf_correction": "phase_flip by depth",
        "deformation_A": 17.26,
        "halves": "frames",
        "beads_erased": 0,
        "bead_shape": {
            "beads": 13,
            "elongation": 1.538,
            "elongation_expected": 1.546,
            "lowest_angle_deg": -62.0,
            "highest_angle_deg": 52.0,
            "tilt_range_deg": [-63.61, 56.39],
            "missing_wedge": 0.367,
            "missing_wedge_expected": 0.333,
        },
        "notes": ["tilt 5: the image is constant and was left out"],
    }


def fsc_quality():
    k = np.arange(25) / (48 * 4.0)
    curve = 1 / (1 + np.exp(180 * (k - 0.07)))
    return {
        "resolution_fsc_A": 12.5,
        "frequency": k.tolist(),
        "fsc_unmasked": (0.8 * curve).tolist(),
        "fsc_masked": curve.tolist(),
        "fsc_randomised": (0.1 * curve).tolist(),
        "fsc_corrected": (0.97 * curve).tolist(),
        "b_factor_A2": None,
        "guinier_inverse_square": [],
        "guinier_log_amplitude": [],
        "notes": ["no B-factor was fitted and the map is not sharpened: 3 shells are too few"],
    }


def exposure_curves():
    exposure = np.arange(1.5, 120, 3.0)
    left = np.exp(-exposure[:, None] * np.array([0.005, 0.01, 0.02, 0.04]))
    return {
        "spacing_A": [40.0, 20.0, 13.3, 10.0],
        "exposure": exposure.tolist(),
        "tilt_angle_deg": np.linspace(0, 60, len(exposure)).tolist(),
        "images": [3] * len(exposure),
        "critical": left.tolist(),
        "published": left.tolist(),
        "measured": (1.1 * left).tolist(),
        "error": (0.1 + 0 * left).tolist(),
        "ssnr": (0.01 * left**2).tolist(),
    }


def density(n=48):
    rng = np.random.default_rng(2)
    points = rng.normal(0, 7, (60, 3)) + n // 2
    volume = np.zeros((n, n, n), np.float32)
    volume[tuple(points.astype(int).clip(4, n - 5).T)] = 1
    return ndimage.gaussian_filter(volume, 2.0)
