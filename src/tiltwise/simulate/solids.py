"""Bodies that are no molecules: gold beads and lumps of ice, as points that fill a volume evenly.

Points stand on a cubic lattice in random register, each blurred by a Gaussian wide enough that the lattice is not seen:
its first reflection is damped by exp(-2π² 0.6²) = 8e-4. So a bead has no gold lattice and a lump no ice crystals.
"""

import math

import gemmi
import numpy as np

from tiltwise.simulate.potential import ICE_POTENTIAL, POTENTIAL_OF_FORM_FACTOR, Scatterer

_BLUR = 0.6  # sd of a point's Gaussian, in units of the spacing
_GOLD_DENSITY = 19.3  # g/cm3
_DALTON_PER_A3 = 1.66053907  # g/cm3 that one Da per Å3 makes
_GOLD_SPACING, _ICE_SPACING = 4.0, 16.0  # Å


def gold_potential() -> float:
    """Mean potential of gold, V: K f(0) times atoms per Å3. With f of Peng (10.57 Å) and 19.3 g/cm3 it is 29.9 V.

    Isolated atoms are an upper bound; what a bead adds is this less the 4.53 V of the ice that it displaces.
    """
    gold = gemmi.Element("Au")
    coefficients = gold.c4322.get_coefs()
    number_density = _GOLD_DENSITY / (_DALTON_PER_A3 * gold.weight)
    return POTENTIAL_OF_FORM_FACTOR * sum(coefficients[: len(coefficients) // 2]) * number_density


def gold_bead(diameter: float, rng: np.random.Generator) -> Scatterer:
    """A gold sphere in ice; its edge is as soft as the points' Gaussian, 2.4 Å."""
    points = _fill_ball(diameter / 2, _GOLD_SPACING, rng)
    volume = math.pi / 6 * diameter**3 / len(points)
    return even_scatterer(points, gold_potential() * volume, volume, _GOLD_SPACING)


def ice_lump(diameter: float, rng: np.random.Generator) -> Scatterer:
    """A lump of ice in vacuum: it displaces nothing. A union of three to five balls in a ball of this diameter.

    Hexagonal ice is as dense as amorphous ice to 1 %, and has its potential.
    """
    radius = diameter / 2
    size = radius * rng.uniform(0.4, 0.65, rng.integers(3, 6))
    direction = rng.normal(size=(len(size), 3))
    centre = direction / np.linalg.norm(direction, axis=1, keepdims=True) * (radius - size)[:, None]
    points = _fill_ball(radius, _ICE_SPACING, rng)
    points = points[(np.linalg.norm(points[:, None] - centre, axis=-1) < size).any(axis=1)]
    return even_scatterer(points, ICE_POTENTIAL * _ICE_SPACING**3, 0.0, _ICE_SPACING)


def even_scatterer(points: np.ndarray, potential: np.ndarray | float, displaced: float, spacing: float) -> Scatterer:
    """Points (point, 3) about `spacing` Å apart, each of `potential` V Å3, displacing `displaced` Å3 of ice.

    All have one Gaussian of sd 0.6 spacing, wide enough that the points merge.
    """
    sd = _BLUR * spacing
    weight = np.empty((len(points), 2), np.float32)
    weight[:, 0], weight[:, 1] = potential, ICE_POTENTIAL * displaced
    return Scatterer(
        position=points.astype(np.float32),
        weight=weight,
        scattering_gaussians=np.array([[1.0, 8 * math.pi**2 * sd**2]]),
        displaced_volume=(2 * math.pi * sd**2) ** 1.5,  # sets the width of the ice's Gaussian, the same sd
    )


def _fill_ball(radius: float, spacing: float, rng: np.random.Generator) -> np.ndarray:
    """(point, 3) points of a cubic lattice, its origin drawn, within a ball."""
    steps = np.arange(-math.ceil(radius / spacing) - 1, math.ceil(radius / spacing) + 2) * spacing
    points = np.stack(np.meshgrid(steps, steps, steps), axis=-1).reshape(-1, 3) + rng.uniform(-0.5, 0.5, 3) * spacing
    return points[np.linalg.norm(points, axis=1) <= radius]
