"""Frames made ready for the fit of their motion: Fourier-cropped, cut into patches, whitened, weighted by exposure."""

import math
from dataclasses import dataclass

import numpy as np
import torch

from tiltwise.ops.correlation import cosine_taper
from tiltwise.ops.exposure import exposure_amplitude

_TAPER = 0.125
"""Of a patch's side, at each edge."""
_COARSEST_RING = 4
"""Rings below this hold the illumination, which does not move with the specimen."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class WorkingFrames:
    """Frames cropped in Fourier space to the pixel that the fit needs."""

    data: torch.Tensor
    """(frame, y, x) float32."""
    pixel_size: tuple[float, float]
    """Along x, y, Å; they differ by the rounding of the number of samples."""
    extent: tuple[float, float]
    """Sides of the image along x, y, Å."""
    centre: tuple[float, float]
    """Index x, y of the image centre in samples, fractions kept."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Patches:
    """Whitened half spectra of the patches of every frame, each cut where its content is thought to lie."""

    spectrum: torch.Tensor
    """(patch, frame, y, x // 2 + 1) complex64: q_f(k) F_f(k) over the root mean square of its ring."""
    offset: np.ndarray
    """(frame, 2) x, y in Å by which the patches of a frame were cut elsewhere than those of the sum."""
    position: np.ndarray
    """(patch, 2) x, y of the patch centres in Å from the image centre."""
    ring: torch.Tensor
    """(y, x // 2 + 1) index of the ring of each frequency; the last is for all that is not used."""
    frequency: tuple[torch.Tensor, torch.Tensor]
    """(x // 2 + 1,) and (y,) frequencies along x, y, 1/Å."""
    multiplicity: torch.Tensor
    """(y, x // 2 + 1) 1, or a half where the half spectrum holds a coefficient and its conjugate; 0 if not used."""
    decay: torch.Tensor
    """(frame, ring) q_f, the amplitude that exposure left of the signal."""
    length: torch.Tensor
    """(ring,) frequency, 1/Å."""
    own_power: torch.Tensor
    """(patch, ring) sum over the frames and over the coefficients of the ring of |spectrum|², by multiplicity."""
    independence: float
    """Independent coefficients for each one stored; the taper of the patches makes neighbours alike."""

    @property
    def number(self) -> int:
        """Number of patches."""
        return self.spectrum.shape[0]


def working_shape(shape: tuple[int, int], pixel_size: float, resolution: float) -> tuple[int, int]:
    """(y, x) samples that hold frequencies up to 1 / resolution (Å), even, with small prime factors."""
    return tuple(min(n, fast_size(math.ceil(2 * n * pixel_size / resolution))) for n in shape)


def fast_size(least: int) -> int:
    """The smallest even number from `least` on that has no prime factor above 5."""
    size = least + least % 2
    while True:
        rest = size
        for factor in (2, 3, 5):
            while rest % factor == 0:
                rest //= factor
        if rest == 1:
            return size
        size += 2


