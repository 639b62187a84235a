"""What takes the place of q_i(k) in the forward model: nothing, a known curve, or what the particles show.

`none` counts every exposure alike, `critical` is the critical-exposure curve (ops/exposure.py), `published` the weight
W_i(k) that Liu et al. (2023, Nature Methods 20, 1909) derive from one score of each exposure, `measured` the smooth fit
of ops/particles/exposure_fit.py, whose amplitudes replace s_i and q_i together. None is multiplied on top of another.
With whitened images the average is Σ a_i CTF_i F_i/σ_i over Σ a_i² CTF_i² + Wiener, a_i = s_i q_i / σ_i, in every case.

A factor common to all exposures of a shell belongs to the reference. Every choice is brought to the same gauge, that
of the critical curve: Σ_i q_i(k) over all tilts of all series.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import torch

from tiltwise.data.tilt_series import TiltSeries
from tiltwise.ops.geometry import tilt_rotations
from tiltwise.ops.particles.exposure_fit import ExposureFit, MeasuredAmplitudes, fit_exposures
from tiltwise.ops.particles.images import TiltWeights, critical_decay
from tiltwise.ops.particles.tilt_weights import AgreementSums, over_shells

ExposureWeighting = Literal["none", "critical", "published", "measured"]
"""What stands for the amplitude that exposure leaves."""

_FRACTION, _TRANSITION, _GROWTH = 4, 0.75, 7.62  # P, T and the rate of the published formula, as its program has them
_LEAST = 1e-3  # of the largest amplitude of a shell: keeps weights that are all but 0 from ending a tilt for good


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class ExposureCurves:
    """Amplitude left in each used tilt of a series by each choice, in one gauge, and what the particles show of it."""

    critical: torch.Tensor
    """(tilt, shell)."""
    published: torch.Tensor
    """(tilt, shell)."""
    measured: torch.Tensor
    """(tilt, shell) A over the cosine of the tilt, so that all three describe the same."""
    error: torch.Tensor
    """(tilt, shell) standard error of the measured, relative."""
    ssnr: torch.Tensor
    """(tilt, shell) SSNR of one image of one particle by the measured amplitude; 0 beyond the resolved band."""


def published_weights(score: torch.Tensor, frequency: torch.Tensor) -> torch.Tensor:
    """(exposure, shell) W_k(f) of exposures with mean scores (exposure,) at frequency (shell,), cycles per pixel.

    s = (score - min) / (max - min), r = (1 - s⁴)⁴, u = exp(-0.75 r exp(7.62 f)), W = u over its mean over exposures.
    """
    span = score.max() - score.min()
    relative = (score - score.min()) / span if span > 0 else torch.ones_like(score)
    drop = (1 - relative**_FRACTION) ** 4
    weight = torch.exp(-_TRANSITION * drop[:, None] * torch.exp(_GROWTH * frequency))
    return weight / weight.mean(0)


def equal_decays(tilt_series: Mapping[str, TiltSeries], box_size: int, device: str = "cpu") -> dict[str, torch.Tensor]:
    """(tilt, shell) amplitudes by series that are the same for all exposures, in the gauge."""
    critical = {name: critical_decay(series, box_size, device) for name, series in tilt_series.items()}
    return in_gauge({name: torch.ones_like(q) for name, q in critical.items()}, critical)


def published_decays(
    sums: Mapping[str, AgreementSums], tilt_series: Mapping[str, TiltSeries], points: torch.Tensor, box_size: int
) -> dict[str, torch.Tensor]:
    """W_i(k) of each series from the correlation of its images with the reference, in the gauge.

    The score is the correlation over all particles of a tilt; the published one is the mean of those of single
    particles. Its frequency is counted in cycles per pixel, so the curve depends on the pixel: as published.
    """
    critical = {name: critical_decay(tilt_series[name], box_size, points.device.type) for name in sums}
    shells = torch.arange(box_size // 2 + 1, dtype=torch.float64, device=points.device) / box_size
    decays = {}
    for name, s in sums.items():
        seen = s.model > 0
        norm = ((s.observed * seen).sum(1) * s.model.sum(1)).sqrt().clamp_min(1e-30)
        weight = published_weights(s.cross.sum(1) / norm, shells)
        decays[name] = weight.clamp_min(_LEAST * weight.max(0).values)
    return in_gauge(decays, critical)


def fitted_exposures(
    sums: Mapping[str, AgreementSums],
    weights: Mapping[str, TiltWeights],
    tilt_series: Mapping[str, TiltSeries],
    points: torch.Tensor,
    *,
    box_size: int,
    radius: float,
) -> ExposureFit:
    """The smooth amplitudes of all series (in the order of `sums`) from sums against references of the other half.

    The reference must be a Wiener-filtered map R = F (V + e), F its FSC: the map V differs from R by what is not
    correlated with R, so that the regression of images on R has no bias from the noise e of the reference, as long as e
    and the images have nothing in common. The average of the particle's own half holds the particle itself, and
    would let the amplitude appear larger than it is.
    """
    measured = [_measured(sums[name], weights[name], tilt_series[name], points, box_size, radius) for name in sums]
    return fit_exposures(measured, radius)


def exposure_curves(
    fit: ExposureFit,
    sums: Mapping[str, AgreementSums],
    weights: Mapping[str, TiltWeights],
    tilt_series: Mapping[str, TiltSeries],
    points: torch.Tensor,
    box_size: int,
) -> dict[str, ExposureCurves]:
    """All three choices side by side, by series."""
    published = published_decays(sums, tilt_series, points, box_size)
    curves = {}
    for (name, s), amplitude, error in zip(sums.items(), fit.amplitude, fit.error, strict=True):
        used = weights[name].scale[:, None] * weights[name].decay
        power = over_shells(s.model, points, box_size) / over_shells(
            2 * s.number[:, None].expand_as(s.model), points, box_size
        ).clamp_min(1)
        curves[name] = ExposureCurves(
            critical=critical_decay(tilt_series[name], box_size),
            published=published[name].cpu(),
            measured=amplitude / _cosine(tilt_series[name])[:, None],
            error=error,
            ssnr=power.cpu() * (amplitude * fit.level / used.cpu()) ** 2,
        )
    return curves


def exposure_of_images(tilt_series: TiltSeries) -> np.ndarray:
    """(used tilt,) e⁻/Å² at the middle of each image."""
    used = np.flatnonzero(tilt_series.use)
    return np.asarray(tilt_series.pre_exposure[used] + tilt_series.exposure[used] / 2, dtype=float)


def expected_amplitude(series: TiltSeries, box_size: int) -> torch.Tensor:
    """(tilt, shell) float64 before anything is measured: the cosine of the tilt times the critical curve."""
    return _cosine(series)[:, None] * critical_decay(series, box_size)


def in_gauge(amplitudes: Mapping[str, torch.Tensor], wanted: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The amplitudes times one factor a shell: their sums over all tilts of all series become those of the wanted."""
    total, found = (sum(table[name].sum(0) for name in amplitudes) for table in (wanted, amplitudes))
    return {name: amplitude * total / found for name, amplitude in amplitudes.items()}


