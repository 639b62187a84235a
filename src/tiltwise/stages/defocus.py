"""Defocus, astigmatism and handedness: one model of the Thon rings, fitted to all patches of all tilts at once.

The geometry is fixed by the alignment: each patch lies at the depth of the specimen plane there, and
defocus(patch, i) = defocus_i + h · depth. The power spectra are compared with the rings by Whittle's likelihood, so
that standard errors, and the evidence for h = +1 against -1, mean what they say. Model: ops.thon_rings.model.
"""

import math
from dataclasses import dataclass, replace

import numpy as np
import torch

from tiltwise.data.errors import StageError
from tiltwise.data.optics import Ctf
from tiltwise.data.progress import Progress, no_progress
from tiltwise.data.tilt_series import TiltSeries
from tiltwise.ops.ctf import ctf_phase
from tiltwise.ops.thon_rings.fit import fit_rings
from tiltwise.ops.thon_rings.measure import measure_rings, usable_tilts
from tiltwise.ops.thon_rings.model import RingSpectra
from tiltwise.ops.thon_rings.prior import BELIEVED, DRIFT, RingFit, RingPrior
from tiltwise.ops.thon_rings.report import fit_resolution, tilt_corrected_curves
from tiltwise.ops.thon_rings.search import RingSearch, search_series
from tiltwise.params.defocus import DefocusParams

_SIGNIFICANT = 7.0  # standard deviations; noise, whose defocus the search is free to choose, reaches 4
_FEWEST_PERIODS = 3.0  # of CTF² in the band: fewer could be the spectrum of beads or membranes
_PHASE_SHIFTS = (0.0, 30.0, 60.0, 90.0, 120.0, 150.0)  # degrees; rings are the same 180 further on
_PHASE_PLATE = RingPrior(phase_shift_sd=180.0)
_DECISIVE = 2.0  # difference of log likelihood, 7 to 1; one series of low exposure gives 4 to 6

_ASTIGMATISM = (
    "astigmatism_A",
    "astigmatism_error_A",
    "astigmatism_angle_deg",
    "astigmatism_angle_error_deg",
    "astigmatism_drift_A",
    "astigmatism_drift_error_A",
    "astigmatism_drift_evidence",
)


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class DefocusResult:
    tilt_series: TiltSeries
    """With ctf and defocus_handedness; None where they could not be determined."""
    quality: dict
    """determined, defocus_A, defocus_error_A, fit_resolution_A, astigmatism, handedness and its evidence, spectra."""


def defocus(
    tilt_series: TiltSeries, params: DefocusParams, *, device: str = "cpu", progress: Progress = no_progress
) -> DefocusResult:
    """Fit defocus per tilt, astigmatism that drifts slowly, and handedness; or say that they cannot be determined.

    Errors: StageError if the series is not aligned, or its band of frequencies is empty.
    """
    if tilt_series.geometry is None:
        raise StageError(f"{tilt_series.name}: the defocus fit needs the tilt geometry; run align first")
    rows = usable_tilts(tilt_series)
    if len(rows) == 0:
        return _not_determined(tilt_series, "no tilt image is in use and not blank")
    spectra = measure_rings(
        tilt_series, rows, params, device=device, progress=lambda f: progress(0.5 * f, "measuring power spectra")
    )
    if _periods(spectra, params.defocus_max) < _FEWEST_PERIODS:
        return _not_determined(tilt_series, "the band holds too few rings at any defocus: the pixels are too coarse")
    progress(0.5, "searching for rings")
    phase_shifts, prior = (_PHASE_SHIFTS, _PHASE_PLATE) if params.fit_phase_shift else ((0.0,), BELIEVED)
    limits = params.defocus_min, params.defocus_max
    spectra, searches = search_series(spectra, *limits, phase_shifts=phase_shifts, prior=prior)
    reason = _doubt(spectra, max(searches, key=lambda s: s.significance))
    if reason:
        return _not_determined(tilt_series, reason)
    fits = []
    for search in searches:
        progress(0.6 + 0.2 * len(fits), f"fitting handedness {search.fit.handedness:+d}")
        fits.append(fit_rings(spectra, search.fit, prior))
    result = _determined(tilt_series, rows, spectra, fits, phase_plate=params.fit_phase_shift)
    progress(1.0, "defocus fitted")
    return result


def _periods(spectra: RingSpectra, defocus: float) -> float:
    """Number of periods of CTF² between the ends of the band."""
    frequency = spectra.ring_frequency[[0, -1]]
    phase = ctf_phase(frequency, torch.tensor(defocus, dtype=torch.float64), spectra.optics)
    return float(phase[1] - phase[0]) / np.pi


def _doubt(spectra: RingSpectra, search: RingSearch) -> str:
    """Why no rings can be claimed, or an empty text."""
    if search.significance < _SIGNIFICANT:
        return f"no Thon rings: {search.significance:.1f} standard deviations, {_SIGNIFICANT:g} are needed"
    periods = _periods(spectra, float(search.fit.defocus.median()))
    if periods < _FEWEST_PERIODS:
        return f"no more than {periods:.1f} rings in the band, too few to tell them from the specimen's own spectrum"
    return ""


