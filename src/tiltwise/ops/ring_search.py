"""Where to start: the defocus of every tilt from a grid search and the smoothest path through all tilts."""

from dataclasses import dataclass

import torch

from tiltwise.ops.ring_fit import RingFit, update_shape
from tiltwise.ops.ring_model import RingSpectra, background_basis, patch_depth, ring_pattern

_PATH_STEP = 600.0  # Å, rms difference of neighbouring tilts that costs half a unit of log likelihood
_PATH_COST_MAX = 8.0  # a tilt may jump at this cost


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class RingSearch:
    """The best path through the defocus grid for one handedness."""

    fit: RingFit
    """Starting point of the joint fit."""
    significance: float
    """Strength of the rings along the path, all tilts together, in standard deviations of its noise."""


def search_rings(spectra: RingSpectra, shape: torch.Tensor, handedness: int, grid: torch.Tensor) -> RingSearch:
    """Grid search of all tilts with s(k) = shape (ring,), then s(k) fitted along the best path. grid (defocus,) Å."""
    score, variance = score_defocus(spectra, shape, handedness, grid)
    path = best_path(score.clamp_min(0) ** 2 / (2 * variance), grid)
    tilt = torch.arange(len(path), device=path.device)
    total, spread = score[tilt, path].sum(), variance[tilt, path].sum()
    number = background_basis(spectra.ring_frequency).shape[1]
    fit = RingFit(
        handedness=handedness,
        defocus=grid[path],
        defocus_error=torch.full_like(grid[path], torch.nan),
        astigmatism=grid.new_zeros(2),
        slope=grid.new_zeros(2),
        contrast=torch.ones_like(grid[path]),
        shape=shape * (total / spread).clamp_min(1e-3),
        background=grid.new_zeros(len(path), number),
        variation=(150.0, 150.0),
        log_evidence=0.0,
    )
    for _ in range(2):
        fit = update_shape(spectra, fit)
    return RingSearch(fit=fit, significance=float(total / spread.sqrt()))


def score_defocus(
    spectra: RingSpectra, shape: torch.Tensor, handedness: int, grid: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Evidence for rings at each defocus of a grid (Å), tilt by tilt, averaged over azimuth but not over patches.

    shape (ring,) is s(k), for contrasts a = 1. Gives the score N = sum W (P - 1) t and its variance D = sum W t², both
    (tilt, grid), of the pattern t made orthogonal to the smooth background; N / D estimates the strength of the
    pattern and N² / 2D the log likelihood gained, to second order in the contrast.
    """
    frequency = spectra.ring_frequency
    basis = background_basis(frequency)
    depth = handedness * patch_depth(spectra, grid.new_zeros(2))
    scores, variances = [], []
    ratio = spectra.damage * shape
    envelopes = spectra.coherence * ratio / (1 + ratio)
    for power, weight, z, envelope in zip(spectra.power, spectra.weight, depth, envelopes, strict=True):
        ring_weight = weight.sum(1)
        surprise = ((power - 1) * weight).sum(1)
        pattern = ring_pattern(spectra, frequency, (grid[:, None] + z)[..., None])[0] * envelope
        overlap = (pattern * ring_weight).sum(1) @ basis
        total = ring_weight.sum(0)
        normal = torch.einsum("ra,r,rb->ab", basis, total, basis)
        normal = normal + 1e-9 * normal.diagonal().mean().clamp_min(1e-12) * torch.eye(len(normal)).to(normal)
        explained = torch.linalg.solve(normal, overlap.T)
        scores.append((pattern * surprise).sum((1, 2)) - explained.T @ (basis.T @ surprise.sum(0)))
        variances.append((pattern**2 * ring_weight).sum((1, 2)) - (overlap.T * explained).sum(0))
    return torch.stack(scores), torch.stack(variances).clamp_min(1e-9)


def best_path(gain: torch.Tensor, grid: torch.Tensor) -> torch.Tensor:
    """(tilt,) index of the grid on the path of largest total gain (tilt, grid), tilts in order of angle.

    Neighbouring tilts are tied by (difference / 600 Å)² / 2, at most 8: dynamic programming (Viterbi's algorithm).
    """
    cost = (0.5 * ((grid[:, None] - grid) / _PATH_STEP) ** 2).clamp(max=_PATH_COST_MAX)
    total, origins = gain[0], []
    for row in gain[1:]:
        best, origin = (total[None, :] - cost).max(dim=1)
        total = best + row
        origins.append(origin)
    path = [int(total.argmax())]
    for origin in reversed(origins):
        path.append(int(origin[path[-1]]))
    return torch.tensor(path[::-1], device=gain.device)
