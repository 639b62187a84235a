"""Volumes between their voxels. The one place where vectors x, y, z meet arrays z, y, x.

Points are in voxels from the centre, which is index n // 2 along each axis, for odd and even n.
"""

from typing import Literal

import torch

from tiltwise.ops.kernels import spline as kernels
from tiltwise.ops.steady import steady_rfftn

Method = Literal["linear", "cubic"]


def centred_points(shape: tuple[int, int, int], device: torch.device | str = "cpu") -> torch.Tensor:
    """(z, y, x, 3) float64 vectors x, y, z in voxels from the centre of every voxel of an array of this shape."""
    axes = [torch.arange(n, dtype=torch.float64, device=device) - n // 2 for n in shape]
    return torch.stack(torch.meshgrid(*axes, indexing="ij")[::-1], dim=-1)


def sample_volume(volume: torch.Tensor, points: torch.Tensor, *, method: Method = "linear") -> torch.Tensor:
    """Values (...) of a volume (z, y, x) at points (..., 3): x, y, z in voxels from the centre. Zero outside.

    linear: trilinear. cubic: interpolating cubic B-spline, its coefficients found in Fourier space, so the volume is
    taken as periodic within half a voxel of its faces (Unser 1999). Both are differentiable in volume and points.
    """
    index = points.to(volume) + torch.tensor([n // 2 for n in volume.shape[::-1]]).to(volume)
    if method == "linear":
        return _sample_linear(volume, index)
    if method == "cubic":
        coefficients = spline_coefficients(volume)
        differentiable = coefficients.requires_grad or index.requires_grad
        plain = differentiable or index.device.type != "cpu" or index.dtype not in (torch.float32, torch.float64)
        return _sample_spline(coefficients, index) if plain else _sample_spline_fast(coefficients, index)
    raise ValueError(f"interpolation method {method!r} is not linear or cubic")


def rotate_volume(volume: torch.Tensor, rotation: torch.Tensor, *, method: Method = "cubic") -> torch.Tensor:
    """The density (z, y, x) turned actively about its centre: what was at point p (x, y, z) is then at rotation · p."""
    points = centred_points(tuple(volume.shape), volume.device)
    source = points @ rotation.to(points)  # row vectors: p R is (Rᵀ p)ᵀ
    return sample_volume(volume, source, method=method)


def spline_coefficients(volume: torch.Tensor) -> torch.Tensor:
    """Coefficients of the periodic cubic B-spline through the samples: division by (2 + cos w) / 3 along each axis."""
    spectrum = steady_rfftn(volume)
    for axis, n in enumerate(volume.shape):
        frequencies = torch.fft.rfftfreq if axis == volume.ndim - 1 else torch.fft.fftfreq
        response = (2 + torch.cos(2 * torch.pi * frequencies(n, device=volume.device, dtype=volume.dtype))) / 3
        spectrum = spectrum / response.reshape([-1 if i == axis else 1 for i in range(volume.ndim)])
    return torch.fft.irfftn(spectrum, s=tuple(volume.shape))


def _sample_linear(volume: torch.Tensor, index: torch.Tensor) -> torch.Tensor:
    size = torch.tensor([max(n - 1, 1) for n in volume.shape[::-1]]).to(volume)
    grid = (2 * index / size - 1).reshape(1, -1, 1, 1, 3)
    values = torch.nn.functional.grid_sample(volume[None, None], grid, mode="bilinear", align_corners=True)
    return values.reshape(index.shape[:-1])


def _sample_spline_fast(coefficients: torch.Tensor, index: torch.Tensor) -> torch.Tensor:
    """`_sample_spline` on the processor, where no derivative is asked for."""
    points = index.reshape(-1, 3).contiguous()
    values = torch.empty(len(points), dtype=index.dtype)
    kernels.sample_spline(coefficients.contiguous().numpy(), points.numpy(), values.numpy())
    return values.reshape(index.shape[:-1])


def _sample_spline(coefficients: torch.Tensor, index: torch.Tensor) -> torch.Tensor:
    shape_xyz = coefficients.shape[::-1]
    flat, strides = coefficients.reshape(-1), (1, shape_xyz[0], shape_xyz[0] * shape_xyz[1])
    corner = index.floor()
    weights = _spline_weights(index - corner)  # (4, ..., 3)
    corner = corner.long()
    offsets = [[(corner[..., a] + k - 1) % shape_xyz[a] * strides[a] for k in range(4)] for a in range(3)]
    result = torch.zeros_like(index[..., 0])
    for kz in range(4):
        for ky in range(4):
            row = offsets[2][kz] + offsets[1][ky]
            line = sum(weights[kx, ..., 0] * flat[row + offsets[0][kx]] for kx in range(4))
            result = result + weights[kz, ..., 2] * weights[ky, ..., 1] * line
    top = torch.tensor(shape_xyz).to(index) - 0.5
    inside = ((index >= -0.5) & (index <= top)).all(-1)
    return torch.where(inside, result, torch.zeros_like(result))


def _spline_weights(t: torch.Tensor) -> torch.Tensor:
    """(4, ...) weights of the coefficients at -1, 0, 1, 2 for the fraction t in [0, 1)."""
    s = 1 - t
    return torch.stack([s**3 / 6, 2 / 3 - t**2 + t**3 / 2, 2 / 3 - s**2 + s**3 / 2, t**3 / 6])
