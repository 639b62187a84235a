"""What lies in the ice: populations of rigid bodies made of points, the slab of ice, and the film that carries it."""

from dataclasses import dataclass

import numpy as np
from scipy.spatial.transform import Rotation

from tiltwise.simulate.potential import Scatterer


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Field:
    """What a tilt series sees: a square about the specimen's centre, and what tilting brings into view."""

    side: float
    """Side of the image, Å."""
    tilt_axis_angle: float
    """Of the tilt axis in the image, degrees; the square lies turned by its opposite in the specimen."""
    tilt_max: float
    """Largest tilt angle to either side, degrees."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Population:
    """Copies of one body: the target, another molecule, a gold bead, a piece of membrane, a lump of ice."""

    name: str
    """What it is: target, crowd, gold, membrane, contamination ..."""
    scatterer: Scatterer
    """The body's points and form factors."""
    position: np.ndarray
    """(particle, 3) centres from the specimen's centre, Å."""
    rotation: Rotation
    """(particle,) body to specimen."""
    half_extent: float
    """Greatest distance of a point from the body's centre, Å."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class IceSlab:
    """A layer of vitreous ice about the surface z = x tan(incline_x) + y tan(incline_y) + (x² + y²) curvature / 2."""

    thickness: float
    """Along the normal, Å."""
    incline: tuple[float, float]
    """Slopes of the middle surface along x and y as angles, degrees."""
    curvature: float
    """1/Å; positive bends the rim towards +z."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class CarbonFilm:
    """Amorphous carbon wherever x cos(azimuth) + y sin(azimuth) > distance in the specimen plane."""

    azimuth: float
    """Direction from the centre to the nearest point of the edge, degrees."""
    distance: float
    """Of the edge from the centre, Å."""
    thickness: float
    """Å."""
    height: float
    """Of its middle plane above the slab's middle, along z, Å."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Scene:
    """The whole specimen."""

    populations: tuple[Population, ...]
    """The first is the target within the field; the second, where present, the target beside the field."""
    ice: IceSlab
    """The slab."""
    film: CarbonFilm | None
    """None where no carbon is in sight."""
