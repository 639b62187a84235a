"""Parameters of a planned session: scheme, target, specimen, optics, and the errors that are expected."""

from typing import Literal, Self

from pydantic import Field, model_validator

from tiltwise.data.units import (
    Angstrom,
    CubicAngstrom,
    Dalton,
    Degree,
    Exposure,
    Kilovolt,
    Millimetre,
    Second,
    SquareAngstrom,
)
from tiltwise.params.base import Params

Scheme = Literal["unidirectional", "bidirectional", "dose_symmetric", "continuous"]
_VOLTAGES = (100.0, 200.0, 300.0)  # kV for which the critical exposure is known


class TiltingParams(Params):
    """Which angles, and in which order."""

    scheme: Scheme = Field("dose_symmetric", description="Order in which the angles are taken.")
    tilt_min: Degree = Field(-60.0, gt=-90, lt=90, description="Least tilt angle.")
    tilt_max: Degree = Field(60.0, gt=-90, lt=90, description="Largest tilt angle.")
    tilt_step: Degree = Field(3.0, gt=0, le=30, description="Step of the tilt angle.")
    start_tilt: Degree = Field(
        0.0, description="First angle of bidirectional and dose-symmetric schemes: the pretilt of a lamella."
    )
    first_direction: Literal[-1, 1] = Field(1, description="Side of the start that is taken first.")
    group_size: int = Field(1, ge=1, le=40, description="Dose-symmetric: images taken on one side before the other.")
    group_growth: int = Field(0, ge=0, le=40, description="Dose-symmetric: images by which groups grow.")
    growth_angle: Degree = Field(30.0, ge=0, description="Distance from the start from which groups grow.")
    growth_interval: Degree = Field(0.0, ge=0, description="They grow again after each such interval; 0: only once.")
    switch_angle: Degree | None = Field(
        None, gt=0, description="Dose-symmetric: distance from the start beyond which the sides no longer alternate."
    )
    exposure_power: float = Field(0.0, ge=0, le=2, description="Exposure goes as 1 / cosᵖ of the tilt; 0: constant.")


class TargetParams(Params):
    """The molecule that is wanted, and how well."""

    molecular_weight: Dalton = Field(2.5e6, ge=1e4, description="Mass of the whole assembly.")
    diameter: Angstrom = Field(250.0, ge=20, description="Its greatest diameter.")
    composition: Literal["protein", "ribonucleoprotein"] = Field(
        "protein", description="Sets scattering power and density."
    )
    symmetry: str = Field(
        "C1", pattern=r"^\s*([CcDd][1-9]\d{0,2}|[TtOoIi])\s*$", description="Point group: C1, C6, D3, T, O or I."
    )
    mask_volume: CubicAngstrom | None = Field(
        None, gt=0, description="Volume of the mask of the FSC; 2.2 times the molecule's if not set."
    )
    resolution: Angstrom = Field(8.0, gt=1, description="Resolution that is wanted.")
    particles: int = Field(5000, ge=1, description="Number of particles for which the resolution is predicted.")
    sampling: Literal["particle", "slab"] = Field(
        "particle", description="What must be sampled by the tilts: each particle (averaging), or the slab (viewing)."
    )


class SlabParams(Params):
    """The ice."""

    thickness: Angstrom = Field(1500.0, gt=0, le=20000, description="Thickness along the beam of the untilted ice.")
    pretilt: Degree = Field(
        0.0, ge=-45, le=45, description="Tilt angle at which the slab lies across the beam: that of a lamella."
    )
    mean_free_path: Angstrom | None = Field(
        None, gt=0, description="Path after which 1/e of the electrons is left; from the voltage if not set."
    )
    damage_layer: Angstrom = Field(0.0, ge=0, description="Depth spoilt by ion milling, on each face.")
    ice_structure: float = Field(
        0.05,
        ge=0,
        le=1,
        description="Structure factor of the ice at low frequency, which makes its own noise; 0: none.",
    )
    particles_per_series: float = Field(100.0, gt=0, description="Usable particles of one tilt series.")


class OpticsParams(Params):
    """Focus and lens."""

    defocus_min: Angstrom = Field(20000.0, gt=0, description="Smallest target defocus, underfocus positive.")
    defocus_max: Angstrom = Field(40000.0, gt=0, description="Largest target defocus.")
    spherical_aberration: Millimetre = Field(2.7, ge=0, description="Spherical aberration Cs.")
    amplitude_contrast: float = Field(0.07, ge=0, le=1, description="Fraction of amplitude contrast.")


class BudgetParams(Params):
    """Errors that are expected of the processing, and what the data lose to them."""

    b_factor: SquareAngstrom = Field(
        80.0, ge=0, description="Of motion within images, flexibility and atoms; envelope exp(-B k²/4)."
    )
    shift_error: Angstrom = Field(0.5, ge=0, description="Standard deviation of a particle's position, per axis.")
    rotation_error: Degree = Field(0.5, ge=0, description="Standard deviation of its orientation, per axis.")
    alignment_error: Angstrom = Field(
        0.2, ge=0, description="Standard deviation of the tilt alignment that no exposure cures, per axis."
    )
    alignment_exposure_error: float = Field(
        0.3, ge=0, description="Variance of the alignment of a tilt, Å², times its exposure in e⁻/Å²."
    )
    settling_error: Angstrom = Field(0.2, ge=0, description="Standard deviation by drift after each tilt, per axis.")


