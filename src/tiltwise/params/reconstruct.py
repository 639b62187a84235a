"""Parameters of the tomogram reconstruction."""

from typing import Literal

from pydantic import Field, model_validator

from tiltwise.data.units import Angstrom, Gigabyte
from tiltwise.params.base import Params


class IterativeParams(Params):
    """Least squares on the projection pair: methods cg and sirt."""

    iterations: int = Field(10, ge=1, le=500, description="Steps of the method; fewer are smoother and less noisy.")
    positivity: bool = Field(
        False, description="Keep the density at or above that of the background after each step (sirt)."
    )
    total_variation: float = Field(
        0.0,
        ge=0,
        le=1,
        description="Flatten after each step by this part of the density's standard deviation (sirt); 0 does not.",
    )


class ReconstructParams(Params):
    """Reconstruct a tomogram from the aligned tilt images."""

    voxel_size: Angstrom | None = Field(
        None, gt=0, description="Voxel size; the smallest multiple of the pixel size not below 10 Å if not set."
    )
    thickness: Angstrom | None = Field(
        None,
        gt=0,
        description="Extent of the tomogram along z; the specimen found by align with a margin, or 3000 Å if not set.",
    )
    method: Literal["wbp", "cg", "sirt"] = Field(
        "wbp", description="Weighted back projection, or least squares by conjugate gradients or simultaneous steps."
    )
    ctf_correction: Literal["none", "phase_flip", "wiener"] = Field(
        "phase_flip",
        description="Correction of the contrast transfer function by depth and position, where it is known.",
    )
    noise_to_signal: float = Field(
        0.1, gt=0, description="Noise power over signal power of one image, the constant of the Wiener correction."
    )
    exposure_weighting: bool = Field(True, description="Weight each image by the critical-exposure curve.")
    erase_beads: bool = Field(
        False, description="Fill the places of gold beads that align followed with what is around them."
    )
    half_tomograms: bool = Field(
        False,
        description="Also give the tomograms of the odd and of the even frames, or tilts where there are no frames.",
    )
    output: Literal["float32", "float16", "int8"] = Field(
        "float32", description="Numbers in the files; the step of int8 is stated in the record."
    )
    ome_zarr: bool = Field(False, description="Also write the tomogram as OME-Zarr, with smaller copies for viewing.")
    memory_GB: Gigabyte | None = Field(
        None, gt=0, description="Memory to stay within; the work is cut into slabs of rows. No bound if not set."
    )
    iterative: IterativeParams = Field(default_factory=IterativeParams, description="Of the methods cg and sirt.")

    @model_validator(mode="after")
    def _options_fit_the_method(self) -> "ReconstructParams":
        given = self.iterative.positivity or self.iterative.total_variation > 0
        if given and self.method != "sirt":
            raise ValueError(f"positivity and total_variation need method sirt, not {self.method}")
        if self.method != "wbp" and self.ctf_correction == "wiener":
            raise ValueError("the Wiener correction is a weight of back projection; with cg or sirt use phase_flip")
        return self
