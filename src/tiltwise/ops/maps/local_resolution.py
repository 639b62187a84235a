"""Local resolution: where in a map the two halves still agree, and to what spacing.

In a band of frequencies about k the halves are two real volumes a, b. Their agreement at x is the correlation in a
Gaussian window w about it, C(x, k) = <ab> / sqrt(<a²> <b²>), <f> = Σ w f: a Fourier shell correlation of a small
volume (compare Cardone et al. 2013, J. Struct. Biol. 184, 226), without a box whose edges leak. The local resolution is
where C first falls below 0.143, as for the whole map.

Bands are Gaussians of a constant relative width β (full, at half height), windows have an sd σ of c spacings, so that
every band has the same number of independent values in its window. Noise correlates by chance with the variance
∫∫ g²(k) g²(k') |w(k - k')|² / (∫ g²)², which for a band of sd s = β k / 2.355 is 1 / N,
N = (4π)^(3/2) σ³ · 4π k² · 2.507 s · sqrt(1 + (v / s)²), v = 1 / (2 √2 π σ). Here N is 248, so that chance spreads by
0.064 and 0.143 lies 2.3 of that above zero. Signal that stops short at one spacing is seen a little beyond it, as far
as a band reaches: 12 % where it is eleven times the noise; where it falls as a B-factor lets it, 1 %.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch

from tiltwise.ops.fourier import frequency_norm
from tiltwise.ops.steady import steady_rfftn

THRESHOLD = 0.143
RELATIVE_WIDTH, WINDOW = 0.2, 1.1
"""β, full width of the Gaussian bands at half their height, in parts of the frequency; c, sd of the window, in
spacings."""
_STEP = 0.1
"""Between the centres of neighbouring bands, in parts of the frequency: half of their width."""
_COARSEST = 5.0
"""Spacings that the box is wide at the first band."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class LocalResolution:
    spacing: torch.Tensor
    """(z, y, x) float32, Å; `coarsest` where the halves do not agree even there, `finest` where they agree to the
    end."""
    coarsest: float
    """Spacing of the first band, Å."""
    finest: float
    """Spacing of the last band, Å."""


def independent_values() -> float:
    """N of a window, the same for all bands."""
    sd, edge = RELATIVE_WIDTH / 2.355, 1 / (2 * math.sqrt(2) * math.pi * WINDOW)
    return (4 * math.pi) ** 2.5 * WINDOW**3 * 2.507 * sd * math.sqrt(1 + (edge / sd) ** 2)


def measure_local_resolution(
    half1: torch.Tensor,
    half2: torch.Tensor,
    voxel_size: float,
    progress: Callable[[float], None] = lambda part: None,
) -> LocalResolution:
    """Local resolution of two half maps (n, n, n), which must not be masked; voxel_size Å.

    Memory: about eight arrays of the map in float32.
    """
    shape = tuple(half1.shape)
    norm = frequency_norm(shape, voxel_size, half1.device)
    spectra = [steady_rfftn(half.float()) for half in (half1, half2)]
    centres = band_centres(shape[0], voxel_size)
    spacing = torch.full(shape, float(1 / centres[0]), device=half1.device)
    agreeing = torch.ones(shape, dtype=torch.bool, device=half1.device)
    before = torch.ones(shape, device=half1.device)
    for number, centre in enumerate(centres):
        now = local_correlation(spectra, norm, centre, shape)
        falls = agreeing & (now < THRESHOLD)
        if number:
            part = (before - THRESHOLD) / (before - now).clamp_min(1e-6)
            crossing = 1 / (centres[number - 1] + part * (centre - centres[number - 1]))
            spacing = torch.where(falls, crossing, spacing)
        agreeing &= ~falls
        before = now
        progress((number + 1) / len(centres))
    spacing[agreeing] = 1 / centres[-1]
    return LocalResolution(spacing=spacing, coarsest=1 / centres[0], finest=1 / centres[-1])


def band_centres(n: int, voxel_size: float) -> list[float]:
    """1/Å: from a fifth of the box, in steps of a tenth, as long as the upper half height lies within Nyquist."""
    first, last = _COARSEST / (n * voxel_size), 1 / (2 * voxel_size) / (1 + RELATIVE_WIDTH / 2)
    number = math.floor(math.log(last / first) / math.log(1 + _STEP)) + 1
    return [last * (1 + _STEP) ** (i - number + 1) for i in range(number)]


def local_correlation(
    spectra: list[torch.Tensor], norm: torch.Tensor, centre: float, shape: tuple[int, ...]
) -> torch.Tensor:
    """(z, y, x) C in the band about `centre`."""
    # a Gaussian band reaches least far in space: what one region holds does not show in its neighbour
    band = torch.exp(-4 * math.log(2) * ((norm - centre) / (RELATIVE_WIDTH * centre)) ** 2)
    a, b = (torch.fft.irfftn(spectrum * band, s=shape) for spectrum in spectra)
    window = torch.exp(-2 * (torch.pi * WINDOW / centre * norm) ** 2)
    cross, first, second = (torch.fft.irfftn(steady_rfftn(f) * window, s=shape) for f in (a * b, a * a, b * b))
    # sums of squares are positive but for the rounding of the transforms
    floor = 1e-6 * torch.stack([first.max(), second.max()]).clamp_min(1e-30)
    return cross / (first.clamp_min(floor[0]) * second.clamp_min(floor[1])).sqrt()
