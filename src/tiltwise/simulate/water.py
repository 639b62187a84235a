"""The noise of amorphous ice: how its molecules' order shapes the power of their phases.

Independent molecules would give an image of thickness t the phase power n t (γ λ f(k))² per area at every frequency.
Water is nearly incompressible, so that long waves are damped, and neighbours stand about 3 Å apart, so that the power
peaks at 1/3.7 Å: a structure factor S(k) multiplies it.

Measured: the peak of the rings of vitreous ice at 1/3.7 Å (McMullan et al. 2015). Known from liquid water: S(0) = n k T
times the compressibility, 0.06 at room temperature. Assumed: S = 0.05 up to about 1/8 Å (amorphous ice is glass, frozen
near such a state), a Gaussian peak of height 2 and sd 0.035 1/Å, and S = 1 beyond it, reached by a smooth step. So the
power below 1/8 Å, where tomography sees most, rests on one number known to perhaps a factor of two.
"""

import gemmi
import torch

from tiltwise.ops.ctf import electron_wavelength

WATER_DENSITY = 0.0311
"""Molecules per Å3 of amorphous ice of 0.93 g/cm3."""
_LOW, _PEAK_FREQUENCY, _PEAK_SD = 0.05, 1 / 3.7, 0.035  # S below 1/8 Å; 1/Å; 1/Å
_PEAK_HEIGHT = 2.0  # S at the peak
_STEP, _STEP_WIDTH = 0.27, 0.02  # 1/Å, where S turns from its low to its high limit
_ELECTRON_REST_ENERGY = 510.99895  # keV


def water_structure_factor(frequency: torch.Tensor) -> torch.Tensor:
    """S(k) of amorphous ice, without unit, at frequency 1/Å of any shape."""
    step = torch.sigmoid((frequency - _STEP) / _STEP_WIDTH)
    at_peak = _LOW + (1 - _LOW) * torch.sigmoid(torch.tensor((_PEAK_FREQUENCY - _STEP) / _STEP_WIDTH))
    peak = (_PEAK_HEIGHT - at_peak) * torch.exp(-((frequency - _PEAK_FREQUENCY) ** 2) / (2 * _PEAK_SD**2))
    return _LOW + (1 - _LOW) * step + peak


def water_form_factor(frequency: torch.Tensor) -> torch.Tensor:
    """Electron form factor of a water molecule, Å: the oxygen's and two hydrogens' (Peng), 3.04 Å at 0.

    Hydrogens stand 0.96 Å from the oxygen and 1.51 Å from each other; orientations are averaged (Debye).
    """
    oxygen, hydrogen = _form_factor("O", frequency), _form_factor("H", frequency)
    near, across = (torch.sinc(2 * frequency * d) for d in (0.9572, 1.5139))
    return (oxygen**2 + 2 * hydrogen**2 + 4 * oxygen * hydrogen * near + 2 * hydrogen**2 * across).sqrt()


def water_phase_spectrum(frequency: torch.Tensor, thickness: float, voltage: float) -> torch.Tensor:
    """Power of the phase of ice per area, rad² Å², at frequency 1/Å: n t (γ λ f(k))² S(k).

    thickness in Å along the beam, voltage in kV. A field φ of area A has <|∫ φ exp(-2πi k·x) dx|²> = A times this;
    divided by (γ λ / 47.878)² = σ² it is that of the projected potential, V² Å⁴.
    """
    gamma = 1 + voltage / _ELECTRON_REST_ENERGY
    strength = (gamma * electron_wavelength(voltage) * water_form_factor(frequency)) ** 2
    return WATER_DENSITY * thickness * strength * water_structure_factor(frequency)


def _form_factor(symbol: str, frequency: torch.Tensor) -> torch.Tensor:
    coefficients = gemmi.Element(symbol).c4322.get_coefs()
    half = len(coefficients) // 2
    total = torch.zeros_like(frequency)
    for a, b in zip(coefficients[:half], coefficients[half:], strict=True):
        total = total + a * torch.exp(-b * frequency**2 / 4)
    return total
