"""Projection and back projection, an exact adjoint pair, and the filter that makes back projection an inverse.

A voxel at X (Å from the volume centre) meets image i at u = (R_i X)_xy + shift_i (docs/conventions.md), between pixels
of an image that is zero outside its frame. `back_project` sums the bilinear samples of all images at u; `project`
spreads each voxel over the same four pixels with the same weights: a pixel is the sum of the voxels along its ray, so
a line integral is that sum times voxel_size (where voxel_size = pixel_size). <project(v), y> = <v, back_project(y)>.
"""

import numpy as np
import torch

from tiltwise.ops.fourier import frequency_grid_2d
from tiltwise.ops.kernels import back_projection as kernels

_VOXELS_AT_ONCE = 1 << 21
"""Voxels treated at once by the plain twins: bounds their memory to about 0.3 GB."""


def back_project(
    images: torch.Tensor,
    rotations: torch.Tensor,
    shift: torch.Tensor,
    pixel_size: float,
    volume_shape: tuple[int, int, int],
    voxel_size: float,
) -> torch.Tensor:
    """Sum over tilts of the images (tilt, y, x) at every voxel, bilinear: (z, y, x) float32.

    rotations (tilt, 3, 3) specimen to image frame; shift (tilt, 2) Å; sizes Å. Unfiltered: see `ramp_filter`.
    """
    volume = torch.zeros(volume_shape, dtype=torch.float32, device=images.device)
    coefficients = voxel_to_sample(rotations, shift, pixel_size, tuple(images.shape[1:]), volume_shape, voxel_size)
    add_back_projection(volume, images, coefficients)
    return volume


def project(
    volume: torch.Tensor,
    rotations: torch.Tensor,
    shift: torch.Tensor,
    voxel_size: float,
    image_shape: tuple[int, int],
    pixel_size: float,
) -> torch.Tensor:
    """Adjoint of `back_project`: spread the voxels of volume (z, y, x) over images (tilt, y, x) float32."""
    coefficients = voxel_to_sample(rotations, shift, pixel_size, image_shape, tuple(volume.shape), voxel_size)
    flip = _runs_along_image_y(coefficients)
    if flip:
        coefficients, image_shape = coefficients[:, [1, 0]], image_shape[::-1]
    padded = volume.new_zeros(len(coefficients), image_shape[0] + 2, image_shape[1] + 2, dtype=torch.float32)
    if volume.device.type == "cpu":
        kernels.scatter(volume.float().contiguous().numpy(), coefficients.contiguous().numpy(), padded.numpy())
    else:
        scatter_plain(volume.float(), coefficients, padded)
    images = padded[:, 1:-1, 1:-1]
    return (images.transpose(1, 2) if flip else images).contiguous()


