"""Search of poses over a grid of rotations and shifts, as a matrix product (methods.md section 5).

In a coarse band each particle is reduced to a data vector B(k) = sum over tilts of transfer · data, inserted on its
slices, and a weight W(k) = sum of transfer². For the reference V_r turned by rotation r and the shift t,
Re<B exp(2 pi i k·t), V_r> and <W, |V_r|²> follow from two dense products of (particles x shifts) by rotations. The
score is Re<B, V> / sqrt(<W, |V|²>); its half square is the log likelihood at the best scale of the reference, so that
no scale need be known.
"""

from dataclasses import dataclass, replace

import numpy as np
import torch

from tiltwise.ops.particles.images import ParticleImages
from tiltwise.ops.particles.slices import SpectralGrid, empty_grid, extract_slices, insert_slices, volume_spectrum
from tiltwise.ops.steady import phased, steady_product

_BLOCK = 2**27  # bytes of the largest table held at once


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Candidates:
    """The best poses of each particle, best first."""

    rotation: torch.Tensor
    """(particle, candidate, 3, 3) float64 reference to the particle's frame, or to the tomogram."""
    shift: torch.Tensor
    """(particle, candidate, 3) float64 in the same frame, from the position the images were cut at, Å."""
    score: torch.Tensor
    """(particle, candidate) float32 normalised correlation, in standard deviations of the noise."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class ParticleVectors:
    """Particles reduced to what a search in a coarse band needs."""

    data: torch.Tensor
    """(particle, voxel) complex64 B."""
    weight: torch.Tensor
    """(particle, voxel) float32 W."""
    voxels: torch.Tensor
    """(voxel, 3) float32 frequencies x >= 0, y, z in 1 / (box_size · pixel_size)."""
    layout: SpectralGrid
    """The grid the voxels belong to."""
    pixel_size: float
    """Å."""

    def of(self, index: np.ndarray | torch.Tensor | slice) -> "ParticleVectors":
        """Those of some particles."""
        return replace(self, data=self.data[index], weight=self.weight[index])


def joined(parts: list[ParticleVectors]) -> ParticleVectors:
    """The particles of several tables of one layout."""
    return replace(parts[0], data=torch.cat([p.data for p in parts]), weight=torch.cat([p.weight for p in parts]))


def shift_grid(radius: float, step: float, device: torch.device | str = "cpu") -> torch.Tensor:
    """(shift, 3) float64 points of a cubic lattice of the given step within radius, the origin among them; Å."""
    n = int(np.floor(radius / step))
    axis = torch.arange(-n, n + 1, dtype=torch.float64, device=device) * step
    points = torch.stack(torch.meshgrid(axis, axis, axis, indexing="ij"), dim=-1).reshape(-1, 3)
    return points[points.norm(dim=1) <= radius + 1e-9]


def search_poses(
    vectors: ParticleVectors,
    reference: torch.Tensor,
    rotations: torch.Tensor,
    shifts: torch.Tensor,
    *,
    candidates: int = 1,
    separation: float = 0.0,
) -> Candidates:
    """Best poses of each particle over rotations (rotation, 3, 3) x shifts (shift, 3), Å, both in the particle's frame.

    reference (n, n, n) of the images' box and pixel. Of rotations closer than separation (degrees) the best is kept.
    """
    turned = _turned_references(reference, rotations, vectors)
    period = vectors.layout.box_size * vectors.pixel_size
    score, best_shift = _correlate(vectors, turned, shifts / period)
    index, value = _distinct_best(score, rotations, candidates, separation)
    return Candidates(
        rotation=rotations[index],
        shift=shifts[torch.gather(best_shift, 1, index)],
        score=value,
    )


def in_tomogram(found: Candidates, frame: torch.Tensor) -> Candidates:
    """Candidates in the particles' frames, taken to the tomogram by frame (particle, 3, 3)."""
    return Candidates(
        rotation=torch.einsum("pij,pcjk->pcik", frame.double(), found.rotation),
        shift=torch.einsum("pij,pcj->pci", frame.double(), found.shift),
        score=found.score,
    )


def particle_vectors(images: ParticleImages, frame: torch.Tensor, radius: float) -> ParticleVectors:
    """B and W of each particle in the frame (particle, 3, 3) to tomogram, for |k| <= radius in 1 / (box · pixel)."""
    coarse = images.band(radius)
    values = empty_grid(images.box_size, radius, torch.complex64, oversampling=1)
    layout = SpectralGrid(values=values, step=1.0, box_size=images.box_size)
    voxels, flat = _search_voxels(layout, radius)
    data = torch.empty(len(frame), len(voxels), dtype=torch.complex64)
    weight = torch.empty(len(frame), len(voxels))
    for p in range(len(frame)):
        transfer = coarse.transfer[p]
        rotation = coarse.rotations @ frame[p].double()
        numerator, denominator = insert_slices(transfer * coarse.data[p], transfer**2, rotation, coarse.points, layout)
        data[p], weight[p] = numerator.reshape(-1)[flat], denominator.reshape(-1)[flat]
    device = images.data.device
    return ParticleVectors(
        data=data.to(device), weight=weight.to(device), voxels=voxels, layout=layout, pixel_size=images.pixel_size
    )


