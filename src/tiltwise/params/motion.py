"""Parameters of the motion correction of movies."""

from typing import Literal

from pydantic import Field

from tiltwise.data.units import Angstrom, Exposure
from tiltwise.params.base import Params


class MotionParams(Params):
    """Correct the motion from frame to frame of each tilt's movie, and sum the frames."""

    model: Literal["local", "whole", "none"] = Field(
        "local", description="Motion that is looked for; what does not stand the test is not applied."
    )
    resolution: Angstrom | None = Field(
        None, gt=0, description="Finest spacing used by the fit; 8 Å or three pixels, the coarser, if not set."
    )
    patch_size: Angstrom = Field(1000.0, gt=50, description="Side of the patches that the fit compares.")
    controls: int = Field(4, ge=4, le=12, description="Control values of the local field along each side.")
    controls_exposure: int = Field(5, ge=4, le=20, description="Control values of the local field over the frames.")
    largest_shift: Angstrom = Field(
        100.0, gt=0, description="Farthest shift of a frame from the mean that is searched."
    )
    exposure_weighting: bool = Field(
        False, description="Weight frames by what exposure leaves of the signal; else their sum is plain."
    )
    gain_orientation: int | None = Field(
        None,
        ge=0,
        le=7,
        description="How the gain reference lies: quarter turns, plus 4 if mirrored in x; found if not set.",
    )
    frame_exposure: Exposure = Field(
        0.4, gt=0, description="Exposure of each frame where the movie lists electrons (EER)."
    )
    eer_sampling: Literal[1, 2, 4] = Field(
        1, description="Samples for each pixel of the camera along a side where the movie lists electrons (EER)."
    )
    binning: int = Field(
        1, ge=1, le=8, description="Pixels of the sums are this many of the frames wide (2 for super-resolution)."
    )
    defects: bool = Field(True, description="Find and replace hot and dead pixels, beside those of a defect map.")