class SessionParams(Params):
    """Time and exposure that are not images."""

    tracking_exposure: Exposure = Field(
        0.0, ge=0, description="Exposure of the target for tracking and focus, per tilt; 0 with a separate area."
    )
    tilt_time: Second = Field(10.0, gt=0, description="Time of a tilt without its exposure: move, settle, track.")
    series_time: Second = Field(180.0, ge=0, description="Time of a series for set-up and moving there.")
    exposure_rate: float = Field(6.0, gt=0, description="Exposure rate at the specimen, e⁻/Å²/s.")
    holder_limit: Degree = Field(70.0, gt=0, le=90, description="Largest tilt that the holder allows.")


class PlanParams(Params):
    """A tilt-series session as it is planned."""

    voltage: Kilovolt = Field(300.0, gt=0, description="Acceleration voltage: 100, 200 or 300.")
    pixel_size: Angstrom = Field(2.0, gt=0, description="Size of the camera's physical pixel at the specimen.")
    image_size: int = Field(4096, ge=64, le=16384, description="Side of the camera, px.")
    detector: Literal["counting", "k2", "perfect"] = Field(
        "counting", description="Quantum efficiency: a modern counting camera, a K2, or 1 throughout."
    )
    total_exposure: Exposure | None = Field(
        120.0, gt=0, description="Exposure of the whole series; the optimum at the target's resolution if not set."
    )
    dose_model: Literal["integrated", "terminal"] = Field(
        "integrated", description="Optimum exposure by the damage at each electron, or at the last one."
    )
    frames: int = Field(8, ge=1, le=200, description="Frames of each image.")
    tilting: TiltingParams = TiltingParams()
    target: TargetParams = TargetParams()
    slab: SlabParams = SlabParams()
    optics: OpticsParams = OpticsParams()
    budget: BudgetParams = BudgetParams()
    session: SessionParams = SessionParams()

    @model_validator(mode="after")
    def _is_possible(self) -> Self:
        """What no single field can tell, in one line each."""
        for fault in (*_scheme_faults(self), *_other_faults(self)):
            raise ValueError(fault)
        return self


def _scheme_faults(params: PlanParams) -> list[str]:
    tilting, limit = params.tilting, params.session.holder_limit
    low, high, start = tilting.tilt_min, tilting.tilt_max, tilting.start_tilt
    faults = []
    if low >= high:
        faults.append(f"tilt_min {low:g}° is not below tilt_max {high:g}°")
    if max(-low, high) > limit:
        faults.append(f"the range {low:g}° to {high:g}° goes beyond the holder's limit of {limit:g}° (holder_limit)")
    if not low <= start <= high:
        faults.append(f"start_tilt {start:g}° lies outside the range {low:g}° to {high:g}°")
    if tilting.tilt_step > high - low:
        faults.append(f"tilt_step {tilting.tilt_step:g}° is wider than the range {low:g}° to {high:g}°")
    widest = max(high - start, start - low)
    if tilting.switch_angle is not None and tilting.switch_angle >= widest:
        faults.append(
            f"switch_angle {tilting.switch_angle:g}° lies outside the range, which ends {widest:g}° from the start"
        )
    return faults


def _other_faults(params: PlanParams) -> list[str]:
    optics, slab, target = params.optics, params.slab, params.target
    faults = []
    if params.voltage not in _VOLTAGES:
        faults.append(f"voltage: the damage curve is known for 100, 200 and 300 kV, not for {params.voltage:g} kV")
    if target.resolution < 2 * params.pixel_size:
        faults.append(
            f"the pixel of {params.pixel_size:g} Å is too coarse for {target.resolution:g} Å: half of it is the limit"
        )
    if optics.defocus_min > optics.defocus_max:
        faults.append(f"defocus_min {optics.defocus_min:g} Å is above defocus_max {optics.defocus_max:g} Å")
    if 2 * slab.damage_layer >= slab.thickness:
        faults.append(f"two damage layers of {slab.damage_layer:g} Å leave nothing of {slab.thickness:g} Å of ice")
    if target.diameter > slab.thickness:
        faults.append(f"a particle of {target.diameter:g} Å does not fit into ice of {slab.thickness:g} Å")
    steepest = max(abs(angle - slab.pretilt) for angle in (params.tilting.tilt_min, params.tilting.tilt_max))
    if steepest >= 85:
        faults.append(f"with a pretilt of {slab.pretilt:g}° the slab would be tilted by {steepest:g}°, along the beam")
    volume = 1.26 * target.molecular_weight
    if volume > 0.5236 * target.diameter**3:
        faults.append(f"{target.molecular_weight:g} Da do not fit into a diameter of {target.diameter:g} Å")
    if params.session.tracking_exposure and params.total_exposure:
        tilts = (params.tilting.tilt_max - params.tilting.tilt_min) / params.tilting.tilt_step + 1
        if tilts * params.session.tracking_exposure >= params.total_exposure:
            faults.append("tracking_exposure at every tilt leaves nothing of total_exposure")
    return faults
