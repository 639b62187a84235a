"""The baselines know what they are said to know, and no more."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from tiltwise.ops.thon_rings.measure import measure_rings, usable_tilts
from tiltwise.ops.thon_rings.model import patch_depth
from tiltwise.params.defocus import DefocusParams
from tiltwise.params.simulate import ErrorParams, SimulateParams, SpecimenParams
from tiltwise.simulate.acquisition import Scheme, acquire
from tiltwise.simulate.plane_field import plane_contrast
from tiltwise.simulate.slab_field import image_slab
from tiltwise.workflows.defocus_baselines import (
    _best_orientation,
    _strip,
    defocus_alone,
    defocus_alone_free,
    one_tilt,
)

AXIS = 85.0


@pytest.fixture(scope="module")
def known():
    """Two tilts of 768² at 3 Å/px, 30 e⁻/Å² each: strong rings."""
    params = SimulateParams(
        pixel_size=3.0,
        image_size=768,
        exposure=30.0,
        defocus_min=25000.0,
        defocus_max=25000.1,
        handedness=1,
        nominal_tilt_axis_angle=AXIS,
        motion_b_factor=20.0,
        specimen=SpecimenParams(thickness=300.0),
        errors=ErrorParams(tilt_angle=0, tilt_axis_angle=0, tilt_axis_jitter=0, defocus=400.0, astigmatism=0),
    )
    scheme = Scheme.of((np.array([0.0, 40.0]), np.array([0, 1])), params.exposure)
    random = np.random.default_rng(2)
    series = acquire(params, "alone", random, scheme=scheme)
    series = image_slab(series, params, 0.15, random, contrast_of_tilt=plane_contrast)
    return series, measure_rings(series, usable_tilts(series), DefocusParams())


def test_alone_means_that_the_other_tilt_does_not_matter(known):
    series, spectra = known
    both = defocus_alone(spectra, 1)
    assert np.abs(both - series.ctf.mean_defocus).max() < 150
    torn = replace(spectra, power=torch.stack([spectra.power[0].flip(0), spectra.power[1]]))
    assert defocus_alone(torn, 1)[1] == both[1]


def test_angles_are_found_where_they_are_not_known(known):
    series, spectra = known
    own = one_tilt(spectra, 1)
    blind = replace(own, rotations=torch.eye(3, dtype=torch.float64)[None], tilt_angle=torch.zeros(1).double())
    found = _best_orientation(blind)
    # 40° about the neighbour of 85° on a grid of 30°: the depths agree but for cos of the 5° between the axes
    seen, true = (patch_depth(s, torch.zeros(2).double())[0] for s in (found, own))
    assert float(found.tilt_angle) == 40.0
    assert float((seen * true).sum() / (seen.norm() * true.norm())) > 0.99
    assert abs(defocus_alone_free(blind)[0] - series.ctf.mean_defocus[1]) < 300


def test_the_strip_lies_along_the_axis(known):
    _, spectra = known
    own = one_tilt(spectra, 1)
    near = _strip(own).weight[0].sum((1, 2)) > 0
    depth = patch_depth(own, torch.zeros(2).double())[0].abs()
    side = own.layout.size * own.pixel_size
    limit = side / 2 * np.tan(np.radians(40))
    assert 0 < int(near.sum()) < len(near)
    assert float(depth[near].max()) <= limit + 1e-6 < float(depth[~near].min()) + 1e-3
