"""What a tilt image should look like, foretold from the reconstruction of all the other tilts.

A weighted back projection of few tilts is the specimen plus streaks and noise; on the specimen's dense side only what
stands above the noise is kept (soft threshold), so streaks of the neighbouring tilts, which would tie each image to the
errors of its neighbours, do not reach the reprojection. The tilt's own share is taken out before the threshold: with it
an image would match its own noise where it lies already, and stay there.
"""

from dataclasses import dataclass

import torch

from tiltwise.ops.kernels.reprojection import scatter_rest
from tiltwise.ops.projection import (
    add_back_projection,
    gather_plain,
    scatter_plain,
    voxel_to_sample,
)


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class VolumeGrid:
    shape: tuple[int, int, int]
    """(z, y, x) voxels."""
    voxel_size: float
    """Å."""


def reproject_others(
    filtered: torch.Tensor,
    rotations: torch.Tensor,
    shift: torch.Tensor,
    pixel_size: float,
    grid: VolumeGrid,
    threshold: float,
) -> torch.Tensor:
    """For each tilt the projection of max(V - own share - threshold · sd(V), 0), V the back projection of all tilts.

    filtered (tilt, y, x): ramp-filtered images, density positive; rotations (tilt, 3, 3); shift (tilt, 2) Å; threshold
    in standard deviations of V. Gives (tilt, y, x) float32.
    """
    coefficients = voxel_to_sample(rotations, shift, pixel_size, tuple(filtered.shape[1:]), grid.shape, grid.voxel_size)
    volume = torch.zeros(grid.shape, dtype=torch.float32, device=filtered.device)
    add_back_projection(volume, filtered, coefficients)
    level = threshold * float(volume.std())
    along = coefficients[:, :2, 0].abs().sum(0)
    turned = bool(along[1] > along[0])  # voxels of a row should follow each other in memory
    if turned:
        filtered, coefficients = filtered.transpose(1, 2), coefficients[:, [1, 0]]
    samples = torch.nn.functional.pad(filtered.float(), (1, 1, 1, 1)).contiguous()
    images = torch.zeros_like(samples)
    if volume.device.type == "cpu":
        arrays = (volume.numpy(), samples.numpy(), coefficients.contiguous().numpy())
        scatter_rest(*arrays, level, images.numpy())
    else:
        scatter_rest_plain(volume, samples, coefficients, level, images)
    images = images[:, 1:-1, 1:-1]
    return (images.transpose(1, 2) if turned else images).contiguous()


def scatter_rest_plain(
    volume: torch.Tensor, samples: torch.Tensor, coefficients: torch.Tensor, threshold: float, images: torch.Tensor
) -> None:
    """Plain twin of kernels.reprojection.scatter_rest: samples and images (tilt, y, x) with a border of one pixel."""
    for i in range(len(samples)):
        own = torch.zeros_like(volume)
        gather_plain(samples[i : i + 1], coefficients[i : i + 1], own)
        rest = (volume - own - threshold).clamp_min(0)
        scatter_plain(rest, coefficients[i : i + 1], images[i : i + 1])
