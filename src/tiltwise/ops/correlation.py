"""Where one image lies on another: cross-correlation weighted by what the two have in common, to a part of a pixel."""

import math
from dataclasses import dataclass
from functools import lru_cache

import torch

from tiltwise.ops.fourier import frequency_grid_2d

_LARGEST_CORRELATION = 0.95
"""Ring correlations above this are counted as this: a few samples on a ring cannot prove more."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Match:
    shift: tuple[float, float]
    """x, y in Å by which the image is moved against the reference."""
    correlation: float
    """Correlation of the two at that shift, every sample of the band counted alike (whitened images), -1 to 1."""
    correlation_unmoved: float
    """The same without the shift."""
    information: float
    """What one says of the other at that shift, nats: the sum over the samples of -log(1 - r²) / 2."""
    deviation: float
    """Standard deviation of the shift along x and along y that noise of this strength makes (Cramér-Rao), Å."""


def cosine_taper(shape: tuple[int, int], fraction: float, device: torch.device | str = "cpu") -> torch.Tensor:
    """(y, x) window that falls to zero as a half cosine over this fraction of the side at each edge."""
    sides = []
    for n in shape:
        position = torch.arange(n, device=device) + 0.5
        distance = torch.minimum(position, n - position) / (fraction * n)
        sides.append(0.5 - 0.5 * torch.cos(math.pi * distance.clamp(0, 1)))
    return sides[0][:, None] * sides[1][None, :]


def match_images(
    image: torch.Tensor, reference: torch.Tensor, pixel_size: float, band: tuple[float, float], limit: float
) -> Match:
    """Find the shift of an image (y, x) against a reference of its shape, at most limit (Å) from zero.

    band (from, to) Å, coarse first. The highest point of the correlation map with every ring of frequencies counted
    alike gives a first answer. There the correlation r of each ring is measured; for Gaussian signal and noise the most
    likely shift maximises the sum of w Re(A B* exp(2 pi i k·t)), w = r / (1 - r²) / sqrt(<|A|²> <|B|²>), which Newton's
    method climbs: no interpolation of the map biases the answer. Over the half plane of rfft2 the log likelihood is
    twice that sum, so the precision of a shift along one axis is the sum of (2π k)² r² / (1 - r²).
    """
    rings, k = _rings_of_band(tuple(image.shape), pixel_size, band, image.device)
    cross = _normalised_cross(image, reference, rings)
    shift = _highest_point(cross, rings.inside, tuple(image.shape), pixel_size, limit)
    weight = _ring_weight(_turned(cross, k, shift), rings)
    shift = _climb(cross * weight, k, shift, pixel_size)
    smooth = rings.smooth_mean(_turned(cross, k, shift).real).clamp(0, _LARGEST_CORRELATION)
    squares = rings.mean(k.square().sum(-1)) * rings.count
    precision = float((smooth**2 / (1 - smooth**2) * squares).sum())
    return Match(
        shift=(float(shift[0]), float(shift[1])),
        correlation=float(_turned(cross, k, shift).real.mean()),
        correlation_unmoved=float(cross.real.mean()),
        information=float((-0.5 * torch.log1p(-(smooth**2)) * rings.count).sum()),
        deviation=1 / math.sqrt(precision) if precision > 0 else math.inf,
    )


@dataclass(frozen=True, slots=True, eq=False)
class _Rings:
    """Rings of frequencies of one side's width; samples are those inside the band, flattened."""

    index: torch.Tensor
    count: torch.Tensor
    inside: torch.Tensor

    @staticmethod
    def of(radius: torch.Tensor, inside: torch.Tensor) -> "_Rings":
        index = radius[inside].round().long()
        count = torch.bincount(index).double()
        return _Rings(index, count, inside)

    def mean(self, values: torch.Tensor) -> torch.Tensor:
        return self._sum(values) / self.count.clamp_min(1)

    def smooth_mean(self, values: torch.Tensor, radius: int = 3) -> torch.Tensor:
        """Mean over each ring and its neighbours up to this many rings away."""
        sums = torch.stack([self._sum(values), self.count])[:, None]
        kernel = torch.ones(1, 1, 2 * radius + 1, dtype=torch.float64, device=sums.device)
        total = torch.nn.functional.conv1d(sums, kernel, padding=radius)[:, 0]
        return total[0] / total[1].clamp_min(1)

    def _sum(self, values: torch.Tensor) -> torch.Tensor:
        return torch.zeros_like(self.count).index_add_(0, self.index, values.double())


