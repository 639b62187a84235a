"""Sums over the patches of a tilt from which the fit of its rings takes all derivatives.

With mu = exp(b) ring, the derivative of log mu by any parameter is a function of sector and ring times one of five:
∂log ring/∂defocus over the rings' strength, the same times ∂depth/∂slope along x and along y, pattern / ring, and 1.
"""

from dataclasses import dataclass

import torch

from tiltwise.ops.thon_rings.model import RingSpectra, background_basis, patch_depth, ring_pattern, thickness_contrast
from tiltwise.ops.thon_rings.prior import RingFit

LARGEST_RING = 0.95  # of the background
DEFOCUS, DEPTH_X, DEPTH_Y, PATTERN, ONE = range(5)
"""The five functions."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class RingMoments:
    """Of one tilt, sums over patches at each sector and ring, flattened to (value,), ring fastest."""

    gram: torch.Tensor
    """(function, function, value) Σ weight · function · function."""
    score: torch.Tensor
    """(function, value) Σ weight · function · (power / mu - 1)."""
    gain: float
    """Log likelihood gained over power = mu = 1, all values together."""


def signal_to_noise(spectra: RingSpectra, shape: torch.Tensor, tilt: int) -> torch.Tensor:
    """(ring,) power of the signal over that of the noise of one tilt at contrast 1, s_0 q² + s_1."""
    return shape[0] * spectra.damage[tilt] + shape[1]


def local_defocus(spectra: RingSpectra, fit: RingFit, tilt: int) -> torch.Tensor:
    """(patch, sector, ring) defocus seen by each value of one tilt, Å."""
    depth = fit.handedness * patch_depth(spectra, fit.slope)[tilt]
    a, b = fit.astigmatism_of(spectra.course[tilt])
    astigmatic = a * spectra.bins.cosine + b * spectra.bins.sine
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
    ratio = fit.contrast[tilt] * signal_to_noise(spectra, fit.shape, tilt)
    return ratio, spectra.coherence[tilt] * layers[0], spectra.coherence[tilt] * by_thickness[0]


def ring_moments(spectra: RingSpectra, fit: RingFit, tilt: int, depth_slope: torch.Tensor | None = None) -> RingMoments:
    """depth_slope (patch, 2): derivative of h · depth by the two slopes of the specimen, Å; None is 0."""
    pattern, slope = ring_pattern(spectra, spectra.bins.frequency, local_defocus(spectra, fit, tilt), fit.phase_shift)
    ring = (ring_strength(spectra, fit, tilt) * pattern).clamp_(-LARGEST_RING, LARGEST_RING).add_(1)
    log_mu = ring.log() + background_basis(spectra.bins) @ fit.background[tilt]
    power, weight = spectra.power[tilt], spectra.weight[tilt]
    surprise = power * torch.exp(-log_mu)
    gain = float((weight * (power - log_mu - surprise)).sum())
    weight, surprise = weight.flatten(1), surprise.sub_(1).flatten(1)
    by_defocus, pattern = slope.div_(ring).flatten(1), pattern.div_(ring).flatten(1)
    lever = weight.new_zeros(len(weight), 3)
    lever[:, 0] = 1
    if depth_slope is not None:
        lever[:, 1:] = depth_slope
    weighted, of_pattern = weight * by_defocus, weight * pattern
    gram, pairs = weight.new_empty(5, 5, weight.shape[1]), (lever[:, :, None] * lever[:, None]).flatten(1)
    gram[:3, :3] = (pairs.T @ (weighted * by_defocus)).unflatten(0, (3, 3))
    gram[:3, PATTERN] = gram[PATTERN, :3] = lever.T @ (weighted * pattern)
    gram[:3, ONE] = gram[ONE, :3] = lever.T @ weighted
    gram[PATTERN, PATTERN] = (of_pattern * pattern).sum(0)
    gram[PATTERN, ONE] = gram[ONE, PATTERN] = of_pattern.sum(0)
    gram[ONE, ONE] = weight.sum(0)
    score = [lever.T @ (weighted * surprise), (of_pattern * surprise).sum(0)[None], (weight * surprise).sum(0)[None]]
    return RingMoments(gram=gram, score=torch.cat(score), gain=gain)
