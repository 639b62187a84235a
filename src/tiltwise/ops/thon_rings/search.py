"""Where to start: the defocus of every tilt from a grid search and the smoothest path through all tilts."""

from dataclasses import dataclass, replace

import torch

from tiltwise.ops.thon_rings.fit import fit_rings, ring_dispersion, update_shape
from tiltwise.ops.thon_rings.model import RingSpectra, background_basis, background_splines, patch_depth, ring_pattern
from tiltwise.ops.thon_rings.moments import signal_to_noise
from tiltwise.ops.thon_rings.prior import BELIEVED, DRIFT_START, SHARED, RingFit, RingPrior

_STEP = 250.0  # Å, of the search over defocus
_ASTIGMATISM_STEP = 125.0  # Å, of the search over astigmatism and the defoci that go with it
_ASTIGMATISM_REACH, _OFFSET_REACH = 8, 4  # of these steps: up to 2000 Å of u - v
_ROUGH = 4  # steps of the fit that brings rings within a tenth of their period, so that what is left is no misfit
_PATH_STEP = 600.0  # Å, rms difference of neighbouring tilts that costs half a unit of log likelihood
_PATH_COST_MAX = 8.0  # a tilt may jump at this cost


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class RingSearch:
    """The best path through the defocus grid for one handedness."""

    fit: RingFit
    """Starting point of the joint fit."""
    significance: float
    """Strength of the rings along the path, all tilts together, in standard deviations of its noise."""


def search_series(
    spectra: RingSpectra,
    defocus_min: float,
    defocus_max: float,
    *,
    hands: tuple[int, ...] = (1, -1),
    phase_shifts: tuple[float, ...] = (0.0,),
    prior: RingPrior = BELIEVED,
) -> tuple[RingSpectra, list[RingSearch]]:
    """Search twice, the second time with the weights and the curve s(k) that the first one found, and astigmatism.

    phase_shifts, degrees, are those to try for the whole series. Gives the spectra with weights for the fit, and one
    starting point for each hand; one alone where no patch lies deep enough to tell them apart.

    What the rings leave unexplained (ring_dispersion, D for all tilts together) is the same in every tilt and could
    pose as rings of all of them, so that the search divides its weights by D. A fit follows the rings of each tilt,
    which differ: in the variance of one tilt the same structure counts by that tilt's share w of the weights,
    1 + (D - 1) w.
    """
    grid = torch.arange(defocus_min, defocus_max, _STEP, dtype=torch.float64)
    if float(patch_depth(spectra, grid.new_zeros(2)).abs().max()) < _STEP / 4:
        hands = hands[:1]
    flat = torch.tensor([[0.1], [0.02]]).to(spectra.ring_frequency).expand(-1, len(spectra.ring_frequency))
    tried = [[search_rings(spectra, flat, hand, grid, phase) for hand in hands] for phase in phase_shifts]
    searches = max(tried, key=lambda some: max(s.significance for s in some))
    best = max(searches, key=lambda s: s.significance)
    steady = replace(search_astigmatism(spectra, best.fit), drift_sd=0.0)
    rough = fit_rings(spectra, steady, prior, iterations=_ROUGH)
    common = ring_dispersion(spectra, rough)
    searched = replace(spectra, weight=spectra.weight / common)
    again = [
        search_rings(searched, s.fit.shape.clamp_min(0.003), s.fit.handedness, grid, rough.phase_shift)
        for s in searches
    ]
    share = spectra.weight.sum((1, 2), keepdim=True) / spectra.weight.sum((0, 1, 2))
    fitted = replace(spectra, weight=spectra.weight / (1 + (common - 1) * share))
    return fitted, [replace(search, fit=search_astigmatism(fitted, search.fit)) for search in again]


