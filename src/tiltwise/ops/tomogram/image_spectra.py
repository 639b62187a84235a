"""A tilt image made ready for reconstruction: cleaned, transformed once, and cropped to the voxel's resolution."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from tiltwise.ops.fourier import crop_spectrum

_OUTLIER = 10.0
"""Robust standard deviations at which pixels are clipped: X-rays and dead pixels, well beyond gold at high tilt."""
_LOOKED_AT = 1 << 16
"""Pixels from which median and spread are taken, evenly chosen: their error is below 1 % of the spread."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class SpectrumGrid:
    """How images of one shape are transformed and cropped."""

    image_shape: tuple[int, int]
    """(y, x) px."""
    padded: tuple[int, int]
    """(y, x) with zeros after the image, a fast length for the transform."""
    cropped: tuple[int, int]
    """(y, x) samples after cropping to the resolution wanted."""
    pixel_size: float
    """Of the image, Å."""

    @property
    def spacing(self) -> tuple[float, float]:
        """Size of a cropped sample along x, y, Å."""
        y, x = (self.pixel_size * n / m for n, m in zip(self.padded, self.cropped, strict=True))
        return x, y

    @property
    def centre(self) -> tuple[float, float]:
        """x, y sample of the image centre, pixel n // 2."""
        sizes = zip(self.image_shape, self.padded, self.cropped, strict=True)
        y, x = ((n // 2) * m / p for n, p, m in sizes)
        return x, y

    def frequencies(self, device: str = "cpu") -> tuple[torch.Tensor, torch.Tensor]:
        """ky (y,), kx (x // 2 + 1,) of the cropped transform, 1/Å."""
        x, y = self.spacing
        along = torch.fft.fftfreq(self.cropped[0], y, device=device)
        return along, torch.fft.rfftfreq(self.cropped[1], x, device=device)


def spectrum_grid(image_shape: tuple[int, int], pixel_size: float, resolution_size: float) -> SpectrumGrid:
    """Grid whose cropped samples are at most resolution_size (Å) apart, and never closer than the pixels."""
    padded = tuple(fast_even_length(n) for n in image_shape)
    wanted = (fast_even_length(math.ceil(n * min(1.0, pixel_size / resolution_size) - 1e-6)) for n in padded)
    cropped = tuple(min(m, n) for m, n in zip(wanted, padded, strict=True))
    return SpectrumGrid(image_shape=tuple(image_shape), padded=padded, cropped=cropped, pixel_size=pixel_size)


def fast_even_length(n: int) -> int:
    """The smallest even number not below n whose only prime factors are 2, 3, 5."""
    m = n + n % 2
    while True:
        rest = m
        for factor in (2, 3, 5):
            while rest % factor == 0:
                rest //= factor
        if rest == 1:
            return m
        m += 2


def image_spectra(parts: Sequence[torch.Tensor], grid: SpectrumGrid, high_pass: float) -> list[torch.Tensor]:
    """(y, x // 2 + 1) transforms, cropped, of the parts of an image (y, x): the image itself, or sums of its odd and
    of its even frames. Their mean is that of an image of mean 0 and sd 1 without slow background.

    Each part by itself: clips outliers, fades the outer twentieth of each side out, takes off a Gaussian blur of sd
    high_pass (Å). Values are those of samples, whatever the crop. Constant parts give zeros.
    """
    ky, kx = grid.frequencies(str(parts[0].device))
    passed = 1 - torch.exp(-2 * (math.pi * high_pass) ** 2 * (ky[:, None] ** 2 + kx**2))
    spectra, image = [], None
    for part in parts:
        cleaned = _fade(_clip(part))
        spectra.append(crop_spectrum(torch.fft.rfft2(cleaned, s=grid.padded), grid.padded, grid.cropped))
        image = cleaned if image is None else image.add_(cleaned)
    power = float(image.square().sum())
    if not power > 0:
        return [torch.zeros_like(spectrum) for spectrum in spectra]
    whole = spectra[0] if len(spectra) == 1 else sum(spectra)
    lost = _power((whole, grid.cropped)) - _power((whole * passed, grid.cropped))
    deviation = math.sqrt(max(power - lost / math.prod(grid.padded), 1e-12 * power) / image.numel())
    scale = math.prod(grid.cropped) / math.prod(grid.padded)
    return [spectrum * (passed * (len(parts) * scale / deviation)) for spectrum in spectra]


def _power(part: tuple[torch.Tensor, tuple[int, int]]) -> float:
    """Sum of |F|² over the whole plane, from the half that rfft2 keeps."""
    spectrum, shape = part
    squares = spectrum.real.square() + spectrum.imag.square()
    total = 2 * squares.sum() - squares[:, 0].sum()
    return float(total - (squares[:, -1].sum() if shape[1] % 2 == 0 else 0))


def _clip(image: torch.Tensor) -> torch.Tensor:
    """About the median, within 10 robust standard deviations; what is not finite becomes the median."""
    some = image.reshape(-1)[:: max(1, image.numel() // _LOOKED_AT)]
    some = some[torch.isfinite(some)]
    if not len(some):
        return torch.zeros_like(image)
    median = some.median()
    spread = float(_OUTLIER * 1.4826 * (some - median).abs().median())
    image = torch.nan_to_num(image - median, nan=0.0, posinf=0.0, neginf=0.0)
    return image.clamp_(-spread, spread) if spread > 0 else image


def _fade(image: torch.Tensor) -> torch.Tensor:
    """Take off the mean within the window, then multiply by it: a raised cosine over the outer twentieth."""
    sides = [_edge(n, image.device) for n in image.shape]
    mean = float(sides[0] @ image @ sides[1]) / float(sides[0].sum() * sides[1].sum())
    return (image - mean).mul_(sides[0][:, None]).mul_(sides[1])


def _edge(n: int, device: torch.device) -> torch.Tensor:
    distance = torch.minimum(torch.arange(n, device=device) + 0.5, n - 0.5 - torch.arange(n, device=device))
    return 0.5 - 0.5 * torch.cos(math.pi * (distance / (n / 20)).clamp_max(1))
