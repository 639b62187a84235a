"""Parameters of the refinement of geometry, CTF and poses on particles."""

from typing import Literal

from pydantic import Field

from tiltwise.data.units import Angstrom
from tiltwise.params.base import Params
from tiltwise.params.weighting import ExposureWeighting

GeometryBlock = Literal["shift", "angles", "magnification", "sample", "warp"]
"""What of the geometry is fitted at once: see docs/explanation/polish.md."""


class SpeciesParams(Params):
    """One of several kinds of particles, where it differs from what the step says of all."""

    name: str = Field(..., description="As the step's inputs name it.")
    box_size: int | None = Field(None, ge=16, le=1024, description="Box, px of the tilt images.")
    particle_diameter: Angstrom | None = Field(None, gt=0, description="Diameter of the spherical mask.")
    symmetry: str | None = Field(None, description="Point group imposed.")


class PolishParams(Params):
    """Refine tilt geometry, deformation, defocus and poses on the particles; what does not hold is undone."""

    box_size: int | None = Field(
        None, ge=16, le=1024, description="Box, px of the tilt images; from the diameter if not set."
    )
    particle_diameter: Angstrom = Field(250.0, gt=0, description="Diameter of the spherical mask.")
    symmetry: str = Field("C1", description="Point group imposed: C1, C6, D2, T, O, I ...")
    species: tuple[SpeciesParams, ...] = Field(
        (), description="Where the step takes several kinds of particles: name and what is other for that kind."
    )
    cycles: int = Field(12, ge=1, le=50, description="Rounds of poses, geometry, defocus and average at most.")
    refine_tilts: bool = Field(
        True, description="Refine shift, axis angle, tilt angle and magnification of every tilt."
    )
    refine_deformation: bool = Field(
        True,
        description="Refine a smooth deformation of the specimen over the exposure, and a smooth warp of each image.",
    )
    blocks: tuple[GeometryBlock, ...] = Field(
        ("shift", "angles", "magnification", "sample", "warp"),
        description="Parts of the geometry to try, of those that the two switches above ask for.",
    )
    refine_defocus: bool = Field(True, description="Refine the defocus of every tilt, and the astigmatism.")
    refine_trajectories: bool = Field(
        False, description="Refine a smooth path of every particle over the exposure, beside what all share."
    )
    exposure_weighting: ExposureWeighting = "critical"
    search_shift: Angstrom = Field(
        15.0,
        ge=0,
        description="Farthest that a particle may move from where it starts, beside what the geometry moves it.",
    )

    def of_kind(self, name: str) -> SpeciesParams:
        """What holds for the kind of particles of this name."""
        own = next((entry for entry in self.species if entry.name == name), SpeciesParams(name=name))
        return SpeciesParams(
            name=name,
            box_size=own.box_size or self.box_size,
            particle_diameter=own.particle_diameter or self.particle_diameter,
            symmetry=own.symmetry or self.symmetry,
        )