@lru_cache(maxsize=4)
def _rings_of_band(
    shape: tuple[int, int], pixel_size: float, band: tuple[float, float], device: torch.device
) -> tuple[_Rings, torch.Tensor]:
    """The rings of a band for images of one shape, and (sample, 2) 2π times the frequencies in it, 1/Å."""
    frequency = frequency_grid_2d(shape, pixel_size, device)
    length = frequency.norm(dim=-1)
    inside = (length >= 1 / band[0]) & (length <= 1 / band[1])
    return _Rings.of(length * (min(shape) * pixel_size), inside), 2 * math.pi * frequency[inside]


def _normalised_cross(image: torch.Tensor, reference: torch.Tensor, rings: _Rings) -> torch.Tensor:
    """(sample,) A B* / sqrt(<|A|²> <|B|²>), means over each ring."""
    a, b = (torch.fft.rfft2(x)[rings.inside] for x in (image, reference))
    norm = (rings.mean(a.abs() ** 2) * rings.mean(b.abs() ** 2)).sqrt().clamp_min(1e-30)
    return a * b.conj() / norm[rings.index].float()


def _turned(cross: torch.Tensor, k: torch.Tensor, shift: torch.Tensor) -> torch.Tensor:
    angle = k @ shift.float()
    return cross * torch.polar(torch.ones_like(angle), angle)


def _ring_weight(cross: torch.Tensor, rings: _Rings) -> torch.Tensor:
    ratio = rings.smooth_mean(cross.real).clamp(0, _LARGEST_CORRELATION)
    return (ratio / (1 - ratio**2))[rings.index].float()


def _highest_point(
    cross: torch.Tensor, inside: torch.Tensor, shape: tuple[int, int], pixel_size: float, limit: float
) -> torch.Tensor:
    height, width = shape
    full = torch.zeros(inside.shape, dtype=torch.complex64, device=cross.device)
    full[inside] = cross
    surface = torch.fft.fftshift(torch.fft.irfft2(full, s=shape))
    y = (torch.arange(height, device=cross.device) - height // 2) * pixel_size
    x = (torch.arange(width, device=cross.device) - width // 2) * pixel_size
    allowed = (x[None, :] ** 2 + y[:, None] ** 2) <= max(limit, pixel_size) ** 2
    peak = int(torch.where(allowed, surface, -torch.inf).argmax())
    return torch.stack([x[peak % width], y[peak // width]]).double()


def _climb(cross: torch.Tensor, k: torch.Tensor, start: torch.Tensor, pixel_size: float) -> torch.Tensor:
    """The maximum of sum Re(cross exp(i k·t)) near start; start itself where there is none within 1.5 pixels."""
    shift = start
    for _ in range(4):
        turned = _turned(cross, k, shift)
        gradient = -(turned.imag @ k).double()
        curvature = ((k * turned.real[:, None]).T @ k).double()
        eigenvalue, vectors = torch.linalg.eigh(curvature)
        if float(eigenvalue.min()) <= 0:
            return start
        step = vectors @ ((vectors.T @ gradient) / eigenvalue)
        shift = shift + step.clamp(-pixel_size / 2, pixel_size / 2)
        if float(step.abs().max()) < 1e-4 * pixel_size:
            break
    return shift if float((shift - start).norm()) <= 1.5 * pixel_size else start