def voxel_to_sample(
    rotations: torch.Tensor,
    shift: torch.Tensor,
    pixel_size: float,
    image_shape: tuple[int, ...],
    volume_shape: tuple[int, int, int],
    voxel_size: float,
) -> torch.Tensor:
    """(tilt, 2, 4) float64 on the CPU: column and row (of images with a border of one pixel) as an affine map.

    Applied to the voxel index (x, y, z, 1).
    """
    linear = rotations.detach().double().cpu()[:, :2] * (voxel_size / pixel_size)
    voxel_centre = torch.tensor([n // 2 for n in reversed(volume_shape)], dtype=torch.float64)
    image_centre = torch.tensor([image_shape[1] // 2 + 1, image_shape[0] // 2 + 1], dtype=torch.float64)
    constant = shift.detach().double().cpu() / pixel_size + image_centre - linear @ voxel_centre
    return torch.cat([linear, constant[:, :, None]], dim=2)


def add_back_projection(volume: torch.Tensor, images: torch.Tensor, coefficients: torch.Tensor) -> None:
    """Add samples of images (tilt, y, x) at the places that coefficients give to volume (z, y, x), in place."""
    if _runs_along_image_y(coefficients):  # voxels of a row should follow each other in memory
        images, coefficients = images.transpose(1, 2), coefficients[:, [1, 0]]
    samples = torch.nn.functional.pad(images.float(), (1, 1, 1, 1)).contiguous()
    if volume.device.type == "cpu":
        kernels.gather(samples.numpy(), coefficients.contiguous().numpy(), volume.numpy())
    else:
        gather_plain(samples, coefficients, volume)


def gather_plain(samples: torch.Tensor, coefficients: torch.Tensor, volume: torch.Tensor) -> None:
    """Plain twin of kernels.gather: samples (tilt, y, x) with border, added to volume in place."""
    for c, sample in zip(coefficients, samples, strict=True):
        for z in _slabs(volume.shape):
            column, row = _sample_positions(c, z, volume)
            index, weight = _four_pixels(column, row, tuple(sample.shape))
            volume[z] += (sample.reshape(-1)[index] * weight).sum(0).reshape(volume[z].shape)


def scatter_plain(volume: torch.Tensor, coefficients: torch.Tensor, images: torch.Tensor) -> None:
    """Plain twin of kernels.scatter: images (tilt, y, x) with border, added to in place."""
    for c, image in zip(coefficients, images, strict=True):
        for z in _slabs(volume.shape):
            column, row = _sample_positions(c, z, volume)
            index, weight = _four_pixels(column, row, tuple(image.shape))
            value = volume[z].reshape(-1) * weight
            image.view(-1).index_add_(0, index.reshape(-1), value.reshape(-1))


def ramp_filter(
    images: torch.Tensor,
    tilt_angles: np.ndarray,
    tilt_axis_angles: np.ndarray,
    pixel_size: float,
    thickness: float | None = None,
) -> torch.Tensor:
    """Weight images (tilt, y, x) so that their back projection inverts `project` (voxel_size = pixel_size).

    In the planes normal to the tilt axis the samples are polar, d³k = |k_perp| dk_perp dθ dk_axis, so image i is
    multiplied by Δθ_i |k_perp|, k_perp = kx cos φ + ky sin φ in 1/px for an axis at φ from image y, and Δθ_i (radians)
    the part of the tilt range nearer to tilt i than to any other (`tilt_widths`). A specimen of finite thickness D (Å)
    smears each sample over 1/D, and the mean of |k| over such a cell at the origin is 1/(4 D): where thickness is
    given, |k_perp| is never below that; otherwise it goes to zero. Periodic at the image edges: taper first.
    """
    device = images.device
    widths = torch.as_tensor(tilt_widths(np.asarray(tilt_angles, dtype=float)), device=device).float()
    axis = torch.deg2rad(torch.as_tensor(np.array(tilt_axis_angles, dtype=float), device=device)).float()
    axis = axis.expand(len(images))
    k = frequency_grid_2d(tuple(images.shape[1:]), 1.0, device)
    floor = 0.0 if thickness is None else pixel_size / (4 * thickness)
    filtered = torch.empty_like(images, dtype=torch.float32)
    for i, image in enumerate(images):
        k_perp = (k[..., 0] * axis[i].cos() + k[..., 1] * axis[i].sin()).abs().clamp_min(floor)
        filtered[i] = torch.fft.irfft2(torch.fft.rfft2(image.float()) * (widths[i] * k_perp), s=images.shape[1:])
    return filtered


def tilt_widths(tilt_angles: np.ndarray) -> np.ndarray:
    """(tilt,) share in radians of the tilt range: half the distance to each neighbour, mirrored at both ends.

    Images at one angle share its width equally. One angle alone gets 180 degrees.
    """
    angles, inverse, count = np.unique(np.round(tilt_angles, 6), return_inverse=True, return_counts=True)
    if len(angles) == 1:
        return np.full(len(tilt_angles), np.pi / len(tilt_angles))
    gaps = np.diff(angles)
    half = np.concatenate([gaps[:1], gaps, gaps[-1:]]) / 2
    return (np.deg2rad(half[:-1] + half[1:]) / count)[inverse]


def _runs_along_image_y(coefficients: torch.Tensor) -> bool:
    along = coefficients[:, :2, 0].abs().sum(0)
    return bool(along[1] > along[0])


def _slabs(shape: torch.Size) -> list[slice]:
    step = max(1, _VOXELS_AT_ONCE // (shape[1] * shape[2]))
    return [slice(z, min(z + step, shape[0])) for z in range(0, shape[0], step)]


def _sample_positions(c: torch.Tensor, z: slice, volume: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Column and row (voxel,) float64 of the voxels of a slab."""
    c, (_, height, width) = c.to(volume.device), volume.shape
    ix, iy, iz = (
        torch.arange(start, stop, device=volume.device, dtype=torch.float64)
        for start, stop in ((0, width), (0, height), (z.start, z.stop))
    )
    rows = [r[0] * ix + r[1] * iy[:, None] + r[2] * iz[:, None, None] + r[3] for r in c]
    column, row = (r.reshape(-1) for r in rows)
    return column, row


def _four_pixels(column: torch.Tensor, row: torch.Tensor, shape: tuple[int, int]) -> tuple[torch.Tensor, torch.Tensor]:
    """(4, voxel) flat indices and float32 weights of the neighbours; the weights are 0 outside the image."""
    e = kernels.EDGE
    inside = (column >= e) & (column <= shape[1] - 1 - e) & (row >= e) & (row <= shape[0] - 1 - e)
    column, row = torch.where(inside, column, 0), torch.where(inside, row, 0)
    jx, jy = column.floor(), row.floor()
    fx, fy = column - jx, row - jy
    first = (jy * shape[1] + jx).long()
    index = torch.stack([first, first + 1, first + shape[1], first + shape[1] + 1])
    weight = torch.stack([(1 - fy) * (1 - fx), (1 - fy) * fx, fy * (1 - fx), fy * fx]) * inside
    return index, weight.float()