def with_decays(weights: Mapping[str, TiltWeights], decays: Mapping[str, torch.Tensor]) -> dict[str, TiltWeights]:
    """The same scales and noise with other decays."""
    return {name: replace(w, decay=decays.get(name, w.decay)) for name, w in weights.items()}


def _measured(
    sums: AgreementSums, weights: TiltWeights, series: TiltSeries, points: torch.Tensor, box_size: int, radius: float
) -> MeasuredAmplitudes:
    """Regressions shell by shell, in units of the reference."""
    band = (points.norm(dim=-1) <= radius).double()
    cross, model = (over_shells(v * band, points, box_size).cpu() for v in (sums.cross, sums.model))
    used = (weights.scale[:, None] * weights.decay).cpu()
    cosine = _cosine(series)
    return MeasuredAmplitudes(
        amplitude=used * cross / model.clamp_min(1e-30),
        information=torch.where(model > 0, model / used**2, torch.zeros_like(model)),
        expected=expected_amplitude(series, box_size),
        exposure=torch.as_tensor(exposure_of_images(series)),
        path=1 / cosine,
    )


def _cosine(series: TiltSeries) -> torch.Tensor:
    """(used tilt,) float64 of the angle between the specimen's normal and the beam."""
    return tilt_rotations(series.geometry)[np.flatnonzero(series.use), 2, 2].abs().clamp_min(0.05)
