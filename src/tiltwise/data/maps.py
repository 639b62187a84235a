"""Averaged maps and the curves that say how far they can be believed."""

from dataclasses import dataclass

import numpy as np

from tiltwise.data.volume import Volume


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class HalfMaps:
    half1: Volume
    """Map of half set 1, unfiltered, unmasked."""
    half2: Volume
    """Map of half set 2, refined independently of half set 1."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Fsc:
    frequency: np.ndarray
    """(shell,) centre of each shell, 1/Å; shell 0 is the origin."""
    correlation: np.ndarray
    """(shell,) Fourier shell correlation, -1 to 1."""
