"""Parameters of the refinement of particle poses."""

from pydantic import Field

from tiltwise.data.units import Angstrom, Degree
from tiltwise.params.base import Params
from tiltwise.params.weighting import ExposureWeighting

WIDEST_CONE = 60.0
"""Degrees; where more is searched, nothing is taken to be known of the starting directions."""


class RefineParams(Params):
    """Align particles against the tilt images and average them, in two independent halves."""

    box_size: int | None = Field(
        None, ge=16, le=1024, description="Box, px of the tilt images; from the diameter if not set."
    )
    particle_diameter: Angstrom = Field(250.0, gt=0, description="Diameter of the spherical mask.")
    symmetry: str = Field(
        "C1",
        description="Symmetry imposed: C1, C6, D2, T, O, I ..., H(rise Å,twist °,units) of a helix about z, or find: "
        "C1 until the average itself shows a Cn about an axis near z, then that.",
    )
    reference_lowpass: Angstrom = Field(40.0, gt=0, description="Low-pass of the first reference of each half.")
    iterations: int = Field(6, ge=1, le=50, description="Rounds of alignment and averaging at most.")
    search_cone: Degree = Field(
        180.0,
        ge=0,
        le=180,
        description="Half-angle of the cone of directions searched around the starting pose; 180 is a global search.",
    )
    search_shift: Angstrom = Field(20.0, ge=0, description="Largest shift searched from the starting position.")
    duplicate_distance: Angstrom | None = Field(
        None, ge=0, description="Particles closer than this are one; half the diameter if not set."
    )
    least_amplitude: float = Field(
        0.6,
        ge=0,
        le=1,
        description="Particles that hold less than this part of the reference's amplitude are left out; 0 keeps all.",
    )
    refine_tilt_shifts: bool = Field(True, description="Refine the shift of every tilt image from the particles.")
    exposure_weighting: ExposureWeighting = "critical"
    seed: int = Field(0, ge=0, description="Seed of everything random.")

    @property
    def directions_given(self) -> bool:
        """Whether the starting directions are known, such as normals of a surface."""
        return self.search_cone <= WIDEST_CONE
