"""A first answer for the motion of whole frames, from the highest points of correlation maps, to a few Å."""

import numpy as np
import torch

from tiltwise.ops.correlation import cosine_taper
from tiltwise.ops.motion.patches import WorkingFrames, crop_frame, working_shape
from tiltwise.ops.peaks import parabola_offset

_COARSE = 16.0
"""Å; the finest spacing that is looked at."""
_B_FACTOR = 1000.0
"""Å²; how the weight falls towards it, exp(-B k² / 4)."""
_TAPER = 0.05
_ROUNDS = 6


def coarse_shifts(frames: WorkingFrames, limit: float, looked_at: np.ndarray | None = None) -> np.ndarray:
    """(frame, 2) x, y in Å, mean 0: each frame against the sum of all others as placed so far, until nothing moves.

    limit: the farthest from the mean that is searched, Å. looked_at: (y, x) bool, coarse, the fields of an even
    division of the image that are looked at; all if not given.
    """
    pixel_size = max(frames.pixel_size)
    shape = working_shape(tuple(frames.data.shape[1:]), pixel_size, max(_COARSE, 2 * pixel_size))
    small = [crop_frame(frame, shape) for frame in frames.data]
    size = np.array([frames.extent[0] / shape[1], frames.extent[1] / shape[0]])
    spectra, frequency = _weighted_spectra(small, size, _window(shape, looked_at))
    reach = np.maximum(np.minimum(limit / size, np.array(shape)[::-1] / 2 - 1).astype(int), 1)
    shift = np.zeros((len(small), 2))
    for _ in range(_ROUNDS):
        before = shift.copy()
        total = sum(spectra[f] * _phase(frequency, shift[f]) for f in range(len(spectra)))
        for f, spectrum in enumerate(spectra):
            others = total - spectrum * _phase(frequency, shift[f])
            surface = torch.fft.irfft2(spectrum * others.conj(), s=shape)
            shift[f] = _highest_point(surface, reach) * size
        shift -= shift.mean(axis=0)
        if np.abs(shift - before).max() < 0.25 * size.max():
            break
    return shift


def _window(shape: tuple[int, int], looked_at: np.ndarray | None) -> torch.Tensor:
    """(y, x) 1 in the fields that are looked at, falling to 0 at their edges."""
    if looked_at is None or looked_at.all():
        return cosine_taper(shape, _TAPER)
    window = torch.zeros(shape)
    rows, columns = (np.rint(np.linspace(0, n, m + 1)).astype(int) for n, m in zip(shape, looked_at.shape, strict=True))
    for j, i in zip(*np.nonzero(looked_at), strict=True):
        y, x = slice(rows[j], rows[j + 1]), slice(columns[i], columns[i + 1])
        window[y, x] = cosine_taper((y.stop - y.start, x.stop - x.start), 2 * _TAPER)
    return window


def _weighted_spectra(images: list[torch.Tensor], size: np.ndarray, window: torch.Tensor):
    """Tapered spectra, weighted so that a product of two is white but for the B-factor."""
    shape = tuple(images[0].shape)
    spectra = torch.stack([torch.fft.rfft2((image - image.mean()) * window) for image in images])
    kx = torch.fft.rfftfreq(shape[1], float(size[0]))
    ky = torch.fft.fftfreq(shape[0], float(size[1]))
    square = kx[None, :] ** 2 + ky[:, None] ** 2
    width = 4 / (min(shape) * float(size.max()))
    ring = (square.sqrt() / width).round().long()
    power = torch.bincount(ring.flatten(), weights=(spectra.abs() ** 2).mean(dim=0).flatten().double())
    mean = (power / torch.bincount(ring.flatten()).clamp_min(1)).clamp_min(1e-30).float()
    weight = torch.exp(-_B_FACTOR * square / 8) / mean[ring].sqrt()
    weight[ring == 0] = 0
    return spectra * weight, (kx, ky)


def _phase(frequency: tuple[torch.Tensor, torch.Tensor], shift: np.ndarray) -> torch.Tensor:
    """exp(2πi k·d): takes a displacement d (x, y; Å) back."""
    x, y = (torch.exp(2j * torch.pi * k.double() * float(d)) for k, d in zip(frequency, shift, strict=True))
    return y.to(torch.complex64)[:, None] * x.to(torch.complex64)[None, :]


def _highest_point(surface: torch.Tensor, reach: np.ndarray) -> np.ndarray:
    """x, y in samples, fractions by parabolas, of the highest point at most `reach` samples from 0 on each axis."""
    rx, ry = (int(r) for r in reach)
    near = torch.roll(surface, (ry, rx), (0, 1))[: 2 * ry + 1, : 2 * rx + 1]
    y, x = divmod(int(near.argmax()), near.shape[1])
    return np.array([x - rx + _vertex(near[y], x), y - ry + _vertex(near[:, x], y)])


def _vertex(line: torch.Tensor, peak: int) -> float:
    return 0.0 if peak in (0, len(line) - 1) else float(parabola_offset(*line[peak - 1 : peak + 2]))
