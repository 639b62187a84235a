"""Parameters of the defocus estimation."""

from pydantic import Field

from tiltwise.data.units import Angstrom
from tiltwise.params.base import Params


class DefocusParams(Params):
    """Fit the contrast transfer function of a whole tilt series at once."""

    defocus_min: Angstrom = Field(5000.0, gt=0, description="Smallest defocus searched.")
    defocus_max: Angstrom = Field(80000.0, gt=0, description="Largest defocus searched.")
    resolution_low: Angstrom = Field(30.0, gt=0, description="Coarsest spacing fitted.")
    resolution_high: Angstrom | None = Field(
        None, gt=0, description="Finest spacing fitted; from the pixel size if not set."
    )
    fit_phase_shift: bool = Field(False, description="Fit a phase shift of the series, as a phase plate makes it.")
    patch_size: Angstrom | None = Field(None, gt=0, description="Side of a patch; from the image size if not set.")
