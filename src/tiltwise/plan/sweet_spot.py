"""How many tilts: what is gained by sampling is paid in alignment and overhead.

At a fixed total exposure the information of the images hardly depends on their number (Hegerl & Hoppe 1976; McEwen et
al. 1995). With N tilts over the range, the target's shell is sampled to min(1, N / N_Crowther); a tilt has 1 / N of the
exposure, and is aligned the worse for it; each costs a tracking exposure. The product is the SSNR at the target's
resolution times the sampled part, and has its best between.
"""

from dataclasses import dataclass

import numpy as np

from tiltwise.params.plan import PlanParams
from tiltwise.plan.dose import damage_amplitude
from tiltwise.plan.geometry import crowther_step, path_length, sampled_extent
from tiltwise.plan.prediction import mean_free_path
from tiltwise.plan.schedule import draw_up_schedule


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class SweetSpot:
    tilts: np.ndarray
    """(n,) numbers of tilts that were compared, odd, over the same range."""
    sampling: np.ndarray
    """(n,) part of the target's shell that slices pass through, 0 to 1."""
    alignment: np.ndarray
    """(n,) part of the SSNR at the target that errors of alignment and settling leave."""
    overhead: np.ndarray
    """(n,) part of the exposure that is not spent on tracking."""
    damage: np.ndarray
    """(n,) Σ D q² η over the tilts at the target's frequency, over that of the best."""
    total: np.ndarray
    """(n,) product of all, over its best."""
    best: int
    """Number of tilts with the largest total; of equals, the smallest."""
    crowther: int
    """Number of tilts from which the sampling is complete."""


def find_sweet_spot(params: PlanParams, total_exposure: float) -> SweetSpot:
    """Compare 11, 13 ... 181 tilts over the range of the plan, at its total exposure (e⁻/Å²)."""
    tilting = params.tilting
    span = tilting.tilt_max - tilting.tilt_min
    steepest = max(abs(angle - params.slab.pretilt) for angle in (tilting.tilt_min, tilting.tilt_max))
    extent = sampled_extent(params.target.sampling, params.target.diameter, params.slab.thickness, steepest)
    crowther = int(np.ceil(span / crowther_step(params.target.resolution, extent) - 1e-9)) + 1
    tilts = np.arange(11, 182, 2)
    tracking = params.session.tracking_exposure
    tilts = tilts[tilts * tracking < 0.9 * total_exposure]
    overhead = 1 - tilts * tracking / total_exposure
    alignment = alignment_left(params, (total_exposure - tilts * tracking) / tilts)
    damage = np.array([_undamaged(params, n, total_exposure) for n in tilts]) / (total_exposure * overhead)
    sampling = np.minimum(1, tilts / crowther)
    total = sampling * alignment * overhead * damage
    return SweetSpot(
        tilts=tilts,
        sampling=sampling,
        alignment=alignment,
        overhead=overhead,
        damage=damage / damage.max(),
        total=total / total.max(),
        best=int(tilts[np.argmax(total)]),
        crowther=crowther,
    )


def alignment_left(params: PlanParams, exposure: np.ndarray) -> np.ndarray:
    """exp(-4 π² k² (s0² + κ / D + settle²)) at the target's frequency for tilts of an exposure, e⁻/Å²."""
    budget = params.budget
    variance = budget.alignment_error**2 + budget.settling_error**2 + budget.alignment_exposure_error / exposure
    return np.exp(-4 * np.pi**2 * variance / params.target.resolution**2)


def with_tilts(params: PlanParams, number: int) -> PlanParams:
    """The same plan with another number of tilts over the same range."""
    tilting = params.tilting
    step = (tilting.tilt_max - tilting.tilt_min) / (number - 1)
    return params.model_copy(update={"tilting": tilting.model_copy(update={"tilt_step": step})})


def _undamaged(params: PlanParams, number: int, total_exposure: float) -> float:
    """Σ D q² η at the target's frequency."""
    schedule = draw_up_schedule(with_tilts(params, number), total_exposure)
    q = damage_amplitude(schedule, np.array([1 / params.target.resolution]), params.voltage)[:, 0]
    path = path_length(schedule.tilt_angle, params.slab.thickness, params.slab.pretilt)
    return float((schedule.exposure * q**2 * np.exp(-path / mean_free_path(params))).sum())