def search_rings(
    spectra: RingSpectra, shape: torch.Tensor, handedness: int, grid: torch.Tensor, phase_shift: float = 0.0
) -> RingSearch:
    """Grid search of all tilts with s(k) = shape (2, ring), then s(k) fitted along the best path.

    grid (defocus,) Å; phase_shift in degrees.
    """
    score, variance = score_defocus(spectra, shape, handedness, grid, phase_shift)
    path = best_path(score.clamp_min(0) ** 2 / (2 * variance), grid)
    tilt = torch.arange(len(path), device=path.device)
    total, spread = score[tilt, path].sum(), variance[tilt, path].sum()
    number = background_basis(spectra.bins).shape[-1]
    fit = RingFit(
        handedness=handedness,
        defocus=grid[path],
        defocus_error=torch.full_like(grid[path], torch.nan),
        astigmatism=grid.new_zeros(2),
        drift=grid.new_zeros(2, 2),
        drift_sd=DRIFT_START,
        shared_error=grid.new_full((SHARED,), torch.nan),
        slope=grid.new_zeros(2),
        thickness=BELIEVED.thickness,
        phase_shift=phase_shift,
        contrast=torch.ones_like(grid[path]),
        shape=shape * (total / spread).clamp_min(1e-3),
        background=grid.new_zeros(len(path), number),
        variation=(150.0, 150.0),
        drift_evidence=torch.nan,
        log_evidence=0.0,
    )
    for _ in range(2):
        fit = update_shape(spectra, fit)
    return RingSearch(fit=fit, significance=float(total / spread.sqrt()))


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class _Patterns:
    """The ring pattern at every defocus that the patches can see, in steps, so that one table serves all of them."""

    table: torch.Tensor
    """(step, ring) pattern at defocus low, low + step, ..."""
    level: torch.Tensor
    """(tilt, patch) depth of each patch in steps."""
    least: int
    """Smallest level; that of the first row of the table at an offset of 0."""

    def by_level(self, tilt: int, values: torch.Tensor) -> tuple[list[int], torch.Tensor]:
        """Levels of one tilt, and (level, ...) sums of values (patch, ...) over the patches of each."""
        levels, index = self.level[tilt].unique(return_inverse=True)
        sums = values.new_zeros(len(levels), *values.shape[1:]).index_add(0, index, values)
        return (levels - self.least).tolist(), sums


def _tabulate(
    spectra: RingSpectra, handedness: int, low: float, step: float, number: int, phase_shift: float
) -> _Patterns:
    """Patterns for `number` steps of defocus at depth 0, from low upwards, and all depths h · depth; Å, degrees."""
    depth = handedness * patch_depth(spectra, spectra.tilt_angle.new_zeros(2))
    level = (depth / step).round().long()
    least, most = int(level.min()), int(level.max())
    defocus = low + step * torch.arange(least, most + number, dtype=depth.dtype, device=depth.device)
    pattern = ring_pattern(spectra, spectra.ring_frequency, defocus[:, None], phase_shift)[0]
    return _Patterns(table=pattern, level=level, least=least)


def _envelopes(spectra: RingSpectra, shape: torch.Tensor) -> torch.Tensor:
    """(tilt, ring) strength of the rings for s(k) = shape and contrasts a = 1."""
    ratio = torch.stack([signal_to_noise(spectra, shape, i) for i in range(len(spectra.tilt_angle))])
    return spectra.coherence * ratio / (1 + ratio)