def _search_voxels(layout: SpectralGrid, radius: float) -> tuple[torch.Tensor, torch.Tensor]:
    """(voxel, 3) frequencies x, y, z stored in the search's grid within reach of the band, and their flat indices."""
    centre = layout.values.shape[0] // 2
    axis = torch.arange(-centre, centre + 1, dtype=torch.float32)
    z, y, x = torch.meshgrid(axis, axis, torch.arange(layout.values.shape[2], dtype=torch.float32), indexing="ij")
    points = torch.stack([x, y, z], dim=-1).reshape(-1, 3)
    flat = torch.nonzero(points.norm(dim=-1) <= radius + 1).flatten()
    return points[flat], flat


def _turned_references(reference: torch.Tensor, rotations: torch.Tensor, vectors: ParticleVectors) -> torch.Tensor:
    """(rotation, voxel) complex64 spectrum of the reference turned by each rotation.

    Insertion on a grid that is not oversampled lets the density fade away from the centre, as sinc²(r / n) along each
    axis, the same in all directions to second order; the reference is divided by that beforehand.
    """
    n = reference.shape[0]
    axis = (torch.arange(n, dtype=torch.float64) - n // 2) / n
    distance = (axis[:, None, None] ** 2 + axis[:, None] ** 2 + axis**2).sqrt()
    fading = torch.sinc(distance.clamp_max(0.5) / np.sqrt(3)) ** 6
    reach = float(vectors.voxels.norm(dim=-1).max()) + 1
    grid = volume_spectrum((reference.double().cpu() / fading).float(), reach)
    return extract_slices(grid, rotations.cpu(), vectors.voxels).to(reference.device)


def _correlate(
    vectors: ParticleVectors, turned: torch.Tensor, shifts: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """(particle, rotation) best score over the shifts (in boxes), and the index of that shift."""
    data, weight = vectors.data, vectors.weight
    particles, number, rotations, voxels = len(data), len(shifts), len(turned), data.shape[1]
    phase = shift_phases(vectors.voxels, shifts).to(data.device)
    score = torch.empty(particles, rotations, device=data.device)
    best = torch.empty(particles, rotations, dtype=torch.long, device=data.device)
    chunk = max(1, _BLOCK // (8 * number * voxels))
    block = max(1, min(_BLOCK // (8 * voxels), _BLOCK // (4 * chunk * number)))
    for first in range(0, rotations, block):
        part = turned[first : first + block]
        real = torch.view_as_real(part).reshape(len(part), -1)
        power = part.abs().square()
        for p in range(0, particles, chunk):
            shifted = phased(data[p : p + chunk, None], phase)
            rows = torch.view_as_real(shifted).reshape(shifted.shape[0] * number, -1)
            product = steady_product(rows, real.T).reshape(-1, number, len(part))
            value, index = product.max(dim=1)
            norm = steady_product(weight[p : p + chunk], power.T).clamp_min(1e-20).sqrt()
            score[p : p + chunk, first : first + block] = value / norm
            best[p : p + chunk, first : first + block] = index
    return score, best


def shift_phases(voxels: torch.Tensor, shifts: torch.Tensor) -> torch.Tensor:
    """(shift, voxel) complex64 exp(2 pi i k·t), which takes a particle back from shift t, in boxes."""
    angle = 2 * torch.pi * (shifts.double() @ voxels.to(shifts.device).double().T)
    return torch.polar(torch.ones_like(angle), angle).to(torch.complex64)


def _distinct_best(
    score: torch.Tensor, rotations: torch.Tensor, number: int, separation: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """(particle, number) indices and scores of the best rotations, no two of a particle closer than separation."""
    number = min(number, len(rotations))
    remaining = score.clone()
    matrices = rotations.reshape(len(rotations), 9).to(score)
    least_trace = 1 + 2 * np.cos(np.radians(separation))
    indices, values = [], []
    for _ in range(number):
        value, index = remaining.max(dim=1)
        near = steady_product(matrices[index], matrices.T) > least_trace
        remaining[near] = -torch.inf
        remaining.scatter_(1, index[:, None], -torch.inf)
        indices.append(index)
        values.append(value)
    return torch.stack(indices, 1), torch.stack(values, 1)
