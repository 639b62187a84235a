"""Parameters of the microscope: optics, scheme, camera, and how far its true state strays from what it writes down."""

from typing import Literal

from pydantic import Field, model_validator

from tiltwise.data.units import (
    Angstrom,
    Degree,
    Electronvolt,
    Exposure,
    Kilovolt,
    Millimetre,
    Milliradian,
    SquareAngstrom,
)
from tiltwise.params.base import Params
from tiltwise.params.simulate import ErrorParams


class LensParams(Params):
    """The electron beam, the lens and the energy filter."""

    voltage: Literal[100, 200, 300] = Field(300, description="Acceleration voltage, kV.")
    spherical_aberration: Millimetre = Field(2.7, ge=0, le=10, description="Spherical aberration Cs.")
    chromatic_aberration: Millimetre = Field(2.7, ge=0, le=10, description="Chromatic aberration Cc.")
    energy_spread: Electronvolt = Field(0.3, ge=0, le=10, description="Standard deviation of the electrons' energy.")
    convergence: Milliradian = Field(0.01, ge=0, le=1, description="Half-angle of the illumination.")
    amplitude_contrast: float = Field(0.07, ge=0, le=1, description="Fraction of amplitude contrast.")
    phase_shift: Degree = Field(0.0, ge=0, le=180, description="Phase shift of a phase plate.")
    beam_tilt_x: Milliradian = Field(0.0, ge=-10, le=10, description="Tilt of the beam along image x.")
    beam_tilt_y: Milliradian = Field(0.0, ge=-10, le=10, description="Tilt of the beam along image y.")
    mean_free_path: Angstrom = Field(3500.0, gt=0, description="Path in ice after which 1/e of the electrons is left.")
    carbon_mean_free_path: Angstrom = Field(1600.0, gt=0, description="The same in amorphous carbon.")
    handedness: Literal[-1, 1] | None = Field(None, description="Hand of defocus with depth; by the seed if not set.")


class SchemeParams(Params):
    """Which tilts are taken, in which order, at which exposure and defocus."""

    order: Literal["dose_symmetric", "bidirectional", "unidirectional"] = Field(
        "dose_symmetric", description="Order of the tilts."
    )
    tilt_max: Degree = Field(60.0, ge=0, le=75, description="Largest tilt angle, to both sides.")
    tilt_step: Degree = Field(3.0, gt=0, le=30, description="Step of the tilt angle.")
    exposure: Exposure = Field(3.0, gt=0, le=300, description="Exposure of each tilt image.")
    frames: int = Field(8, ge=1, le=200, description="Frames of each tilt's movie.")
    defocus_min: Angstrom = Field(25000.0, gt=0, description="Smallest target defocus of a series.")
    defocus_max: Angstrom = Field(40000.0, gt=0, description="Largest target defocus of a series.")
    nominal_tilt_axis_angle: Degree = Field(85.0, ge=-360, le=360, description="Tilt axis as the microscope states it.")


class CameraParams(Params):
    """A counting camera. DQE and MTF are polynomials in frequency over Nyquist of the physical pixel."""

    pixel_size: Angstrom = Field(2.1, gt=0.2, le=50, description="Pixel size of the images written.")
    image_size: int = Field(4096, ge=64, le=8192, multiple_of=2, description="Side of the square images, px; even.")
    binning: Literal[1, 2] = Field(1, description="Physical pixels to one of the images, along each side.")
    dqe: tuple[float, float, float] = Field((0.90, -0.25, -0.25), description="Coefficients of 1, x, x² of the DQE.")
    mtf: tuple[float, float, float] = Field((1.0, -0.08, -0.28), description="Coefficients of 1, x, x² of the MTF.")
    gain_spread: float = Field(0.05, ge=0, le=0.3, description="Relative spread of the pixels' gain in raw movies.")
    dead_pixels: float = Field(1e-5, ge=0, le=0.01, description="Fraction of pixels that see nothing in raw movies.")

    @model_validator(mode="after")
    def _efficient(self) -> "CameraParams":
        if min(self.dqe[0], sum(self.dqe)) <= 0 or self.dqe[0] > 1:
            raise ValueError("the DQE must lie between 0 and 1 up to Nyquist")
        return self


class MotionParams(Params):
    """What moves while a tilt is exposed, and over the series."""

    burst: float = Field(0.15, ge=0, le=2, description="Drift of each tilt, relative to a first untilted exposure.")
    local: Angstrom = Field(3.0, ge=0, description="Local motion at the edge of the field during a tilt.")
    deformation: Angstrom = Field(20.0, ge=0, description="Deformation at the edge of the field over the series.")
    cubic_deformation: Angstrom = Field(0.0, ge=0, description="The same of a part of third order in x, y, z.")
    warp: Angstrom = Field(0.0, ge=0, description="Standard deviation of a smooth warp of each image.")
    magnification: float = Field(1e-4, ge=0, le=0.01, description="Standard deviation of a tilt's magnification.")
    b_factor: SquareAngstrom = Field(30.0, ge=0, description="B-factor of what blurs each frame besides.")


class FaultParams(Params):
    """What goes wrong in a session."""

    dark: int = Field(0, ge=0, description="Tilts taken with the beam all but blanked.")
    blocked: int = Field(0, ge=0, description="Tilts, from the highest on, of which a grid bar hides a part.")
    missing: int = Field(0, ge=0, description="Tilts that were never taken.")


class MicroscopeParams(Params):
    """All of a session but the specimen."""

    lens: LensParams = LensParams()
    scheme: SchemeParams = SchemeParams()
    camera: CameraParams = CameraParams()
    errors: ErrorParams = ErrorParams()
    motion: MotionParams = MotionParams()
    faults: FaultParams = FaultParams()

    @property
    def voltage(self) -> Kilovolt:
        """Acceleration voltage, kV."""
        return float(self.lens.voltage)
