"""Search of poses over a grid of rotations and shifts, as a matrix product (methods.md section 5).

In a coarse band each particle is reduced to a data vector B(k) = sum over tilts of transfer · data, inserted on its
slices, and a weight W(k) = sum of transfer². For the reference V_r turned by rotation r and the shift t,
Re<B exp(2 pi i k·t), V_r> and <W, |V_r|²> follow from two dense products of (particles x shifts) by rotations. The
score is s = Re<B, V> / sqrt(<W, |V|²>), in standard deviations of the noise.

The likelihood of a pose is that at its best scale of the reference, so that no scale need be known: of a data vector
a V + noise the log likelihood against no particle is a Re<B, V> - a² <W, |V|²> / 2, which over a >= 0 is greatest at
L = max(s, 0)² / 2. Where the scale is known the best pose beats one that correlates c with it by s² (1 - c), here by
s² (1 - c²) / 2: less, and nearly the same where they are alike. Every pose of the grid is as likely beforehand, so the
posterior of a pose is exp(L) over the sum of exp(L), and that sum over the number of poses the evidence.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch

from tiltwise.ops.kernels import pose_search as kernels
from tiltwise.ops.particles.images import ParticleImages
from tiltwise.ops.particles.slices import SpectralGrid, empty_grid, extract_slices, insert_slices, volume_spectrum
from tiltwise.ops.steady import phased, steady_product
from tiltwise.ops.symmetry import symmetry_rotations

_BLOCK = 2**27  # bytes of the largest table held at once
_GRID_LOSS = 0.17
"""Part of its score that a pose loses on average where it lies between those of a grid: half the mean square of the
phases by which a band's frequencies k turn, (2 pi)² <k²> <d²> / 6. In a ball <k²> = 3/5 of its square radius 1 / r².
With rotations and shifts evenly spread over cells whose sides move the particle's edge, and the whole, by 0.35 r each
(`alignment.search_grid`), a ball's points are off by <d²> = (0.35 r)² (1/10 + 1/4)."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Candidates:
    """The best poses of each particle, best first."""

    rotation: torch.Tensor
    """(particle, candidate, 3, 3) float64 reference to the particle's frame, or to the tomogram."""
    shift: torch.Tensor
    """(particle, candidate, 3) float64 in the same frame, from the position the images were cut at, Å."""
    score: torch.Tensor
    """(particle, candidate) float32 normalised correlation, in standard deviations of the noise."""
    mass: torch.Tensor | None = None
    """(particle, candidate) float32 part of the posterior that the poses of the grid about a candidate hold."""
    needed: torch.Tensor | None = None
    """(particle, candidate) bool: False from where those before hold all that was asked for."""
    evidence: torch.Tensor | None = None
    """(particle,) float32 log evidence of a particle somewhere on the grid against none."""


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
    symmetry: str = "C1",
    held: float = 1.0,
) -> Candidates:
    """Best poses of each particle over rotations (rotation, 3, 3) x shifts (shift, 3), Å, both in the particle's frame.

    reference (n, n, n) of the images' box and pixel. Of rotations closer than separation (degrees), the turns of the
    reference's symmetry allowed for, the best is kept. At most `candidates` of them, and needed until they hold the
    part `held` of the posterior, all others taken as the grid may have missed them (`_GRID_LOSS`).
    """
    turned = turned_references(reference, rotations, vectors)
    period = vectors.layout.box_size * vectors.pixel_size
    score, best_shift, mass = _correlate(vectors, turned, shifts / period)
    best = _distinct_best(score, mass, _near(rotations, separation, symmetry, score), number=candidates, held=held)
    return Candidates(
        rotation=rotations[best.index],
        shift=shifts[torch.gather(best_shift, 1, best.index)],
        score=torch.gather(score, 1, best.index),
        mass=best.mass,
        needed=best.needed,
        evidence=mass.logsumexp(1) - math.log(len(rotations) * len(shifts)),
    )


