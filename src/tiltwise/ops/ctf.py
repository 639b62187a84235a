"""The contrast transfer function: underfocus positive, CTF = -sin chi, so density is dark at low frequency.

chi(k) = pi lambda k² (dz(az) - lambda² k² Cs / 2) + phase shift + asin(w)
dz(az) = [u + v + (u - v) cos 2(az - az0)] / 2, az0 from image x towards y (Mindell & Grigorieff 2003).
"""

import math

import torch

from tiltwise.data.optics import Optics

_HC_OVER_E = 12.398419843320026e3  # h c / e, V Å
_ELECTRON_REST_ENERGY = 510998.95  # m c² / e, V
_ANGSTROM_PER_MM = 1e7


def electron_wavelength(voltage: float) -> float:
    """Relativistic wavelength in Å of electrons accelerated through a voltage in kV."""
    volt = voltage * 1e3
    return _HC_OVER_E / math.sqrt(volt * (volt + 2 * _ELECTRON_REST_ENERGY))


def ctf_phase(
    frequency: torch.Tensor, defocus: torch.Tensor, optics: Optics, phase_shift: torch.Tensor | float = 0.0
) -> torch.Tensor:
    """chi in radians at frequency (1/Å) for defocus (Å) and phase_shift (degrees); all broadcast together."""
    wavelength = electron_wavelength(optics.voltage)
    cs = optics.spherical_aberration * _ANGSTROM_PER_MM
    k2 = frequency**2
    defocus_term = math.pi * wavelength * k2 * (defocus - 0.5 * wavelength**2 * k2 * cs)
    constant = math.asin(optics.amplitude_contrast)
    if isinstance(phase_shift, torch.Tensor):
        return defocus_term + torch.deg2rad(phase_shift) + constant
    return defocus_term + math.radians(phase_shift) + constant


def astigmatic_defocus(
    azimuth: torch.Tensor, defocus_u: torch.Tensor, defocus_v: torch.Tensor, astigmatism_angle: torch.Tensor
) -> torch.Tensor:
    """dz(az), Å; azimuth in radians from x towards y, astigmatism_angle in degrees; all broadcast together."""
    difference = (defocus_u - defocus_v) * torch.cos(2 * (azimuth - torch.deg2rad(astigmatism_angle)))
    return 0.5 * (defocus_u + defocus_v + difference)


def ctf(
    frequency: torch.Tensor, defocus: torch.Tensor, optics: Optics, phase_shift: torch.Tensor | float = 0.0
) -> torch.Tensor:
    """-sin chi: -w at the origin, the camera's sign."""
    return -torch.sin(ctf_phase(frequency, defocus, optics, phase_shift))
