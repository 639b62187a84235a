"""What a tilt range and step mean for a volume, whatever its noise: sampling, path, focus."""

import numpy as np

from tiltwise.ops.ctf import electron_wavelength


def crowther_step(resolution: float, extent: float) -> float:
    """Largest tilt step, degrees, at which neighbouring slices of a body of this extent (Å) still meet at a spacing
    (Å): d / D rad (Crowther, DeRosier & Klug 1970)."""
    return float(np.degrees(resolution / extent))


def sampled_extent(sampling: str, diameter: float, thickness: float, steepest: float) -> float:
    """Extent, Å, that the tilts must sample: a particle's diameter, or t / cos of the slab's steepest tilt
    (degrees)."""
    return diameter if sampling == "particle" else thickness / float(np.cos(np.radians(steepest)))


def crowther_resolution(tilt_step: float, extent: float) -> float:
    """Spacing in Å below which the slices of a body of this extent (Å) part: the step in rad times the extent."""
    return float(np.radians(tilt_step) * extent)


def path_length(tilt_angle: np.ndarray, thickness: float, pretilt: float = 0.0) -> np.ndarray:
    """(tilt,) path through a slab, Å, whose normal is along the beam at `pretilt` (degrees)."""
    return thickness / np.cos(np.radians(tilt_angle - pretilt))


def filling_defocus_spread(resolution: float, voltage: float) -> float:
    """Spread of defocus, Å, that moves each CTF zero onto its neighbour from this spacing on: d² / λ."""
    return resolution**2 / electron_wavelength(voltage)


def delocalisation(resolution: float, defocus: float, voltage: float) -> float:
    """By how far, Å, defocus spreads the information of a spacing about its place: λ Δz k."""
    return electron_wavelength(voltage) * defocus / resolution
