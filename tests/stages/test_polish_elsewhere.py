"""Polishing on a device that is not the CPU: nothing is left behind on it, and the figures are the same."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from elsewhere import another_device
from particle_scene import DIAMETER, scene

from tiltwise.ops.particles.half_maps import accumulate_halves
from tiltwise.ops.polishing.defocus_by_average import refine_common_defoci
from tiltwise.ops.polishing.defocus_on_images import refine_defocus
from tiltwise.ops.polishing.species import Species
from tiltwise.params.polish import PolishParams
from tiltwise.stages.polish import polish
from tiltwise.stages.polish.setup import prepare
from tiltwise.stages.polish.state import first_state

PARAMS = PolishParams(box_size=32, particle_diameter=DIAMETER, cycles=1)
RINGS = 16.5
"""Å: two lobes of the CTF lie above it."""
ROUNDING = 1e-4
"""Of a sum of some 10^5 products in float32, whose order differs: 6e-8 √10^5 = 2e-5 of the largest."""


@pytest.fixture(scope="module")
def made():
    found = scene(series=1, particles=8, noise=0.3)
    return found.tilt_series, replace(found.particles, half_set=1 + np.arange(len(found.particles)) % 2)


def state_on(made, device):
    kind = next(iter(prepare(*made, PARAMS, device).kinds.values()))
    return first_state(kind)[0]


def defoci_on(made, device):
    """Of a series, what a common change explains, and the errors of each tilt's own defocus."""
    state = state_on(made, device)
    kind = Species.of(state.source, state.particles, state.references, weights=state.weights, resolution=RINGS)
    common = refine_common_defoci([kind], ["C2"])[1]["TS_1"]
    return common.explained, np.array(refine_defocus([kind], "TS_1").record()["error_A"])


@pytest.mark.parametrize("symmetry", ["C3", "D2", "H(20,30,3)"])
def test_sums_are_where_the_images_are(made, symmetry):
    """C3 turns, D2 swaps axes of the grid, a helix shifts."""
    here = state_on(made, "cpu")
    with another_device() as device:
        there = state_on(made, device)
        sums = accumulate_halves(there.source, there.particles, weights=there.weights, symmetry=symmetry)
        assert all(total.numerator.device.type == device for total in sums.values())
        found = sums[1].numerator.cpu()
    wanted = accumulate_halves(here.source, here.particles, weights=here.weights, symmetry=symmetry)[1].numerator
    assert float((found - wanted).abs().max()) < ROUNDING * float(wanted.abs().max())


def test_defoci_are_the_same_elsewhere(made):
    here = defoci_on(made, "cpu")
    with another_device() as device:
        there = defoci_on(made, device)
    for found, wanted in zip(there, here, strict=True):
        assert np.allclose(found, wanted, rtol=ROUNDING)


def test_the_whole_ladder_runs_elsewhere(made):
    with another_device() as device:
        there = polish(*made, PARAMS, device=device)
    assert_same(there, polish(*made, PARAMS))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device")
def test_the_whole_ladder_runs_on_cuda(made):
    assert_same(polish(*made, PARAMS, device="cuda"), polish(*made, PARAMS))


def assert_same(found, wanted):
    """Poses come out of iterations that stop by a tolerance of their own, so that maps are compared to a thousandth."""
    maps = [np.asarray(result.half_maps.half1.data) for result in (found, wanted)]
    assert np.corrcoef(maps[0].ravel(), maps[1].ravel())[0, 1] > 0.999
    assert found.quality["resolution_fsc_A"] == pytest.approx(wanted.quality["resolution_fsc_A"], rel=1e-3)
