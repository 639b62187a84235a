"""The joint fit of all patches of all tilts: Fisher scoring of Whittle's likelihood (model in ops.ring_model).

Derivatives by contrast and background depend on frequency alone, so that of the normal equations only the block of the
few parameters that do not is summed over patches and sectors.
"""

import math
from dataclasses import dataclass, replace

import torch
from scipy.optimize import nnls

from tiltwise.ops.ring_model import (
    RingSpectra,
    background_basis,
    patch_depth,
    ring_pattern,
    spline_basis,
    thickness_contrast,
)

_SHAPE_SPLINES = 6
_CONTRAST_SD = 0.5  # contrast of a tilt about the series' curve
_SMOOTH_RANGE = 20.0  # degrees, over which defocus changes slowly
_VARIATION = 150.0  # Å, expected standard deviation of slow change and of jitter; 50 to 300 in published fits
_VARIATION_COUNT = 10  # components that this expectation counts for
_LEVEL_SD = 1e5  # Å, the level is free
_SLOPE_SD = 0.07  # tangent of the inclination of the specimen left by the alignment: 4 degrees
_ASTIGMATISM_SD = 200.0  # Å, of each component
_LARGEST_RING = 0.95  # of the background
THICKNESS = 1000.0
"""Å, of the slab, before anything is known of it."""
_THICKNESS_SD = 0.7  # of its logarithm
_SHARED = 5  # A, B, two slopes, log thickness


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
    """(2,) A and B of A cos 2az + B sin 2az, Å."""
    slope: torch.Tensor
    """(2,) x, y of the specimen plane's normal (x, y, 1)."""
    thickness: float
    """Of the slab, Å."""
    thickness_error: float
    """Standard error, Å; near 0.7 × thickness where the rings say nothing of it."""
    contrast: torch.Tensor
    """(tilt,) a, 1 on average."""
    shape: torch.Tensor
    """(ring,) s(k)."""
    background: torch.Tensor
    """(tilt, spline) b."""
    variation: tuple[float, float]
    """Standard deviations of the slow change of defocus with tilt angle and of its jitter from tilt to tilt, Å."""
    log_evidence: float
    """Log likelihood gained over the background alone, less prior and Occam factor (Laplace's approximation)."""


def fit_shape(score: torch.Tensor, variance: torch.Tensor) -> torch.Tensor:
    """(spline,) non-negative least squares for coefficients with scores (spline,) and normal matrix."""
    size = len(score)
    ridge = variance.diagonal().mean() * 1e-2
    bend = torch.diff(torch.eye(size, dtype=score.dtype), n=2, dim=0)
    lower = torch.linalg.cholesky(variance.cpu() + ridge * (bend.T @ bend) + 1e-3 * ridge * torch.eye(size))
    target = torch.linalg.solve_triangular(lower, score.cpu()[:, None], upper=False)[:, 0]
    return torch.as_tensor(nnls(lower.T.numpy(), target.numpy())[0], dtype=score.dtype, device=score.device)


def shape_splines(spectra: RingSpectra) -> torch.Tensor:
    """(ring, spline) the curves that make up s(k)."""
    frequency = spectra.ring_frequency
    return spline_basis(frequency, float(frequency[0]), float(frequency[-1]), _SHAPE_SPLINES)


def local_defocus(spectra: RingSpectra, fit: RingFit, tilt: int) -> torch.Tensor:
    """(patch, sector, ring) defocus seen by each value of one tilt, Å."""
    depth = fit.handedness * patch_depth(spectra, fit.slope)[tilt]
    astigmatic = fit.astigmatism[0] * spectra.bins.cosine + fit.astigmatism[1] * spectra.bins.sine
    return fit.defocus[tilt] + depth[:, None, None] + astigmatic


def ring_strength(spectra: RingSpectra, fit: RingFit, tilt: int) -> torch.Tensor:
    """(ring,) strength r / (1 + r) · c of the rings of one tilt."""
    ratio, contrast, _ = signal_and_contrast(spectra, fit, tilt)
    return ratio / (1 + ratio) * contrast


