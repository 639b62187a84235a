"""Parameters of particle picking."""

from typing import Literal

from pydantic import Field

from tiltwise.data.units import Angstrom, Degree
from tiltwise.params.base import Params


class PickParams(Params):
    """Find particles in a tomogram, by template matching, or on spheres, filaments, tubes and membranes."""

    method: Literal["template", "spheres", "filaments", "tubes", "membranes"] = Field(
        "template", description="How particles are found; filaments, tubes and membranes are read from [inputs] shapes."
    )
    particle_diameter: Angstrom = Field(
        250.0,
        gt=0,
        description="Diameter of the particle; two picks are never closer than half of it (method template).",
    )
    angular_step: Degree = Field(
        15.0, gt=0, le=90, description="Step of the rotations of the template; sets the finest spacing used as well."
    )
    symmetry: str = Field("C1", description="Point group of the template: C1, C6, D2, T, O, I ...")
    max_particles: int | None = Field(None, ge=1, description="Most particles kept per tomogram; no limit if not set.")
    false_discovery_rate: float = Field(
        0.05, gt=0, lt=1, description="Part of the picks that decoy templates let expect to be false (method template)."
    )
    radius_min: Angstrom = Field(300.0, gt=0, description="Smallest sphere searched (method spheres).")
    radius_max: Angstrom = Field(600.0, gt=0, description="Largest sphere searched (method spheres).")
    surface_spacing: Angstrom = Field(
        45.0, gt=0, description="Distance of neighbouring points on a surface, or of subunits along a filament."
    )
    twist: Degree | None = Field(
        None, ge=-360, le=360, description="Turn from one subunit to the next; at random if not set (method filaments)."
    )
    tube_radius: Angstrom = Field(110.0, gt=0, description="Radius of the tube's surface (method tubes).")
    seed: int = Field(0, ge=0, description="Seed of decoy templates and of the turns about the normals.")
