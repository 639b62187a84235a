"""Averaged maps."""

from dataclasses import dataclass

from tiltwise.data.volume import Volume


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class HalfMaps:
    half1: Volume
    """Map of half set 1, unfiltered, unmasked."""
    half2: Volume
    """Map of half set 2, refined independently of half set 1."""
    symmetry: str = "C1"
    """Imposed on both: a point group, or H(rise,twist,units)."""
