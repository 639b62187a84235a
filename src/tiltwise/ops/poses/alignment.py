"""Poses of all particles against the reference of their own half: searched over a grid, or refined where they are."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import torch

from tiltwise.ops.particles.chunks import ImageSource, PosedParticles, particle_chunks
from tiltwise.ops.particles.images import ParticleImages, TiltWeights
from tiltwise.ops.particles.slices import SpectralGrid, volume_spectrum
from tiltwise.ops.particles.tilt_weights import agreement_sums, amplitude_ratio
from tiltwise.ops.poses.refinement import Poses, held_in_ball, refine_poses
from tiltwise.ops.poses.search import in_tomogram, particle_vectors, search_poses, shift_grid
from tiltwise.ops.rotations import cone_rotation_grid, geodesic_angle, rotation_grid

_MOST_CANDIDATES = 24  # of a particle that are refined in the band of the search
_MOST_FINALISTS = 4  # of them that are refined in a finer band
_HELD = 0.999  # part of the posterior that candidates, and of them finalists, are to hold


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class SearchGrid:
    """The poses tried, in the frame of each particle's starting pose."""

    rotations: torch.Tensor
    """(rotation, 3, 3) float64."""
    shifts: torch.Tensor
    """(shift, 3) float64, Å."""
    resolution: float
    """Finest spacing compared, Å."""
    angular_step: float
    """Degrees between neighbouring rotations."""
    symmetry: str
    """Of the reference."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class PoseBounds:
    """What is known of each pose beforehand, and holds to the end."""

    position: torch.Tensor
    """(particle, 3) float64 starting position, Å."""
    radius: torch.Tensor
    """(particle,) float64 farthest from it, Å."""
    rotation: torch.Tensor
    """(particle, 3, 3) float64 starting rotation."""
    cone: float
    """Degrees by which the reference's z axis may lean from where that puts it; at 180 it may lie anywhere."""

    def moved(self, shift: torch.Tensor, rotation: np.ndarray) -> "PoseBounds":
        """As they are once the reference has moved by x' = Q x + d, Q the rotation (3, 3), which moved the positions by
        shift (particle, 3), Å."""
        turn = torch.as_tensor(rotation, dtype=self.rotation.dtype, device=self.rotation.device)
        return replace(self, position=self.position + shift, rotation=self.rotation @ turn.T)

    def carried(self, shift: torch.Tensor) -> "PoseBounds":
        """As they are once the geometry of the series, not its own images, has moved each particle by shift (particle,
        3), Å."""
        return replace(self, position=self.position + shift)

    def limits(self, position: torch.Tensor, index: np.ndarray) -> dict[str, torch.Tensor | None]:
        """Of some particles, for `refine_poses`: shifts count from position (particle, 3)."""
        ball = torch.cat([self.position[index] - position[index], self.radius[index, None]], dim=1)
        direction = None
        if self.cone < 180:
            z = self.rotation[index, :, 2]
            direction = torch.cat([z, torch.full_like(z[:, :1], np.cos(np.radians(self.cone)))], dim=1)
        return {"allowed_shift": ball, "allowed_direction": direction}


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Alignment:
    """New poses of all particles."""

    particles: PosedParticles
    """Positions and rotations after the alignment."""
    score: np.ndarray
    """(particle,) log likelihood against no particle."""
    amplitude: np.ndarray
    """(particle,) of the reference in the particle's images, 1 as a rule; nan where it was not measured."""
    uncertainty: np.ndarray
    """(particle, 2) standard deviation of rotation (degrees) and of position (Å), rms over the axes."""
    mass: np.ndarray
    """(particle,) part of the posterior that the pose holds among all that a search came to; nan without a search."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class _Ranked:
    """Refined candidates of each particle, the most likely first."""

    rotation: torch.Tensor
    """(particle, candidate, 3, 3)."""
    shift: torch.Tensor
    """(particle, candidate, 3) Å."""
    part: torch.Tensor
    """(particle, candidate) of their posterior; 0 of one that came to the pose of another, or was not needed."""


def search_grid(resolution: float, diameter: float, cone: float, shift: float, symmetry: str = "C1") -> SearchGrid:
    """Steps at which neighbours still overlap: a point at the particle's edge, or the whole, moves by 0.35 resolution.

    cone (degrees) is the half-angle of the directions about the starting one, every turn about it included; at 180 the
    grid covers all rotations. shift (Å) bounds the shifts. Lengths in Å.
    """
    step = float(np.degrees(0.7 * resolution / diameter))
    rotations = rotation_grid(step, symmetry) if cone >= 180 else cone_rotation_grid(cone, step, symmetry)
    return SearchGrid(
        rotations=rotations,
        shifts=shift_grid(shift, 0.35 * resolution),
        resolution=resolution,
        angular_step=step,
        symmetry=symmetry,
    )


def search_alignment(
    source: ImageSource,
    particles: PosedParticles,
    references: Mapping[int, torch.Tensor],
    *,
    weights: Mapping[str, TiltWeights],
    grid: SearchGrid,
    resolution: float,
    bounds: PoseBounds,
) -> Alignment:
    """Best pose of every particle over the grid; of several candidates, the best once refined down to `resolution` (Å).

    The grid lies about the starting rotation and the present position. Its candidates are refined in the band of the
    search, those of them that may still be right in one twice as wide, the best in the whole; in each band they are
    compared at the scale of the reference that the best poses of the grid show. references (n, n, n) by half set.
    """
    radius, coarse = source.settings.radius_of(resolution), source.settings.radius_of(grid.resolution)
    middle = min(radius, 2 * coarse)
    spectra = {half: volume_spectrum(reference, radius + 1) for half, reference in references.items()}
    chosen = {
        "candidates": _MOST_CANDIDATES,
        "separation": 1.5 * grid.angular_step,
        "symmetry": grid.symmetry,
        "held": _HELD,
    }

    def align(half: int, index: np.ndarray, images: ParticleImages, limits: dict) -> tuple[Poses, torch.Tensor]:
        frame = bounds.rotation[index]
        vectors = particle_vectors(images, frame, coarse)
        found = in_tomogram(search_poses(vectors, references[half], grid.rotations, grid.shifts, **chosen), frame)
        best = agreement_sums(images.band(coarse), spectra[half], found.rotation[:, 0], found.shift[:, 0])
        spectrum = _scaled(spectra[half], max(amplitude_ratio(best), 0.0))
        refined = partial(_refined_candidates, spectrum=spectrum, grid=grid, limits=limits)
        shift = held_in_ball(found.shift, limits["allowed_shift"][:, None])
        first = refined(images.band(coarse), found.rotation, shift, found.needed, steps=3)
        needed = _needed(first.part)
        last = refined(
            images.band(middle), first.rotation[:, :_MOST_FINALISTS], first.shift[:, :_MOST_FINALISTS], needed, steps=5
        )
        mass = last.part[:, 0] * (first.part[:, :_MOST_FINALISTS] * needed).sum(1)
        return refine_poses(images, spectrum, last.rotation[:, 0], last.shift[:, 0], steps=3, **limits), mass

    return _align_chunks(source, particles, align, weights=weights, resolution=resolution, bounds=bounds)


def local_alignment(
    source: ImageSource,
    particles: PosedParticles,
    references: Mapping[int, torch.Tensor],
    *,
    weights: Mapping[str, TiltWeights],
    resolution: float,
    bounds: PoseBounds,
) -> Alignment:
    """Every pose refined from where it is; arguments as for `search_alignment`."""
    radius = source.settings.radius_of(resolution)
    spectra = {half: volume_spectrum(reference, radius + 1) for half, reference in references.items()}

    def align(half: int, index: np.ndarray, images: ParticleImages, limits: dict) -> tuple[Poses, torch.Tensor]:
        start = torch.zeros(len(index), 3, dtype=torch.float64, device=images.data.device)
        rotation = particles.rotation[index]
        poses = refine_poses(images, spectra[half], rotation, start, steps=4, **limits)
        return poses, torch.full_like(poses.likelihood, torch.nan)

    return _align_chunks(source, particles, align, weights=weights, resolution=resolution, bounds=bounds)


def better_alignment(first: Alignment, second: Alignment, grid: SearchGrid) -> Alignment:
    """For every particle the pose of the higher score; those that the search `second` left out keep that of `first`.

    Where the search came to another pose and the first is better, all that it found competes with the first by their
    scores.
    """
    searched = second.particles.half_set > 0
    better = searched & (second.score > first.score)
    angle = geodesic_angle(first.particles.rotation, second.particles.rotation, grid.symmetry).cpu().numpy()
    beaten = 1 / (1 + np.exp(np.minimum(second.score - first.score, 0)) / second.mass)
    mass = np.where(better | (angle < grid.angular_step), second.mass, beaten)
    which = torch.as_tensor(better, device=first.particles.position.device)
    posed = replace(
        first.particles,
        position=torch.where(which[:, None], second.particles.position, first.particles.position),
        rotation=torch.where(which[:, None, None], second.particles.rotation, first.particles.rotation),
    )
    return Alignment(
        particles=posed,
        score=np.where(better, second.score, first.score),
        amplitude=np.where(better, second.amplitude, first.amplitude),
        uncertainty=np.where(better[:, None], second.uncertainty, first.uncertainty),
        mass=np.where(searched, mass, first.mass),
    )


def _align_chunks(source, particles, align, *, weights, resolution, bounds) -> Alignment:
    position, rotation = particles.position.clone(), particles.rotation.clone()
    score, amplitude, mass = np.zeros(len(particles)), *(np.full(len(particles), np.nan) for _ in range(2))
    uncertainty = np.full((len(particles), 2), np.nan)
    chunks = particle_chunks(source, particles, weights=weights, resolution=resolution)
    for _, half, index, images in chunks:
        poses, held = align(half, index, images, bounds.limits(particles.position, index))
        position[index] += poses.shift
        rotation[index] = poses.rotation
        score[index] = poses.likelihood.cpu().numpy()
        amplitude[index] = poses.amplitude.cpu().numpy()
        mass[index] = held.cpu().numpy()
        variance = torch.diagonal(poses.covariance, dim1=1, dim2=2)
        spread = torch.stack([variance[:, :3].mean(1), variance[:, 3:].mean(1)], 1).clamp_min(0).sqrt()
        uncertainty[index] = spread.cpu().numpy()
    return Alignment(
        particles=replace(particles, position=position, rotation=rotation),
        score=score,
        amplitude=amplitude,
        uncertainty=uncertainty,
        mass=mass,
    )


def _scaled(spectrum: SpectralGrid, factor: float) -> SpectralGrid:
    return replace(spectrum, values=spectrum.values * factor)


def _needed(part: torch.Tensor) -> torch.Tensor:
    """(particle, finalist) bool: False from where those before hold enough of the posterior."""
    before = part.cumsum(1) - part
    return (before < _HELD)[:, :_MOST_FINALISTS]


def _refined_candidates(
    images: ParticleImages,
    rotation: torch.Tensor,
    shift: torch.Tensor,
    needed: torch.Tensor,
    *,
    steps: int,
    spectrum: SpectralGrid,
    grid: SearchGrid,
    limits: dict,
) -> _Ranked:
    """The needed candidates (particle, candidate) refined, in order of falling likelihood; what each holds of all."""
    rotation, shift = rotation.clone(), shift.clone()
    likelihood = torch.full(needed.shape, -torch.inf, dtype=torch.float64, device=needed.device)
    for c in range(needed.shape[1]):
        rows = torch.nonzero(needed[:, c]).flatten()
        if len(rows) == 0:
            break
        own = {name: None if limit is None else limit[rows] for name, limit in limits.items()}
        found = refine_poses(images.of(rows), spectrum, rotation[rows, c], shift[rows, c], steps=steps, **own)
        rotation[rows, c], shift[rows, c], likelihood[rows, c] = found.rotation, found.shift, found.likelihood
    rotation, shift, likelihood = _sorted(rotation, shift, likelihood)
    likelihood = likelihood.masked_fill(_repeated(rotation, shift, grid), -torch.inf)
    rotation, shift, likelihood = _sorted(rotation, shift, likelihood)
    return _Ranked(rotation=rotation, shift=shift, part=likelihood.softmax(1))


def _sorted(rotation: torch.Tensor, shift: torch.Tensor, likelihood: torch.Tensor) -> tuple[torch.Tensor, ...]:
    likelihood, order = likelihood.sort(dim=1, descending=True, stable=True)
    rows = torch.arange(len(order), device=order.device)[:, None]
    return rotation[rows, order], shift[rows, order], likelihood


def _repeated(rotation: torch.Tensor, shift: torch.Tensor, grid: SearchGrid) -> torch.Tensor:
    """(particle, candidate) bool: within a step of the grid of a candidate before it, so that both are one peak."""
    result = torch.zeros(rotation.shape[:2], dtype=torch.bool, device=rotation.device)
    for c in range(1, rotation.shape[1]):
        angle = geodesic_angle(rotation[:, :c], rotation[:, c, None], grid.symmetry)
        distance = (shift[:, :c] - shift[:, c, None]).norm(dim=2)
        result[:, c] = ((angle < grid.angular_step) & (distance < 0.35 * grid.resolution)).any(1)
    return result
