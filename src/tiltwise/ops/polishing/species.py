"""Particles of one kind in flight, with what their images are compared with. Several kinds share the tilt series."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from tiltwise.data.tilt_series import TiltSeries
from tiltwise.ops.particles.chunks import ImageSource, PosedParticles
from tiltwise.ops.particles.images import TiltWeights
from tiltwise.ops.particles.slices import SpectralGrid, volume_spectrum
from tiltwise.ops.poses.terms import PoseTerms, collect_terms
from tiltwise.ops.rotations import rotation_vector_to_matrix


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Species:
    source: ImageSource
    """The tilt series, and how crops of this kind are cut."""
    particles: PosedParticles
    """Poses and half sets; 0 where a particle is left out."""
    grids: Mapping[int, SpectralGrid]
    """Spectra of the references (masked, filtered) by half set, at least to the finest spacing compared."""
    weights: Mapping[str, TiltWeights]
    """Of the tilts, by series."""
    resolution: float
    """Finest spacing compared, Å."""
    carried: torch.Tensor
    """(particle, 3) by how much the geometry has moved each since these were made, its own images aside, Å."""

    @staticmethod
    def of(
        source: ImageSource,
        particles: PosedParticles,
        references: Mapping[int, torch.Tensor],
        *,
        weights: Mapping[str, TiltWeights],
        resolution: float,
    ) -> "Species":
        """From references (n, n, n) by half set."""
        radius = source.settings.radius_of(resolution)
        grids = {half: volume_spectrum(reference, radius + 1) for half, reference in references.items()}
        return Species(
            source=source,
            particles=particles,
            grids=grids,
            weights=weights,
            resolution=resolution,
            carried=torch.zeros_like(particles.position),
        )

    @property
    def series(self) -> list[str]:
        """Names of the series in which there are particles, in order."""
        return sorted(set(self.particles.tilt_series[self.particles.half_set > 0].tolist()))

    def halves_in(self, name: str) -> set[int]:
        """The half sets that have particles in a series."""
        return set(self.particles.half_set[self.particles.tilt_series == name].tolist()) - {0}

    def within(self, name: str, halves: tuple[int, ...] = (1, 2)) -> "Species":
        """The particles of one series, or of some of its half sets, alone; the others are left out."""
        own = (self.particles.tilt_series == name) & np.isin(self.particles.half_set, halves)
        return replace(self, particles=replace(self.particles, half_set=np.where(own, self.particles.half_set, 0)))

    def with_series(self, tilt_series: TiltSeries) -> "Species":
        """With one series changed."""
        changed = {**self.source.tilt_series, tilt_series.name: tilt_series}
        return replace(self, source=self.source.with_series(changed))

    def across(self) -> "Species":
        """With the references exchanged: each particle meets that of the other half, which does not hold its noise."""
        return replace(self, grids={1: self.grids[2], 2: self.grids[1]})

    def moved(self, index: np.ndarray, step: np.ndarray, carried: np.ndarray | None = None) -> "Species":
        """Particles of an index turned and shifted by (particle, 6): rotation vector (radians), shift (Å); carried
        (particle, 3): the part of the shift that is the geometry's, Å."""
        posed, own = self.particles, torch.as_tensor(step, device=self.particles.position.device)
        position, rotation = posed.position.clone(), posed.rotation.clone()
        position[index] += own[:, 3:]
        rotation[index] = rotation[index] @ rotation_vector_to_matrix(torch.rad2deg(own[:, :3]))
        total = self.carried.clone()
        if carried is not None:
            total[index] += torch.as_tensor(carried, device=total.device)
        return replace(self, particles=replace(posed, position=position, rotation=rotation), carried=total)

    def paths(self, index: np.ndarray, modes: int) -> np.ndarray:
        """(particle, 3 · mode) coefficients of the paths of particles of an index, Å; 0 where there are none."""
        known = self.particles.trajectory
        return (
            np.zeros((len(index), 3 * modes)) if known is None else known[index].cpu().numpy().reshape(len(index), -1)
        )

    def along(self, index: np.ndarray, change: np.ndarray) -> "Species":
        """The paths of particles of an index changed by (particle, 3 · mode), Å."""
        posed, own = self.particles, torch.as_tensor(change, device=self.particles.position.device)
        own = own.reshape(len(index), -1, 3)
        known = posed.trajectory
        path = own.new_zeros(len(posed), *own.shape[1:]) if known is None else known.clone()
        path[index] += own
        return replace(self, particles=replace(posed, trajectory=path))


def terms_of_species(species: Sequence[Species], name: str, halves: tuple[int, ...] = (1, 2)) -> list[PoseTerms | None]:
    """The terms of each species in one series; None where it has no particles there."""
    found = []
    for kind in species:
        own = kind.within(name, halves)
        terms = collect_terms(own.source, own.particles, own.grids, weights=own.weights, resolution=own.resolution)
        found.append(terms.get(name))
    return found
