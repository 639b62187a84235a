"""Tilt images made fit for correlation: outliers cut, gradients removed, spectrum whitened; and unfit images found."""

from dataclasses import dataclass

import numpy as np
import torch

from tiltwise.data.tilt_series import TiltSeries
from tiltwise.ops.correlation import cosine_taper
from tiltwise.ops.fourier import crop_spectrum, fourier_rescale, frequency_norm

_NORMAL_MAD = 1.4826
"""Standard deviation of a normal distribution in units of its median absolute deviation."""
_DARK = 0.15
"""An image whose median is below this part of the median of its series shows no specimen: a closed shutter or valve, or
a grid bar. Ice twice as thick as the mean free path, seen at 60°, still lets exp(-4) / exp(-2) = 0.14 of the electrons
of the untilted image pass if all scattered ones are lost; as a rule far more."""
_BLOCKED = 0.25
"""An image of whose field this part more is dark than is in the series shows a grid bar, or its shutter closed."""
_OPEN = 0.9
"""Quantile of the blocks of an image that stands for the open field: a tenth of it, if nine are hidden."""
_BLOCKS = 16
_OUTLIER = 8.0
"""Robust standard deviations from the median at which values are cut."""
_LOOKED_AT = 1 << 18
"""Pixels from which median and spread are taken, at least: their error is a third of a per cent of the spread."""
_FITTED_SIDE = 256
"""Pixels along the shorter side, at least, to which a gradient is fitted: noise moves it by 1/200 of its deviation."""
SAMPLES = 2.6
"""Samples to a wave of the finest spacing of whitened frames."""
_TAPER = 0.06
"""Part of each side over which an image fades to its edge."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Frames:
    """Cleaned images in square frames; the image centre is the centre of the frame, zero fills the rest."""

    data: torch.Tensor
    """(tilt, n, n) float32, n even."""
    pixel_size: float
    """Å."""
    window: torch.Tensor
    """(n, n) 1 inside the images, falling to 0 at their edges."""


def find_faults(images: np.ndarray, use: np.ndarray) -> tuple[str, ...]:
    """(tilt,) why an image (tilt, y, x) is unfit for use, empty where it is fit: not finite, constant, dark, blocked.

    Only tilts of use (tilt,) are looked at; the others have no fault.
    """
    brightness, hidden, faults = np.zeros(len(use)), np.zeros(len(use)), [""] * len(use)
    for i in np.flatnonzero(use):
        image = np.asarray(images[i], dtype=np.float32)
        low, high = float(image.min()), float(image.max())  # either is NaN if any value is
        if not np.isfinite([low, high]).all():
            faults[i] = "image holds values that are not finite"
        elif low == high:
            faults[i] = "image is constant"
        else:
            blocks = _block_means(image)
            brightness[i] = np.median(blocks)
            hidden[i] = np.mean(blocks < _DARK * np.quantile(blocks, _OPEN))
    fit = np.asarray(use, bool) & np.array([not fault for fault in faults])
    typical = float(np.median(brightness[fit])) if fit.any() else 0.0
    usual = float(np.median(hidden[fit])) if fit.any() else 0.0
    counts = fit.any() and float(brightness[fit].min()) >= 0  # a mean removed by other software says nothing
    for i in np.flatnonzero(fit) if counts else ():
        if brightness[i] < _DARK * typical and hidden[i] < usual + _BLOCKED:
            faults[i] = f"image is dark: brightness {brightness[i]:.4g}, that of the series {typical:.4g}"
        elif hidden[i] > usual + _BLOCKED:
            faults[i] = f"image is blocked: {100 * hidden[i]:.0f} % of it is dark, {100 * usual:.0f} % in the series"
    return tuple(faults)


def _block_means(image: np.ndarray) -> np.ndarray:
    """Means of some 16 blocks along each side of an image (y, x); a rim of less than a block is left out."""
    height, width = (max(1, n // _BLOCKS) for n in image.shape)
    rows, columns = image.shape[0] // height, image.shape[1] // width
    part = image[: rows * height, : columns * width].reshape(rows, height, columns, width)
    return part.mean(axis=(1, 3), dtype=np.float32)


def clean_images(tilt_series: TiltSeries, finest_pixel: float, device: torch.device | str = "cpu") -> Frames:
    """The used images without outliers and gradients, faded at their edges, density positive, of unit variance.

    They are resampled by Fourier cropping to the largest pixel not above finest_pixel (Å), or left as they are.
    Images of excluded tilts are zero.
    """
    shape, pixel_size = tilt_series.image_shape, tilt_series.pixel_size
    side = 2 * ((max(shape) + 1) // 2)
    new_side = min(side, 2 * int(np.ceil(side * pixel_size / finest_pixel / 2)))
    fade = cosine_taper(shape, _TAPER, device)
    frames = torch.zeros(tilt_series.number, new_side, new_side, device=device)
    for i in np.flatnonzero(tilt_series.use):
        image = torch.as_tensor(np.array(tilt_series.images[i], dtype=np.float32), device=device)
        flat = remove_gradient(clip_outliers(image, _OUTLIER))
        frame = fourier_rescale(_centred(flat * fade, side), (new_side, new_side))
        frames[i] = -frame / frame.std().clamp_min(1e-30)
    window = fourier_rescale(_centred(fade, side), (new_side, new_side)).clamp(0, 1)
    return Frames(data=frames, pixel_size=side * pixel_size / new_side, window=window)


def whiten(frames: Frames, band: tuple[float, float]) -> Frames:
    """Frames with the mean power of each ring of frequencies made one inside the band, SAMPLES to a finest wave.

    band (from, to) Å, coarse first, with Gaussian edges. Noise makes most of the power of a tilt image, so with equal
    power everywhere a sum over frequencies weights each by its noise: the matched filter for coloured noise.
    """
    side = len(frames.window)
    new_side = min(side, 2 * round(side * frames.pixel_size / (band[1] / SAMPLES) / 2))
    frequency = frequency_norm((side, side), frames.pixel_size, frames.window.device)
    ring = (frequency * side * frames.pixel_size).round().long()
    counts = torch.bincount(ring.flatten()).float()
    beyond = (frequency * band[1] - 1).clamp_min(0) / 0.15
    passed = (1 - torch.exp(-0.5 * (frequency * band[0]) ** 2)) * torch.exp(-(beyond**2))
    result = frames.data.new_empty(len(frames.data), new_side, new_side)
    for i, image in enumerate(frames.data):
        spectrum = torch.fft.rfft2(image)
        power = torch.zeros_like(counts).index_add_(0, ring.flatten(), (spectrum.abs() ** 2).flatten()) / counts
        padded = torch.nn.functional.pad(power[None, None], (2, 2), mode="replicate")
        smooth = torch.nn.functional.avg_pool1d(padded, 5, 1)[0, 0].clamp_min(1e-30)
        white = crop_spectrum(spectrum * passed / smooth.sqrt()[ring], (side, side), (new_side, new_side))
        white = torch.fft.irfft2(white, s=(new_side, new_side))
        result[i] = white / white.std().clamp_min(1e-30)
    window = fourier_rescale(frames.window, (new_side, new_side)).clamp(0, 1)
    return Frames(data=result, pixel_size=side * frames.pixel_size / new_side, window=window)


def clip_outliers(image: torch.Tensor, limit: float) -> torch.Tensor:
    """Values of an image (y, x) cut at limit robust standard deviations from its median: hot pixels, cosmic rays."""
    some = image.reshape(-1)[:: image.numel() // _LOOKED_AT | 1]  # an odd step, to meet all columns
    median = some.median()
    spread = _NORMAL_MAD * (some - median).abs().median()
    if float(spread) == 0:  # more than half of the pixels are equal, as in a stack of few grey levels
        spread = image.std()
    return image.clamp(float(median - limit * spread), float(median + limit * spread))


def remove_gradient(image: torch.Tensor) -> torch.Tensor:
    """Image (y, x) less the polynomial of second order that fits it best: uneven illumination and thickness."""
    y, x = (torch.linspace(-1, 1, n, device=image.device, dtype=torch.float64) for n in image.shape)
    step = max(1, min(image.shape) // _FITTED_SIDE)
    some_y, some_x = y[::step, None], x[None, ::step]
    terms = [torch.ones_like(some_y * some_x), some_x, some_y, some_x**2, some_y**2, some_x * some_y]
    design = torch.stack([term.expand(len(some_y), some_x.shape[1]).reshape(-1) for term in terms])
    values = image[::step, ::step].reshape(-1).double()
    c = torch.linalg.solve(design @ design.T, design @ values)
    along_y, along_x = c[2] * y + c[4] * y**2, c[0] + c[1] * x + c[3] * x**2
    twist = torch.outer((c[5] * y).to(image), x.to(image))
    return (image - twist).sub_(along_x.to(image)).sub_(along_y.to(image)[:, None])


def _centred(image: torch.Tensor, side: int) -> torch.Tensor:
    """Image (y, x) in a square frame of zeros, sample n // 2 on sample side // 2."""
    frame = image.new_zeros(side, side)
    top, left = (side // 2 - n // 2 for n in image.shape)
    frame[top : top + image.shape[0], left : left + image.shape[1]] = image
    return frame
