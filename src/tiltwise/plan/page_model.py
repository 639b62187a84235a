"""The tables from which the plan's page computes what Python does: all that its sliders do not change."""

from typing import Any

import numpy as np
import torch

from tiltwise.ops.ctf import ctf_phase, electron_wavelength
from tiltwise.plan.detectors import quantum_efficiency
from tiltwise.plan.dose import critical
from tiltwise.plan.prediction import (
    BAND,
    SHELL,
    WATER_SCATTERING,
    depth_of_field,
    frequencies,
    interaction,
    lens_of,
    mean_free_path,
    middle_defocus,
    symmetry_order,
)
from tiltwise.plan.scattering import mask_volume, scattering_power
from tiltwise.plan.session import Plan


def page_model(plan: Plan) -> dict[str, Any]:
    """Parameters and tables over frequency, as lists and numbers."""
    params, k = plan.params, frequencies(plan.params)
    wavelength = electron_wavelength(params.voltage)
    middle, optics = middle_defocus(params), params.optics
    damping = np.sinc(wavelength * k**2 * (optics.defocus_max - optics.defocus_min))
    damping = damping * np.sinc(2 * wavelength * k * middle / (SHELL * params.target.diameter))
    chi = ctf_phase(torch.as_tensor(k), torch.tensor(middle, dtype=torch.float64), lens_of(params)).numpy()
    tables = {
        "frequency": k,
        "critical_exposure": critical(k, params.voltage),
        "cos_two_chi": np.cos(2 * chi),
        "defocus_damping": damping,
        "common": 4 * interaction(params.voltage) ** 2 * np.exp(-params.budget.b_factor * k**2 / 2),
        "signal": scattering_power(params.target, k) * np.exp(-depth_of_field(params, k)),
        "quantum_efficiency": quantum_efficiency(params.detector, k, params.pixel_size),
        "slices": symmetry_order(params.target.symmetry) / (2 * k * mask_volume(params.target)),
    }
    groups = {name: getattr(params, name).model_dump() for name in ("tilting", "target", "slab", "budget", "session")}
    return {
        **groups,
        "pixel_size": params.pixel_size,
        "frames": params.frames,
        "total_exposure": plan.total_exposure,
        "field": params.image_size * params.pixel_size,
        "wavelength": wavelength,
        "mean_free_path": mean_free_path(params),
        "ice_per_path": WATER_SCATTERING * params.slab.ice_structure,
        "damage_scale": float(critical(0.1, params.voltage) / (0.24499 * 10**1.6649 + 2.8141)),
        "band": BAND,
        "tables": {name: [float(f"{value:.9g}") for value in values] for name, values in tables.items()},
    }
