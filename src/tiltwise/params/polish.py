"""Parameters of the refinement of geometry, CTF and poses on particles."""

from pydantic import Field

from tiltwise.data.units import Angstrom
from tiltwise.params.base import Params
from tiltwise.params.weighting import ExposureWeighting


class PolishParams(Params):
    """Refine tilt geometry, deformation, defocus and poses on the particles; what does not hold is undone."""

    box_size: int | None = Field(
        None, ge=16, le=1024, description="Box, px of the tilt images; from the diameter if not set."
    )
    particle_diameter: Angstrom = Field(250.0, gt=0, description="Diameter of the spherical mask.")
    symmetry: str = Field("C1", description="Point group imposed: C1, C6, D2, T, O, I ...")
    cycles: int = Field(5, ge=1, le=50, description="Rounds of poses, geometry, defocus and average at most.")
    refine_tilts: bool = Field(
        True, description="Refine shift, axis angle, tilt angle and magnification of every tilt."
    )
    refine_deformation: bool = Field(
        True,
        description="Refine a smooth deformation of the specimen over the exposure, and a smooth warp of each image.",
    )
    refine_defocus: bool = Field(True, description="Refine the defocus of every tilt, and the astigmatism.")
    exposure_weighting: ExposureWeighting = "critical"
    search_shift: Angstrom = Field(
        15.0, ge=0, description="Farthest that a particle may move from its starting position."
    )
