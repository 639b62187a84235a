"""Spheres in tomograms (virions, vesicles): centres that a user clicked or a search found."""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Spheres:
    tilt_series: np.ndarray
    """(sphere,) name of the tilt series, text."""
    position: np.ndarray
    """(sphere, 3) x, y, z of the centre from the tomogram centre, Å."""
    radius: np.ndarray
    """(sphere,) Å; nan where it is not stated."""

    def __len__(self) -> int:
        return len(self.position)

    def of(self, tilt_series: str) -> "Spheres":
        """The spheres of one series."""
        own = self.tilt_series == tilt_series
        return Spheres(tilt_series=self.tilt_series[own], position=self.position[own], radius=self.radius[own])
