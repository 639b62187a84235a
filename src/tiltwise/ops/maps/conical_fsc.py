"""Resolution by direction: Fourier shell correlations within cones about directions spread over half a sphere."""

import math
from dataclasses import dataclass

import torch

from tiltwise.ops.fsc import first_crossing, hermitian_weight, shell_index, shell_sums
from tiltwise.ops.maps.fsc_precision import average_shells
from tiltwise.ops.steady import steady_rfftn

HALF_ANGLE = 20.0
"""Of a cone, degrees (Tan et al. 2017, Nat. Methods 14, 793, use the same)."""
_DIRECTIONS = 100
"""On half a sphere: neighbours are about 14 degrees apart, less than a cone is wide."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class ConicalFsc:
    direction: torch.Tensor
    """(direction, 3) unit vectors x, y, z of the map, z >= 0."""
    fsc: torch.Tensor
    """(direction, shell)."""


def conical_fsc(half1: torch.Tensor, half2: torch.Tensor) -> ConicalFsc:
    """FSC of two cubic maps in double cones; every Fourier sample of a shell within a cone counts alike."""
    shape, number = tuple(half1.shape), half1.shape[0] // 2 + 1
    spectra = [steady_rfftn(half.double()) for half in (half1, half2)]
    shells = shell_index(shape, half1.device)
    weight = hermitian_weight(shape, half1.device).expand(shells.shape)
    used = (shells > 0) & (shells < number)
    cross = (spectra[0] * spectra[1].conj()).real[used]
    powers = [spectrum[used].abs().square() for spectrum in spectra]
    unit, shells, weight = _unit_vectors(shape, half1.device)[used], shells[used], weight[used]
    directions = half_sphere(_DIRECTIONS).to(half1.device)
    curves = []
    for direction in directions:
        inside = (unit @ direction.float()).abs() >= math.cos(math.radians(HALF_ANGLE))
        sums = [shell_sums(v[inside], shells[inside], number, weight[inside]) for v in (cross, *powers)]
        curve = sums[0] / (sums[1] * sums[2]).sqrt().clamp_min(1e-300)
        curve[0] = 1
        curves.append(curve)
    return ConicalFsc(direction=directions, fsc=torch.stack(curves))


def directional_resolution(
    frequency: torch.Tensor, fsc: torch.Tensor, values: torch.Tensor, threshold: float
) -> torch.Tensor:
    """(direction,) Å where each curve (direction, shell) first falls below the threshold; shells of frequency 1/Å.

    values (shell,) are the independent ones of whole shells of a map without symmetry, of which a cone holds its part:
    an imposed group repeats a cone elsewhere, not within itself. Where they are too few, shells are averaged. The first
    three shells hold fewer than ten samples of a cone, and do not decide.
    """
    part = 1 - math.cos(math.radians(HALF_ANGLE))
    held = fsc.clone()
    held[:, :4] = held[:, :4].clamp_min(threshold + 1e-9)
    averaged = [average_shells(curve, values * part)[0] for curve in held]
    return torch.tensor([first_crossing(frequency, curve, threshold) for curve in averaged], dtype=torch.float64)


def half_sphere(number: int) -> torch.Tensor:
    """(number, 3) float64 unit vectors, z > 0, evenly spread along a spiral (Saff & Kuijlaars 1997)."""
    i = torch.arange(number, dtype=torch.float64)
    z = (i + 0.5) / number
    radius, turn = (1 - z**2).sqrt(), i * math.pi * (3 - math.sqrt(5))
    return torch.stack([radius * turn.cos(), radius * turn.sin(), z], dim=1)


def _unit_vectors(shape: tuple[int, ...], device: torch.device) -> torch.Tensor:
    """(z, y, x // 2 + 1, 3) float32 directions x, y, z of the samples of rfftn of a cube."""
    axes = [torch.fft.fftfreq(n, device=device) for n in shape[:2]] + [torch.fft.rfftfreq(shape[2], device=device)]
    points = torch.stack(torch.meshgrid(*axes, indexing="ij")[::-1], dim=-1)
    return points / points.norm(dim=-1, keepdim=True).clamp_min(1e-12)
