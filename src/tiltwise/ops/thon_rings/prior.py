"""What is fitted to the rings of a series, and what is believed of it before the data are seen."""

import math
from dataclasses import dataclass, replace

import torch

_SMOOTH_RANGE = 20.0  # degrees, over which defocus changes slowly
_VARIATION = 150.0  # Å, expected standard deviation of slow change and of jitter; 50 to 300 in published fits
_VARIATION_COUNT = 10  # components that this expectation counts for
_LEVEL_SD = 1e5  # Å, the level is free
_DRIFT, _DRIFT_COUNT = 30.0, 2  # Å, expected standard deviation of a term of drift, and the terms it counts for
_NO_DRIFT = 1e-3  # Å
_DECISIVE = 2.0  # log odds for a drift, 7 to 1: a series without one is not to be hurt
DRIFT_START = 100.0
"""Å, standard deviation of a term of drift before any is seen: wide enough for a drift to be seen through the prior."""
SHARED = 10
"""Numbers that all tilts share: A, B, two slopes, log thickness, phase shift; A, B of linear and of quadratic drift."""
DRIFT = slice(SHARED - 4, SHARED)
"""Where those of the drift stand among them."""


@dataclass(frozen=True, kw_only=True, slots=True)
class RingPrior:
    """Normal distributions of what the tilts share. Defocus has none but the variation that it shows itself."""

    slope_sd: float = 0.07
    """Of the tangent of the specimen's inclination that the alignment leaves, along x and y: 4 degrees."""
    astigmatism_sd: float = 200.0
    """Of each component of A cos 2az + B sin 2az, Å."""
    thickness: float = 1000.0
    """Median thickness of the slab, Å."""
    thickness_sd: float = 0.7
    """Of the logarithm of the thickness."""
    phase_shift_sd: float = 0.05
    """Of the phase shift, degrees, about 0: without a phase plate there is none."""


BELIEVED = RingPrior()
"""What is believed of any series whose geometry is known from an alignment."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class RingFit:
    """The parameters of the ring model, their errors and how well they explain the spectra; float64."""

    handedness: int
    """h, fixed in the fit."""
    defocus: torch.Tensor
    """(tilt,) (u + v) / 2 at depth 0, Å."""
    defocus_error: torch.Tensor
    """(tilt,) standard error, Å."""
    astigmatism: torch.Tensor
    """(2,) A and B of A cos 2az + B sin 2az, Å, the mean over the tilts."""
    drift: torch.Tensor
    """(2, 2) A and B, Å, of the linear and of the quadratic course over the series (RingSpectra.course)."""
    drift_sd: float
    """Standard deviation of the prior of each term of drift, Å, found from the data; 0 where there is no drift."""
    shared_error: torch.Tensor
    """(SHARED,) standard errors of what the tilts share, in the order and the units of the fit; nan before it."""
    slope: torch.Tensor
    """(2,) x, y of the specimen plane's normal (x, y, 1)."""
    thickness: float
    """Of the slab, Å."""
    phase_shift: float
    """Of a phase plate, degrees."""
    contrast: torch.Tensor
    """(tilt,) a, 1 on average."""
    shape: torch.Tensor
    """(2, ring) s(k) of what exposure damages, the molecules, and of what it does not, the ice."""
    background: torch.Tensor
    """(tilt, spline) b."""
    variation: tuple[float, float]
    """Standard deviations of the slow change of defocus with tilt angle and of its jitter from tilt to tilt, Å."""
    drift_evidence: float
    """Log odds of a drift against none, both as likely before; nan before the fit."""
    log_evidence: float
    """Log likelihood gained over the background alone, less prior and Occam factor (Laplace's approximation)."""

    @property
    def thickness_error(self) -> float:
        """Standard error, Å; near 0.7 × thickness where the rings say nothing of it."""
        return self.thickness * float(self.shared_error[4])

    @property
    def phase_shift_error(self) -> float:
        """Standard error, degrees."""
        return math.degrees(float(self.shared_error[5]))

    def astigmatism_of(self, course: torch.Tensor) -> torch.Tensor:
        """(..., 2) A and B, Å, of tilts with this course (..., 2)."""
        return self.astigmatism + course @ self.drift


