"""Filters of images and volumes in Fourier space, over all axes of the array. Spacings in Å."""

import torch

from tiltwise.ops.fourier import frequency_norm
from tiltwise.ops.masks import cosine_edge
from tiltwise.ops.steady import steady_rfftn


def apply_transfer(data: torch.Tensor, transfer: torch.Tensor) -> torch.Tensor:
    """The array multiplied in Fourier space by a real transfer on the half grid of rfftn."""
    return torch.fft.irfftn(steady_rfftn(data) * transfer.to(data.dtype), s=tuple(data.shape))


def low_pass(data: torch.Tensor, resolution: float, voxel_size: float, *, edge: float | None = None) -> torch.Tensor:
    """Keep spacings coarser than resolution: amplitude 1/2 at 1 / resolution, raised cosine over `edge` (1/Å) about it.

    The edge is a tenth of the cut-off if not given, and never less than two Fourier samples, so that nothing rings far.
    """
    frequency = frequency_norm(tuple(data.shape), voxel_size, data.device)
    sample = 1 / (min(data.shape) * voxel_size)
    width = max(0.1 / resolution if edge is None else edge, 2 * sample)
    return apply_transfer(data, cosine_edge(frequency - (1 / resolution - width / 2), width))


def radial_filter(data: torch.Tensor, frequency: torch.Tensor, curve: torch.Tensor, voxel_size: float) -> torch.Tensor:
    """Multiply the transform by a curve of the frequency's length, linear between its points, constant past its ends.

    frequency (point,) 1/Å, equally spaced from 0; curve (point,).
    """
    norm = frequency_norm(tuple(data.shape), voxel_size, data.device).double()
    position = (norm / float(frequency[1] - frequency[0])).clamp(max=len(curve) - 1)
    left = position.floor().long().clamp(max=len(curve) - 2)
    curve = curve.to(norm)
    return apply_transfer(data, curve[left] + (position - left) * (curve[left + 1] - curve[left]))
