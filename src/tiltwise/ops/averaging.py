"""Averages of particles: Fourier insertion of the images into sums that can be merged, and the map that follows.

With whitened images and model data = transfer · slice of V̂ + unit noise, the sums are the numerator, Σ transfer · data,
and the denominator, Σ transfer², on an oversampled grid. The map is numerator / (denominator + 1 / τ²), the Wiener
estimate for a signal of power τ²(|k|).
"""

from dataclasses import dataclass

import torch

from tiltwise.ops.particle_images import ParticleImages
from tiltwise.ops.slices import SpectralGrid, empty_grid, grid_to_volume, hermitian_complete, insert_slices
from tiltwise.ops.symmetry import symmetry_rotations

_LEAST_PENALTY, _LARGEST_PENALTY = 0.02, 10.0  # of 1 / SSNR, relative to the mean of the denominator in its shell


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Accumulator:
    """Sums of inserted images; those of several chunks are added in a fixed order."""

    numerator: torch.Tensor
    """(z, y, x) complex128 half grid, as in ops/slices.py."""
    denominator: torch.Tensor
    """(z, y, x) float64."""
    step: float
    """Grid steps per 1 / (box_size · pixel size)."""
    box_size: int
    """Side of the map, voxels."""


def empty_accumulator(box_size: int, radius: float, oversampling: int = 2) -> Accumulator:
    """Zero sums for |k| <= radius, in 1 / (box · pixel)."""
    zeros = empty_grid(box_size, radius, torch.complex128, oversampling)
    return Accumulator(numerator=zeros, denominator=zeros.real.clone(), step=float(oversampling), box_size=box_size)


def accumulate(
    total: Accumulator,
    images: ParticleImages,
    rotation: torch.Tensor,
    shift: torch.Tensor,
    symmetry: str = "C1",
) -> None:
    """Add the images of particles in their poses to total, in place: rotation (particle, 3, 3), shift (.., 3) in Å."""
    plane = torch.einsum("tij,pj->pti", images.rotations[:, :2], shift).float()
    unit = 2 * torch.pi / (images.box_size * images.pixel_size) * images.points
    angle = torch.einsum("nc,ptc->ptn", unit, plane)
    values = images.transfer * images.data * torch.polar(torch.ones_like(angle), angle)
    weights = images.transfer**2
    layout = SpectralGrid(values=total.numerator, step=total.step, box_size=total.box_size)
    for element in symmetry_rotations(symmetry):
        turned = torch.einsum("tij,pjk->ptik", images.rotations, rotation.double() @ element)
        sums = insert_slices(values.flatten(0, 1), weights.flatten(0, 1), turned.flatten(0, 1), images.points, layout)
        total.numerator.add_(sums[0])
        total.denominator.add_(sums[1])


def merge(first: Accumulator, second: Accumulator) -> Accumulator:
    """The sum of two accumulators of the same shape."""
    return Accumulator(
        numerator=first.numerator + second.numerator,
        denominator=first.denominator + second.denominator,
        step=first.step,
        box_size=first.box_size,
    )


def average_map(total: Accumulator, ssnr: torch.Tensor | None = None) -> torch.Tensor:
    """(n, n, n) float32 map of the sums; density positive, in units of the images' grey values.

    ssnr (shell,) of the map at |k| = shell / box: with 1 / τ² = <denominator> / ssnr the map is the Wiener estimate
    times 1 + 1 / ssnr in each shell, so that well and badly measured directions are weighted rightly while the fall-off
    of the shell as a whole is not touched. Without it the penalty is small and equal.
    """
    numerator, denominator = hermitian_complete(total.numerator), hermitian_complete(total.denominator)
    shells, inside = _grid_shells(total)
    mean = _shell_means(denominator, shells, inside)
    penalty = torch.full_like(mean, _LEAST_PENALTY)
    if ssnr is not None:
        penalty = (1 / ssnr.double().clamp_min(1e-6)).clamp(_LEAST_PENALTY, _LARGEST_PENALTY)
        penalty = torch.nn.functional.pad(penalty, (0, max(0, len(mean) - len(penalty))), value=_LARGEST_PENALTY)
    penalty = penalty[: len(mean)]
    values = numerator * (1 + penalty)[shells] / (denominator + (penalty * mean)[shells]).clamp_min(1e-30)
    values = torch.where(inside & (mean[shells] > 0), values, torch.zeros_like(values)).to(torch.complex64)
    return grid_to_volume(SpectralGrid(values=values, step=total.step, box_size=total.box_size))


def _grid_shells(total: Accumulator) -> tuple[torch.Tensor, torch.Tensor]:
    """Shell |k| · box of each grid sample, clamped to the last, and whether it is in the last or before."""
    centre = total.numerator.shape[0] // 2
    axis = torch.arange(-centre, centre + 1, dtype=torch.float64) / total.step
    half = torch.arange(total.numerator.shape[2], dtype=torch.float64) / total.step
    radius = (axis[:, None, None] ** 2 + axis[:, None] ** 2 + half**2).sqrt()
    last = int((total.numerator.shape[2] - 2) / total.step)
    return radius.round().long().clamp_max(last), radius <= last + 0.5


def _shell_means(values: torch.Tensor, shells: torch.Tensor, inside: torch.Tensor) -> torch.Tensor:
    number = int(shells.max()) + 1
    index, zero = shells[inside], torch.zeros(number, dtype=torch.float64)
    return zero.index_add(0, index, values[inside].double()) / zero.index_add(
        0, index, torch.ones(len(index), dtype=torch.float64)
    ).clamp_min(1)