def prior_precision(tilt_angle: torch.Tensor, fit: RingFit, prior: RingPrior) -> tuple[torch.Tensor, torch.Tensor]:
    """Precision matrix of defocus and the SHARED numbers, and the present deviation from the prior mean."""
    tilts = len(fit.defocus)
    precision = fit.defocus.new_zeros(tilts + SHARED, tilts + SHARED)
    precision[:tilts, :tilts] = torch.linalg.inv(_defocus_covariance(tilt_angle, fit.variation))
    for index, sd in ((tilts, prior.astigmatism_sd), (tilts + 2, prior.slope_sd)):
        precision[index, index] = precision[index + 1, index + 1] = sd**-2
    precision[tilts + 4, tilts + 4] = prior.thickness_sd**-2
    precision[tilts + 5, tilts + 5] = math.radians(prior.phase_shift_sd) ** -2
    centred = fit.defocus - fit.defocus.median()
    precision[tilts:, tilts:].diagonal()[DRIFT] = max(fit.drift_sd, _NO_DRIFT) ** -2
    last = fit.defocus.new_tensor([math.log(fit.thickness / prior.thickness), math.radians(fit.phase_shift)])
    return precision, torch.cat([centred, fit.astigmatism, fit.slope, last, fit.drift.flatten()])


def _defocus_covariance(tilt_angle: torch.Tensor, variation: tuple[float, float]) -> torch.Tensor:
    """(tilt, tilt) prior covariance, Å²: free level, slow change with tilt angle, jitter from tilt to tilt."""
    slow, jitter = (sd**2 * part for sd, part in zip(variation, _variation_parts(tilt_angle), strict=True))
    return _LEVEL_SD**2 + slow + jitter


def _variation_parts(tilt_angle: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """(tilt, tilt) correlations of slow change and of jitter."""
    slow = torch.exp(-0.5 * ((tilt_angle[:, None] - tilt_angle) / _SMOOTH_RANGE) ** 2)
    return slow, torch.eye(len(tilt_angle)).to(slow)


def learn_drift(fit: RingFit, covariance: torch.Tensor) -> RingFit:
    """The fit with the standard deviation of a term of drift, and the evidence for one; covariance (4, 4) of the terms.

    MacKay's fixed point: variance = (sum of squares of the terms) / (number of them that the data determine), both with
    the expectation's share added. Evidence by Savage and Dickey's ratio: the density of "no drift" under the prior over
    that under the posterior, both normal. A drift held at 0 stays so.
    """
    if fit.drift_sd == 0:
        return fit
    terms = fit.drift.flatten()
    determined = len(terms) - float(covariance.trace()) / fit.drift_sd**2
    variance = (float(terms @ terms) + _DRIFT_COUNT * _DRIFT**2) / (determined + _DRIFT_COUNT)
    fitted = float(terms @ torch.linalg.solve(covariance, terms) + torch.logdet(covariance))
    evidence = 0.5 * fitted - len(terms) * math.log(fit.drift_sd)
    return replace(fit, drift_sd=math.sqrt(variance), drift_evidence=evidence)


def settle_drift(fit: RingFit) -> RingFit:
    """The fit with its drift held at 0 where the evidence for it does not decide."""
    return fit if fit.drift_evidence > _DECISIVE else replace(fit, drift=torch.zeros_like(fit.drift), drift_sd=0.0)


def update_variation(tilt_angle: torch.Tensor, fit: RingFit, covariance: torch.Tensor) -> tuple[float, float]:
    """MacKay's fixed point for the standard deviations of slow change and jitter.

    variance = (sum of squares of the part, in its own metric) / (number of its components that the data determine),
    both with the expectation's share added.
    """
    precision = torch.linalg.inv(_defocus_covariance(tilt_angle, fit.variation))
    pull = precision @ (fit.defocus - fit.defocus.median())
    updated = []
    for sd, part in zip(fit.variation, _variation_parts(tilt_angle), strict=True):
        determined = (precision * part).sum() - ((precision @ part @ precision) * covariance).sum()
        squares = float(sd**4 * (pull @ part @ pull)) + _VARIATION_COUNT * _VARIATION**2
        updated.append((squares / (sd**2 * float(determined) + _VARIATION_COUNT)) ** 0.5)
    return updated[0], updated[1]
