"""A plan as plain numbers, for tables, JSON and pages: every key says its unit."""

import math
from typing import Any

import numpy as np

from tiltwise.plan.dose import damage_amplitude, optimum_exposure
from tiltwise.plan.geometry import path_length
from tiltwise.plan.prediction import BAND, half_map_fsc, mean_free_path, particles_needed, resolution
from tiltwise.plan.scattering import mask_volume
from tiltwise.plan.session import Plan, describe_geometry
from tiltwise.plan.visibility import image_snr

_PARTICLES = (100, 300, 1000, 3000, 10_000, 30_000, 100_000, 300_000, 1_000_000)
_SEEN_PIXEL = 10.0  # Å, of the image in which a particle is judged by eye


def summarise(plan: Plan) -> dict[str, Any]:
    """Figures, assumptions, tilts and curves of a plan; what is infinite or unknown is None."""
    return _plain(
        {
            "figures": figures(plan),
            "exposure_reason": plan.exposure_reason,
            "warnings": list(plan.warnings),
            "resolution_by_particles": resolution_table(plan),
            "assumptions": assumptions(plan),
            "params": plan.params.model_dump(),
            "tilts": tilt_rows(plan),
            "curves": curves(plan),
            "sweet_spot": sweet_spot(plan),
        }
    )


def figures(plan: Plan) -> dict[str, float]:
    """The numbers by which plans are compared."""
    params, schedule = plan.params, plan.schedule
    wanted, total = params.target.resolution, plan.total_exposure
    seen = image_snr(params, schedule, max(_SEEN_PIXEL, 2 * params.pixel_size))
    return {
        "tilts": len(schedule),
        "total_exposure_e_A2": total,
        "optimum_exposure_integrated_e_A2": optimum_exposure(wanted, params.voltage, "integrated"),
        "optimum_exposure_terminal_e_A2": optimum_exposure(wanted, params.voltage, "terminal"),
        "resolution_A": plan.resolution,
        "resolution_band_fine_A": plan.resolution_band[0],
        "resolution_band_coarse_A": plan.resolution_band[1],
        "particles_needed": plan.particles_needed,
        "particles_needed_least": plan.particles_needed / BAND,
        "particles_needed_most": plan.particles_needed * BAND,
        "series_needed": plan.series_needed,
        "series_minutes": plan.series_time / 60,
        "hours_needed": plan.hours_needed,
        "image_snr_first_tilt": float(seen[0]),
        "image_snr_last_tilt": float(seen[-1]),
        "best_number_of_tilts": plan.sweet_spot.best,
        "crowther_number_of_tilts": plan.sweet_spot.crowther,
        **describe_geometry(plan),
    }


def resolution_table(plan: Plan) -> list[dict[str, float]]:
    """Expected resolution of 10² to 10⁶ particles with its band, and the series they take."""
    each = plan.params.slab.particles_per_series
    return [
        {
            "particles": number,
            "series": math.ceil(number / each),
            "resolution_A": resolution(plan.prediction, number),
            "fine_A": resolution(plan.prediction, number * BAND),
            "coarse_A": resolution(plan.prediction, number / BAND),
        }
        for number in _PARTICLES
    ]


def assumptions(plan: Plan) -> dict[str, Any]:
    """What the prediction takes for granted beside the parameters."""
    return {
        "mean_free_path_A": mean_free_path(plan.params),
        "mask_volume_A3": mask_volume(plan.params.target),
        "band_factor_in_particles": BAND,
        "resolution_criterion": "FSC 0.143 between half maps within the mask",
        "damage": "critical exposure of Grant & Grigorieff (2015), on the amplitude of the signal, not on the noise",
        "weights": "each image weighted by its own signal-to-noise ratio; poses, CTF and geometry known but for budget",
        "orientations": "uniform",
        "not_modelled": "structural noise of crowded surroundings, preferred orientation, bubbling, local deformation, "
        "astigmatism, charging",
    }


def tilt_rows(plan: Plan) -> list[dict[str, float]]:
    """One row an image, in the order of acquisition."""
    params, schedule = plan.params, plan.schedule
    wanted = np.array([1 / params.target.resolution])
    left = damage_amplitude(schedule, wanted, params.voltage)[:, 0]
    share = share_at(plan, params.target.resolution)
    path = path_length(schedule.tilt_angle, params.slab.thickness, params.slab.pretilt)
    seen = image_snr(params, schedule, max(_SEEN_PIXEL, 2 * params.pixel_size))
    defocus = (params.optics.defocus_min + params.optics.defocus_max) / 2
    return [
        {
            "order": i,
            "tilt_angle_deg": float(schedule.tilt_angle[i]),
            "exposure_e_A2": float(schedule.exposure[i]),
            "pre_exposure_e_A2": float(schedule.pre_exposure[i]),
            "group": int(schedule.group[i]),
            "defocus_A": defocus,
            "frames": params.frames,
            "path_A": float(path[i]),
            "transmission": float(plan.prediction.transmission[i]),
            "amplitude_left": float(left[i]),
            "information_share": float(share[i]),
            "image_snr": float(seen[i]),
        }
        for i in range(len(schedule))
    ]


def share_at(plan: Plan, spacing: float) -> np.ndarray:
    """(tilt,) part of the SSNR at a spacing (Å) that each tilt brings."""
    k = plan.prediction.frequency
    j = int(np.abs(k - 1 / spacing).argmin())
    column = plan.prediction.image_ssnr[:, j]
    return column / column.sum()


def curves(plan: Plan) -> dict[str, Any]:
    """Over frequency: SSNR, FSC, CTF² and damage."""
    prediction, number = plan.prediction, plan.params.target.particles
    keep = slice(None, None, 4)
    return {
        "frequency_1_A": prediction.frequency[keep],
        "ssnr": number * prediction.ssnr[keep],
        "half_map_fsc": half_map_fsc(prediction, number)[keep],
        "mean_ctf_squared": prediction.transfer.mean(axis=0)[keep],
        "amplitude_left": prediction.damage[:, keep],
        "particles_for_spacing": [particles_needed(prediction, 1 / k) for k in prediction.frequency[keep]],
    }


def sweet_spot(plan: Plan) -> dict[str, Any]:
    """What other numbers of tilts would give at the same total exposure."""
    spot = plan.sweet_spot
    names = ("tilts", "sampling", "alignment", "overhead", "damage", "total", "best", "crowther")
    return {name: getattr(spot, name) for name in names}


def _plain(value: Any) -> Any:
    """The same as types that JSON knows; what is not finite becomes None."""
    if isinstance(value, dict):
        return {key: _plain(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple | np.ndarray):
        return [_plain(entry) for entry in value]
    if isinstance(value, np.integer | np.floating):
        value = value.item()
    return None if isinstance(value, float) and not math.isfinite(value) else value
