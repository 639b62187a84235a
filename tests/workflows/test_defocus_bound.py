"""The bound on defocus against its closed form, and against what the fit itself says of its errors."""

import math

import numpy as np
import torch

from tiltwise.ops.ctf import electron_wavelength
from tiltwise.params.simulate import ErrorParams, SimulateParams, SpecimenParams
from tiltwise.simulate.acquisition import Scheme, acquire
from tiltwise.simulate.slab_field import electrons_reaching, matter_power
from tiltwise.workflows.defocus_bound import defocus_bound

STILL = ErrorParams(shift_step=0, tilt_angle=0, tilt_axis_angle=0, tilt_axis_jitter=0, defocus=0, astigmatism=0)
BAND = (25.0, 6.0)


def series_of(angles: list[float], **changes):
    params = SimulateParams(
        pixel_size=2.5,
        image_size=changes.pop("image_size", 512),
        defocus_min=30000.0,
        defocus_max=30000.1,
        handedness=1,
        exposure=changes.pop("exposure", 0.01),
        specimen=SpecimenParams(thickness=20.0),
        errors=STILL,
    )
    scheme = Scheme.of((np.array(angles), np.arange(len(angles))), params.exposure)
    return acquire(params, "bound", np.random.default_rng(0), scheme=scheme), params


def test_closed_form_of_faint_rings():
    """With next to no signal mu is 1/n, and of an untilted thin film I = A ∫ π k dk (S n)² (π λ k²)² <sin² 2χ>, the
    mean being 1/2 over many rings: to 3 %, since there are a dozen of them. Astigmatism, slopes and thickness are
    orthogonal to the defocus of an untilted image."""
    series, params = series_of([0.0])
    found = defocus_bound(series, params, 0.1, BAND)
    k = torch.linspace(1 / BAND[0], 1 / BAND[1], 20001, dtype=torch.float64)
    electrons, path = electrons_reaching(series, params, 0)
    signal = matter_power(series, params, 0.1, 0, k) * path * electrons
    slope = math.pi * electron_wavelength(300.0) * k**2
    area = (params.image_size * params.pixel_size) ** 2
    information = area * float(torch.trapezoid(math.pi * k * (signal * slope) ** 2 / 2, k))
    assert abs(found[0] * math.sqrt(information) - 1) < 0.03


def test_area_and_exposure_count_as_they_must():
    """Twice the side halves the bound; of faint rings, twice the exposure does too (damage apart: 0.02 e⁻/Å²)."""
    one, wide, long = (
        defocus_bound(*series_of([0.0], **changes), 0.1, BAND)[0]
        for changes in ({}, {"image_size": 1024}, {"exposure": 0.02})
    )
    assert abs(one / wide - 2) < 1e-6
    assert abs(one / long - 2) < 0.02


def test_more_tilts_tell_what_they_share():
    """Three tilts share astigmatism, slopes and thickness, which one must find alone."""
    alone = defocus_bound(*series_of([40.0], exposure=10.0), 0.1, BAND)
    together = defocus_bound(*series_of([-40.0, 0.0, 40.0], exposure=10.0), 0.1, BAND)
    assert together.shape == (3,) and np.all(np.isfinite(together))
    assert together[0] < together[2]  # the first is taken first, the last has seen 20 e⁻/Å² before
    assert together[0] < alone[0] * 1.001
