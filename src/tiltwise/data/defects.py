"""Pixels of a camera that are known not to count."""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class DefectMap:
    """Rectangles of pixels."""

    rectangles: np.ndarray
    """(rectangle, 4) first column, first row, columns, rows; row 0 at the bottom."""
    shape: tuple[int, int] | None
    """(y, x) px of the camera; None where the file does not say."""
