"""Parameters of the alignment of a tilt series."""

from typing import Literal

from pydantic import Field

from tiltwise.data.units import Angstrom, Degree
from tiltwise.params.base import Params


class AlignParams(Params):
    """Align the images of a tilt series: shifts and tilt axis, from gold beads where they serve."""

    method: Literal["auto", "projection", "patches", "beads"] = Field(
        "auto",
        description="Match projections only, fit to patches as well, to gold beads as well, or what serves best.",
    )
    resolution: Angstrom | None = Field(
        None,
        gt=0,
        description="Finest spacing used; 30 Å, four pixels or 1/200 of the field, the coarsest, if not set.",
    )
    tilt_axis_angle: Degree | None = Field(
        None, ge=-360, le=360, description="Prior for the tilt axis; from the metadata if not set."
    )
    tilt_axis_range: Degree = Field(
        5.0, ge=0, le=90, description="Half-width of the first tilt-axis search around its prior; 0 holds the axis."
    )
    tilt_axis_median: Degree | None = Field(
        None,
        ge=-360,
        le=360,
        description="Median of the data set: the axis where a series alone gives another, unless its images insist; "
        "found by the run if not set.",
    )
    thickness: Angstrom = Field(2000.0, gt=0, description="Thickness of the volume used for projection matching.")
    iterations: int = Field(3, ge=1, le=50, description="Rounds of projection matching at each resolution.")
    deformation: bool = Field(
        True, description="Fit a smooth deformation of specimen and images to the tracks; kept where it proves itself."
    )
    level_specimen: bool = Field(True, description="Turn the tomogram so that the slab of the specimen is level in it.")
