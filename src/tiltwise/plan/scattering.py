"""How strongly a molecule in ice scatters: |F(k)|² of electrons, averaged over directions, in Å².

Random atoms (Wilson) give Σ f², 203, 343 and 390 Å² per kDa of protein at 3, 6 and 10 Å. Real molecules do not: the
ice they displace takes away from it, and secondary structure puts power near 10 and 4.7 Å and takes it from between, so
that at 6 to 7 Å half is left. The tables below are the power of 1BXN, 3J9I and 4V1W (protein; they agree within 15 %
from 12 Å on) and of a 70S ribosome with EF-Tu (ribonucleoprotein), by simulate/potential.py with all atoms still,
less the outline below. The simulator's procedural molecule has up to 1.9 times as much at 9 to 12 Å.
"""

import numpy as np

from tiltwise.params.plan import TargetParams

_KNOTS = np.arange(0.05, 0.401, 0.01)  # 1/Å
_POWER = {  # Å² per kDa at the knots
    "protein": (
        97, 183, 249, 295, 327, 306, 263, 221, 189, 176, 172, 181, 206, 252, 335, 424, 478, 482, 448, 431, 398, 375,
        326, 306, 269, 251, 225, 196, 182, 173, 169, 165, 163, 154, 152, 159,
    ),
    "ribonucleoprotein": (
        985, 663, 578, 565, 500, 397, 322, 304, 293, 278, 259, 264, 288, 313, 333, 346, 358, 368, 359, 350, 339, 327,
        312, 302, 298, 296, 283, 254, 220, 193, 175, 158, 148, 143, 141, 140,
    ),
}  # fmt: skip
_CONTRAST = {"protein": 3.24, "ribonucleoprotein": 4.04}
"""Mean potential over that of ice, V, of the same models."""
_VOLUME = {"protein": 1.26, "ribonucleoprotein": 1.07}
"""Volume, Å³/Da, of the same models."""
_MASK_RATIO = 2.2
"""Volume of a soft mask, ∫ m² dV, over that of the molecule."""
_POTENTIAL_OF_FORM_FACTOR = 47.878  # V Å²


def scattering_power(target: TargetParams, frequency: np.ndarray) -> np.ndarray:
    """(k,) |F(k)|², Å², of the whole molecule at frequency (1/Å): its inside, and its outline at low frequency."""
    return inside_power(target, frequency) + outline_power(target, frequency)


def inside_power(target: TargetParams, frequency: np.ndarray) -> np.ndarray:
    """(k,) |F|², Å², of the inner structure: atoms, secondary structure, domains."""
    table = np.array(_POWER[target.composition], dtype=float)
    return target.molecular_weight / 1e3 * np.interp(frequency, _KNOTS, table)


def outline_power(target: TargetParams, frequency: np.ndarray) -> np.ndarray:
    """(k,) |F|², Å², of a body without inner structure: F0² / (1 + x⁴ / 9), x = 2π k R of the ball of equal volume.

    It falls as Porod's law with twice the ball's surface, which is what the models have at 30 Å; the ball's own
    oscillations are left out.
    """
    return _forward(target) ** 2 / (1 + _ball_argument(target, frequency) ** 4 / 9)


def ball_amplitude(target: TargetParams, frequency: np.ndarray) -> np.ndarray:
    """(k,) F, Å, of a ball of the molecule's volume and mean contrast: F0 · 3 (sin x - x cos x) / x³."""
    x = _ball_argument(target, frequency)
    return _forward(target) * 3 * (np.sin(x) - x * np.cos(x)) / x**3


def _forward(target: TargetParams) -> float:
    """F at k = 0, Å."""
    return _CONTRAST[target.composition] * molecule_volume(target) / _POTENTIAL_OF_FORM_FACTOR


def _ball_argument(target: TargetParams, frequency: np.ndarray) -> np.ndarray:
    return 2 * np.pi * np.asarray(frequency) * (3 * molecule_volume(target) / (4 * np.pi)) ** (1 / 3)


def molecule_volume(target: TargetParams) -> float:
    """Å³."""
    return _VOLUME[target.composition] * target.molecular_weight


def mask_volume(target: TargetParams) -> float:
    """Å³ of the mask in which the maps are compared: within it is the noise that counts."""
    return target.mask_volume or min(_MASK_RATIO * molecule_volume(target), np.pi / 6 * (1.2 * target.diameter) ** 3)
