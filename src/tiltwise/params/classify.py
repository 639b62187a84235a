"""Parameters of the classification of particles in three dimensions."""

from pydantic import Field

from tiltwise.data.units import Angstrom
from tiltwise.params.base import Params


class ClassifyParams(Params):
    """Sort particles into classes of different structure by the likelihood of their images; no reference is needed."""

    classes: int = Field(2, ge=1, le=50, description="Number of classes.")
    box_size: int | None = Field(
        None, ge=16, le=1024, description="Box, px of the tilt images; from the diameter if not set."
    )
    particle_diameter: Angstrom = Field(250.0, gt=0, description="Diameter of the spherical mask.")
    symmetry: str = Field("C1", description="Point group imposed on every class: C1, C6, D2, T, O, I ...")
    resolution: Angstrom | None = Field(
        None, gt=0, description="Finest spacing that tells classes apart; a twelfth of the diameter if not set."
    )
    align: bool = Field(False, description="Refine the pose of every particle for each class.")
    starts: int = Field(4, ge=1, le=100, description="Random starts of each half, of which the most likely is kept.")
    iterations: int = Field(25, ge=1, le=500, description="Rounds of averaging and assignment at most.")
    seed: int = Field(0, ge=0, description="Seed of the random starts.")
