"""The joint fit of all patches of all tilts: Fisher scoring of Whittle's likelihood (model in ops.thon_rings.model).

Every derivative is one of five functions of the patch times what depends on sector and ring alone, so that the normal
equations of a tilt need sums over patches of the products of those five only (ops.thon_rings.moments).
"""

import math
from dataclasses import replace

import torch
from scipy.optimize import nnls

from tiltwise.ops.ctf import electron_wavelength
from tiltwise.ops.thon_rings.model import (
    RingSpectra,
    background_basis,
    background_splines,
    patch_depth,
    ring_pattern,
    spline_basis,
)
from tiltwise.ops.thon_rings.moments import (
    DEFOCUS,
    DEPTH_X,
    DEPTH_Y,
    LARGEST_RING,
    ONE,
    PATTERN,
    local_defocus,
    ring_moments,
    ring_strength,
    signal_and_contrast,
    signal_to_noise,
)
from tiltwise.ops.thon_rings.prior import (
    BELIEVED,
    DRIFT,
    SHARED,
    RingFit,
    RingPrior,
    learn_drift,
    prior_precision,
    settle_drift,
    update_variation,
)

_SHAPE_SPLINES = 6
_CONTRAST_SD = 0.5  # contrast of a tilt about the series' curve


def fit_shape(score: torch.Tensor, variance: torch.Tensor) -> torch.Tensor:
    """(2 · spline,) non-negative least squares, smooth in each half, for coefficients with scores and normal matrix."""
    lower = torch.linalg.cholesky(variance.cpu() + _smoothness(variance).cpu())
    target = torch.linalg.solve_triangular(lower, score.cpu()[:, None], upper=False)[:, 0]
    return torch.as_tensor(nnls(lower.T.numpy(), target.numpy())[0], dtype=score.dtype, device=score.device)


