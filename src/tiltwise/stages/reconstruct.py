"""Reconstruct a tomogram by weighted back projection, with the contrast transfer corrected by depth and position."""

import math
from dataclasses import dataclass

import numpy as np
import torch

from tiltwise.data.errors import StageError
from tiltwise.data.progress import Progress, no_progress
from tiltwise.data.tilt_series import TiltSeries
from tiltwise.data.volume import Volume
from tiltwise.ops.ctf import astigmatic_defocus, ctf, electron_wavelength
from tiltwise.ops.exposure import exposure_amplitude
from tiltwise.ops.fourier import crop_spectrum, frequency_grid_2d
from tiltwise.ops.geometry import defocus_at_depth, tilt_rotations
from tiltwise.ops.moments import kurtosis
from tiltwise.ops.projection import back_project_by_depth, ramp_filter
from tiltwise.params.reconstruct import ReconstructParams

_LEAST_VOXEL = 10.0
"""Å; the default voxel is the smallest multiple of the pixel not below it."""
_HIGH_PASS_WIDTH = 400.0
"""Å, sd of the Gaussian whose blur is taken off each image: uneven ice and illumination, not specimen."""
_OUTLIER = 10.0
"""Robust standard deviations at which pixels are clipped: X-rays and dead pixels, well beyond gold at high tilt."""
_GRID = 64
"""Images are padded to multiples of this, so that both axes shrink by one ratio of whole numbers n / 64."""
_TILTS_AT_ONCE = 4


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class ReconstructResult:
    tomogram: Volume
    """Density positive; noise power kept level, mean about 0."""
    quality: dict
    """voxel_size_A, shape (z, y, x), kurtosis, tilts, ctf_correction, depth_levels."""


def reconstruct(
    tilt_series: TiltSeries,
    params: ReconstructParams,
    *,
    device: str = "cpu",
    progress: Progress = no_progress,
) -> ReconstructResult:
    """Weighted back projection f(X) = Σ_i Δθ_i ∫ |k_perp| S_i(k; depth) Î_i(k) e^{2πi k·u_i(X)} d²k of the used tilts.

    S_i = sign(CTF_i) at defocus_i + h · depth, the constant -1 where no CTF is known, times the exposure weight
    q_i / sqrt(mean_j q_j²). The defocus of a voxel follows from its depth in the rotated frame, so it varies with z and
    with the distance from the tilt axis: a few flipped copies of each image span the depths and the kernel takes each
    voxel between the nearest two. Memory: the volume, the shrunken images once, and 4 tilts × levels of them at a time.
    """
    tilts = np.flatnonzero(tilt_series.use)
    _check(tilt_series, tilts)
    voxel_size = params.voxel_size or default_voxel_size(tilt_series.pixel_size)
    shape = tomogram_shape(tilt_series, params.thickness, voxel_size)
    images, pixel_size = _prepare_images(tilt_series, tilts, voxel_size, device, progress)
    if params.exposure_weighting:
        images = _weight_by_exposure(images, pixel_size, tilt_series, tilts)
    angles = tilt_series.geometry.tilt_angle[tilts], tilt_series.geometry.tilt_axis_angle[tilts]
    images = ramp_filter(images, *angles, pixel_size, thickness=params.thickness)
    correct = params.ctf_correction == "phase_flip" and tilt_series.ctf is not None
    depths = _depth_levels(tilt_series, tilts, shape, (pixel_size, voxel_size)) if correct else None
    volume = _back_project(images, tilt_series, tilts, depths, (shape, pixel_size, voxel_size, progress))
    quality = {
        "voxel_size_A": voxel_size,
        "shape": list(shape),
        "kurtosis": kurtosis(volume),
        "tilts": len(tilts),
        "ctf_correction": _correction_name(correct, tilt_series.defocus_handedness),
        "depth_levels": 1 if depths is None else depths[0],
    }
    if not math.isfinite(quality["kurtosis"]):
        raise StageError(
            f"{tilt_series.name}: the tomogram is constant or not finite; look at the images and the shifts"
        )
    return ReconstructResult(tomogram=Volume(data=volume.cpu().numpy(), voxel_size=voxel_size), quality=quality)


def default_voxel_size(pixel_size: float) -> float:
    """The smallest multiple of the pixel size not below 10 Å."""
    return pixel_size * max(1, math.ceil(_LEAST_VOXEL / pixel_size - 1e-6))