def score_defocus(
    spectra: RingSpectra, shape: torch.Tensor, handedness: int, grid: torch.Tensor, phase_shift: float = 0.0
) -> tuple[torch.Tensor, torch.Tensor]:
    """Evidence for rings at each defocus of an even grid (Å), tilt by tilt, averaged over azimuth but not over patches.

    shape (2, ring) is s(k), for contrasts a = 1. Gives the score N = sum W (P - 1) t and its variance D = sum W t²,
    both (tilt, grid), of the pattern t made orthogonal to the smooth background; N / D estimates the strength of the
    pattern and N² / 2D the log likelihood gained, to second order in the contrast. Depth is rounded to half a step of
    the grid.
    """
    basis = background_splines(spectra.ring_frequency)
    half = float(grid[1] - grid[0]) / 2
    patterns = _tabulate(spectra, handedness, float(grid[0]), half, 2 * len(grid) - 1, phase_shift)
    square = patterns.table**2
    scores, variances = [], []
    rows = 2 * torch.arange(len(grid), device=grid.device)
    for i, envelope in enumerate(_envelopes(spectra, shape)):
        power, weight = spectra.power[i], spectra.weight[i]
        levels, sums = patterns.by_level(i, torch.stack([weight.sum(1), ((power - 1) * weight).sum(1)], dim=1))
        ring_weight, surprise = sums[:, 0], sums[:, 1]
        score = grid.new_zeros(len(grid))
        variance, overlap = torch.zeros_like(score), grid.new_zeros(len(grid), basis.shape[1])
        for z, at_level, observed in zip(levels, ring_weight, surprise, strict=True):
            seen = patterns.table[rows + z]
            score += seen @ (envelope * observed)
            variance += square[rows + z] @ (envelope**2 * at_level)
            overlap += seen @ ((envelope * at_level)[:, None] * basis)
        normal = torch.einsum("ra,r,rb->ab", basis, ring_weight.sum(0), basis)
        normal = normal + 1e-9 * normal.diagonal().mean().clamp_min(1e-12) * torch.eye(len(normal)).to(normal)
        explained = torch.linalg.solve(normal, overlap.T)
        scores.append(score - explained.T @ (basis.T @ surprise.sum(0)))
        variances.append(variance - (overlap.T * explained).sum(0))
    return torch.stack(scores), torch.stack(variances).clamp_min(1e-9)


def search_astigmatism(spectra: RingSpectra, fit: RingFit) -> RingFit:
    """The fit with the astigmatism and the defoci at which the rings of all sectors agree best.

    Log likelihood sum W [(P - 1) t - t² / 2] of each sector at offsets from the defocus found without astigmatism;
    for each vector (A, B) of a grid every tilt takes its best common offset. The prior of astigmatism counts.
    """
    reach = _ASTIGMATISM_REACH + _OFFSET_REACH
    low = float(fit.defocus.min()) - reach * _ASTIGMATISM_STEP
    first = ((fit.defocus - low) / _ASTIGMATISM_STEP).round().long() - reach
    number = int(first.max()) + 2 * reach + 1
    patterns = _tabulate(spectra, fit.handedness, low, _ASTIGMATISM_STEP, number, fit.phase_shift)
    square = patterns.table**2
    steps = torch.arange(2 * reach + 1)
    gains = spectra.tilt_angle.new_zeros(len(first), len(spectra.bins.cosine), len(steps))  # tilt, sector, offset
    for i, envelope in enumerate(_envelopes(spectra, fit.shape)):
        weight = spectra.weight[i]
        levels, sums = patterns.by_level(i, torch.stack([weight, (spectra.power[i] - 1) * weight], dim=1))
        for z, (at_level, observed) in zip(levels, sums, strict=True):
            rows = steps + int(first[i]) + z
            gains[i] += (envelope * observed) @ patterns.table[rows].T
            gains[i] -= 0.5 * (envelope**2 * at_level) @ square[rows].T
    side = torch.arange(-_ASTIGMATISM_REACH, _ASTIGMATISM_REACH + 1)
    vectors = torch.cartesian_prod(side, side)
    vectors = vectors[vectors.pow(2).sum(1) <= _ASTIGMATISM_REACH**2]
    direction = torch.stack([spectra.bins.cosine.mean(1), spectra.bins.sine.mean(1)])
    place = reach + (vectors.to(direction) @ direction).round().long()  # vector, sector
    common = torch.arange(-_OFFSET_REACH, _OFFSET_REACH + 1)
    index = place[:, None, :] + common[:, None]  # vector, offset, sector
    total = gains[:, torch.arange(index.shape[-1]), index].sum(-1)  # tilt, vector, offset
    best, offset = total.max(-1)
    prior = 0.5 * vectors.pow(2).sum(1) * (_ASTIGMATISM_STEP / BELIEVED.astigmatism_sd) ** 2
    chosen = int((best.sum(0) - prior).argmax())
    return replace(
        fit,
        astigmatism=vectors[chosen].to(fit.defocus) * _ASTIGMATISM_STEP,
        defocus=fit.defocus + common[offset[:, chosen]] * _ASTIGMATISM_STEP,
    )


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
