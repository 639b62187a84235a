"""Defocus, astigmatism and handedness: one model of the Thon rings, fitted to all patches of all tilts at once.

The geometry is fixed by the alignment: each patch lies at the depth of the specimen plane there, and
defocus(patch, i) = defocus_i + h · depth. The power spectra are compared with the rings by Whittle's likelihood, so
that standard errors, and the evidence for h = +1 against -1, mean what they say. Model: ops.ring_model.
"""

from dataclasses import dataclass, replace

import numpy as np
import torch
from scipy.fft import next_fast_len

from tiltwise.data.errors import StageError
from tiltwise.data.optics import Ctf
from tiltwise.data.progress import Progress, no_progress
from tiltwise.data.tilt_series import TiltSeries
from tiltwise.ops.ctf import ctf_phase
from tiltwise.ops.exposure import exposure_amplitude
from tiltwise.ops.geometry import tilt_rotations
from tiltwise.ops.outliers import hide_outliers
from tiltwise.ops.ring_fit import fit_rings, ring_dispersion
from tiltwise.ops.ring_model import RingSpectra, background_basis, depth_spread_loss, fit_background, spline_basis
from tiltwise.ops.ring_prior import RingFit
from tiltwise.ops.ring_report import fit_resolution, tilt_corrected_curves
from tiltwise.ops.ring_search import RingSearch, search_rings
from tiltwise.ops.spectra import (
    PatchLayout,
    PolarBins,
    bin_powers,
    patch_centres,
    patch_layout,
    patch_powers,
    patch_spread,
    polar_bins,
)
from tiltwise.params.defocus import DefocusParams

_SECTORS = 8  # of azimuth, over 180 degrees
_FINEST = 5.0  # Å; tilt images hold no rings beyond
_NYQUIST_MARGIN = 1.05
_PATCH = (768.0, 1200.0)  # Å
_FEWEST_TILTS = 3
_FEWEST_RINGS = 16  # of frequency, in the band
_SIGNIFICANT = 7.0  # standard deviations; noise, whose defocus the search is free to choose, reaches 4
_FEWEST_PERIODS = 3.0  # of CTF² in the band: fewer could be the spectrum of beads or membranes
_DECISIVE = 2.0  # difference of log likelihood, 7 to 1; one series of low exposure gives 4 to 6


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class DefocusResult:
    tilt_series: TiltSeries
    """With ctf and defocus_handedness; None where they could not be determined."""
    quality: dict
    """determined, defocus_A, defocus_error_A, fit_resolution_A, astigmatism, handedness and its evidence, spectra."""


def defocus(
    tilt_series: TiltSeries, params: DefocusParams, *, device: str = "cpu", progress: Progress = no_progress
) -> DefocusResult:
    """Fit defocus per tilt, shared astigmatism and handedness; or say that they cannot be determined.

    Errors: StageError if the series is not aligned, or its band of frequencies is empty.
    """
    if tilt_series.geometry is None:
        raise StageError(f"{tilt_series.name}: the defocus fit needs the tilt geometry; run align first")
    rows = _usable_tilts(tilt_series)
    if len(rows) < _FEWEST_TILTS:
        return _not_determined(tilt_series, f"only {len(rows)} usable tilt images; at least {_FEWEST_TILTS} are needed")
    spectra = _measure(tilt_series, rows, params, device, progress)
    if _periods(spectra, params.defocus_max) < _FEWEST_PERIODS:
        return _not_determined(tilt_series, "the band holds too few rings at any defocus: the pixels are too coarse")
    progress(0.5, "searching for rings")
    spectra, searches = _search(spectra, params)
    reason = _doubt(spectra, max(searches, key=lambda s: s.significance))
    if reason:
        return _not_determined(tilt_series, reason)
    fits = []
    for search in searches:
        progress(0.6 + 0.2 * len(fits), f"fitting handedness {search.fit.handedness:+d}")
        fits.append(fit_rings(spectra, search.fit))
    result = _determined(tilt_series, rows, spectra, fits)
    progress(1.0, "defocus fitted")
    return result


def _usable_tilts(tilt_series: TiltSeries) -> np.ndarray:
    """Rows of the tilts in use whose image is not blank."""
    return np.array([i for i in np.flatnonzero(tilt_series.use) if np.std(tilt_series.images[i][::4, ::4]) > 0], int)


