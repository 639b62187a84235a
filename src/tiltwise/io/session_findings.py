"""What is found of one tilt series in a folder from the microscope."""

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np


@dataclass(kw_only=True, slots=True)
class SeriesFindings:
    """What the files say of one series; None is what they do not say."""

    name: str
    """Name of the series."""
    source: Path
    """The file it was found by."""
    images: int = 0
    """Images that the metadata describe."""
    found: int = 0
    """Images or movies that are there."""
    kind: str = "nothing"
    """What the images are: stack, images, movies, nothing."""
    tilt_angle: np.ndarray = field(default_factory=lambda: np.zeros(0))
    """(tilt,) nominal angles in the order of the file, degrees."""
    tilt_step: float | None = None
    """Median step between neighbouring angles, degrees."""
    tilt_axis_angle: float | None = None
    """Degrees from image y."""
    scheme: str | None = None
    """Order of the angles in time: dose-symmetric, bidirectional, one direction, or another."""
    exposure: float | None = None
    """Exposure of an image, median, e⁻/Å²."""
    total_exposure: float | None = None
    """Of all images, e⁻/Å²."""
    pixel_size: float | None = None
    """Å."""
    image_size: tuple[int, int] | None = None
    """x, y, px."""
    voltage: float | None = None
    """kV."""
    gain: str | None = None
    """Gain reference that the metadata name, or that lies there."""
    matches: list[str] = field(default_factory=list)
    """What agrees."""
    missing: list[str] = field(default_factory=list)
    """What is named but not there."""
    assumed: list[str] = field(default_factory=list)
    """What import will assume."""
    warnings: list[str] = field(default_factory=list)
    """What may be wrong."""
    faults: list[str] = field(default_factory=list)
    """What import will refuse."""


def some(items: list[str]) -> str:
    """The first few of a list, and how many more there are."""
    return ", ".join(items[:4]) + (f" and {len(items) - 4} more" if len(items) > 4 else "")