def _determined(
    tilt_series: TiltSeries, rows: np.ndarray, spectra: RingSpectra, fits: list[RingFit], *, phase_plate: bool
) -> DefocusResult:
    fit = max(fits, key=lambda f: f.log_evidence)
    evidence = sum(f.handedness * f.log_evidence for f in fits) if len(fits) == 2 else 0.0
    handedness = fit.handedness if abs(evidence) >= _DECISIVE else None
    undecided = f"log likelihoods differ by less than {_DECISIVE:g}" if len(fits) == 2 else "no tilt shows depth"
    phase_shift = fit.phase_shift % 180 if phase_plate else 0.0
    ctf = _ctf(tilt_series, rows, spectra, fit, phase_shift)
    frequency, observed, fitted = tilt_corrected_curves(spectra, fit)
    quality = {
        "determined": True,
        "reason": "",
        "defocus_A": _json(ctf.mean_defocus),
        "defocus_error_A": _json(ctf.defocus_error),
        "fit_resolution_A": _json(ctf.fit_resolution),
        **_astigmatism(fit),
        "phase_shift_deg": round(phase_shift, 2),
        "phase_shift_error_deg": round(fit.phase_shift_error, 2) if phase_plate else None,
        "handedness": handedness,
        "handedness_evidence": float(evidence),
        "handedness_reason": "" if handedness else undecided,
        "thickness_A": round(fit.thickness, 1),
        "thickness_error_A": round(fit.thickness_error, 1),
        "specimen_slope_deg": _json(torch.rad2deg(torch.atan(fit.slope)), 4),
        "specimen_slope_error_deg": _json(torch.rad2deg(fit.shared_error[2:4] / (1 + fit.slope**2)), 4),
        "spectrum_frequency": [_json(frequency, 6)] * len(rows),
        "spectrum_observed": [_json(curve, 5) for curve in observed],
        "spectrum_fitted": [_json(curve, 5) for curve in fitted],
        "spectrum_tilt": [int(i) for i in rows],
    }
    return DefocusResult(tilt_series=replace(tilt_series, ctf=ctf, defocus_handedness=handedness), quality=quality)


def _astigmatism(fit: RingFit) -> dict:
    """u - v and its direction for the mean of the tilts, how far a tilt is from it (rms; 0 where there is no evidence
    of a drift), with standard errors."""
    half = float(fit.astigmatism.norm())
    error, drift_error = fit.shared_error[:2], fit.shared_error[DRIFT]
    component = float(error.pow(2).mean().sqrt())
    values = (
        2 * half,
        2 * component,
        math.degrees(0.5 * math.atan2(float(fit.astigmatism[1]), float(fit.astigmatism[0]))),
        math.degrees(0.5 * math.atan2(component, half)),
        2 * float(fit.drift.norm()),
        2 * float(drift_error.pow(2).sum().sqrt()) if fit.drift_sd > 0 else math.nan,
        fit.drift_evidence,
    )
    return dict(zip(_ASTIGMATISM, _json(np.array(values)), strict=True))


def _over_time(tilt_series: TiltSeries, rows: np.ndarray, values: np.ndarray) -> np.ndarray:
    """(all tilts, column) values (row, column), between neighbours in time where a tilt was not fitted."""
    time = tilt_series.acquisition_order
    first = np.argsort(time[rows], kind="stable")
    return np.stack([np.interp(time, time[rows][first], column[first]) for column in values.T], axis=1)


def _ctf(tilt_series: TiltSeries, rows: np.ndarray, spectra: RingSpectra, fit: RingFit, phase_shift: float) -> Ctf:
    """All rows: those not fitted are interpolated, defocus over the tilt angle and astigmatism over time, without error
    and resolution."""
    number = tilt_series.number
    angle = tilt_series.geometry.tilt_angle
    order = np.argsort(angle[rows], kind="stable")
    mean = np.interp(angle, angle[rows][order], fit.defocus.numpy()[order])
    mean[rows] = fit.defocus.numpy()
    vectors = _over_time(tilt_series, rows, fit.astigmatism_of(spectra.course).numpy())
    half = np.linalg.norm(vectors, axis=1)
    error, finest = np.full(number, np.nan), np.full(number, np.nan)
    error[rows], finest[rows] = fit.defocus_error.numpy(), fit_resolution(spectra, fit).numpy()
    return Ctf(
        defocus_u=mean + half,
        defocus_v=mean - half,
        astigmatism_angle=np.degrees(0.5 * np.arctan2(vectors[:, 1], vectors[:, 0])),
        phase_shift=np.full(number, phase_shift),
        defocus_error=error,
        fit_resolution=finest,
    )


def _not_determined(tilt_series: TiltSeries, reason: str) -> DefocusResult:
    if tilt_series.pixel_size == 1.0:
        reason += "; the pixel size is exactly 1 Å, which headers say when it was never set"
    nothing = [None] * tilt_series.number
    quality = {
        "determined": False,
        "reason": reason,
        "defocus_A": nothing,
        "defocus_error_A": nothing,
        "fit_resolution_A": nothing,
        **dict.fromkeys(_ASTIGMATISM),
        "phase_shift_deg": None,
        "phase_shift_error_deg": None,
        "thickness_A": None,
        "thickness_error_A": None,
        "specimen_slope_deg": None,
        "specimen_slope_error_deg": None,
        "handedness": None,
        "handedness_evidence": None,
        "handedness_reason": "no rings, no handedness",
        "spectrum_frequency": [],
        "spectrum_observed": [],
        "spectrum_fitted": [],
        "spectrum_tilt": [],
    }
    return DefocusResult(tilt_series=replace(tilt_series, ctf=None, defocus_handedness=None), quality=quality)


def _json(values: np.ndarray | torch.Tensor, digits: int = 2) -> list[float | None]:
    """Plain rounded numbers; None for nan."""
    return [round(v, digits) if np.isfinite(v) else None for v in map(float, values)]