def _measure(
    tilt_series: TiltSeries, rows: np.ndarray, params: DefocusParams, device: str, progress: Progress
) -> RingSpectra:
    """Power spectra of the patches of the tilts in rows, divided by their smooth background."""
    layout, bins = _layout(tilt_series, params, device)
    pixel = tilt_series.pixel_size
    powers = []
    for number, i in enumerate(rows):
        image = torch.as_tensor(np.asarray(tilt_series.images[i], dtype=np.float32), device=device)
        powers.append(bin_powers(patch_powers(hide_outliers(image, pixel), layout), bins))
        progress(0.5 * number / len(rows), "measuring power spectra")
    weight = (layout.independent[:, None, None] * bins.count.to(device)).expand(len(rows), -1, -1, -1)
    geometry, ring_frequency = tilt_series.geometry, bins.frequency.mean(0)
    tilt_angle = torch.as_tensor(geometry.tilt_angle[rows], dtype=torch.float64)
    centre = patch_centres(layout).cpu() - torch.tensor([n // 2 for n in tilt_series.image_shape[::-1]])
    before, during = (
        torch.as_tensor(np.asarray(e)[rows], dtype=torch.float64)[:, None]
        for e in (tilt_series.pre_exposure, tilt_series.exposure)
    )
    voltage = tilt_series.optics.voltage
    spread = patch_spread(layout) * pixel
    return RingSpectra(
        power=_flatten(torch.stack(powers), weight, bins).cpu(),
        weight=weight.cpu(),
        position=centre * pixel - torch.as_tensor(geometry.shift[rows], dtype=torch.float64)[:, None],
        rotations=tilt_rotations(geometry)[rows],
        tilt_angle=tilt_angle,
        damage=exposure_amplitude(ring_frequency, before, during, voltage) ** 2,
        coherence=depth_spread_loss(ring_frequency, tilt_angle, spread, voltage),
        bins=bins,
        layout=layout,
        pixel_size=pixel,
        optics=tilt_series.optics,
    )


def _layout(tilt_series: TiltSeries, params: DefocusParams, device: str) -> tuple[PatchLayout, PolarBins]:
    """Patches and bins that suit image and pixel size."""
    pixel, shape = tilt_series.pixel_size, tilt_series.image_shape
    side = params.patch_size or float(np.clip(min(shape) * pixel / 5, *_PATCH))
    size = min(2 * next_fast_len(round(side / pixel / 2)), min(shape) // 2 * 2)
    high = max(params.resolution_high or _FINEST, 2 * _NYQUIST_MARGIN * pixel)
    bins = (
        polar_bins(size, pixel, 1 / params.resolution_low, 1 / high, _SECTORS) if high < params.resolution_low else None
    )
    if bins is None or bins.count.shape[1] < _FEWEST_RINGS:
        raise StageError(
            f"{tilt_series.name}: no room for a defocus fit between {params.resolution_low:g} Å and {high:g} Å with"
            f" patches of {size} px of {pixel:g} Å; set resolution_low, resolution_high or patch_size"
        )
    return patch_layout(shape, size, device), bins


def _flatten(power: torch.Tensor, weight: torch.Tensor, bins: PolarBins) -> torch.Tensor:
    """Divide power (tilt, patch, sector, ring) by a stiff background of each patch, then a finer one of each tilt."""
    frequency = bins.frequency.mean(0).to(power)
    low, high = float(frequency[0]), float(frequency[-1])
    tilts, patches, sectors, rings = power.shape
    over_sectors = ((power * weight).sum(2) / weight.sum(2)).flatten(0, 1)
    stiff = fit_background(over_sectors, weight.sum(2).flatten(0, 1), spline_basis(frequency, low, high, 5))
    power = power * torch.exp(-stiff).reshape(tilts, patches, 1, rings)
    few = spline_basis(frequency, low, high, 4)
    uneven = [few * angle.to(power)[..., None] for angle in (bins.cosine, bins.sine)]
    basis = torch.cat([background_basis(frequency).expand(sectors, -1, -1), *uneven], dim=-1).flatten(0, 1)
    over_patches = (power * weight).sum(1) / weight.sum(1).clamp_min(1e-9)
    fine = fit_background(over_patches.flatten(1), weight.sum(1).flatten(1), basis)
    return power * torch.exp(-fine).reshape(tilts, 1, sectors, rings)


def _search(spectra: RingSpectra, params: DefocusParams) -> tuple[RingSpectra, list[RingSearch]]:
    """Search with both hands, twice: the second time with the weights and the curve s(k) that the first one found."""
    grid = torch.arange(params.defocus_min, params.defocus_max, 250.0, dtype=torch.float64)
    flat = torch.tensor([[0.1], [0.02]]).to(spectra.ring_frequency).expand(-1, len(spectra.ring_frequency))
    searches = [search_rings(spectra, flat, handedness, grid) for handedness in (1, -1)]
    best = max(searches, key=lambda s: s.significance)
    spectra = replace(spectra, weight=spectra.weight / ring_dispersion(spectra, best.fit))
    shapes = [search.fit.shape.clamp_min(0.003) for search in searches]
    return spectra, [search_rings(spectra, s, h, grid) for s, h in zip(shapes, (1, -1), strict=True)]


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


def _determined(tilt_series: TiltSeries, rows: np.ndarray, spectra: RingSpectra, fits: list[RingFit]) -> DefocusResult:
    plus, minus = fits
    evidence = plus.log_evidence - minus.log_evidence
    fit = plus if evidence >= 0 else minus
    handedness = fit.handedness if abs(evidence) >= _DECISIVE else None
    ctf = _ctf(tilt_series, rows, fit, fit_resolution(spectra, fit))
    frequency, observed, fitted = tilt_corrected_curves(spectra, fit)
    quality = {
        "determined": True,
        "reason": "",
        "defocus_A": _json(ctf.mean_defocus),
        "defocus_error_A": _json(ctf.defocus_error),
        "fit_resolution_A": _json(ctf.fit_resolution),
        "astigmatism_A": float(2 * fit.astigmatism.norm()),
        "astigmatism_angle_deg": float(ctf.astigmatism_angle[0]),
        "handedness": handedness,
        "handedness_evidence": float(evidence),
        "handedness_reason": "" if handedness else f"log likelihoods differ by less than {_DECISIVE:g}",
        "thickness_A": round(fit.thickness, 1),
        "thickness_error_A": round(fit.thickness_error, 1),
        "specimen_slope_deg": [float(torch.rad2deg(torch.atan(s))) for s in fit.slope],
        "spectrum_frequency": [_json(frequency, 6)] * len(rows),
        "spectrum_observed": [_json(curve, 5) for curve in observed],
        "spectrum_fitted": [_json(curve, 5) for curve in fitted],
        "spectrum_tilt": [int(i) for i in rows],
    }
    return DefocusResult(tilt_series=replace(tilt_series, ctf=ctf, defocus_handedness=handedness), quality=quality)


def _ctf(tilt_series: TiltSeries, rows: np.ndarray, fit: RingFit, resolution: torch.Tensor) -> Ctf:
    """All rows: those not fitted are interpolated over the tilt angle, without error and resolution."""
    number = tilt_series.number
    angle = tilt_series.geometry.tilt_angle
    order = np.argsort(angle[rows], kind="stable")
    mean = np.interp(angle, angle[rows][order], fit.defocus.numpy()[order])
    mean[rows] = fit.defocus.numpy()
    half = float(fit.astigmatism.norm())
    direction = float(torch.rad2deg(0.5 * torch.atan2(fit.astigmatism[1], fit.astigmatism[0])))
    error, finest = np.full(number, np.nan), np.full(number, np.nan)
    error[rows], finest[rows] = fit.defocus_error.numpy(), resolution.numpy()
    return Ctf(
        defocus_u=mean + half,
        defocus_v=mean - half,
        astigmatism_angle=np.full(number, direction),
        phase_shift=np.zeros(number),
        defocus_error=error,
        fit_resolution=finest,
    )


def _not_determined(tilt_series: TiltSeries, reason: str) -> DefocusResult:
    nothing = [None] * tilt_series.number
    quality = {
        "determined": False,
        "reason": reason,
        "defocus_A": nothing,
        "defocus_error_A": nothing,
        "fit_resolution_A": nothing,
        "astigmatism_A": None,
        "astigmatism_angle_deg": None,
        "thickness_A": None,
        "thickness_error_A": None,
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
