"""Parameters of the post-processing of half maps."""

from pydantic import Field

from tiltwise.data.units import SquareAngstrom
from tiltwise.params.base import Params


class PostprocessParams(Params):
    """Mask, measure and sharpen the average of two half maps."""

    b_factor: SquareAngstrom | None = Field(None, description="Sharpening B-factor, negative sharpens; fitted if not set.")
    seed: int = Field(0, ge=0, description="Seed of the phase randomisation.")
