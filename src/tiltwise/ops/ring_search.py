"""Where to start: the defocus of every tilt from a grid search and the smoothest path through all tilts."""

from dataclasses import dataclass

import torch

from tiltwise.ops.ring_fit import signal_to_noise, update_shape
from tiltwise.ops.ring_model import RingSpectra, background_basis, patch_depth, ring_pattern
from tiltwise.ops.ring_prior import BELIEVED, RingFit

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
    """Grid search of all tilts with s(k) = shape (2, ring), then s(k) fitted along the best path. grid (defocus,) Å."""
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
        thickness=BELIEVED.thickness,
        thickness_error=torch.nan,
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
    """Evidence for rings at each defocus of an even grid (Å), tilt by tilt, averaged over azimuth but not over patches.

    shape (2, ring) is s(k), for contrasts a = 1. Gives the score N = sum W (P - 1) t and its variance D = sum W t²,
    both (tilt, grid), of the pattern t made orthogonal to the smooth background; N / D estimates the strength of the
    pattern and N² / 2D the log likelihood gained, to second order in the contrast. Depth is rounded to half a step of
    the grid, so that one table of patterns serves every patch of every tilt.
    """
    frequency, half = spectra.ring_frequency, float(grid[1] - grid[0]) / 2
    basis = background_basis(frequency)
    depth = handedness * patch_depth(spectra, grid.new_zeros(2))
    level = (depth / half).round().long()
    least, most = int(level.min()), int(level.max())
    table = grid[0] + half * torch.arange(least, most + 2 * len(grid) - 1, dtype=grid.dtype, device=grid.device)
    pattern = ring_pattern(spectra, frequency, table[:, None])[0]
    square = pattern**2
    scores, variances = [], []
    ratio = torch.stack([signal_to_noise(spectra, shape, i) for i in range(len(depth))])
    envelopes = spectra.coherence * ratio / (1 + ratio)
    rows = 2 * torch.arange(len(grid), device=grid.device)
    for power, weight, own, envelope in zip(spectra.power, spectra.weight, level, envelopes, strict=True):
        levels, index = own.unique(return_inverse=True)
        empty = weight.new_zeros(len(levels), weight.shape[-1])
        ring_weight = empty.index_add(0, index, weight.sum(1))
        surprise = empty.index_add(0, index, ((power - 1) * weight).sum(1))
        score = grid.new_zeros(len(grid))
        variance, overlap = torch.zeros_like(score), grid.new_zeros(len(grid), basis.shape[1])
        for z, at_level, observed in zip((levels - least).tolist(), ring_weight, surprise, strict=True):
            seen = pattern[rows + z]
            score += seen @ (envelope * observed)
            variance += square[rows + z] @ (envelope**2 * at_level)
            overlap += seen @ ((envelope * at_level)[:, None] * basis)
        normal = torch.einsum("ra,r,rb->ab", basis, ring_weight.sum(0), basis)
        normal = normal + 1e-9 * normal.diagonal().mean().clamp_min(1e-12) * torch.eye(len(normal)).to(normal)
        explained = torch.linalg.solve(normal, overlap.T)
        scores.append(score - explained.T @ (basis.T @ surprise.sum(0)))
        variances.append(variance - (overlap.T * explained).sum(0))
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
