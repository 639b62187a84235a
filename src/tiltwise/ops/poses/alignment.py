"""Poses of all particles against the reference of their own half: searched over a grid, or refined where they are."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import torch

from tiltwise.ops.particles.chunks import ImageSource, PosedParticles, particle_chunks
from tiltwise.ops.particles.images import ParticleImages, TiltWeights
from tiltwise.ops.particles.slices import SpectralGrid, volume_spectrum
from tiltwise.ops.particles.tilt_weights import agreement_sums, amplitude_ratio
from tiltwise.ops.poses.refinement import Poses, refine_poses
from tiltwise.ops.poses.search import Candidates, in_tomogram, particle_vectors, search_poses, shift_grid
from tiltwise.ops.rotations import cone_rotation_grid, rotation_grid

_ROTATIONS_PER_CANDIDATE = 1000  # of a grid: one pose is kept for refinement for so many that were tried
_MOST_CANDIDATES = 12
_FINALISTS = 3  # of them that are refined in a finer band


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

    @property
    def candidates(self) -> int:
        """Poses of a particle that are kept for refinement; one where the grid is small and nothing can compete."""
        return min(max(1, len(self.rotations) // _ROTATIONS_PER_CANDIDATE), _MOST_CANDIDATES)


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


def search_grid(resolution: float, diameter: float, cone: float, shift: float, symmetry: str = "C1") -> SearchGrid:
    """Steps at which neighbours still overlap: a point at the particle's edge, or the whole, moves by 0.35 resolution.

    cone (degrees) is the half-angle of the directions about the starting one, every turn about it included; at 180 the
    grid covers all rotations. shift (Å) bounds the shifts. Lengths in Å.
    """
    step = float(np.degrees(0.7 * resolution / diameter))
    rotations = rotation_grid(step, symmetry) if cone >= 180 else cone_rotation_grid(cone, step, symmetry)
    return SearchGrid(
        rotations=rotations, shifts=shift_grid(shift, 0.35 * resolution), resolution=resolution, angular_step=step
    )


def search_alignment(
    source: ImageSource,
    particles: PosedParticles,
    references: Mapping[int, torch.Tensor],
    *,
    weights: Mapping[str, TiltWeights],
    grid: SearchGrid,
    resolution: float,
    allowed: torch.Tensor,
) -> Alignment:
    """Best pose of every particle over the grid; of several candidates, the best once refined down to `resolution` (Å).

    With a grid so small that it gives one candidate, that pose is the result, not refined. references (n, n, n) by half
    set; allowed (particle, 4): centre and radius, Å, of the ball of allowed positions.
    """
    radius, coarse = source.settings.radius_of(resolution), source.settings.radius_of(grid.resolution)
    middle = min(radius, 2 * coarse)
    spectra = {half: volume_spectrum(reference, radius + 1) for half, reference in references.items()}

    def align(half: int, index: np.ndarray, images: ParticleImages, ball: torch.Tensor) -> Poses:
        frame = particles.rotation[index]
        vectors = particle_vectors(images, frame, coarse)
        separation = 1.5 * grid.angular_step
        found = search_poses(
            vectors, references[half], grid.rotations, grid.shifts, candidates=grid.candidates, separation=separation
        )
        found = in_tomogram(found, frame)
        if grid.candidates == 1:
            return _unrefined(found)
        best = agreement_sums(images.band(coarse), spectra[half], found.rotation[:, 0], found.shift[:, 0])
        spectrum = _scaled(spectra[half], max(amplitude_ratio(best), 0.0))
        ranked = _refine_candidates(images.band(coarse), spectrum, found, ball, steps=3)
        first = Candidates(
            rotation=ranked.rotation[:, :_FINALISTS], shift=ranked.shift[:, :_FINALISTS], score=ranked.score
        )
        final = _refine_candidates(images.band(middle), spectrum, first, ball, steps=5)
        return refine_poses(images, spectrum, final.rotation[:, 0], final.shift[:, 0], steps=3, allowed_shift=ball)

    finest = grid.resolution if grid.candidates == 1 else resolution
    return _align_chunks(source, particles, align, weights=weights, resolution=finest, allowed=allowed)


def local_alignment(
    source: ImageSource,
    particles: PosedParticles,
    references: Mapping[int, torch.Tensor],
    *,
    weights: Mapping[str, TiltWeights],
    resolution: float,
    allowed: torch.Tensor,
) -> Alignment:
    """Every pose refined from where it is; arguments as for `search_alignment`."""
    radius = source.settings.radius_of(resolution)
    spectra = {half: volume_spectrum(reference, radius + 1) for half, reference in references.items()}

    def align(half: int, index: np.ndarray, images: ParticleImages, ball: torch.Tensor) -> Poses:
        start = torch.zeros(len(index), 3, dtype=torch.float64, device=images.data.device)
        rotation = particles.rotation[index]
        return refine_poses(images, spectra[half], rotation, start, steps=4, allowed_shift=ball)

    return _align_chunks(source, particles, align, weights=weights, resolution=resolution, allowed=allowed)


def better_alignment(first: Alignment, second: Alignment) -> Alignment:
    """For every particle the pose of the higher score; particles that `second` left out keep that of `first`."""
    better = (second.particles.half_set > 0) & (second.score > first.score)
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
    )


def _align_chunks(source, particles, align, *, weights, resolution, allowed) -> Alignment:
    position, rotation = particles.position.clone(), particles.rotation.clone()
    score, amplitude = np.zeros(len(particles)), np.full(len(particles), np.nan)
    uncertainty = np.full((len(particles), 2), np.nan)
    chunks = particle_chunks(source, particles, weights=weights, resolution=resolution)
    for _, half, index, images in chunks:
        ball = torch.cat([allowed[index, :3] - particles.position[index], allowed[index, 3:]], dim=1)
        poses = align(half, index, images, ball)
        position[index] += poses.shift
        rotation[index] = poses.rotation
        score[index] = poses.likelihood.cpu().numpy()
        amplitude[index] = poses.amplitude.cpu().numpy()
        variance = torch.diagonal(poses.covariance, dim1=1, dim2=2)
        spread = torch.stack([variance[:, :3].mean(1), variance[:, 3:].mean(1)], 1).clamp_min(0).sqrt()
        uncertainty[index] = spread.cpu().numpy()
    return Alignment(
        particles=replace(particles, position=position, rotation=rotation),
        score=score,
        amplitude=amplitude,
        uncertainty=uncertainty,
    )


def _unrefined(found: Candidates) -> Poses:
    score = found.score[:, 0].double()
    covariance = torch.full((len(score), 6, 6), torch.nan, dtype=torch.float64, device=score.device)
    return Poses(
        rotation=found.rotation[:, 0],
        shift=found.shift[:, 0],
        likelihood=0.5 * score.clamp_min(0) ** 2,
        amplitude=torch.full_like(score, torch.nan),
        covariance=covariance,
    )


def _scaled(spectrum: SpectralGrid, factor: float) -> SpectralGrid:
    return replace(spectrum, values=spectrum.values * factor)


def _refine_candidates(
    images: ParticleImages, spectrum: SpectralGrid, found: Candidates, ball: torch.Tensor, steps: int
) -> Candidates:
    """The candidates refined and put in order of falling likelihood."""
    refined = [
        refine_poses(images, spectrum, found.rotation[:, c], found.shift[:, c], steps=steps, allowed_shift=ball)
        for c in range(found.rotation.shape[1])
    ]
    score = torch.stack([r.likelihood for r in refined], 1)
    order = score.argsort(dim=1, descending=True, stable=True)
    rows = torch.arange(len(order), device=order.device)[:, None]
    return Candidates(
        rotation=torch.stack([r.rotation for r in refined], 1)[rows, order],
        shift=torch.stack([r.shift for r in refined], 1)[rows, order],
        score=score[rows, order].float(),
    )
