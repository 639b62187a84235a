"""Power spectra of overlapping patches of an image, and their averages over sectors and rings of frequency.

The windows of the patches share the image out: the sum of their squares is 1 everywhere but at the very rim. With
that, a patch whose squared window sums to m pixels counts as m / (pixels of the patch) of an independent measurement
at each frequency (Parseval: sum over patches and frequencies of the covariances of the powers), so that likelihoods
of overlapping patches keep their meaning.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch

from tiltwise.ops.fourier import frequency_grid_2d
from tiltwise.ops.fsc import hermitian_weight
from tiltwise.ops.kernels.spectra import add_powers

_RIM = 16  # the rim tapers over 1/16 of a patch: enough against leakage, little of the image lost


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class PatchLayout:
    """Where the patches of an image lie and how they are tapered; patches of y vary slowest."""

    size: int
    """Side of a patch, px."""
    start_y: torch.Tensor
    """(rows,) first row of each row of patches."""
    start_x: torch.Tensor
    """(columns,) first column of each column of patches."""
    window_y: torch.Tensor
    """(rows, size) taper along y."""
    window_x: torch.Tensor
    """(columns, size) taper along x."""

    @property
    def area(self) -> torch.Tensor:
        """(patch,) sum of the squared window, px²."""
        return torch.outer((self.window_y**2).sum(-1), (self.window_x**2).sum(-1)).reshape(-1)

    @property
    def independent(self) -> torch.Tensor:
        """(patch,) independent measurements that a patch stands for at each frequency; at most 1."""
        return self.area / self.size**2


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class PolarBins:
    """Averages of an rfft2 half spectrum over sectors of azimuth (modulo 180°) and rings of frequency."""

    index: torch.Tensor
    """(pixel,) bin of each pixel kept, sector · rings + ring."""
    pixel: torch.Tensor
    """(pixel,) flat index of each pixel kept."""
    weight: torch.Tensor
    """(pixel,) 1, or 1/2 for a pixel that the half spectrum holds twice."""
    count: torch.Tensor
    """(sector, ring) sum of the weights."""
    frequency: torch.Tensor
    """(sector, ring) mean frequency, 1/Å."""
    cosine: torch.Tensor
    """(sector, ring) mean of cos 2az, az from x towards y."""
    sine: torch.Tensor
    """(sector, ring) mean of sin 2az."""


def patch_layout(image_shape: tuple[int, int], size: int, device: torch.device | str = "cpu") -> PatchLayout:
    """Patches of size² px, about half overlapping, over all of an image (y, x); size is at most the image's side."""
    start_y, window_y = _tapers(image_shape[0], size, device)
    start_x, window_x = _tapers(image_shape[1], size, device)
    return PatchLayout(size=size, start_y=start_y, start_x=start_x, window_y=window_y, window_x=window_x)


def patch_centres(layout: PatchLayout) -> torch.Tensor:
    """(patch, 2) x, y in px: the centre of mass of each squared window."""
    inside = torch.arange(layout.size, device=layout.start_x.device, dtype=torch.float64)
    x = layout.start_x + _mean(inside, layout.window_x)
    y = layout.start_y + _mean(inside, layout.window_y)
    grid_y, grid_x = torch.meshgrid(y, x, indexing="ij")
    return torch.stack([grid_x, grid_y], dim=-1).reshape(-1, 2)


def patch_spread(layout: PatchLayout) -> float:
    """Root mean square distance along one axis of a patch's power from its centre, px, averaged over patches."""
    inside = torch.arange(layout.size, device=layout.start_x.device, dtype=torch.float64)
    windows = torch.cat([layout.window_y, layout.window_x])
    variance = _mean(inside**2, windows) - _mean(inside, windows) ** 2
    return float(variance.mean().sqrt())


def patch_powers(image: torch.Tensor, layout: PatchLayout) -> torch.Tensor:
    """(patch, y, x // 2 + 1) power spectra of the patches; white noise of variance s² gives s² at every frequency."""
    return torch.cat(
        [
            torch.view_as_real(spectrum).square().sum(-1) / total[:, None, None]
            for spectrum, total in patch_spectra(image, layout)
        ]
    )


