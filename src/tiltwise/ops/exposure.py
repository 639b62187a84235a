"""What exposure leaves of the signal: the critical-exposure curve (Grant & Grigorieff 2015, cisTEM's constants)."""

import torch


def critical_exposure(frequency: torch.Tensor, voltage: float) -> torch.Tensor:
    """Ne(k) in e⁻/Å² at frequency (1/Å); infinite at the origin. Scaled by 1 / 0.8 / 0.532 at 300 / 200 / 100 kV."""
    return _voltage_scale(voltage) * (0.24499 * frequency.clamp_min(1e-12) ** -1.6649 + 2.8141)


def exposure_amplitude(
    frequency: torch.Tensor, pre_exposure: torch.Tensor, exposure: torch.Tensor, voltage: float
) -> torch.Tensor:
    """Mean amplitude q left while exposure goes from N1 = pre_exposure to N2 = N1 + exposure.

    q = 2 Ne (exp(-N1 / 2Ne) - exp(-N2 / 2Ne)) / (N2 - N1), the limit exp(-N1 / 2Ne) for no exposure; q = 1 at k = 0.
    It acts on the signal, never on the shot noise. All arguments broadcast together.
    """
    twice = 2 * critical_exposure(frequency, voltage)
    x = exposure / twice
    mean_decay = torch.where(x > 1e-6, -torch.expm1(-x) / x.clamp_min(1e-30), 1 - x / 2)
    return torch.exp(-pre_exposure / twice) * mean_decay


def _voltage_scale(voltage: float) -> float:
    scale = {300.0: 1.0, 200.0: 0.8, 100.0: 0.532}.get(round(float(voltage), 3))
    if scale is None:
        raise ValueError(f"no critical-exposure curve for {voltage} kV; it is known for 100, 200 and 300 kV")
    return scale
