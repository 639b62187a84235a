"""Trials of the defocus fit: slabs of protein in ice whose defocus is known, fitted at the true geometry."""

import time
from dataclasses import dataclass, replace

import numpy as np

from tiltwise.data.errors import StageError
from tiltwise.data.tilt_series import TiltSeries
from tiltwise.params.defocus import DefocusParams
from tiltwise.params.simulate import ErrorParams, SimulateParams, SpecimenParams
from tiltwise.simulate.acquisition import acquire
from tiltwise.simulate.slab_field import image_slab
from tiltwise.stages.defocus import defocus


@dataclass(frozen=True, kw_only=True, slots=True)
class Trial:
    """One series to be made and fitted."""

    seed: int
    """Seed of everything random."""
    defocus: float
    """Target of the series, Å; each tilt is off by 300 Å, each by itself."""
    image_size: int = 4096
    """px of 2.1 Å."""
    protein_fraction: float = 0.15
    """Part of the volume."""


def measure(trial: Trial) -> dict:
    """Make the series, fit it, compare: errors (tilt,) and standard errors in Å, and what is shared by the tilts."""
    truth = make_series(trial)
    start = time.perf_counter()
    result = defocus(replace(truth, ctf=None, defocus_handedness=None), DefocusParams())
    seconds = time.perf_counter() - start
    found, true = result.tilt_series.ctf, truth.ctf
    if found is None:
        raise StageError(f"{truth.name}: {result.quality['reason']}")
    vectors = [
        (c.defocus_u - c.defocus_v)[0] * np.exp(2j * np.radians(float(c.astigmatism_angle[0]))) for c in (found, true)
    ]
    return {
        "error": found.mean_defocus - true.mean_defocus,
        "sd": found.defocus_error,
        "astigmatism": float(abs(vectors[0] - vectors[1])),
        "u_less_v": float(abs(vectors[1])),
        "angle": float(abs(np.degrees(np.angle(vectors[0] * np.conj(vectors[1]))) / 2)),
        "inclination": float(np.hypot(*result.quality["specimen_slope_deg"])),
        "hand": result.tilt_series.defocus_handedness == truth.defocus_handedness,
        "thickness": result.quality["thickness_A"],
        "seconds": seconds,
    }


def make_series(trial: Trial) -> TiltSeries:
    """A level slab of 150 nm, 41 tilts of ±60°, 3 e⁻/Å² each, at 2.1 Å/px, with its true geometry and CTF."""
    params = SimulateParams(
        pixel_size=2.1,
        image_size=trial.image_size,
        defocus_min=trial.defocus,
        defocus_max=trial.defocus + 1e-6,
        motion_b_factor=100.0,
        seed=trial.seed,
        specimen=SpecimenParams(thickness=1500.0),
        errors=ErrorParams(defocus=300.0, astigmatism=1000.0, tilt_angle=0.0),
    )
    random = np.random.default_rng([trial.seed, round(trial.defocus), 5])
    name = f"slab_{trial.seed}_{trial.defocus:g}"
    return image_slab(acquire(params, name, random), params, trial.protein_fraction, random)