def in_tomogram(found: Candidates, frame: torch.Tensor) -> Candidates:
    """Candidates in the particles' frames, taken to the tomogram by frame (particle, 3, 3)."""
    return replace(
        found,
        rotation=torch.einsum("pij,pcjk->pcik", frame.double(), found.rotation),
        shift=torch.einsum("pij,pcj->pci", frame.double(), found.shift),
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


def turned_references(reference: torch.Tensor, rotations: torch.Tensor, vectors: ParticleVectors) -> torch.Tensor:
    """(rotation, voxel) complex64 spectrum of the reference (n, n, n) turned by each rotation, at the vectors' voxels.

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
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """(particle, rotation) best score over the shifts (in boxes), the index of that shift, and log sum of exp(L) over
    all shifts."""
    data, weight = vectors.data, vectors.weight
    particles, number, rotations, voxels = len(data), len(shifts), len(turned), data.shape[1]
    phase = shift_phases(vectors.voxels, shifts).to(data.device)
    score, mass = (torch.empty(particles, rotations, device=data.device) for _ in range(2))
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
            norm = steady_product(weight[p : p + chunk], power.T).clamp_min(1e-20).sqrt()
            there = slice(p, p + chunk), slice(first, first + block)
            score[there], best[there], mass[there] = _gather_shifts(product, norm)
    return score, best, mass


def _gather_shifts(product: torch.Tensor, norm: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """(particle, rotation) best score, its shift, and log sum of exp(L), of products (particle, shift, rotation)."""
    if product.device.type != "cpu":
        return _gather_shifts_plain(product, norm)
    score, mass = torch.empty_like(norm), torch.empty_like(norm)
    index = torch.empty(norm.shape, dtype=torch.long)
    kernels.gather_shifts(product.numpy(), norm.numpy(), score.numpy(), index.numpy(), mass.numpy())
    return score, index, mass


def _gather_shifts_plain(product: torch.Tensor, norm: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """The plain twin of the kernel."""
    value, index = product.max(dim=1)
    likelihood = 0.5 * (product / norm[:, None]).clamp_min(0).square()
    return value / norm, index, likelihood.logsumexp(1)


def shift_phases(voxels: torch.Tensor, shifts: torch.Tensor) -> torch.Tensor:
    """(shift, voxel) complex64 exp(2 pi i k·t), which takes a particle back from shift t, in boxes."""
    angle = 2 * torch.pi * (shifts.double() @ voxels.to(shifts.device).double().T)
    return torch.polar(torch.ones_like(angle), angle).to(torch.complex64)


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class _Best:
    index: torch.Tensor
    """(particle, candidate) of the best rotations."""
    mass: torch.Tensor
    """(particle, candidate) part of the posterior of the rotations near each, none counted twice."""
    needed: torch.Tensor
    """(particle, candidate) bool."""


def _distinct_best(
    score: torch.Tensor,
    mass: torch.Tensor,
    near: Callable[[torch.Tensor], torch.Tensor],
    *,
    number: int,
    held: float,
) -> _Best:
    """The best rotations, no two of a particle near each other, with what they hold.

    A candidate is needed while those before it do not hold the part `held` of their posterior and that of all other
    rotations. These count as if the grid had missed them, their score s greater by 1 / (1 - loss), and the held ones
    not: what the best won by its luck with the grid must not exclude the others.
    """
    number = min(number, score.shape[1])
    part = (mass - mass.logsumexp(1, keepdim=True)).exp()
    missed = mass - mass.logsumexp(1, keepdim=True) + (1 / (1 - _GRID_LOSS) ** 2 - 1) * 0.5 * score.clamp_min(0) ** 2
    remaining, needed = score.clone(), [torch.ones(len(score), dtype=torch.bool, device=score.device)]
    indices, masses = [], []
    for c in range(number):
        if c > 0:
            rest = torch.where(remaining > -torch.inf, missed, -torch.inf).logsumexp(1).exp()
            needed.append(needed[-1] & (held * rest > (1 - held) * torch.stack(masses).sum(0)))
            if not needed[-1].any():
                break
        index = remaining.argmax(dim=1)
        own = near(index).scatter_(1, index[:, None], True) & (remaining > -torch.inf)
        indices.append(index)
        masses.append((part * own).sum(1))
        remaining[own] = -torch.inf
    needed = torch.stack(needed[: len(indices)], 1)
    return _Best(index=torch.stack(indices, 1), mass=torch.stack(masses, 1), needed=needed)


def _near(
    rotations: torch.Tensor, separation: float, symmetry: str, like: torch.Tensor
) -> Callable[[torch.Tensor], torch.Tensor]:
    """Function that takes the index (particle,) of a rotation to (particle, rotation) bool: closer than separation."""
    matrices, group = rotations.to(like), symmetry_rotations(symmetry).to(like)
    flat = matrices.reshape(len(matrices), 9)
    least_trace = 1 + 2 * math.cos(math.radians(separation))

    def near(index: torch.Tensor) -> torch.Tensor:
        turned = matrices[index, None] @ group
        return torch.stack([steady_product(t.reshape(-1, 9), flat.T) > least_trace for t in turned.unbind(1)]).any(0)

    return near
