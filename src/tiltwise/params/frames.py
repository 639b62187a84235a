"""Parameters of the refinement of movie frames on particles."""

from pydantic import Field

from tiltwise.data.units import Angstrom
from tiltwise.params.base import Params


class FramesParams(Params):
    """Refine the motion of movie frames on the particles, weight frames by their signal, and sum them anew."""

    particle_diameter: Angstrom = Field(250.0, gt=0, description="Diameter of the spherical mask of the reference.")
    refine_motion: bool = Field(True, description="Refine how each frame is shifted.")
    refine_weights: bool = Field(True, description="Weight frames by what they show of the particles.")
    shift_step: Angstrom = Field(
        1.0,
        gt=0,
        description="How far a frame may be shifted against the one before it (standard deviation of the prior, which "
        "is tried at a third of it too); what motion correction leaves is 0.05 to 3 Å.",
    )
    field_step: Angstrom = Field(
        0.3, gt=0, description="The same of shifts linear and quadratic in the position, at the edge of the image."
    )