def _smoothness(variance: torch.Tensor) -> torch.Tensor:
    """(2 · spline, 2 · spline) precision that keeps each half of the coefficients smooth, 1/100 of what data say."""
    half = torch.diff(torch.eye(len(variance) // 2, dtype=variance.dtype), n=2, dim=0)
    bend = torch.block_diag(half, half)
    precision = bend.T @ bend + 1e-3 * torch.eye(len(variance), dtype=variance.dtype)
    return 1e-2 * variance.diagonal().mean() * precision.to(variance)


def shape_splines(spectra: RingSpectra) -> torch.Tensor:
    """(ring, spline) the curves that make up s(k)."""
    frequency = spectra.ring_frequency
    return spline_basis(frequency, float(frequency[0]), float(frequency[-1]), _SHAPE_SPLINES)


def update_shape(spectra: RingSpectra, fit: RingFit) -> RingFit:
    """One Gauss-Newton step for s(k) on all tilts, non-negative, at the present defocus and contrast.

    Molecules and ice are told apart by what exposure leaves of them. The background of each tilt is eliminated, not
    held: it would keep what it took of the rings.
    """
    splines, flat = shape_splines(spectra), background_basis(spectra.bins).flatten(0, 1)
    number, sectors = splines.shape[1], len(spectra.bins.cosine)
    score, variance = splines.new_zeros(2 * number), splines.new_zeros(2 * number, 2 * number)
    for i in range(len(fit.defocus)):
        ratio, contrast, _ = signal_and_contrast(spectra, fit, i)
        change, signal = contrast * fit.contrast[i] / (1 + ratio) ** 2, signal_to_noise(spectra, fit.shape, i)
        rings = ring_moments(spectra, fit, i)
        columns = change[:, None] * torch.cat([spectra.damage[i][:, None] * splines, splines], dim=1)
        columns, signal = columns.repeat(sectors, 1), (change * signal).repeat(sectors)
        overlap = flat.T @ (rings.gram[PATTERN, ONE][:, None] * columns)
        normal = flat.T @ (rings.gram[ONE, ONE][:, None] * flat)
        explained = torch.linalg.solve(normal + 1e-6 * torch.eye(len(normal)).to(normal), overlap)
        held = rings.score[ONE] + rings.gram[PATTERN, ONE] * signal
        score = score + columns.T @ (rings.score[PATTERN] + rings.gram[PATTERN, PATTERN] * signal)
        score = score - explained.T @ (flat.T @ held)
        variance = variance + columns.T @ (rings.gram[PATTERN, PATTERN][:, None] * columns) - overlap.T @ explained
    return replace(fit, shape=(splines @ fit_shape(score, variance).reshape(2, number).T).T)


def fit_rings(spectra: RingSpectra, start: RingFit, prior: RingPrior = BELIEVED, iterations: int = 8) -> RingFit:
    """Fisher scoring over all parameters at once from a starting point within a ring of the truth.

    Astigmatism may drift until half of the steps are done, and goes on to where the evidence decides for it.
    """
    fit = start
    for iteration in range(iterations):
        fit = _scoring_step(spectra, fit, prior)
        if iteration == iterations // 2:
            fit = settle_drift(fit)
        if iteration < iterations - 2:
            level = fit.contrast.mean()
            fit = update_shape(spectra, replace(fit, contrast=fit.contrast / level, shape=fit.shape * level))
    return fit


def _scoring_step(spectra: RingSpectra, fit: RingFit, prior: RingPrior) -> RingFit:
    """One step: what each tilt has of its own, then s(k), are eliminated; defocus and shared parameters are solved.

    s(k) itself is left to update_shape, which keeps it from being negative. Held instead of eliminated, it would keep
    what it took of the rings, and thickness would creep towards its value in dozens of steps.
    """
    tilts, shared = len(fit.defocus), SHARED + 2 * _SHAPE_SPLINES
    own = 1 + shared
    normal = fit.defocus.new_zeros(tilts + shared, tilts + shared)
    gradient = fit.defocus.new_zeros(tilts + shared)
    depth_slope = _depth_derivative(spectra, fit)
    locals_, gain = [], 0.0
    for i in range(tilts):
        full, right, tilt_gain = _normal_equations(spectra, fit, i, depth_slope[i])
        gain += tilt_gain
        full[own, own] += _CONTRAST_SD**-2
        right[own] -= (fit.contrast[i] - 1) * _CONTRAST_SD**-2
        full[own + 1 :, own + 1 :] += 1e-6 * torch.eye(len(full) - own - 1).to(full)
        couple = torch.linalg.solve(full[own:, own:], torch.cat([full[own:, :own], right[own:, None]], dim=1))
        index = torch.tensor([i, *range(tilts, tilts + shared)])
        normal[index[:, None], index] += full[:own, :own] - full[:own, own:] @ couple[:, :own]
        gradient[index] += right[:own] - full[:own, own:] @ couple[:, own]
        locals_.append((couple[:, [*range(1 + SHARED), own]], index[: 1 + SHARED]))
    normal, gradient = _eliminate_shape(spectra, fit, normal, gradient)
    precision, deviation = prior_precision(spectra.tilt_angle, fit, prior)
    normal, gradient = normal + precision, gradient - precision @ deviation
    covariance = torch.linalg.inv(normal)
    step = covariance @ gradient
    local = torch.stack([couple[:, -1] - couple[:, :-1] @ step[index] for couple, index in locals_])
    penalty = 0.5 * (deviation @ precision @ deviation + torch.logdet(normal) - torch.logdet(precision))
    moved = replace(
        _moved(fit, step, local),
        defocus_error=covariance.diagonal()[:tilts].sqrt(),
        shared_error=covariance.diagonal()[tilts:].sqrt(),
        variation=update_variation(spectra.tilt_angle, fit, covariance[:tilts, :tilts]),
        log_evidence=gain - float(penalty),
    )
    return learn_drift(moved, covariance[tilts:, tilts:][DRIFT, DRIFT])


def _eliminate_shape(
    spectra: RingSpectra, fit: RingFit, normal: torch.Tensor, gradient: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Normal matrix and gradient without the coefficients of s(k), which come last; those at their bound 0 are held."""
    number = 2 * _SHAPE_SPLINES
    coefficients = torch.linalg.lstsq(shape_splines(spectra), fit.shape.T).solution.T.flatten()
    free = torch.cat([normal.new_ones(len(normal) - number).bool(), coefficients > 1e-6 * coefficients.max()])
    smooth = _smoothness(normal[-number:, -number:])
    normal, gradient = normal.clone(), gradient.clone()
    normal[-number:, -number:] += smooth
    gradient[-number:] -= smooth @ coefficients
    both = torch.cat([normal[free][:, free], gradient[free, None]], dim=1)
    kept = len(free) - number
    rest = both[:kept] - both[:kept, kept:-1] @ torch.linalg.solve(both[kept:, kept:-1], both[kept:])
    return rest[:, :kept], rest[:, -1]


def _moved(fit: RingFit, step: torch.Tensor, local: torch.Tensor) -> RingFit:
    """The fit after a step (tilt + shared,) and those of contrast and background (tilt, 1 + spline), both bounded."""
    tilts = len(fit.defocus)
    return replace(
        fit,
        defocus=fit.defocus + step[:tilts].clamp(-300, 300),
        astigmatism=fit.astigmatism + step[tilts : tilts + 2].clamp(-300, 300),
        slope=fit.slope + step[tilts + 2 : tilts + 4].clamp(-0.03, 0.03),
        thickness=fit.thickness * math.exp(float(step[tilts + 4].clamp(-0.4, 0.4))),
        phase_shift=fit.phase_shift + math.degrees(float(step[tilts + 5].clamp(-0.3, 0.3))),
        drift=fit.drift + step[tilts:][DRIFT].reshape(2, 2).clamp(-300, 300) * (fit.drift_sd > 0),
        contrast=(fit.contrast + local[:, 0].clamp(-0.5, 0.5)).clamp(0.05, 3.0),
        background=fit.background + local[:, 1:].clamp(-1, 1),
    )


def _normal_equations(
    spectra: RingSpectra, fit: RingFit, tilt: int, depth_slope: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, float]:
    """Fisher information (parameter, parameter) and score (parameter,) of one tilt, and the log likelihood gained.

    Parameters: defocus, A, B, slope x, slope y, log thickness, phase shift (radians), A and B of both terms of drift,
    coefficients of s_0 and of s_1, contrast, background splines. A_i = A + Σ_n p_n(i) A_n, so that ∂/∂A_n is
    p_n(i) ∂/∂A. Each derivative is one of the five functions of the moments times a function of sector and ring.
    """
    bins, basis, splines = spectra.bins, background_basis(spectra.bins), shape_splines(spectra)
    rings = ring_moments(spectra, fit, tilt, depth_slope)
    ratio, contrast, by_thickness = signal_and_contrast(spectra, fit, tilt)
    strength, by_signal = contrast * ratio / (1 + ratio), contrast * fit.contrast[tilt] / (1 + ratio) ** 2
    astigmatic = torch.stack([bins.cosine, bins.sine], dim=-1)
    by_phase = 1 / (math.pi * electron_wavelength(spectra.optics.voltage) * bins.frequency**2)
    signal = torch.cat([spectra.damage[tilt][:, None] * splines, splines], dim=1) * by_signal[:, None]
    by_contrast = (by_signal * ratio / fit.contrast[tilt] ** 2)[:, None]
    pieces = [  # which function, and what it is multiplied by: (sector, ring, parameter)
        (DEFOCUS, torch.cat([torch.ones_like(astigmatic[..., :1]), astigmatic], dim=-1)),
        (DEPTH_X, torch.ones_like(astigmatic[..., :1])),
        (DEPTH_Y, torch.ones_like(astigmatic[..., :1])),
        (PATTERN, (by_thickness * ratio / (1 + ratio))[:, None].expand(len(basis), -1, -1)),
        (DEFOCUS, by_phase[..., None]),
        (DEFOCUS, torch.cat([factor * astigmatic for factor in spectra.course[tilt]], dim=-1)),
        (PATTERN, torch.cat([signal, by_contrast], dim=1).expand(len(basis), -1, -1)),
        (ONE, basis),
    ]
    pieces = [
        (kind, (factor * strength[:, None] if kind in (DEFOCUS, DEPTH_X, DEPTH_Y) else factor).flatten(0, 1))
        for kind, factor in pieces
    ]
    score = torch.cat([factor.T @ rings.score[kind] for kind, factor in pieces])
    rows = [[left.T @ (rings.gram[a, b][:, None] * right) for b, right in pieces] for a, left in pieces]
    full = torch.cat([torch.cat(row, dim=1) for row in rows])
    return full, score, rings.gain


def _depth_derivative(spectra: RingSpectra, fit: RingFit) -> torch.Tensor:
    """(tilt, patch, 2) derivative of h · depth by the two slopes of the plane, Å."""
    step = 1e-4
    change = []
    for axis in range(2):
        offset = torch.zeros_like(fit.slope)
        offset[axis] = step
        change.append(patch_depth(spectra, fit.slope + offset) - patch_depth(spectra, fit.slope - offset))
    return fit.handedness * torch.stack(change, dim=-1) / (2 * step)


def ring_dispersion(spectra: RingSpectra, fit: RingFit) -> torch.Tensor:
    """(ring,) factor, at least 1, by which what the model leaves exceeds the statistical error, all tilts together.

    The specimen's own spectrum is not smooth, least of all at low frequency, and is the same in every tilt. Dividing
    the weights by this factor (quasi-likelihood) keeps it from posing as rings. Measured on sums over 5 rings of
    frequency, since such structure is that wide, and averaged over 13.
    """
    basis = background_splines(spectra.ring_frequency)
    residual = total = torch.zeros_like(spectra.ring_frequency)
    for i in range(len(fit.defocus)):
        pattern = ring_pattern(spectra, spectra.bins.frequency, local_defocus(spectra, fit, i), fit.phase_shift)[0]
        strength = ring_strength(spectra, fit, i)
        ring = 1 + (strength * pattern).clamp(-LARGEST_RING, LARGEST_RING)
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
