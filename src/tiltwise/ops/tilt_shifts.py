"""The shift of each tilt image, refined on its particles, and kept only if it helps particles it was not fitted on.

One block of methods.md section 6. For every tilt the log likelihood of all its particles' images is raised over a shift
(x, y) of the image by Gauss-Newton, each particle compared with the reference of its own half: once on the particles of
half 1, once on those of half 2, and on all. The gate: each half's fit must raise the likelihood of the other half.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import torch

from tiltwise.data.tilt_series import TiltSeries
from tiltwise.ops.geometry import tilt_rotations
from tiltwise.ops.particle_chunks import ImageSource, PosedParticles, particle_chunks
from tiltwise.ops.particle_images import TiltWeights
from tiltwise.ops.pose_refinement import slice_terms
from tiltwise.ops.slices import SpectralGrid, volume_spectrum

_PRIOR = 5.0  # standard deviation of a shift, Å
_ENOUGH = 500  # particles of each half, evenly taken, that fix a shift well enough
_ROUNDS = 2  # Gauss-Newton steps


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class ShiftFit:
    """Refined shifts of one tilt series and the evidence for them."""

    shift: np.ndarray
    """(used tilt, 2) change of the shift, Å, without the part that a common movement of all particles explains."""
    gain: tuple[float, float]
    """Log likelihood that half 1 gains by the fit on half 2, and half 2 by the fit on half 1."""

    @property
    def accepted(self) -> bool:
        """Each half gains by what the other found."""
        return min(self.gain) > 0


def refine_tilt_shifts(
    source: ImageSource,
    particles: PosedParticles,
    references: Mapping[int, torch.Tensor],
    *,
    weights: Mapping[str, TiltWeights],
    resolution: float,
) -> dict[str, ShiftFit]:
    """Fit the shifts of every tilt series; references (n, n, n) by half set, resolution in Å."""
    radius = source.settings.radius_of(resolution)
    grids = {half: volume_spectrum(reference, radius + 1) for half, reference in references.items()}
    result = {}
    for name in sorted(set(particles.tilt_series[particles.half_set > 0].tolist())):
        own = replace(particles, half_set=_some_of(particles, name))

        def terms(shifts: Mapping[int, torch.Tensor], own: PosedParticles = own) -> dict[int, torch.Tensor]:
            return _summed_terms(source, own, grids, shifts, weights, resolution)

        result[name] = _fit(terms, source.tilt_series[name])
    return result


def _some_of(particles: PosedParticles, name: str) -> np.ndarray:
    """(particle,) half sets with all but enough particles of each half of one series set to 0."""
    halves = np.zeros_like(particles.half_set)
    for half in (1, 2):
        own = np.flatnonzero((particles.tilt_series == name) & (particles.half_set == half))
        halves[own[:: max(1, len(own) // _ENOUGH)]] = half
    return halves


def shifted_series(tilt_series: TiltSeries, fit: ShiftFit) -> TiltSeries:
    """The series with the fit's change added to the shifts of its used tilts."""
    shift = tilt_series.geometry.shift.copy()
    shift[np.flatnonzero(tilt_series.use)] += fit.shift
    return replace(tilt_series, geometry=replace(tilt_series.geometry, shift=shift))


def log_likelihood(
    source: ImageSource,
    particles: PosedParticles,
    grids: Mapping[int, SpectralGrid],
    weights: Mapping[str, TiltWeights],
    resolution: float,
) -> float:
    """Log likelihood of the images of all particles at their poses, each under the reference of its half."""
    tilts = {name: int(np.count_nonzero(series.use)) for name, series in source.tilt_series.items()}
    zero = torch.zeros(max(tilts.values()), 2, dtype=torch.float64)
    sums = _summed_terms(source, particles, grids, {1: zero, 2: zero}, weights, resolution)
    return sum(_likelihood(part) for part in sums.values())


def _summed_terms(
    source: ImageSource,
    particles: PosedParticles,
    grids: Mapping[int, SpectralGrid],
    shifts: Mapping[int, torch.Tensor],
    weights: Mapping[str, TiltWeights],
    resolution: float,
) -> dict[int, torch.Tensor]:
    """(tilt, 22) sums by half of the terms of `slice_terms`, each half under its own shifts (tilt, 2)."""
    sums: dict[int, torch.Tensor] = {}
    for _, half, index, images in particle_chunks(source, particles, weights=weights, resolution=resolution):
        moved = shifts[half].to(images.data.device)[: images.data.shape[1]].expand(len(index), -1, -1)
        part = slice_terms(images, grids[half], particles.rotation[index], moved).sum(0)
        sums[half] = sums[half] + part if half in sums else part
    return sums


def _fit(terms, tilt_series: TiltSeries) -> ShiftFit:
    number = int(np.count_nonzero(tilt_series.use))
    zero = torch.zeros(number, 2, dtype=torch.float64)
    first = terms({1: zero, 2: zero})
    if len(first) < 2:
        return ShiftFit(shift=zero.numpy(), gain=(0.0, 0.0))
    separate, joint = {1: zero, 2: zero}, zero
    at_separate = at_joint = first
    for step in range(_ROUNDS):
        separate = {half: shift + _newton_step(at_separate[half], shift) for half, shift in separate.items()}
        joint = joint + _newton_step(at_joint[1] + at_joint[2], joint)
        if step + 1 < _ROUNDS:
            at_separate, at_joint = terms(separate), terms({1: joint, 2: joint})
    crossed = terms({1: separate[2], 2: separate[1]})
    gain = tuple(_likelihood(crossed[half]) - _likelihood(first[half]) for half in (1, 2))
    return ShiftFit(shift=_without_translation(joint, tilt_series).numpy(), gain=gain)


def _likelihood(terms: torch.Tensor) -> float:
    return float((terms[:, 0] - 0.5 * terms[:, 1]).sum())


def _newton_step(terms: torch.Tensor, shift: torch.Tensor) -> torch.Tensor:
    """(tilt, 2) step that raises likelihood and prior, exp(-|shift|² / 2 prior²)."""
    terms = terms.cpu()
    information = terms[:, [19, 20, 20, 21]].unflatten(-1, (2, 2)) + torch.eye(2).double() / _PRIOR**2
    return torch.linalg.solve(information, terms[:, 5:7] - shift / _PRIOR**2)


def _without_translation(shift: torch.Tensor, tilt_series: TiltSeries) -> torch.Tensor:
    """The shifts less their best fit by one 3D translation of everything, which poses already describe."""
    plane = tilt_rotations(tilt_series.geometry)[np.flatnonzero(tilt_series.use)][:, :2].reshape(-1, 3)
    translation = torch.linalg.lstsq(plane, shift.reshape(-1, 1)).solution
    return shift - (plane @ translation).reshape(-1, 2)
