"""The microscope's optics and what is known of the contrast transfer function of each tilt image."""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Optics:
    voltage: float = 300.0
    """Acceleration voltage, kV."""
    spherical_aberration: float = 2.7
    """Spherical aberration Cs, mm."""
    amplitude_contrast: float = 0.07
    """Fraction w of amplitude contrast, 0 to 1."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Ctf:
    defocus_u: np.ndarray
    """(tilt,) larger defocus at depth 0, Å, underfocus positive."""
    defocus_v: np.ndarray
    """(tilt,) smaller defocus at depth 0, Å."""
    astigmatism_angle: np.ndarray
    """(tilt,) direction of defocus_u, degrees from image x towards y."""
    phase_shift: np.ndarray
    """(tilt,) phase shift of a phase plate, degrees."""
    defocus_error: np.ndarray
    """(tilt,) standard error of (u + v)/2, Å; nan where not determined."""
    fit_resolution: np.ndarray
    """(tilt,) finest spacing at which the fitted rings still agree, Å; nan where not determined."""

    @property
    def mean_defocus(self) -> np.ndarray:
        """(tilt,) (u + v)/2, Å."""
        return (self.defocus_u + self.defocus_v) / 2
