"""Parameters of a simulated specimen: the target, the ice, and all that lies beside the target."""

from typing import Literal

from pydantic import Field

from tiltwise.data.units import Angstrom, Degree, SquareAngstrom
from tiltwise.params.base import Params


class TargetParams(Params):
    """The molecule that is looked for. Without a model file it is a procedural particle of this mass and symmetry."""

    site: Literal["ice", "membrane", "lattice"] = Field(
        "ice", description="Free in the ice, on the outside of membranes, or as a hexagonal lattice inside spheres."
    )
    number: int = Field(100, ge=0, description="Copies in the untilted field (sites ice and membrane).")
    mass: float = Field(2.3e6, ge=2e4, description="Mass of the procedural particle, Da.")
    diameter: Angstrom = Field(250.0, gt=30, description="Greatest diameter of the procedural particle.")
    width: Angstrom | None = Field(
        None, gt=30, description="Greatest diameter across the z axis, where it is less than the other."
    )
    symmetry: str = Field("C1", description="Point group of the procedural particle: C1, C6, D3, T, O, I.")
    b_factor: SquareAngstrom = Field(30.0, ge=0, description="B-factor of the procedural particle's atoms.")
    tilt_spread: Degree = Field(
        8.0, ge=0, description="Standard deviation of the particle's axis from the normal of its membrane."
    )
    anchor: Angstrom | None = Field(
        None, description="Height of the particle's centre above the middle of its membrane; touching it if not set."
    )
    gap: Angstrom = Field(20.0, ge=3, description="Least distance of its atoms from those of any other body.")
    surroundings: bool = Field(True, description="Copies also beside the field, where only tilted images see them.")
    seed: int = Field(0, ge=0, description="Seed of the procedural particle, the same for all series of a session.")


class IceParams(Params):
    """The slab of vitreous ice."""

    thickness: Angstrom = Field(1000.0, gt=0, description="Thickness along the normal.")
    incline: Degree = Field(0.0, ge=0, le=30, description="Angle of the slab's normal with the beam at zero tilt.")
    azimuth: Degree | None = Field(None, description="Direction in which the slab rises; drawn at random if not set.")
    bend: Angstrom | None = Field(
        None, description="Radius of curvature of the slab, positive with its rim towards +z."
    )
    margin: Angstrom = Field(20.0, ge=0, description="Least ice between an atom and the surface of the slab.")


class CrowdParams(Params):
    """Other molecules, all procedural, that fill the ice as in a cell."""

    fraction: float = Field(0.0, ge=0, le=0.4, description="Part of the slab's volume that they fill.")
    masses: tuple[float, ...] = Field((1e6, 4e5, 1.5e5), min_length=1, description="Their masses, Da; equal volumes.")
    gap: Angstrom = Field(3.0, ge=3, description="Least distance of atoms of different molecules.")
    detail: Angstrom = Field(
        5.0, ge=0, description="Atoms nearer together than this become one point: the crowd is not seen sharper."
    )


class MembraneParams(Params):
    """Lipid bilayers: spheres and flat sheets."""

    spheres: int = Field(0, ge=0, description="Number of spheres whose centre lies in the field.")
    radius_min: Angstrom = Field(400.0, ge=150, description="Smallest radius of the bilayer's middle.")
    radius_max: Angstrom = Field(700.0, ge=150, description="Largest radius of the bilayer's middle.")
    sheets: int = Field(0, ge=0, le=20, description="Number of flat sheets across the field.")
    sheet_tilt: Degree = Field(90.0, ge=0, le=90, description="Angle of a sheet's normal with the z axis.")


class LatticeParams(Params):
    """The hexagonal lattice of the target under the membrane of a sphere (site lattice)."""

    spacing: Angstrom = Field(75.0, gt=30, description="Distance of neighbouring particles.")
    depth: Angstrom = Field(100.0, gt=0, description="Of the lattice below the middle of the membrane.")
    coverage: float = Field(
        0.7, gt=0, le=1, description="Part of the sphere that the lattice covers; the rest is gaps."
    )
    defects: float = Field(0.03, ge=0, lt=1, description="Part of the lattice's sites that stand empty.")
    disorder: Angstrom = Field(1.5, ge=0, description="Standard deviation, per axis, of a particle from its site.")


class GoldParams(Params):
    """Gold beads near the surfaces of the ice."""

    number: int = Field(0, ge=0, description="Beads in the field.")
    diameter_min: Angstrom = Field(100.0, ge=50, le=200, description="Smallest diameter.")
    diameter_max: Angstrom = Field(100.0, ge=50, le=200, description="Largest diameter.")


class CarbonParams(Params):
    """The edge of the carbon film at the rim of the hole."""

    distance: Angstrom | None = Field(None, description="Of the edge from the field's centre; no carbon if not set.")
    azimuth: Degree | None = Field(None, description="Direction of the edge; drawn at random if not set.")
    thickness: Angstrom = Field(120.0, gt=0, description="Thickness of the film.")


class ContaminationParams(Params):
    """Lumps of ice that settled on the surfaces of the slab."""

    number: int = Field(0, ge=0, description="Lumps in the field.")
    diameter_min: Angstrom = Field(300.0, ge=100, description="Smallest diameter of a lump.")
    diameter_max: Angstrom = Field(800.0, ge=100, le=3000, description="Largest diameter of a lump.")


class SceneParams(Params):
    """All that lies in the ice."""

    target: TargetParams = TargetParams()
    ice: IceParams = IceParams()
    crowd: CrowdParams = CrowdParams()
    membranes: MembraneParams = MembraneParams()
    lattice: LatticeParams = LatticeParams()
    gold: GoldParams = GoldParams()
    carbon: CarbonParams = CarbonParams()
    contamination: ContaminationParams = ContaminationParams()