def patch_spectra(image: torch.Tensor, layout: PatchLayout) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Of each row of patches their transforms (column, y, x // 2 + 1), and the power (column,) of white noise of
    variance 1 in them. The mean of each patch is taken off."""
    across, size = layout.window_x.to(image), layout.size
    for first, window in zip(layout.start_y.tolist(), layout.window_y.to(image), strict=True):  # a row stays in cache
        patches = torch.stack([image[first : first + size, x : x + size] for x in layout.start_x.tolist()])
        total = (window**2).sum() * (across**2).sum(-1)
        mean = (patches @ (across**2)[:, :, None])[..., 0] @ window**2 / total
        patches.sub_(mean[:, None, None]).mul_(window[:, None]).mul_(across[:, None, :])
        yield torch.fft.rfft2(patches), total


def window_correlation(layout: PatchLayout) -> torch.Tensor:
    """(size,) autocorrelation of the patches' windows at shifts of whole px along one axis, averaged; 1 at 0."""
    windows = torch.cat([layout.window_y, layout.window_x])
    size = windows.shape[-1]
    correlation = torch.fft.irfft(torch.fft.rfft(windows, 2 * size).abs() ** 2, 2 * size)[:, :size]
    return correlation.sum(0) / correlation[:, 0].sum()


def window_coherence(layout: PatchLayout, lag: torch.Tensor) -> torch.Tensor:
    """Contrast, 0 to 1, that the patches leave to a pattern in the power spectrum of period 1 / lag; lag in px.

    A patch blurs its spectrum by the squared transform of its window, so a pattern loses contrast by the window's
    autocorrelation at the lag; taken along the diagonal, as the mean over azimuth.
    """
    curve = window_correlation(layout)
    position = (lag.abs() / 2**0.5).clamp(max=layout.size - 1.001)
    left = position.floor().long()
    between = position - left
    return (curve[left] * (1 - between) + curve[left + 1] * between) ** 2


def polar_bins(size: int, pixel_size: float, low: float, high: float, sectors: int) -> PolarBins:
    """Bins for rfft2 of size² px: rings one pixel wide between the frequencies low and high (1/Å).

    The lines of zero frequency along x and y are left out: rows and columns of a camera write on them.
    """
    grid = frequency_grid_2d((size, size), pixel_size).double()
    norm, azimuth = grid.norm(dim=-1), torch.atan2(grid[..., 1], grid[..., 0])
    ring = (norm * size * pixel_size).round().long()
    first, last = round(low * size * pixel_size), round(high * size * pixel_size)
    rings = last - first + 1
    keep = (ring >= first) & (ring <= last) & (grid.abs().amin(-1) > 0.5 / (size * pixel_size))
    sector = ((azimuth % torch.pi) * (sectors / torch.pi)).floor().long().clamp(max=sectors - 1)
    index = (sector * rings + ring - first)[keep]
    weight = (hermitian_weight((size, size)) / 2).expand(size, -1)[keep]

    def total(values: torch.Tensor) -> torch.Tensor:
        return torch.zeros(sectors * rings, dtype=torch.float64).index_add_(0, index, values).reshape(sectors, rings)

    count = total(weight)
    filled = count.clamp_min(1e-9)
    return PolarBins(
        index=index,
        pixel=torch.nonzero(keep.flatten()).flatten(),
        weight=weight,
        count=count,
        frequency=torch.where(
            count > 0, total(weight * norm[keep]) / filled, torch.arange(first, last + 1) / (size * pixel_size)
        ),
        cosine=total(weight * torch.cos(2 * azimuth[keep])) / filled,
        sine=total(weight * torch.sin(2 * azimuth[keep])) / filled,
    )


def binned_patch_powers(image: torch.Tensor, layout: PatchLayout, bins: PolarBins) -> torch.Tensor:
    """(patch, sector, ring) float64 weighted means of the patches' power spectra; 0 in an empty bin.

    The plain twin of the kernel is `bin_powers(patch_powers(image, layout), bins)`, which a device takes.
    """
    if image.device.type != "cpu":
        return bin_powers(patch_powers(image, layout), bins)
    places = bins.pixel.numpy(), bins.index.numpy(), bins.weight.double().numpy()
    means = []
    for spectrum, total in patch_spectra(image, layout):
        sums = np.zeros((len(spectrum), bins.count.numel()))
        add_powers(spectrum.flatten(1).numpy(), *places, sums)
        means.append(torch.from_numpy(sums) / total.double()[:, None])
    return torch.cat(means).reshape(-1, *bins.count.shape) / bins.count.clamp_min(1e-9)


def bin_powers(powers: torch.Tensor, bins: PolarBins) -> torch.Tensor:
    """(patch, sector, ring) float64 weighted means of powers (patch, y, x // 2 + 1); 0 in an empty bin."""
    flat = powers.flatten(1)[:, bins.pixel.to(powers.device)].double() * bins.weight.to(powers.device)
    total = torch.zeros(len(powers), bins.count.numel(), dtype=torch.float64, device=powers.device)
    total.index_add_(1, bins.index.to(powers.device), flat)
    count = bins.count.to(powers.device)
    return total.reshape(-1, *count.shape) / count.clamp_min(1e-9)


def _tapers(length: int, size: int, device: torch.device | str) -> tuple[torch.Tensor, torch.Tensor]:
    """Starts (patch,) and windows (patch, size) along one axis; the squared windows add up to the taper of the rim."""
    steps = round((length - size) / (size / 2))
    start = torch.linspace(0, length - size, steps + 1, dtype=torch.float64, device=device).round().long()
    inside = torch.arange(size, device=device, dtype=torch.float64) + 0.5
    rise = torch.sin(0.5 * torch.pi * (inside / (size / 2)).clamp(max=1)) ** 2
    share = torch.ones(steps + 1, size, dtype=torch.float64, device=device)
    share[1:] *= rise  # the outer sides of the first and last patch reach the rim untapered
    share[:-1] *= rise.flip(0)
    cover = torch.zeros(length, dtype=torch.float64, device=device)
    for s, first in zip(share, start.tolist(), strict=True):
        cover[first : first + size] += s
    rim = torch.sin(0.5 * torch.pi * ((torch.arange(length, device=device) + 0.5) / (size / _RIM)).clamp(max=1)) ** 2
    envelope = rim * rim.flip(0) / cover
    windows = torch.stack([(s * envelope[f : f + size]).sqrt() for s, f in zip(share, start.tolist(), strict=True)])
    return start, windows


def _mean(values: torch.Tensor, windows: torch.Tensor) -> torch.Tensor:
    power = windows**2
    return (values * power).sum(-1) / power.sum(-1)
