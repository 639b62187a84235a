"""How the images of one particle are weighed against each other: a parameter that several steps have."""

from typing import Annotated, Literal

from pydantic import Field

ExposureWeighting = Annotated[
    Literal["none", "critical", "published", "measured"],
    Field(
        description="Signal left by each exposure: alike for all, the critical-exposure curve, the published formula "
        "from one score of each exposure, or measured shell by shell."
    ),
]
