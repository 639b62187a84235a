"""Parameters of the post-processing of half maps."""

from pydantic import Field

from tiltwise.data.units import Angstrom, SquareAngstrom
from tiltwise.params.base import Params


class PostprocessParams(Params):
    """Mask, measure and sharpen the average of two half maps."""

    b_factor: SquareAngstrom | None = Field(
        None, description="Sharpening B-factor, negative sharpens; fitted if not set."
    )
    mask_resolution: Angstrom | None = Field(
        None, gt=0, description="Low-pass of the map from which the mask is made; from the unmasked FSC if not set."
    )
    mask_grow: Angstrom | None = Field(
        None, ge=0, description="Width by which the mask's core is grown; a quarter of mask_resolution if not set."
    )
    mask_edge: Angstrom | None = Field(
        None,
        ge=0,
        description="Width of the mask's cosine edge; half of mask_resolution, at least 5 voxels, if not set.",
    )
    local_resolution: bool = Field(True, description="Also write a map of the local resolution.")
    seed: int = Field(0, ge=0, description="Seed of the phase randomisation.")