def tomogram_shape(tilt_series: TiltSeries, thickness: float, voxel_size: float) -> tuple[int, int, int]:
    """(z, y, x) voxels that cover the untilted image; x and y swap where the tilt axis is nearer to image x."""
    height, width = (n * tilt_series.pixel_size for n in tilt_series.image_shape)
    axis = np.deg2rad(np.median(tilt_series.geometry.tilt_axis_angle))
    if abs(np.sin(axis)) > abs(np.cos(axis)):
        height, width = width, height
    return tuple(max(1, round(extent / voxel_size)) for extent in (thickness, height, width))


def _check(tilt_series: TiltSeries, tilts: np.ndarray) -> None:
    if tilt_series.geometry is None:
        raise StageError(f"{tilt_series.name}: not aligned yet; run align first")
    if len(tilts) < 2:
        raise StageError(f"{tilt_series.name}: {len(tilts)} tilts are in use; a tomogram needs at least 2")


def _prepare_images(
    tilt_series: TiltSeries, tilts: np.ndarray, voxel_size: float, device: str, progress: Progress
) -> tuple[torch.Tensor, float]:
    """(tilt, y, x) images of mean 0 and sd 1, tapered, padded and shrunk to nearly the voxel, and their pixel size."""
    padded = tuple(-(-n // _GRID) * _GRID for n in tilt_series.image_shape)
    ratio = min(_GRID, math.ceil(_GRID * tilt_series.pixel_size / voxel_size - 1e-6))
    small = tuple(n // _GRID * ratio for n in padded)
    images = torch.empty(len(tilts), *small, device=device)
    for row, i in enumerate(tilts):
        image = torch.as_tensor(np.array(tilt_series.images[i], dtype=np.float32), device=device)
        images[row] = _shrink(_normalise(image, tilt_series.pixel_size), padded, small)
        progress(0.4 * (row + 1) / len(tilts), "preparing images")
    return images, tilt_series.pixel_size * _GRID / ratio


def _normalise(image: torch.Tensor, pixel_size: float) -> torch.Tensor:
    """Clip outliers, take off the slow background, fade the edges out, set mean 0 and sd 1."""
    median = image[torch.isfinite(image)].median()
    spread = 1.4826 * (image - median).abs().nanmedian()
    image = torch.nan_to_num(image - median, nan=0.0, posinf=0.0, neginf=0.0)
    image = image.clamp(-_OUTLIER * spread, _OUTLIER * spread) if spread > 0 else image
    window = _edge_window(tuple(image.shape), image.device)
    image = (image - (image * window).sum() / window.sum()) * window
    k2 = frequency_grid_2d(tuple(image.shape), pixel_size, image.device).square().sum(-1)
    high_pass = 1 - torch.exp(-2 * (math.pi * _HIGH_PASS_WIDTH) ** 2 * k2)
    image = torch.fft.irfft2(torch.fft.rfft2(image) * high_pass, s=image.shape) * window
    image = image - image.mean()
    return image / image.std().clamp_min(1e-12)


def _edge_window(shape: tuple[int, int], device: torch.device) -> torch.Tensor:
    """1 inside, a raised cosine to 0 over the outer twentieth of each side."""
    sides = []
    for n in shape:
        distance = torch.minimum(torch.arange(n, device=device) + 0.5, n - 0.5 - torch.arange(n, device=device))
        sides.append(0.5 - 0.5 * torch.cos(math.pi * (distance / (n / 20)).clamp_max(1)))
    return sides[0][:, None] * sides[1]


def _shrink(image: torch.Tensor, padded: tuple[int, ...], small: tuple[int, ...]) -> torch.Tensor:
    """Pad with zeros about the centre n // 2, then crop the transform; sample n // 2 stays the centre."""
    before = [m // 2 - n // 2 for n, m in zip(image.shape, padded, strict=True)]
    after = [m - n - b for n, m, b in zip(image.shape, padded, before, strict=True)]
    image = torch.nn.functional.pad(image, (before[1], after[1], before[0], after[0]))
    if padded == small:
        return image
    spectrum = torch.fft.rfft2(torch.fft.ifftshift(image))
    cropped = crop_spectrum(spectrum, padded, small) * (math.prod(small) / math.prod(padded))
    return torch.fft.fftshift(torch.fft.irfft2(cropped, s=small))


def _weight_by_exposure(
    images: torch.Tensor, pixel_size: float, tilt_series: TiltSeries, tilts: np.ndarray
) -> torch.Tensor:
    """Multiply by q_i(k) / sqrt(mean_j q_j(k)²), which keeps the noise power level (Grant & Grigorieff 2015)."""
    shape = tuple(images.shape[1:])
    frequency = frequency_grid_2d(shape, pixel_size, images.device).norm(dim=-1)
    before, exposure = (
        torch.as_tensor(a[tilts], dtype=torch.float32, device=images.device)
        for a in (tilt_series.pre_exposure, tilt_series.exposure)
    )
    voltage, total = tilt_series.optics.voltage, torch.zeros_like(frequency)
    for n, e in zip(before, exposure, strict=True):
        total += exposure_amplitude(frequency, n, e, voltage) ** 2
    scale = (total / len(images)).sqrt()
    result = torch.empty_like(images)
    for i, (n, e) in enumerate(zip(before, exposure, strict=True)):
        weight = exposure_amplitude(frequency, n, e, voltage) / scale
        result[i] = torch.fft.irfft2(torch.fft.rfft2(images[i]) * weight, s=shape)
    return result


def _depth_levels(
    tilt_series: TiltSeries, tilts: np.ndarray, shape: tuple[int, int, int], sizes: tuple[float, float]
) -> tuple[int, torch.Tensor]:
    """Number of levels, and (tilt, 2) first depth and step in Å, that span the depths of the volume at each tilt.

    Between two levels chi at the Nyquist frequency k changes by π λ k² step, held to π / 2 at most. With no handedness
    the sign of the change is unknown: one level at depth 0.
    """
    rotations = tilt_rotations(tilt_series.geometry)[torch.as_tensor(tilts)]
    if tilt_series.defocus_handedness is None:
        return 1, torch.tensor([[0.0, 1.0]]).repeat(len(tilts), 1)
    half = torch.tensor([n * sizes[1] / 2 for n in reversed(shape)], dtype=torch.float64)
    reach = rotations[:, 2].abs() @ half
    largest_step = 2 * sizes[0] ** 2 / electron_wavelength(tilt_series.optics.voltage)
    number = 1 + max(1, math.ceil(2 * float(reach.max()) / largest_step))
    return number, torch.stack([-reach, 2 * reach / (number - 1)], dim=1)


def _back_project(
    images: torch.Tensor, tilt_series: TiltSeries, tilts: np.ndarray, depths: tuple | None, plan: tuple
) -> torch.Tensor:
    shape, pixel_size, voxel_size, progress = plan
    rotations = tilt_rotations(tilt_series.geometry)[torch.as_tensor(tilts)]
    shift = torch.as_tensor(tilt_series.geometry.shift[tilts])
    volume = torch.zeros(shape, device=images.device)
    steps = torch.tensor([[0.0, 1.0]]).repeat(len(tilts), 1) if depths is None else depths[1]
    for start in range(0, len(tilts), _TILTS_AT_ONCE):
        rows = slice(start, min(start + _TILTS_AT_ONCE, len(tilts)))
        if depths is None:
            levels = -images[rows, None]
        else:
            heights = steps[rows, :1] + steps[rows, 1:] * torch.arange(depths[0])
            levels = _flip_phases(images[rows], tilt_series, tilts[rows], heights, pixel_size)
        back_project_by_depth(volume, levels, rotations[rows], shift[rows], (pixel_size, voxel_size), steps[rows])
        progress(0.4 + 0.6 * rows.stop / len(tilts), "back projection")
    return volume


def _flip_phases(
    images: torch.Tensor, tilt_series: TiltSeries, tilts: np.ndarray, heights: torch.Tensor, pixel_size: float
) -> torch.Tensor:
    """(tilt, level, y, x): each image times the sign of its CTF at the depths heights (tilt, level), Å."""
    shape, fitted = tuple(images.shape[1:]), tilt_series.ctf
    grid = frequency_grid_2d(shape, pixel_size, images.device)
    frequency, azimuth = grid.norm(dim=-1), torch.atan2(grid[..., 1], grid[..., 0])
    handedness = tilt_series.defocus_handedness or 0
    levels = images.new_empty(len(images), heights.shape[1], *shape)
    for row, i in enumerate(tilts):
        angle, phase = torch.tensor(float(fitted.astigmatism_angle[i])), float(fitted.phase_shift[i])
        ends = torch.tensor([float(fitted.defocus_u[i]), float(fitted.defocus_v[i])])
        spectrum = torch.fft.rfft2(images[row])
        for level, height in enumerate(heights[row]):
            u, v = defocus_at_depth(ends, handedness, height.expand(2, 1)).flatten()
            defocus = astigmatic_defocus(azimuth, u, v, angle)
            sign = torch.sign(ctf(frequency, defocus, tilt_series.optics, phase))
            levels[row, level] = torch.fft.irfft2(spectrum * sign, s=shape)
    return levels


def _correction_name(correct: bool, handedness: int | None) -> str:
    if not correct:
        return "none"
    return "phase_flip by depth" if handedness is not None else "phase_flip at depth 0: handedness not determined"