def signal_and_contrast(
    spectra: RingSpectra, fit: RingFit, tilt: int
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Of one tilt, (ring,) each: signal over noise r, the rings' contrast c, and the derivative of c by log t."""
    layers, by_thickness = thickness_contrast(
        spectra.ring_frequency, spectra.tilt_angle[tilt : tilt + 1], fit.thickness, spectra.optics.voltage
    )
    ratio = fit.contrast[tilt] * fit.shape * spectra.damage[tilt]
    return ratio, spectra.coherence[tilt] * layers[0], spectra.coherence[tilt] * by_thickness[0]


def update_shape(spectra: RingSpectra, fit: RingFit) -> RingFit:
    """One Gauss-Newton step for s(k) on all tilts, non-negative, at the present defocus and contrast.

    The background of each tilt is eliminated, not held: it would keep what it took of the rings.
    """
    splines, basis = shape_splines(spectra), background_basis(spectra.ring_frequency)
    score = splines.new_zeros(splines.shape[1])
    variance = splines.new_zeros(splines.shape[1], splines.shape[1])
    for i in range(len(fit.defocus)):
        pattern = ring_pattern(spectra, spectra.bins.frequency, local_defocus(spectra, fit, i))[0]
        ratio, contrast, _ = signal_and_contrast(spectra, fit, i)
        ring = 1 + (contrast * ratio / (1 + ratio) * pattern).clamp(-_LARGEST_RING, _LARGEST_RING)
        change = contrast * fit.contrast[i] * spectra.damage[i] / (1 + ratio) ** 2 * pattern / ring
        surprise = spectra.power[i] / (torch.exp(basis @ fit.background[i]) * ring) - 1 + change * fit.shape
        weight = spectra.weight[i]
        overlap = basis.T @ ((weight * change).sum((0, 1))[:, None] * splines)
        normal = basis.T @ (weight.sum((0, 1))[:, None] * basis)
        explained = torch.linalg.solve(normal + 1e-6 * torch.eye(len(normal)).to(normal), overlap)
        score = score + splines.T @ (weight * change * surprise).sum((0, 1))
        score = score - explained.T @ (basis.T @ (weight * surprise).sum((0, 1)))
        variance = variance + splines.T @ ((weight * change**2).sum((0, 1))[:, None] * splines) - overlap.T @ explained
    return replace(fit, shape=splines @ fit_shape(score, variance))


def fit_rings(spectra: RingSpectra, start: RingFit, iterations: int = 8) -> RingFit:
    """Fisher scoring over all parameters at once from a starting point within a ring of the truth."""
    fit = start
    for iteration in range(iterations):
        fit = _scoring_step(spectra, fit)
        if iteration < iterations - 2:
            level = fit.contrast.mean()
            fit = update_shape(spectra, replace(fit, contrast=fit.contrast / level, shape=fit.shape * level))
    return fit


def _scoring_step(spectra: RingSpectra, fit: RingFit) -> RingFit:
    """One step: contrast and background of each tilt are eliminated, then defocus and shared parameters are solved."""
    tilts, own = len(fit.defocus), 1 + _SHARED
    normal = fit.defocus.new_zeros(tilts + _SHARED, tilts + _SHARED)
    gradient = fit.defocus.new_zeros(tilts + _SHARED)
    depth_slope = _depth_derivative(spectra, fit)
    locals_, gain = [], 0.0
    for i in range(tilts):
        full, right, tilt_gain = _normal_equations(spectra, fit, i, depth_slope[i])
        gain += tilt_gain
        full[own, own] += _CONTRAST_SD**-2
        right[own] -= (fit.contrast[i] - 1) * _CONTRAST_SD**-2
        full[own + 1 :, own + 1 :] += 1e-6 * torch.eye(len(full) - own - 1).to(full)
        couple = torch.linalg.solve(full[own:, own:], torch.cat([full[own:, :own], right[own:, None]], dim=1))
        index = torch.tensor([i, *range(tilts, tilts + _SHARED)])
        normal[index[:, None], index] += full[:own, :own] - full[:own, own:] @ couple[:, :own]
        gradient[index] += right[:own] - full[:own, own:] @ couple[:, own]
        locals_.append((couple, index))
    precision, prior = _prior(spectra, fit)
    normal, gradient = normal + precision, gradient - precision @ prior
    covariance = torch.linalg.inv(normal)
    step = covariance @ gradient
    local = torch.stack([couple[:, own] - couple[:, :own] @ step[index] for couple, index in locals_])
    penalty = 0.5 * (prior @ precision @ prior + torch.logdet(normal) - torch.logdet(precision))
    thickness = fit.thickness * math.exp(float(step[-1].clamp(-0.4, 0.4)))
    return replace(
        fit,
        defocus=fit.defocus + step[:tilts].clamp(-300, 300),
        defocus_error=covariance.diagonal()[:tilts].sqrt(),
        astigmatism=fit.astigmatism + step[tilts : tilts + 2].clamp(-300, 300),
        slope=fit.slope + step[tilts + 2 : tilts + 4].clamp(-0.03, 0.03),
        thickness=thickness,
        thickness_error=thickness * float(covariance[-1, -1].sqrt()),
        contrast=(fit.contrast + local[:, 0].clamp(-0.5, 0.5)).clamp(0.05, 3.0),
        background=fit.background + local[:, 1:].clamp(-1, 1),
        variation=_update_variation(spectra, fit, covariance[:tilts, :tilts]),
        log_evidence=gain - float(penalty),
    )


def _normal_equations(
    spectra: RingSpectra, fit: RingFit, tilt: int, depth_slope: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, float]:
    """Fisher information (parameter, parameter) and score (parameter,) of one tilt, and the log likelihood gained.

    Parameters: defocus, A, B, slope x, slope y, log thickness, contrast, background splines.
    """
    bins, basis = spectra.bins, background_basis(spectra.ring_frequency)
    pattern, slope = ring_pattern(spectra, bins.frequency, local_defocus(spectra, fit, tilt))
    ratio, contrast, by_thickness = signal_and_contrast(spectra, fit, tilt)
    strength, by_thickness = contrast * ratio / (1 + ratio), by_thickness * ratio / (1 + ratio)
    ring = 1 + (strength * pattern).clamp(-_LARGEST_RING, _LARGEST_RING)
    log_mu = ring.log() + basis @ fit.background[tilt]
    power, weight = spectra.power[tilt], spectra.weight[tilt]
    relative = power * torch.exp(-log_mu)
    gain = float((weight * (power - log_mu - relative)).sum())
    by_defocus = strength * slope / ring
    columns = [by_defocus, by_defocus * bins.cosine, by_defocus * bins.sine]
    columns += [by_defocus * depth_slope[:, axis, None, None] for axis in range(2)]
    columns += [by_thickness * pattern / ring, strength / (1 + ratio) / fit.contrast[tilt] * pattern / ring]
    design = torch.stack([column.flatten(0, 1) for column in columns])  # parameter, patch and sector, ring
    weight, weighted = weight.flatten(0, 1), (weight.flatten(0, 1) * (relative - 1).flatten(0, 1))
    by_ring = (design * weight).sum(1)
    flat = design.flatten(1)
    block = (flat * weight.flatten()) @ flat.T
    cross = by_ring @ basis
    full = torch.cat(
        [
            torch.cat([block, cross], dim=1),
            torch.cat([cross.T, basis.T @ (weight.sum(0)[:, None] * basis)], dim=1),
        ]
    )
    return full, torch.cat([flat @ weighted.flatten(), weighted.sum(0) @ basis]), gain


def _depth_derivative(spectra: RingSpectra, fit: RingFit) -> torch.Tensor:
    """(tilt, patch, 2) derivative of h · depth by the two slopes of the plane, Å."""
    step = 1e-4
    change = []
    for axis in range(2):
        offset = torch.zeros_like(fit.slope)
        offset[axis] = step
        change.append(patch_depth(spectra, fit.slope + offset) - patch_depth(spectra, fit.slope - offset))
    return fit.handedness * torch.stack(change, dim=-1) / (2 * step)


def _prior(spectra: RingSpectra, fit: RingFit) -> tuple[torch.Tensor, torch.Tensor]:
    """Precision matrix of (defocus, A, B, slopes, log thickness) and the present deviation from the prior mean."""
    tilts = len(fit.defocus)
    precision = fit.defocus.new_zeros(tilts + _SHARED, tilts + _SHARED)
    precision[:tilts, :tilts] = torch.linalg.inv(_defocus_covariance(spectra, fit.variation))
    for index, sd in ((tilts, _ASTIGMATISM_SD), (tilts + 2, _SLOPE_SD)):
        precision[index, index] = precision[index + 1, index + 1] = sd**-2
    precision[-1, -1] = _THICKNESS_SD**-2
    centred = fit.defocus - fit.defocus.median()
    thicker = fit.defocus.new_tensor([math.log(fit.thickness / THICKNESS)])
    return precision, torch.cat([centred, fit.astigmatism, fit.slope, thicker])


def _defocus_covariance(spectra: RingSpectra, variation: tuple[float, float]) -> torch.Tensor:
    """(tilt, tilt) prior covariance, Å²: free level, slow change with tilt angle, jitter from tilt to tilt."""
    slow, jitter = (sd**2 * part for sd, part in zip(variation, _variation_parts(spectra), strict=True))
    return _LEVEL_SD**2 + slow + jitter


def _variation_parts(spectra: RingSpectra) -> tuple[torch.Tensor, torch.Tensor]:
    """(tilt, tilt) correlations of slow change and of jitter."""
    angle = spectra.tilt_angle
    slow = torch.exp(-0.5 * ((angle[:, None] - angle) / _SMOOTH_RANGE) ** 2)
    return slow, torch.eye(len(angle)).to(slow)


def _update_variation(spectra: RingSpectra, fit: RingFit, covariance: torch.Tensor) -> tuple[float, float]:
    """MacKay's fixed point for the standard deviations of slow change and jitter.

    variance = (sum of squares of the part, in its own metric) / (number of its components that the data determine),
    both with the expectation's share added.
    """
    precision = torch.linalg.inv(_defocus_covariance(spectra, fit.variation))
    pull = precision @ (fit.defocus - fit.defocus.median())
    updated = []
    for sd, part in zip(fit.variation, _variation_parts(spectra), strict=True):
        determined = (precision * part).sum() - ((precision @ part @ precision) * covariance).sum()
        squares = float(sd**4 * (pull @ part @ pull)) + _VARIATION_COUNT * _VARIATION**2
        updated.append((squares / (sd**2 * float(determined) + _VARIATION_COUNT)) ** 0.5)
    return updated[0], updated[1]


def ring_dispersion(spectra: RingSpectra, fit: RingFit) -> torch.Tensor:
    """(ring,) factor, at least 1, by which what the model leaves exceeds the statistical error, all tilts together.

    The specimen's own spectrum is not smooth, least of all at low frequency, and is the same in every tilt. Dividing
    the weights by this factor (quasi-likelihood) keeps it from posing as rings. Measured on sums over 5 rings of
    frequency, since such structure is that wide, and averaged over 13.
    """
    basis = background_basis(spectra.ring_frequency)
    residual = total = torch.zeros_like(fit.shape)
    for i in range(len(fit.defocus)):
        pattern = ring_pattern(spectra, spectra.bins.frequency, local_defocus(spectra, fit, i))[0]
        strength = ring_strength(spectra, fit, i)
        ring = 1 + (strength * pattern).clamp(-_LARGEST_RING, _LARGEST_RING)
        weight = spectra.weight[i].sum((0, 1))
        surprise = ((spectra.power[i] / ring - 1) * spectra.weight[i]).sum((0, 1))
        normal = basis.T @ (weight[:, None] * basis) + 1e-6 * torch.eye(basis.shape[1]).to(basis)
        residual = residual + surprise - weight * (basis @ torch.linalg.solve(normal, basis.T @ surprise))
        total = total + weight
    excess = _window_sum(residual, 2) ** 2 / _window_sum(total, 2).clamp_min(1e-9)
    return (_window_sum(excess, 6) / _window_sum(torch.ones_like(excess), 6)).clamp_min(1.0)


def _window_sum(values: torch.Tensor, reach: int) -> torch.Tensor:
    """Sums over each value and its neighbours, reach to each side."""
    window = torch.ones(1, 1, 2 * reach + 1).to(values)
    return torch.nn.functional.conv1d(values[None, None], window, padding=reach).flatten()
