"""How much exposure: what is left after it, and which total is best for a spacing."""

import numpy as np
import torch

from tiltwise.ops.exposure import critical_exposure, exposure_amplitude
from tiltwise.plan.schedule import Schedule

INTEGRATED = 2.5129
"""Best single exposure over N_e where each electron sees the damage up to it: 2 x with e^x = 1 + 2 x."""
TERMINAL = 1.0
"""The same where all electrons see the damage at the end: D_c / 2 with D_c = 2 N_e (Hayward & Glaeser 1979)."""


def critical(frequency: np.ndarray | float, voltage: float) -> np.ndarray:
    """N_e in e⁻/Å² at frequency (1/Å): after it 1/e of the power, so e^(-1/2) of the amplitude, is left."""
    return critical_exposure(torch.as_tensor(np.asarray(frequency, dtype=np.float64)), voltage).numpy()


def damage_amplitude(schedule: Schedule, frequency: np.ndarray, voltage: float) -> np.ndarray:
    """(tilt, k) mean amplitude left of the signal during each image."""
    k = torch.as_tensor(np.asarray(frequency, dtype=np.float64))
    pre, own = (torch.as_tensor(v)[:, None] for v in (schedule.pre_exposure, schedule.exposure))
    return exposure_amplitude(k, pre, own, voltage).numpy()


def optimum_exposure(resolution: float, voltage: float, model: str) -> float:
    """Best total exposure, e⁻/Å², of an unweighted sum for a spacing (Å), by the integrated or the terminal model."""
    return {"integrated": INTEGRATED, "terminal": TERMINAL}[model] * float(critical(1 / resolution, voltage))


def information_fraction(exposure: float, resolution: float, voltage: float) -> float:
    """Part of the information at a spacing (Å) that weighted images have after an exposure: 1 - exp(-D / N_e)."""
    return 1 - float(np.exp(-exposure / critical(1 / resolution, voltage)))
