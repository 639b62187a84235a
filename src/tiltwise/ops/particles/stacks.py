"""2D stacks of particles as RELION-5's subtomo job makes them (its src/jaz/tomography/programs/subtomo.cpp).

Of each tilt in which the particle is visible: a square of binning · (twice the box) px about the projected position,
its transform F cut to the band of the binned box and referred to the particle's middle, then times

    c(k) = CTF(k; defocus_i + h · depth) q(k),   q = exp(-N1 / 2 Ne)

with our CTF, -sin chi: density comes out bright, as RELION inverts contrast and multiplies with its own, +sin chi. Back
in real space, divided by the binning, the mean outside a disc of the box's width is taken off and the disc's edge made
soft over 5 px; the box is its middle. RELION reconstructs Σ c F / Σ c² from them, working out c² by itself: so q is
that of RELION, of the exposure before the image (docs/conventions.md has ours, the mean over it).
"""

import numpy as np
import torch

from tiltwise.data.tilt_series import TiltSeries
from tiltwise.ops.ctf import astigmatic_defocus, ctf
from tiltwise.ops.exposure import exposure_amplitude
from tiltwise.ops.particles.images import image_positions

_PADDING = 2
_EDGE = 5.0


def relion_stack(
    images: torch.Tensor,
    tilt_series: TiltSeries,
    position: np.ndarray,
    *,
    box_size: int,
    binning: int,
    trajectory: np.ndarray | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """(visible tilt, box, box) float32 stack of the particle at position (3,), Å, on its path (mode, 3), Å, if it has
    one, and (used tilt,) bool: those visible.

    images (used tilt, y, x); box_size (even) in pixels of the binned images. A tilt is visible where the whole box is
    in the image, as RELION has it.
    """
    given = (None if v is None else torch.as_tensor(v, dtype=torch.float64)[None] for v in (position, trajectory))
    place, depth, _ = image_positions(tilt_series, *given)
    centre = place[:, 0]
    size = torch.tensor(images.shape[:0:-1], dtype=torch.float64)
    radius = binning * box_size / 2
    visible = ((centre > radius) & (centre < size - radius)).all(-1)
    side = _PADDING * box_size
    spectra = _cropped_spectra(images[visible], centre[visible], side, binning)
    spectra = spectra * _modulation(tilt_series, depth[:, 0], side, binning)[visible]
    crops = torch.fft.irfft2(spectra, s=(side, side)) / binning
    crops = torch.fft.fftshift(crops, dim=(-2, -1))
    first = (side - box_size) // 2
    middle = crops[:, first : first + box_size, first : first + box_size]
    return _in_a_disc(crops, middle).float().numpy(), visible.numpy()


def _cropped_spectra(images: torch.Tensor, centre: torch.Tensor, side: int, binning: int) -> torch.Tensor:
    """(tilt, side, side // 2 + 1) complex128 transforms of squares about centre (tilt, 2) px, at phase 0 there."""
    width = side * binning
    offset = torch.arange(width) - width // 2
    corner = torch.round(centre).long()
    rows = (corner[:, 1, None] + offset).clamp(0, images.shape[1] - 1)
    columns = (corner[:, 0, None] + offset).clamp(0, images.shape[2] - 1)
    tilt = torch.arange(len(images))[:, None, None]
    square = images[tilt, rows[:, :, None], columns[:, None, :]].double()
    whole = torch.fft.rfft2(torch.fft.ifftshift(square, dim=(-2, -1)))
    half = side // 2
    kept = torch.cat([whole[:, :half], whole[:, -half:]], dim=1)[:, :, : half + 1] / binning**2
    k = torch.fft.fftfreq(side, dtype=torch.float64) * side / width  # cycles per px of the images
    x = torch.arange(half + 1, dtype=torch.float64) / width
    inner = centre - corner
    angle = 2 * torch.pi * (k[:, None] * inner[:, 1, None, None] + x * inner[:, 0, None, None])
    return kept * torch.polar(torch.ones_like(angle), angle)


def _modulation(tilt_series: TiltSeries, depth: torch.Tensor, side: int, binning: int) -> torch.Tensor:
    """(used tilt, side, side // 2 + 1) c(k) at depth (used tilt,), Å."""
    used = np.flatnonzero(tilt_series.use)
    pixel = tilt_series.pixel_size * binning
    y = torch.fft.fftfreq(side, d=pixel, dtype=torch.float64)[:, None]
    x = torch.fft.rfftfreq(side, d=pixel, dtype=torch.float64)
    frequency, azimuth = torch.sqrt(x**2 + y**2), torch.atan2(y, x.expand(side, -1))
    fitted = tilt_series.ctf
    u, v, angle, phase, before = (
        torch.as_tensor(np.array(values)[used], dtype=torch.float64)[:, None, None]
        for values in (
            fitted.defocus_u,
            fitted.defocus_v,
            fitted.astigmatism_angle,
            fitted.phase_shift,
            tilt_series.pre_exposure,
        )
    )
    defocus = astigmatic_defocus(azimuth, u, v, angle) + tilt_series.defocus_handedness * depth[:, None, None]
    damage = exposure_amplitude(frequency, before, torch.zeros_like(before), tilt_series.optics.voltage)
    return ctf(frequency, defocus, tilt_series.optics, phase) * damage


def _in_a_disc(crops: torch.Tensor, middle: torch.Tensor) -> torch.Tensor:
    """The middle of the crops less their mean outside its disc, with a soft edge."""
    side, box = crops.shape[-1], middle.shape[-1]
    limit = box / 2
    outside = _radius(side) > limit
    mean = crops[:, outside].mean(-1)[:, None, None]
    radius = _radius(box)
    edge = (0.5 - 0.5 * torch.cos(torch.pi * (limit - radius) / _EDGE)) * (radius < limit)
    weight = torch.where(radius < limit - _EDGE, torch.ones_like(edge), edge)
    return (middle - mean) * weight


def _radius(side: int) -> torch.Tensor:
    axis = torch.arange(side, dtype=torch.float64) - side // 2
    return torch.sqrt(axis[:, None] ** 2 + axis**2)
