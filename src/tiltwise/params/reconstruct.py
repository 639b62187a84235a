"""Parameters of the tomogram reconstruction."""

from typing import Literal

from pydantic import Field

from tiltwise.data.units import Angstrom
from tiltwise.params.base import Params


class ReconstructParams(Params):
    """Reconstruct a tomogram by weighted back projection."""

    voxel_size: Angstrom | None = Field(
        None, gt=0, description="Voxel size; the smallest multiple of the pixel size not below 10 Å if not set."
    )
    thickness: Angstrom = Field(3000.0, gt=0, description="Extent of the tomogram along z.")
    ctf_correction: Literal["none", "phase_flip"] = Field(
        "phase_flip",
        description="Correction of the contrast transfer function by depth and position, where it is known.",
    )
    exposure_weighting: bool = Field(True, description="Weight each image by the critical-exposure curve.")
