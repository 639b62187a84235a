"""The contrast transfer of one tilt with partial coherence, beam tilt and any depth, for linear imaging.

Contrast of a phase φ at depth z: C(k) = 2 φ(k) E(k) exp(i χ_odd) CTF(k; defocus + h z). The odd part of the phase, of
a beam tilted by τ, is 2π Cs λ² k² (k·τ). E is the product of exp(-(π λ Δ)² k⁴ / 2) with Δ = Cc (δE / U)
(1 + eU/mc²) / (1 + eU/2mc²) and of exp(-(π α)² (Cs λ² k³ - Δz k)²); Frank (1973), Wade & Frank (1977).
"""

import math

import torch

from tiltwise.data.tilt_series import TiltSeries
from tiltwise.ops.ctf import electron_wavelength
from tiltwise.ops.fourier import frequency_grid_2d
from tiltwise.params.microscope import LensParams
from tiltwise.simulate.microscope import Grid, Transfer, transfer_of_tilt

_REST_ENERGY = 510998.95  # m c² / e, V
_ANGSTROM_PER_MM = 1e7


def coherent_transfer(
    grid: Grid, pixel_size: float, series: TiltSeries, tilt: int, lens: LensParams, depth: float = 0.0
) -> Transfer:
    """The transfer of a tilt without damage; the envelope of the illumination is that of the given depth, Å."""
    plain = transfer_of_tilt(grid, series, tilt, damaged=False)
    defocus = float(series.ctf.mean_defocus[tilt]) + series.defocus_handedness * depth
    amplitude = plain.amplitude * temporal_envelope(grid.radius, lens) * spatial_envelope(grid.radius, defocus, lens)
    if lens.beam_tilt_x or lens.beam_tilt_y:
        amplitude = amplitude * beam_tilt_factor(grid.size, pixel_size, lens)
    return Transfer(amplitude=amplitude, phase=plain.phase, phase_per_height=plain.phase_per_height, gun=plain.gun)


def temporal_envelope(frequency: torch.Tensor, lens: LensParams) -> torch.Tensor:
    """exp(-(π λ Δ)² k⁴ / 2) at frequency k in 1/Å: electrons of different energy are focussed differently."""
    volt = lens.voltage * 1e3
    relativity = (1 + volt / _REST_ENERGY) / (1 + volt / (2 * _REST_ENERGY))
    spread = lens.chromatic_aberration * _ANGSTROM_PER_MM * lens.energy_spread / volt * relativity
    return torch.exp(-0.5 * (math.pi * electron_wavelength(lens.voltage) * spread) ** 2 * frequency**4)


def spatial_envelope(frequency: torch.Tensor, defocus: float, lens: LensParams) -> torch.Tensor:
    """exp(-(π α)² (Cs λ² k³ - Δz k)²) at frequency k in 1/Å for a defocus in Å: the beam is no parallel one."""
    curved = lens.spherical_aberration * _ANGSTROM_PER_MM * electron_wavelength(lens.voltage) ** 2 * frequency**3
    return torch.exp(-((math.pi * lens.convergence * 1e-3) ** 2) * (curved - defocus * frequency) ** 2)


def beam_tilt_factor(size: int, pixel_size: float, lens: LensParams) -> torch.Tensor:
    """(y, x) complex exp(2πi Cs λ² k² (k·τ)) of rfft2 of square images."""
    frequency = frequency_grid_2d((size, size), pixel_size)
    along = frequency[..., 0] * lens.beam_tilt_x * 1e-3 + frequency[..., 1] * lens.beam_tilt_y * 1e-3
    aberration = lens.spherical_aberration * _ANGSTROM_PER_MM * electron_wavelength(lens.voltage) ** 2
    phase = 2 * math.pi * aberration * (frequency**2).sum(-1) * along
    return torch.polar(torch.ones_like(phase), phase)
