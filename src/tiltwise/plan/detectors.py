"""Quantum efficiency of cameras over frequency relative to the Nyquist frequency of their physical pixel."""

import numpy as np

_QUADRATICS = {  # DQE = a + b x + c x²
    "counting": (0.90, -0.25, -0.25),
    "k2": (0.784, -0.413, -0.197),  # through 0.75, 0.51, 0.19 at 0.08, 0.53, 0.98 (300 kV, the table in PyTom)
    "perfect": (1.0, 0.0, 0.0),
}


def quantum_efficiency(detector: str, frequency: np.ndarray, pixel_size: float) -> np.ndarray:
    """(k,) DQE at frequency (1/Å) for a physical pixel of pixel_size Å; beyond its Nyquist frequency the value
    there."""
    a, b, c = _QUADRATICS[detector]
    x = np.minimum(2 * pixel_size * np.asarray(frequency, dtype=np.float64), 1.0)
    return a + b * x + c * x**2
