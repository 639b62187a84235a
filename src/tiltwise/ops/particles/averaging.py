"""Averages of particles: Fourier insertion of the images into sums that can be merged, and the map that follows.

With whitened images and model data = transfer · slice of V̂ + unit noise, the sums are the numerator, Σ transfer ·
data, and the denominator, Σ transfer², on an oversampled grid. The map is numerator / (denominator + 1 / τ²), the
Wiener estimate for a signal of power τ²(|k|).
"""

from dataclasses import dataclass, replace

import numpy as np
import torch

from tiltwise.ops.kernels import averaging as kernels
from tiltwise.ops.particles.images import ParticleImages
from tiltwise.ops.particles.slices import SpectralGrid, empty_grid, grid_to_volume, hermitian_complete, insert_slices
from tiltwise.ops.steady import phased
from tiltwise.ops.symmetry import axis_turns, inserted_operations, symmetry_order

_LEAST_PENALTY, _LARGEST_PENALTY = 0.02, 10.0  # of 1 / SSNR, relative to the mean of the denominator in its shell


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Accumulator:
    """Sums of inserted images; those of several chunks are added in a fixed order."""

    numerator: torch.Tensor
    """(z, y, x) complex128 half grid, as in ops/particles/slices.py."""
    denominator: torch.Tensor
    """(z, y, x) float64."""
    step: float
    """Grid steps per 1 / (box_size · pixel size)."""
    box_size: int
    """Side of the map, voxels."""
    symmetry: str
    """Symmetry imposed. The turns that only swap the grid's axes are added when the map is made."""


def empty_accumulator(
    box_size: int,
    radius: float,
    symmetry: str = "C1",
    oversampling: int = 2,
    *,
    device: torch.device | str = "cpu",
) -> Accumulator:
    """Zero sums for |k| <= radius, in 1 / (box · pixel), where the images are that will be added."""
    zeros = empty_grid(box_size, radius, torch.complex128, oversampling, device)
    return Accumulator(
        numerator=zeros,
        denominator=zeros.real.clone(),
        step=float(oversampling),
        box_size=box_size,
        symmetry=symmetry,
    )


def accumulate(total: Accumulator, images: ParticleImages, rotation: torch.Tensor, shift: torch.Tensor) -> None:
    """Add the images of particles in their poses to total, in place: rotation (particle, 3, 3), shift (.., 3) in Å."""
    values, placed = _centred(images, shift), None
    weights = images.transfer**2
    layout = SpectralGrid(values=total.numerator, step=total.step, box_size=total.box_size)
    for element, offset in zip(*inserted_operations(total.symmetry, rotation.device), strict=True):
        turned = torch.einsum("tij,pjk->ptik", images.rotations, rotation.double() @ element)
        if placed is None or offset.any():
            placed = values if not offset.any() else _centred(images, shift + rotation.double() @ offset)
        sums = insert_slices(placed.flatten(0, 1), weights.flatten(0, 1), turned.flatten(0, 1), images.points, layout)
        total.numerator.add_(sums[0])
        total.denominator.add_(sums[1])


def _centred(images: ParticleImages, shift: torch.Tensor) -> torch.Tensor:
    """(particle, tilt, point) weighted data, the particle's middle at shift (particle, 3) Å brought to phase 0."""
    if not shift.any():
        return images.transfer * images.data
    plane = torch.einsum("tij,pj->pti", images.rotations[:, :2], shift).float()
    unit = 2 * torch.pi / (images.box_size * images.pixel_size) * images.points
    angle = torch.einsum("nc,ptc->ptn", unit, plane)
    return phased(images.transfer * images.data, torch.polar(torch.ones_like(angle), angle))


def merge(first: Accumulator, second: Accumulator) -> Accumulator:
    """The sum of two accumulators of the same shape."""
    return Accumulator(
        numerator=first.numerator + second.numerator,
        denominator=first.denominator + second.denominator,
        step=first.step,
        box_size=first.box_size,
        symmetry=first.symmetry,
    )


def average_map(total: Accumulator, ssnr: torch.Tensor | None = None) -> torch.Tensor:
    """(n, n, n) float32 map of the sums; density positive, in units of the images' grey values.

    ssnr (shell,) of the map at |k| = shell / box: with 1 / τ² = <denominator> / ssnr the map is the Wiener estimate
    times 1 + 1 / ssnr in each shell, so that well and badly measured directions are weighted rightly while the fall-off
    of the shell as a whole is not touched. Without it the penalty is small and equal.
    """
    total = _whole_group(total)
    mean = shell_means(total)
    penalty = torch.full_like(mean, _LEAST_PENALTY)
    if ssnr is not None:
        penalty = (1 / ssnr.double().clamp_min(1e-6)).clamp(_LEAST_PENALTY, _LARGEST_PENALTY)
        penalty = torch.nn.functional.pad(penalty, (0, max(0, len(mean) - len(penalty))), value=_LARGEST_PENALTY)
    penalty = penalty[: len(mean)]
    values = divided(total, (1 + penalty) * (mean > 0), penalty * mean)
    return grid_to_volume(SpectralGrid(values=values, step=total.step, box_size=total.box_size))


def _whole_group(total: Accumulator) -> Accumulator:
    """The sums with the turns of the group that swap the grid's axes; its plane x = 0 is half of what is known there,
    since `hermitian_complete` adds the mirror image."""
    turns = axis_turns(total.symmetry)[1]
    if len(turns) == 1:
        return total
    sums = [_swapped(hermitian_complete(values), turns) for values in (total.numerator, total.denominator)]
    for values in sums:
        values[:, :, 0] /= 2
    return replace(total, numerator=sums[0], denominator=sums[1])


