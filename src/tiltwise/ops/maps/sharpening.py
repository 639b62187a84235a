"""The B-factor: fitted to a map's falling amplitudes (Guinier plot), and undone (Rosenthal & Henderson 2003)."""

from dataclasses import dataclass

import torch

from tiltwise.ops.filters import apply_transfer, radial_filter
from tiltwise.ops.fourier import frequency_norm
from tiltwise.ops.fsc import hermitian_weight, shell_index, shell_sums
from tiltwise.ops.steady import steady_rfftn

GUINIER_COARSEST = 10.0
"""Å. Coarser than this the shape of a molecule, not its disorder, rules the amplitudes (Wilson statistics)."""
_FEWEST_SHELLS = 6


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class GuinierFit:
    b_factor: float | None
    """Å²; negative, so that sharpening with it undoes the decay; None where no line could be fitted."""
    b_factor_error: float | None
    """Å², standard error of the fitted slope; None with it."""
    inverse_square: torch.Tensor
    """(point,) 1/d² of the fitted shells, 1/Å²."""
    log_amplitude: torch.Tensor
    """(point,) natural logarithm of the weighted rms amplitude."""
    why_not: str
    """Reason why there is no B-factor; empty where there is one."""


def sharpen(data: torch.Tensor, b_factor: float, voxel_size: float) -> torch.Tensor:
    """Multiply amplitudes by exp(-B k² / 4), B in Å²: a negative B-factor sharpens, a positive one damps."""
    frequency = frequency_norm(tuple(data.shape), voxel_size, data.device)
    return apply_transfer(data, torch.exp(-b_factor / 4 * frequency**2))


def shell_amplitude(volume: torch.Tensor) -> torch.Tensor:
    """(n // 2 + 1,) float64 root mean square of the transform of a cubic volume in each shell."""
    shape, number = tuple(volume.shape), volume.shape[0] // 2 + 1
    shells, weight = shell_index(shape, volume.device), hermitian_weight(shape, volume.device)
    power = steady_rfftn(volume.double()).abs() ** 2
    count = shell_sums(torch.ones_like(power), shells, number, weight)
    return (shell_sums(power, shells, number, weight) / count).sqrt()


def whitened(volume: torch.Tensor, voxel_size: float, resolution: float) -> torch.Tensor:
    """The volume with every shell down to `resolution` (Å) at the same rms amplitude, nothing beyond or in shell 0."""
    amplitude = shell_amplitude(volume)
    frequency = torch.arange(len(amplitude), dtype=torch.float64) / (len(volume) * voxel_size)
    used = (frequency > 0) & (frequency <= 1 / resolution)
    curve = torch.where(used, 1 / amplitude.clamp_min(1e-9 * float(amplitude.max())), 0.0)
    return radial_filter(volume, frequency, curve, voxel_size)


def fit_b_factor(
    frequency: torch.Tensor, amplitude: torch.Tensor, fsc_weight: torch.Tensor, resolution: float
) -> GuinierFit:
    """Line through ln(weight · amplitude) over 1/d², from 10 Å to the resolution: B is four times its slope.

    frequency, amplitude, fsc_weight: (shell,) 1/Å, rms amplitude, and sqrt(2 FSC / (1 + FSC)), which scales amplitudes
    of signal and noise to those of the signal. No B-factor (None and the reason) where fewer than six shells lie in the
    range or the line does not fall by twice its standard error.
    """
    weighted = amplitude * fsc_weight
    inside = (frequency >= 1 / GUINIER_COARSEST) & (frequency <= 1 / resolution) & (weighted > 0)
    x, y = frequency[inside].double() ** 2, weighted[inside].double().log()
    if len(x) < _FEWEST_SHELLS:
        reason = f"{len(x)} shells between {GUINIER_COARSEST:g} Å and the resolution ({resolution:.1f} Å) are too few"
        return GuinierFit(b_factor=None, b_factor_error=None, inverse_square=x, log_amplitude=y, why_not=reason)
    centred = x - x.mean()
    slope = (centred * y).sum() / (centred**2).sum()
    residual = y - y.mean() - slope * centred
    error = ((residual**2).sum() / (len(x) - 2) / (centred**2).sum()).sqrt()
    fitted, b, b_error = bool(slope < -2 * error), 4 * float(slope), 4 * float(error)
    return GuinierFit(
        b_factor=b if fitted else None,
        b_factor_error=b_error if fitted else None,
        inverse_square=x,
        log_amplitude=y,
        why_not="" if fitted else f"the amplitudes do not fall with resolution (B = {b:.0f} ± {b_error:.0f} Å²)",
    )
