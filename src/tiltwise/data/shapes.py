"""Filaments, tubes and membranes as a user points them out in a tomogram."""

from dataclasses import dataclass
from typing import Literal

import numpy as np


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Shapes:
    points: np.ndarray
    """(point, 3) x, y, z: Å from the tomogram centre, or array indices of the tomogram, as `unit` says."""
    shape: np.ndarray
    """(point,) number, from 0, of the filament or membrane a point lies on. Points of a filament stand in its order:
    from the first to the last is its direction."""
    unit: Literal["Å", "voxel"] = "Å"
    """What `points` count in."""
    drawn_on: tuple[int, int, int] | None = None
    """x, y, z size of the tomogram that indices belong to; None where not known."""
