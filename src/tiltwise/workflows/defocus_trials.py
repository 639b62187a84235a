"""Trials of the defocus fit: slabs of protein in ice whose defocus is known, fitted at the true geometry."""

import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from tiltwise.data.errors import StageError
from tiltwise.data.tilt_series import TiltSeries
from tiltwise.ops.thon_rings.measure import measure_rings, usable_tilts
from tiltwise.params.defocus import DefocusParams
from tiltwise.params.simulate import ErrorParams, SimulateParams, SpecimenParams
from tiltwise.simulate.acquisition import Scheme, acquire
from tiltwise.simulate.plane_field import plane_contrast
from tiltwise.simulate.slab_field import image_slab, slab_contrast
from tiltwise.stages.defocus import defocus
from tiltwise.workflows.defocus_baselines import defocus_alone, defocus_alone_free, defocus_of_strip
from tiltwise.workflows.defocus_bound import defocus_bound

_PROTEIN_FRACTION = 0.15  # of the volume
_BAND = (30.0, 5.0)  # Å, what DefocusParams stands for at 2.1 Å/px


@dataclass(frozen=True, kw_only=True, slots=True)
class Trial:
    """One series to be made and fitted."""

    seed: int
    """Seed of everything random."""
    defocus: float
    """Target of the series, Å; each tilt is off by 300 Å, each by itself."""
    image_size: int = 4096
    """px of 2.1 Å."""
    matter: Literal["layers", "strips"] = "strips"
    """How depth is imaged: a field for each layer (simulate.slab_field), or at once (plane_field), which is cheaper."""
    baselines: bool = False
    """Whether the baselines are fitted too."""


def measure(trial: Trial) -> dict:
    """Make the series, fit it, and compare with the truth."""
    return compare(*make_series(trial), baselines=trial.baselines)


def compare(truth: TiltSeries, params: SimulateParams, *, baselines: bool) -> dict:
    """Fit a series whose truth is known: errors (tilt,) and standard errors in Å, and what is shared by the tilts.

    With the Cramér–Rao bound in the band of the fit, and the errors of the baselines where they are asked for.
    """
    start = time.perf_counter(), time.process_time()
    result = defocus(replace(truth, ctf=None, defocus_handedness=None), DefocusParams())
    wall, cpu = time.perf_counter() - start[0], time.process_time() - start[1]
    found, true = result.tilt_series.ctf, truth.ctf
    if found is None:
        raise StageError(f"{truth.name}: {result.quality['reason']}")
    vectors = [(c.defocus_u - c.defocus_v) * np.exp(2j * np.radians(c.astigmatism_angle)) for c in (found, true)]
    turn = np.angle(np.mean(vectors[0]) * np.conj(np.mean(vectors[1])))
    return {
        "error": found.mean_defocus - true.mean_defocus,
        "sd": found.defocus_error,
        "bound": defocus_bound(truth, params, _PROTEIN_FRACTION, _BAND),
        "astigmatism": float(abs(vectors[0] - vectors[1]).max()),
        "u_less_v": float(abs(np.mean(vectors[1]))),
        "angle": float(abs(np.degrees(turn)) / 2),
        "inclination": float(np.hypot(*result.quality["specimen_slope_deg"])),
        "hand": result.tilt_series.defocus_handedness == truth.defocus_handedness,
        "thickness": result.quality["thickness_A"],
        "thickness_error": result.quality["thickness_error_A"],
        "seconds": wall,
        "cpu_seconds": cpu,
        **(dict(_baseline_errors(truth)) if baselines else {}),
    }


def _baseline_errors(truth: TiltSeries) -> Iterator[tuple[str, np.ndarray]]:
    """Name and errors (tilt,), Å, of each baseline at the true geometry and hand."""
    spectra, true = measure_rings(truth, usable_tilts(truth), DefocusParams()), truth.ctf.mean_defocus
    yield "alone_known", defocus_alone(spectra, truth.defocus_handedness) - true
    yield "alone_free", defocus_alone_free(spectra) - true
    yield "strip", defocus_of_strip(spectra, truth.defocus_handedness) - true


def make_series(trial: Trial) -> tuple[TiltSeries, SimulateParams]:
    """A level slab of 150 nm, 41 tilts of ±60°, 3 e⁻/Å² each, at 2.1 Å/px, with its true geometry and CTF."""
    params = _params(trial.image_size, trial.defocus, trial.defocus + 1e-6, trial.seed)
    random = np.random.default_rng([trial.seed, round(trial.defocus), 5])
    name = f"slab_{trial.seed}_{trial.defocus:g}"
    contrast = {"layers": slab_contrast, "strips": plane_contrast}[trial.matter]
    series = acquire(params, name, random)
    return image_slab(series, params, _PROTEIN_FRACTION, random, contrast_of_tilt=contrast), params


def _params(image_size: int, defocus_min: float, defocus_max: float, seed: int) -> SimulateParams:
    return SimulateParams(
        pixel_size=2.1,
        image_size=image_size,
        defocus_min=defocus_min,
        defocus_max=defocus_max,
        motion_b_factor=100.0,
        seed=seed,
        specimen=SpecimenParams(thickness=1500.0),
        errors=ErrorParams(defocus=300.0, astigmatism=1000.0, tilt_angle=0.0),
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class HandTrial:
    """One small series whose hand is to be found."""

    seed: int
    """Seed of everything random."""
    handedness: Literal[-1, 1]
    """The true one."""
    scheme: Literal["full", "narrow", "one_sided"] = "full"
    """±60° or ±40°, dose-symmetric, or 0 to 60° in rising order."""
    image_size: int = 1024
    """px of 2.1 Å."""


_TILT_AXES = (85.0, -5.0, 175.0, -95.0)  # degrees; each with an error of its own
_STEP = 3.0  # degrees


def find_hand(trial: HandTrial) -> dict:
    """Make a level slab in strips, fit it at the true geometry, and say what was decided: handedness and evidence."""
    truth = make_hand_series(trial)
    result = defocus(replace(truth, ctf=None, defocus_handedness=None), DefocusParams())
    return {
        "found": result.tilt_series.defocus_handedness,
        "evidence": result.quality["handedness_evidence"],
        "determined": result.quality["determined"],
    }


def make_hand_series(trial: HandTrial) -> TiltSeries:
    """At 2 to 4 µm, 150 nm of ice with 15 % protein, about one of four tilt axes; with its true geometry and CTF."""
    random = np.random.default_rng([trial.seed, trial.handedness + 1, 6])
    params = _params(trial.image_size, 20000.0, 40000.0, trial.seed).model_copy(
        update={
            "handedness": trial.handedness,
            "nominal_tilt_axis_angle": float(random.choice(_TILT_AXES)),
            "tilt_max": 40.0 if trial.scheme == "narrow" else 60.0,
        }
    )
    rising = np.arange(0, 60 + _STEP / 2, _STEP)
    scheme = Scheme.of((rising, np.arange(len(rising))), params.exposure) if trial.scheme == "one_sided" else None
    series = acquire(params, f"hand_{trial.seed}_{trial.handedness:+d}", random, scheme=scheme)
    return image_slab(series, params, _PROTEIN_FRACTION, random, contrast_of_tilt=plane_contrast)