def crop_frame(frame: torch.Tensor, new_shape: tuple[int, int]) -> torch.Tensor:
    """(y, x) resampled to new_shape in Fourier space; sample 0 stays sample 0, mean values are kept.

    The transform along x is cropped before that along y is made, which saves most of the latter.
    """
    height, width = frame.shape
    if tuple(frame.shape) == tuple(new_shape):
        return frame
    ny, nx = new_shape
    kx, ky = (min(nx, width) - 1) // 2, (min(ny, height) - 1) // 2
    columns = torch.fft.fft(torch.fft.rfft(frame, dim=1)[:, : kx + 1], dim=0)
    half = torch.zeros(ny, nx // 2 + 1, dtype=columns.dtype, device=frame.device)
    half[: ky + 1, : kx + 1] = columns[: ky + 1]
    half[ny - ky :, : kx + 1] = columns[height - ky :]
    return torch.fft.irfft2(half, s=(ny, nx)) * (ny * nx / (height * width))


def gather_frames(frames: list[torch.Tensor], shape: tuple[int, int], pixel_size: float) -> WorkingFrames:
    """Frames that `crop_frame` made of images of this shape (y, x) and pixel size (Å)."""
    data = torch.stack(frames)
    extent = (shape[1] * pixel_size, shape[0] * pixel_size)
    size = (extent[0] / data.shape[2], extent[1] / data.shape[1])
    centre = ((shape[1] // 2) * pixel_size / size[0], (shape[0] // 2) * pixel_size / size[1])
    return WorkingFrames(data=data, pixel_size=size, extent=extent, centre=centre)


def cut_patches(
    frames: WorkingFrames,
    shift: np.ndarray,
    side: float,
    exposure: tuple[np.ndarray, np.ndarray, float],
    finest: float,
) -> Patches:
    """Patches of about `side` Å that tile the image, each frame's cut `shift` (frame, 2) Å, rounded to samples, away.

    exposure: pre-exposure and exposure of each frame (frame,) e⁻/Å², and voltage kV, for the weights q_f(k).
    finest: spacing, Å, beyond which nothing is used.
    """
    size = np.array(frames.pixel_size)
    steps = np.rint(shift / size).astype(int)
    starts, n = _patch_starts(frames, steps, side)
    grid = _patch_grid(n, frames.pixel_size, finest)
    decay = _ring_decay(grid.length, exposure)
    window = cosine_taper((n, n), _TAPER)
    spectrum = torch.empty(len(starts), len(steps), n, n // 2 + 1, dtype=torch.complex64)
    for number, (x0, y0) in enumerate(starts):
        cuts = torch.stack(
            [frames.data[f, y0 + dy : y0 + dy + n, x0 + dx : x0 + dx + n] for f, (dx, dy) in enumerate(steps)]
        )
        spectrum[number] = torch.fft.rfft2((cuts - cuts.mean(dim=(1, 2), keepdim=True)) * window)
    own_power = _whiten(spectrum, grid, decay)
    centre = (np.array(starts) + n // 2 - np.array(frames.centre)) * size
    return Patches(
        spectrum=spectrum,
        offset=steps * size,
        position=centre,
        ring=grid.ring,
        frequency=grid.frequency,
        multiplicity=grid.multiplicity,
        decay=decay,
        length=grid.length,
        own_power=own_power,
        independence=float((window**2).mean() ** 2 / (window**4).mean()),
    )


@dataclass(frozen=True, slots=True, eq=False)
class _Grid:
    ring: torch.Tensor
    frequency: tuple[torch.Tensor, torch.Tensor]
    multiplicity: torch.Tensor
    length: torch.Tensor


def _patch_starts(frames: WorkingFrames, steps: np.ndarray, side: float) -> tuple[list[tuple[int, int]], int]:
    """First samples x, y of the patches, all inside every frame, and their side in samples."""
    height, width = frames.data.shape[1:]
    low, high = np.maximum(-steps.min(axis=0), 0), np.maximum(steps.max(axis=0), 0)
    room = np.array([width, height]) - low - high
    n = fast_size(max(round(side / max(frames.pixel_size)), 16))
    n = min(n, int(room.min()) // 2 * 2)
    if n < 16:
        raise ValueError("the frames overlap by too little to be compared")
    axes = []
    for free, first in zip(room, low, strict=True):
        count = max(1, math.ceil(free / n - 0.25))
        axes.append(np.rint(np.linspace(first, first + free - n, count)).astype(int) if count > 1 else [first])
    if len(axes[0]) == 1:
        axes[0] = [int(low[0] + (room[0] - n) // 2)]
    if len(axes[1]) == 1:
        axes[1] = [int(low[1] + (room[1] - n) // 2)]
    return [(int(x), int(y)) for y in axes[1] for x in axes[0]], n


def _patch_grid(n: int, pixel_size: tuple[float, float], finest: float) -> _Grid:
    kx = torch.fft.rfftfreq(n, pixel_size[0])
    ky = torch.fft.fftfreq(n, pixel_size[1])
    width = 1 / (n * max(pixel_size))
    radius = (kx[None, :] ** 2 + ky[:, None] ** 2).sqrt()
    rings = min(n // 2, int(1 / (finest * width)))
    ring = (radius / width).round().long().clamp_max(rings)
    multiplicity = torch.ones_like(radius)
    multiplicity[:, 0] = 0.5
    multiplicity[(ring < _COARSEST_RING) | (ring >= rings)] = 0
    multiplicity[:, -1] = 0
    multiplicity[n // 2] = 0
    return _Grid(ring, (kx, ky), multiplicity, torch.arange(rings + 1) * width)


def _ring_decay(length: torch.Tensor, exposure: tuple[np.ndarray, np.ndarray, float]) -> torch.Tensor:
    before, during, voltage = exposure
    pre = torch.as_tensor(before, dtype=torch.float32)[:, None]
    own = torch.as_tensor(during, dtype=torch.float32)[:, None]
    return exposure_amplitude(length[None], pre, own, voltage)


def _whiten(spectrum: torch.Tensor, grid: _Grid, decay: torch.Tensor) -> torch.Tensor:
    """Divide each patch by its ring means over all frames, multiply by q_f, both in place; give the (patch, ring) power
    that is left."""
    count, flat = ring_counts(grid), grid.ring.flatten()
    own = torch.zeros(len(spectrum), len(grid.length), dtype=torch.float64)
    for patch, images in enumerate(spectrum):
        power = torch.stack([_ring_sum(image, flat, grid.multiplicity, len(count)) for image in images])
        mean = (power.mean(dim=0) / count.clamp_min(1e-9)).clamp_min(1e-30)
        scale = decay / mean.sqrt().float()
        for frame, image in enumerate(images):
            image *= scale[frame][grid.ring]
        own[patch] = (power * scale.double() ** 2).sum(dim=0)
    return own


def ring_counts(grid) -> torch.Tensor:
    """(ring,) coefficients of each ring, by multiplicity."""
    flat = grid.multiplicity.flatten().double()
    return torch.zeros(len(grid.length), dtype=torch.float64).index_add_(0, grid.ring.flatten(), flat)


def _ring_sum(image: torch.Tensor, flat: torch.Tensor, multiplicity: torch.Tensor, rings: int) -> torch.Tensor:
    power = (image.real**2 + image.imag**2) * multiplicity
    return torch.bincount(flat, weights=power.flatten().double(), minlength=rings)
