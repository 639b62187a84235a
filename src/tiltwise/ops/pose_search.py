"""Search of poses over a grid of rotations and shifts, as a matrix product (methods.md section 5).

In a coarse band each particle is reduced to a data vector B(k) = sum over tilts of transfer · data, inserted on its
slices, and a weight W(k) = sum of transfer². For the reference V_r turned by rotation r and the shift t,
Re<B exp(2 pi i k·t), V_r> and <W, |V_r|²> follow from two dense products of (particles x shifts) by rotations. The score
is their quotient Re<B, V> / sqrt(<W, |V|²>), whose half square is the log likelihood at the best scale of the reference:
no scale need be known.
"""

from dataclasses import dataclass

import numpy as np
import torch

from tiltwise.ops.particle_images import ParticleImages
from tiltwise.ops.slices import SpectralGrid, empty_grid, extract_slices, insert_slices, volume_spectrum

_BLOCK = 2**27  # bytes of the largest table held at once


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Candidates:
    """The best poses of each particle, best first."""

    rotation: torch.Tensor
    """(particle, candidate, 3, 3) float64 reference to tomogram."""
    shift: torch.Tensor
    """(particle, candidate, 3) float64 from the position the images were cut at, Å."""
    score: torch.Tensor
    """(particle, candidate) float32 normalised correlation, in standard deviations of the noise."""


def shift_grid(radius: float, step: float, device: torch.device | str = "cpu") -> torch.Tensor:
    """(shift, 3) float64 points of a cubic lattice of the given step within radius, the origin among them; Å."""
    n = int(np.floor(radius / step))
    axis = torch.arange(-n, n + 1, dtype=torch.float64, device=device) * step
    points = torch.stack(torch.meshgrid(axis, axis, axis, indexing="ij"), dim=-1).reshape(-1, 3)
    return points[points.norm(dim=1) <= radius + 1e-9]


def search_poses(
    images: ParticleImages,
    reference: torch.Tensor,
    frame: torch.Tensor,
    rotations: torch.Tensor,
    shifts: torch.Tensor,
    *,
    radius: float,
    candidates: int,
    separation: float,
) -> Candidates:
    """Best poses of each particle over rotations (rotation, 3, 3) x shifts (shift, 3), both in the particle's frame.

    reference (n, n, n) of the images' box and pixel; frame (particle, 3, 3) maps the frame to the tomogram, so that all
    particles share one grid: pose = frame · rotation. radius: the band, in 1 / (box · pixel). Of rotations closer than
    separation (degrees) only the best is kept.
    """
    coarse = images.band(radius)
    voxels, layout = _search_voxels(images.box_size, radius)
    turned = _turned_references(reference, rotations, voxels, radius)
    data, weight = _data_vectors(coarse, frame, layout, voxels)
    score, best_shift = _correlate(data, weight, turned, voxels, shifts / (images.box_size * images.pixel_size))
    index, value = _distinct_best(score, rotations, candidates, separation)
    moved = shifts[torch.gather(best_shift, 1, index)]
    return Candidates(
        rotation=torch.einsum("pij,pcjk->pcik", frame.double(), rotations[index]),
        shift=torch.einsum("pij,pcj->pci", frame.double(), moved),
        score=value,
    )


def _search_voxels(box_size: int, radius: float) -> tuple[torch.Tensor, SpectralGrid]:
    """(voxel, 3) frequencies x, y, z stored in the search's grid within reach of the band, and the empty grid."""
    values = empty_grid(box_size, radius, torch.complex64, oversampling=1)
    centre = values.shape[0] // 2
    axis = torch.arange(-centre, centre + 1, dtype=torch.float32)
    z, y, x = torch.meshgrid(axis, axis, torch.arange(values.shape[2], dtype=torch.float32), indexing="ij")
    points = torch.stack([x, y, z], dim=-1)
    return points[points.norm(dim=-1) <= radius + 1], SpectralGrid(values=values, step=1.0, box_size=box_size)


def _turned_references(
    reference: torch.Tensor, rotations: torch.Tensor, voxels: torch.Tensor, radius: float
) -> torch.Tensor:
    """(rotation, voxel) complex64 spectrum of the reference turned by each rotation.

    Insertion on a grid that is not oversampled lets the density fade away from the centre, as sinc²(r / n) along each
    axis, the same in all directions to second order; the reference is divided by that beforehand.
    """
    n = reference.shape[0]
    axis = (torch.arange(n, dtype=torch.float64) - n // 2) / n
    distance = (axis[:, None, None] ** 2 + axis[:, None] ** 2 + axis**2).sqrt()
    fading = torch.sinc(distance.clamp_max(0.5) / np.sqrt(3)) ** 6
    grid = volume_spectrum((reference.double().cpu() / fading).float(), radius + 2)
    return extract_slices(grid, rotations.cpu(), voxels).to(reference.device)


def _data_vectors(
    images: ParticleImages, frame: torch.Tensor, layout: SpectralGrid, voxels: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """B (particle, voxel) complex64 and W (particle, voxel) float32 in each particle's frame."""
    centre = layout.values.shape[0] // 2
    x, y, z = (voxels[:, a].long() for a in range(3))
    flat = ((z + centre) * layout.values.shape[1] + y + centre) * layout.values.shape[2] + x
    data = torch.empty(len(frame), len(voxels), dtype=torch.complex64)
    weight = torch.empty(len(frame), len(voxels))
    for p in range(len(frame)):
        rotation = images.rotations @ frame[p].double()
        transfer = images.transfer[p]
        numerator, denominator = insert_slices(transfer * images.data[p], transfer**2, rotation, images.points, layout)
        data[p], weight[p] = numerator.reshape(-1)[flat], denominator.reshape(-1)[flat]
    return data.to(images.data.device), weight.to(images.data.device)


def _correlate(
    data: torch.Tensor, weight: torch.Tensor, turned: torch.Tensor, voxels: torch.Tensor, shifts: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """(particle, rotation) best score over the shifts (in boxes), and the index of that shift."""
    particles, number, rotations = len(data), len(shifts), len(turned)
    phase = _phases(voxels, shifts.to(data.device))
    score = torch.empty(particles, rotations, device=data.device)
    best = torch.empty(particles, rotations, dtype=torch.long, device=data.device)
    chunk = max(1, _BLOCK // (8 * number * len(voxels)))
    block = max(1, min(_BLOCK // (8 * len(voxels)), _BLOCK // (4 * chunk * number)))
    for first in range(0, rotations, block):
        part = turned[first : first + block]
        real = torch.view_as_real(part).reshape(len(part), -1)
        power = part.abs().square()
        for p in range(0, particles, chunk):
            shifted = data[p : p + chunk, None] * phase
            rows = torch.view_as_real(shifted).reshape(shifted.shape[0] * number, -1)
            product = (rows @ real.T).reshape(-1, number, len(part))
            value, index = product.max(dim=1)
            norm = (weight[p : p + chunk] @ power.T).clamp_min(1e-20).sqrt()
            score[p : p + chunk, first : first + block] = value / norm
            best[p : p + chunk, first : first + block] = index
    return score, best


def _phases(voxels: torch.Tensor, shifts: torch.Tensor) -> torch.Tensor:
    """(shift, voxel) exp(2 pi i k·t), which takes a particle back from shift t."""
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
        near = matrices[index] @ matrices.T > least_trace
        remaining[near] = -torch.inf
        remaining.scatter_(1, index[:, None], -torch.inf)
        indices.append(index)
        values.append(value)
    return torch.stack(indices, 1), torch.stack(values, 1)
