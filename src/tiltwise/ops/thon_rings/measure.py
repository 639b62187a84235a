"""From the images of a tilt series to the flattened power spectra in which rings are sought."""

import math
from collections.abc import Callable

import numpy as np
import torch
from scipy.fft import next_fast_len

from tiltwise.data.errors import StageError
from tiltwise.data.tilt_series import TiltSeries
from tiltwise.ops.exposure import exposure_amplitude
from tiltwise.ops.fourier import fourier_rescale
from tiltwise.ops.geometry import tilt_rotations
from tiltwise.ops.outliers import hide_outliers
from tiltwise.ops.thon_rings.model import (
    RingSpectra,
    background_basis,
    depth_spread_loss,
    drift_course,
    fit_background,
    spline_basis,
)
from tiltwise.ops.thon_rings.spectra import (
    PatchLayout,
    PolarBins,
    binned_patch_powers,
    patch_centres,
    patch_layout,
    patch_spread,
    polar_bins,
)
from tiltwise.params.defocus import DefocusParams

_SECTORS = 8  # of azimuth, over 180 degrees
_FINEST = 5.0  # Å; tilt images hold no rings beyond
_NYQUIST_MARGIN = 1.05
_PATCH = (768.0, 1200.0)  # Å
_FEWEST_RINGS = 16  # of frequency, in the band
_PARTS, _WORTHWHILE = 8, 6  # images are coarsened to so many eighths; to 7/8 would cost more than it saves


def usable_tilts(tilt_series: TiltSeries) -> np.ndarray:
    """Rows of the tilts in use whose image is not blank."""
    return np.array([i for i in np.flatnonzero(tilt_series.use) if np.std(tilt_series.images[i][::4, ::4]) > 0], int)


def measure_rings(
    tilt_series: TiltSeries,
    rows: np.ndarray,
    params: DefocusParams,
    *,
    device: str = "cpu",
    progress: Callable[[float], None] = lambda done: None,
) -> RingSpectra:
    """Power spectra of the patches of the tilts in rows, divided by their smooth background.

    Errors: StageError if no band of frequencies is left between the coarsest and the finest spacing.
    """
    high = max(params.resolution_high or _FINEST, 2 * _NYQUIST_MARGIN * tilt_series.pixel_size)
    parts = _coarsening(tilt_series.pixel_size, high)
    pixel = tilt_series.pixel_size * _PARTS / parts
    shape = (
        tuple(-(-n // _PARTS) * parts for n in tilt_series.image_shape) if parts < _PARTS else tilt_series.image_shape
    )
    layout, bins = _layout(tilt_series.name, shape, pixel, high, params, device)
    powers = []
    for number, i in enumerate(rows):
        image = torch.as_tensor(np.asarray(tilt_series.images[i], dtype=np.float32), device=device)
        image = hide_outliers(_coarsen(image, parts), pixel)
        powers.append(binned_patch_powers(image, layout, bins))
        progress((number + 1) / len(rows))
    weight = (layout.independent[:, None, None] * bins.count.to(device)).expand(len(rows), -1, -1, -1)
    geometry, ring_frequency = tilt_series.geometry, bins.frequency.mean(0)
    tilt_angle = torch.as_tensor(geometry.tilt_angle[rows], dtype=torch.float64)
    centre = patch_centres(layout).cpu() - torch.tensor([n // 2 for n in shape[::-1]])
    before, during = (
        torch.as_tensor(np.asarray(e)[rows], dtype=torch.float64)[:, None]
        for e in (tilt_series.pre_exposure, tilt_series.exposure)
    )
    voltage = tilt_series.optics.voltage
    return RingSpectra(
        power=_flatten(torch.stack(powers), weight, bins).cpu(),
        weight=weight.cpu(),
        position=centre * pixel - torch.as_tensor(geometry.shift[rows], dtype=torch.float64)[:, None],
        rotations=tilt_rotations(geometry)[rows],
        tilt_angle=tilt_angle,
        course=drift_course(torch.as_tensor(np.asarray(tilt_series.acquisition_order)[rows])),
        damage=exposure_amplitude(ring_frequency, before, during, voltage) ** 2,
        coherence=depth_spread_loss(ring_frequency, tilt_angle, patch_spread(layout) * pixel, voltage),
        bins=bins,
        layout=layout,
        pixel_size=pixel,
        optics=tilt_series.optics,
    )


def _coarsening(pixel_size: float, high: float) -> int:
    """Eighths of the image's side that still hold spacings down to high, Å; 8 where little would be saved."""
    parts = math.ceil(_PARTS * 2 * _NYQUIST_MARGIN * pixel_size / high - 1e-9)
    return parts if parts <= _WORTHWHILE else _PARTS


def _coarsen(image: torch.Tensor, parts: int) -> torch.Tensor:
    """The image on parts/8 of its pixels by Fourier cropping, its centre kept; sides padded to multiples of 8 first."""
    if parts == _PARTS:
        return image
    full = [-(-n // _PARTS) * _PARTS for n in image.shape]
    before = [m // 2 - n // 2 for n, m in zip(image.shape, full, strict=True)]
    padded = image.new_full(full, float(image.mean()))
    padded[before[0] : before[0] + image.shape[0], before[1] : before[1] + image.shape[1]] = image
    return fourier_rescale(padded, tuple(n // _PARTS * parts for n in full))


def _layout(
    name: str, shape: tuple[int, int], pixel: float, high: float, params: DefocusParams, device: str
) -> tuple[PatchLayout, PolarBins]:
    """Patches and bins that suit image (y, x) and pixel size (Å)."""
    side = params.patch_size or float(np.clip(min(shape) * pixel / 5, *_PATCH))
    size = min(2 * next_fast_len(round(side / pixel / 2)), min(shape) // 2 * 2)
    bins = (
        polar_bins(size, pixel, 1 / params.resolution_low, 1 / high, _SECTORS) if high < params.resolution_low else None
    )
    if bins is None or bins.count.shape[1] < _FEWEST_RINGS:
        raise StageError(
            f"{name}: no room for a defocus fit between {params.resolution_low:g} Å and {high:g} Å with"
            f" patches of {size} px of {pixel:g} Å; set resolution_low, resolution_high or patch_size"
        )
    return patch_layout(shape, size, device), bins


def _flatten(power: torch.Tensor, weight: torch.Tensor, bins: PolarBins) -> torch.Tensor:
    """Divide power (tilt, patch, sector, ring) by a stiff background of each patch, then a finer one of each tilt."""
    frequency = bins.frequency.mean(0).to(power)
    low, high = float(frequency[0]), float(frequency[-1])
    tilts, patches, sectors, rings = power.shape
    over_sectors = ((power * weight).sum(2) / weight.sum(2)).flatten(0, 1)
    stiff = fit_background(over_sectors, weight.sum(2).flatten(0, 1), spline_basis(frequency, low, high, 5))
    power = power * torch.exp(-stiff).reshape(tilts, patches, 1, rings)
    basis = background_basis(bins).to(power).flatten(0, 1)
    over_patches = (power * weight).sum(1) / weight.sum(1).clamp_min(1e-9)
    fine = fit_background(over_patches.flatten(1), weight.sum(1).flatten(1), basis)
    return power * torch.exp(-fine).reshape(tilts, 1, sectors, rings)
