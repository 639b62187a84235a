"""A whole plan: schedule, prediction, what it takes, and what a user should be warned of."""

from dataclasses import dataclass

import numpy as np

from tiltwise.ops.tomogram.elongation import elongation, missing_wedge_fraction
from tiltwise.params.plan import PlanParams
from tiltwise.plan import geometry
from tiltwise.plan.dose import critical, information_fraction, optimum_exposure
from tiltwise.plan.prediction import BAND, Prediction, mean_free_path, particles_needed, predict, resolution
from tiltwise.plan.schedule import Schedule, draw_up_schedule
from tiltwise.plan.sweet_spot import SweetSpot, find_sweet_spot

_LONGEST_PATH = 2.0  # mean free paths; beyond it little was ever resolved (lamellae in electron diffraction)


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Plan:
    params: PlanParams
    """As given."""
    total_exposure: float
    """e⁻/Å², tracking included."""
    exposure_reason: str
    """Which total was taken, and why."""
    schedule: Schedule
    """The images in the order of acquisition."""
    prediction: Prediction
    """SSNR by tilt and frequency."""
    sweet_spot: SweetSpot
    """What other numbers of tilts would give."""
    resolution: float
    """Expected of params.target.particles, Å."""
    resolution_band: tuple[float, float]
    """The same for BAND times as many particles, and as many fewer, Å."""
    particles_needed: float
    """For params.target.resolution; a factor BAND either way is within the band."""
    warnings: tuple[str, ...]
    """One line each."""

    @property
    def series_time(self) -> float:
        """Time of one tilt series, s."""
        session, tilts = self.params.session, len(self.schedule)
        moves = 1 if self.params.tilting.scheme == "continuous" else tilts
        return session.series_time + moves * session.tilt_time + self.total_exposure / session.exposure_rate

    @property
    def series_needed(self) -> float:
        """Tilt series for the particles needed; infinite if they are."""
        return float(np.ceil(self.particles_needed / self.params.slab.particles_per_series))

    @property
    def hours_needed(self) -> float:
        """Time at the microscope for these series, h."""
        return self.series_needed * self.series_time / 3600


def make_plan(params: PlanParams, power: np.ndarray | None = None) -> Plan:
    """Draw up a schedule and predict what it gives; power as in `predict`."""
    total, reason = choose_exposure(params)
    schedule = draw_up_schedule(params, total)
    prediction = predict(params, schedule, power)
    expected, fewer, more = (resolution(prediction, params.target.particles * factor) for factor in (1, 1 / BAND, BAND))
    spot = find_sweet_spot(params, total)
    needed = particles_needed(prediction, params.target.resolution)
    return Plan(
        params=params,
        total_exposure=total,
        exposure_reason=reason,
        schedule=schedule,
        prediction=prediction,
        sweet_spot=spot,
        resolution=expected,
        resolution_band=(more, fewer),
        particles_needed=needed,
        warnings=tuple(find_warnings(params, schedule, spot, expected)),
    )


def choose_exposure(params: PlanParams) -> tuple[float, str]:
    """The total exposure, e⁻/Å², and one line on where it comes from."""
    wanted, voltage = params.target.resolution, params.voltage
    best = {model: optimum_exposure(wanted, voltage, model) for model in ("integrated", "terminal")}
    both = f"integrated {best['integrated']:.0f}, terminal {best['terminal']:.0f}"
    if params.total_exposure is not None:
        part = information_fraction(params.total_exposure, wanted, voltage)
        return params.total_exposure, (
            f"as given; with weighted images it holds {100 * part:.0f} % of the information at {wanted:g} Å "
            f"(optimum of an unweighted sum there: {both} e⁻/Å²)"
        )
    why = {
        "integrated": "each electron sees only the damage up to it",
        "terminal": "each electron is taken to see the damage at the end, D_c / 2, which is cautious",
    }[params.dose_model]
    return best[params.dose_model], f"optimum at {wanted:g} Å by the {params.dose_model} model: {why} ({both} e⁻/Å²)"


def describe_geometry(plan: Plan) -> dict[str, float]:
    """What range, step, slab and focus mean; keys carry the unit."""
    params, schedule = plan.params, plan.schedule
    low, high = float(schedule.tilt_angle.min()), float(schedule.tilt_angle.max())
    slab, step, wanted = params.slab, params.tilting.tilt_step, params.target.resolution
    steepest = float(np.abs(schedule.tilt_angle - slab.pretilt).max())
    even = min(abs(low), abs(high))
    path = geometry.path_length(schedule.tilt_angle, slab.thickness, slab.pretilt)
    return {
        "missing_wedge_fraction": missing_wedge_fraction(low, high),
        "elongation": elongation(-even, even),
        "crowther_particle_A": geometry.crowther_resolution(step, params.target.diameter),
        "crowther_slab_A": geometry.crowther_resolution(
            step, geometry.sampled_extent("slab", 0.0, slab.thickness, steepest)
        ),
        "longest_path_A": float(path.max()),
        "longest_path_mean_free_paths": float(path.max()) / mean_free_path(params),
        "defocus_spread_A": params.optics.defocus_max - params.optics.defocus_min,
        "defocus_spread_filling_zeros_A": geometry.filling_defocus_spread(wanted, params.voltage),
        "delocalisation_A": geometry.delocalisation(wanted, params.optics.defocus_max, params.voltage),
        "critical_exposure_e_A2": float(critical(1 / wanted, params.voltage)),
    }


def find_warnings(params: PlanParams, schedule: Schedule, spot: SweetSpot, expected: float) -> list[str]:
    """What speaks against the plan, one line each."""
    slab, target = params.slab, params.target
    found = []
    if len(schedule) < spot.crowther:
        found.append(
            f"sampling: {len(schedule)} tilts; a {target.sampling} is fully sampled at {target.resolution:g} Å "
            f"from {spot.crowther} tilts on (Crowther)"
        )
    paths = geometry.path_length(schedule.tilt_angle, slab.thickness, slab.pretilt) / mean_free_path(params)
    if paths.max() > _LONGEST_PATH:
        found.append(
            f"thickness: {int((paths > _LONGEST_PATH).sum())} tilts have a path over {_LONGEST_PATH:g} mean free paths"
            f" (up to {paths.max():.1f})"
        )
    filling = geometry.filling_defocus_spread(target.resolution, params.voltage)
    spread = params.optics.defocus_max - params.optics.defocus_min
    field = params.image_size * params.pixel_size * np.sin(np.radians(np.abs(schedule.tilt_angle).max()))
    if spread + field < filling:
        found.append(
            f"defocus: a spread of {spread / 1e4:.2g} µm leaves CTF zeros open at {target.resolution:g} Å; "
            f"{filling / 1e4:.2g} µm fills them"
        )
    if schedule.exposure.min() / params.frames < 0.1:
        found.append(f"frames: {schedule.exposure.min() / params.frames:.2g} e⁻/Å² each is too little to align by")
    if expected > target.resolution:
        found.append(
            f"particles: {target.particles} are expected to give {expected:.1f} Å, not {target.resolution:g} Å"
        )
    if target.resolution < 2.5 * params.pixel_size:
        found.append(
            f"pixel: {target.resolution:g} Å lies within 25 % of the Nyquist spacing of {2 * params.pixel_size:g} Å"
        )
    return found