def _swapped(half: torch.Tensor, turns: torch.Tensor) -> torch.Tensor:
    """Sum over turns that swap and flip axes, g, of a Hermitian half grid (z, y, x >= 0): at p stand the values at g p.

    A slice inserted in the pose R · g is the one of R with its frequencies turned by gᵀ. Trilinear weights are the same
    for every axis and direction, so nothing is interpolated.
    """
    mirrored = torch.flip(half[:, :, 1:], (0, 1, 2))
    whole = torch.cat([mirrored.conj() if half.is_complex() else mirrored, half], dim=2)
    total, middle = torch.zeros_like(half), whole.shape[0] // 2
    for turn in turns:
        rows = turn.flip(0, 1)  # of z, y, x
        source = rows.abs().argmax(dim=0).tolist()  # the axis of q = g p that runs along each axis of p
        backward = [i for i, axis in enumerate(source) if rows[axis, i] < 0]
        moved = torch.flip(whole.permute(source), backward)
        total += moved[:, :, middle:]
    return total


def explained_power(first: Accumulator, second: Accumulator, mask: torch.Tensor) -> float:
    """What a map of all particles explains of their images, log units of likelihood, without the noise.

    Numerator N and denominator D of all would explain Σ |N|² / 2 D over half the frequencies; noise adds to |N|², not
    to N₁* N₂ of two independent halves, so it is 2 Σ Re(N₁* N₂) / D, within a mask (n, n, n) of the maps N / √D. Every
    image stands in the sums once for each operation of the symmetry, and counts once. On a grid of `step` nodes for
    each 1 / box a value is spread over step³ times as many nodes, each of which holds that part of N and D, so that
    N / √D is less by √step³ in either map.
    """
    first, second = _whole_group(first), _whole_group(second)
    root = hermitian_complete(first.denominator + second.denominator)
    root = root.clamp_min(1e-9 * float(root.max())).sqrt()
    maps = []
    for part in (first, second):
        values = (hermitian_complete(part.numerator) / root).to(torch.complex64)
        maps.append(grid_to_volume(SpectralGrid(values=values, step=part.step, box_size=part.box_size)))
    total = first.box_size**3 * (maps[0] * maps[1] * mask**2).double().sum()
    return float(total) * first.step**3 / symmetry_order(first.symmetry)


def shell_means(total: Accumulator) -> torch.Tensor:
    """(shell,) float64 mean of the denominator over the shells |k| · box that are whole on the grid."""
    if total.denominator.device.type != "cpu":
        return shell_means_plain(total)
    shape = (len(total.denominator), _last_shell(total) + 1)
    sums, counts = np.zeros(shape), np.zeros(shape)
    plane = _first_plane(total.denominator).numpy()
    kernels.shell_sums(total.denominator.numpy(), plane, total.step, _last_shell(total), sums, counts)
    return torch.from_numpy(sums.sum(0) / np.maximum(counts.sum(0), 1))


def divided(total: Accumulator, factor: torch.Tensor, floor: torch.Tensor) -> torch.Tensor:
    """(z, y, x) complex64 numerator · factor / (denominator + floor) in each shell, Hermitian on the plane x = 0."""
    if total.denominator.device.type != "cpu":
        return divided_plain(total, factor, floor)
    values = np.empty(total.numerator.shape, np.complex64)
    planes = (_first_plane(total.numerator).numpy(), _first_plane(total.denominator).numpy())
    arrays = (total.numerator.numpy(), total.denominator.numpy(), planes)
    kernels.divide(*arrays, total.step, factor.numpy(), floor.numpy(), values)
    return torch.from_numpy(values)


def shell_means_plain(total: Accumulator) -> torch.Tensor:
    """The plain twin of `shell_means`, on any device."""
    shells, inside = _grid_shells(total)
    values, index = hermitian_complete(total.denominator)[inside].double(), shells[inside]
    zero = torch.zeros(_last_shell(total) + 1, dtype=torch.float64, device=values.device)
    return zero.index_add(0, index, values) / zero.index_add(0, index, torch.ones_like(values)).clamp_min(1)


def divided_plain(total: Accumulator, factor: torch.Tensor, floor: torch.Tensor) -> torch.Tensor:
    """The plain twin of `divided`, on any device."""
    shells, inside = _grid_shells(total)
    numerator, denominator = hermitian_complete(total.numerator), hermitian_complete(total.denominator)
    factor, floor = (v.to(numerator.device) for v in (factor, floor))
    values = numerator * factor[shells] / (denominator + floor[shells]).clamp_min(1e-30)
    return torch.where(inside & (factor > 0)[shells], values, torch.zeros_like(values)).to(torch.complex64)


def _first_plane(values: torch.Tensor) -> torch.Tensor:
    """(z, y) x = 0 of a half grid, completed by the conjugate of its mirror image."""
    return hermitian_complete(values[:, :, :1])[:, :, 0].contiguous()


def _last_shell(total: Accumulator) -> int:
    return int((total.numerator.shape[2] - 2) / total.step)


def _grid_shells(total: Accumulator) -> tuple[torch.Tensor, torch.Tensor]:
    """Shell |k| · box of each grid sample, clamped to the last, and whether it is in the last or before."""
    centre, device = total.numerator.shape[0] // 2, total.numerator.device
    axis = torch.arange(-centre, centre + 1, dtype=torch.float64, device=device)
    half = torch.arange(total.numerator.shape[2], dtype=torch.float64, device=device)
    radius = (axis[:, None, None] ** 2 + axis[:, None] ** 2 + half**2).sqrt() / total.step
    last = _last_shell(total)
    return radius.round().long().clamp_max(last), radius <= last + 0.5
