"""Parameters of the simulated microscope session: specimen, scheme, optics, detector and the errors a microscope
makes."""

from typing import Literal

from pydantic import Field

from tiltwise.data.units import Angstrom, Degree, Exposure, Kilovolt, Millimetre, SquareAngstrom
from tiltwise.params.base import Params


class SpecimenParams(Params):
    """A slab of ice with molecules in it."""

    thickness: Angstrom = Field(650.0, gt=0, description="Thickness of the ice.")
    particles: int = Field(40, ge=1, description="Particles whose centre lies in the untilted field of view.")
    margin: Angstrom = Field(30.0, ge=0, description="Least ice between a molecule and another one or the surface.")
    surroundings: bool = Field(True, description="Particles also beside the field, where only tilted images see them.")
    molecular_weight: float = Field(2.5e6, gt=1e5, description="Mass of the procedural molecule, Da.")
    diameter: Angstrom = Field(240.0, gt=50, description="Greatest diameter of the procedural molecule.")
    b_factor: SquareAngstrom = Field(40.0, ge=0, description="B-factor of the procedural molecule's atoms.")


class ErrorParams(Params):
    """How far the microscope's true state strays from what it writes down."""

    shift_step: Angstrom = Field(8.0, ge=0, description="Standard deviation, per axis, of the stage's random walk.")
    tilt_angle: Degree = Field(0.1, ge=0, description="Standard deviation of the tilt angle.")
    tilt_axis_angle: Degree = Field(1.5, ge=0, description="Half-range of the constant error of the tilt axis.")
    tilt_axis_jitter: Degree = Field(0.05, ge=0, description="Standard deviation of the tilt axis from tilt to tilt.")
    defocus: Angstrom = Field(200.0, ge=0, description="Standard deviation of the defocus from tilt to tilt.")
    astigmatism: Angstrom = Field(400.0, ge=0, description="Largest defocus_u - defocus_v of a series.")


class SimulateParams(Params):
    """Tilt series of a specimen whose every number is known."""

    pixel_size: Angstrom = Field(4.0, gt=0, description="Pixel size of the images written.")
    image_size: int = Field(512, ge=64, le=8192, description="Side of the square images, px; even.", multiple_of=2)
    tilt_max: Degree = Field(60.0, gt=0, le=80, description="Largest tilt angle, to both sides.")
    tilt_step: Degree = Field(3.0, gt=0, le=30, description="Step of the tilt angle, dose-symmetric from zero.")
    exposure: Exposure = Field(3.0, gt=0, description="Exposure of each tilt image.")
    defocus_min: Angstrom = Field(20000.0, gt=0, description="Smallest target defocus of a series.")
    defocus_max: Angstrom = Field(35000.0, gt=0, description="Largest target defocus of a series.")
    nominal_tilt_axis_angle: Degree = Field(85.0, ge=-360, le=360, description="Tilt axis as the microscope states it.")
    voltage: Kilovolt = Field(300.0, gt=0, description="Acceleration voltage.")
    spherical_aberration: Millimetre = Field(2.7, ge=0, description="Spherical aberration Cs.")
    amplitude_contrast: float = Field(0.07, ge=0, le=1, description="Fraction of amplitude contrast.")
    mean_free_path: Angstrom = Field(3500.0, gt=0, description="Path in ice after which 1/e of the electrons is left.")
    motion_b_factor: SquareAngstrom = Field(
        250.0, ge=0, description="B-factor by which motion within each image and partial coherence blur it."
    )
    handedness: Literal[-1, 1] | None = Field(None, description="Hand of defocus with depth; by the seed if not set.")
    specimen: SpecimenParams = SpecimenParams()
    errors: ErrorParams = ErrorParams()
    seed: int = Field(0, ge=0, description="Seed of everything random.")
