"""Particles weighed over every pose of a grid: their likelihood under a map, and the average that the poses imply.

With the data vectors B, W of ops/poses/search.py, in units of the images' noise, and the map V turned by r to V_r,

    L(r, t) = Re<B exp(2 pi i k·t), V_r> - <W, |V_r|²> / 2

is the log likelihood of a particle in the pose (r, t) against no particle. Poses are equally likely beforehand, so that
the particle's own is l = log mean exp L over the grid, and the posterior γ = exp(s L) / sum exp(s L), at s = 1. The
average is sum γ B exp(2 pi i k·t) inserted at r, over sum γ W: one step of expectation and maximisation. With a
contrast c, s = min(1, c / sd of L over the grid): every particle spreads over as many poses as another, and none is
surer than its data. Both sums are matrix products of (particles x shifts) by rotations, as the search is.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import torch

from tiltwise.ops.filters import low_pass
from tiltwise.ops.particles.references import masked_reference
from tiltwise.ops.particles.slices import (
    SpectralGrid,
    extract_slices,
    grid_to_volume,
    hermitian_complete,
    insert_slices,
    volume_spectrum,
)
from tiltwise.ops.poses.alignment import SearchGrid
from tiltwise.ops.poses.search import ParticleVectors, shift_phases, turned_references

_BLOCK = 2**27  # bytes of the largest table held at once
_PENALTY = 0.05  # of the denominator's mean, added to it
_NEGLIGIBLE = 1e-4  # particles: a rotation that has less than that of all of them is not inserted


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Weighed:
    """Particles weighed over a grid of poses."""

    likelihood: torch.Tensor
    """(particle,) log likelihood against no particle, all poses together."""
    numerator: torch.Tensor
    """(rotation, voxel) complex64 sum over particles and shifts of γ B exp(2 pi i k·t)."""
    weight: torch.Tensor
    """(rotation, voxel) float32 sum of γ W."""


def weigh_poses(
    vectors: ParticleVectors, reference: torch.Tensor, grid: SearchGrid, *, contrast: float = np.inf
) -> Weighed:
    """Likelihoods and posterior sums under a reference (n, n, n) in units of the images, of their box and pixel."""
    rotations, voxels = len(grid.rotations), vectors.data.shape[1]
    numerator = torch.zeros(rotations, 2 * voxels, device=vectors.data.device)
    weight = torch.zeros(rotations, voxels, device=vectors.data.device)
    likelihood = []
    for own, shifted, table in _tables(vectors, reference, grid):
        flat = table.reshape(len(table), -1)
        likelihood.append(_marginal(flat))
        share = torch.softmax(flat * (contrast / flat.std(1, keepdim=True)).clamp_max(1), 1)
        numerator += share.reshape(-1, rotations).T @ shifted
        weight += share.reshape(table.shape).sum(1).T @ vectors.weight[own]
    pairs = numerator.reshape(rotations, voxels, 2)
    return Weighed(likelihood=torch.cat(likelihood), numerator=torch.view_as_complex(pairs), weight=weight)


def pose_likelihood(vectors: ParticleVectors, reference: torch.Tensor, grid: SearchGrid) -> torch.Tensor:
    """(particle,) log likelihood of each particle under a reference, all poses of the grid together."""
    return torch.cat([_marginal(table.reshape(len(table), -1)) for *_, table in _tables(vectors, reference, grid)])


def _tables(
    vectors: ParticleVectors, reference: torch.Tensor, grid: SearchGrid
) -> Iterator[tuple[slice, torch.Tensor, torch.Tensor]]:
    """Yield some particles, their shifted data (particle and shift, 2 voxel), and L (particle, shift, rotation)."""
    turned = turned_references(reference, grid.rotations, vectors)
    rows = torch.view_as_real(turned).reshape(len(turned), -1)
    phase = shift_phases(vectors.voxels, grid.shifts / _period(vectors)).to(vectors.data.device)
    cost = 0.5 * vectors.weight @ turned.abs().square().T
    size = max(1, _BLOCK // (4 * len(phase) * len(turned)))
    for first in range(0, len(vectors.data), size):
        own = slice(first, first + size)
        shifted = torch.view_as_real(vectors.data[own, None] * phase).reshape(-1, rows.shape[1])
        yield own, shifted, (shifted @ rows.T).reshape(-1, len(phase), len(turned)) - cost[own, None]


def _marginal(flat: torch.Tensor) -> torch.Tensor:
    return torch.logsumexp(flat, 1) - np.log(flat.shape[1])


def weighed_average(
    weighed: Weighed, vectors: ParticleVectors, grid: SearchGrid, mask: torch.Tensor, resolution: float
) -> torch.Tensor:
    """(n, n, n) masked average, low-passed to `resolution` (Å), that the posterior sums imply."""
    total = weighed.weight.sum(1)
    used = total > _NEGLIGIBLE * total.sum() / len(vectors.data)
    sums = insert_slices(
        weighed.numerator[used].contiguous(),
        weighed.weight[used].contiguous(),
        grid.rotations.to(used.device)[used],
        vectors.voxels.to(used.device),
        vectors.layout,
    )
    numerator, denominator = (hermitian_complete(s) for s in sums)
    floor = _PENALTY * denominator[denominator > 0].mean()
    spectrum = SpectralGrid(values=numerator / (denominator + floor), step=1.0, box_size=vectors.layout.box_size)
    average = grid_to_volume(spectrum)
    return masked_reference(low_pass(average, resolution, vectors.pixel_size), mask)


def turned_spectra(volume: torch.Tensor, rotations: torch.Tensor, voxels: torch.Tensor) -> torch.Tensor:
    """(rotation, voxel) complex64 spectrum of the volume (n, n, n) turned by each rotation, at voxels (voxel, 3) in
    1 / (n · voxel size)."""
    spectrum = volume_spectrum(volume.float(), float(voxels.norm(dim=-1).max()) + 1)
    return extract_slices(spectrum, rotations.to(volume.device), voxels.to(volume.device))


def banded(vectors: ParticleVectors, resolution: float) -> ParticleVectors:
    """The vectors down to a spacing in Å only."""
    keep = torch.nonzero(vectors.voxels.norm(dim=-1) <= _period(vectors) / resolution + 1).flatten()
    return replace(
        vectors,
        data=vectors.data[:, keep].contiguous(),
        weight=vectors.weight[:, keep].contiguous(),
        voxels=vectors.voxels[keep],
    )


def _period(vectors: ParticleVectors) -> float:
    return vectors.layout.box_size * vectors.pixel_size
