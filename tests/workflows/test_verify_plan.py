"""The plan's own check against the simulator, at a size of seconds, and the measures that it uses."""

import math

import numpy as np
import pytest
import torch

from tiltwise.data.atoms import Atoms
from tiltwise.data.errors import InputError
from tiltwise.params.plan import BudgetParams, PlanParams, SlabParams, TargetParams, TiltingParams
from tiltwise.simulate.potential import scatterer_from_atoms
from tiltwise.workflows.verify_plan import (
    _share,
    as_simulated,
    crossing,
    planned_series,
    power_of,
    prepare_trial,
    verify_plan,
)

SMALL = PlanParams(
    pixel_size=3.0,
    total_exposure=60.0,
    tilting=TiltingParams(tilt_step=15.0),
    target=TargetParams(molecular_weight=2e5, diameter=95.0, resolution=20.0),
    slab=SlabParams(thickness=400.0),
    budget=BudgetParams(b_factor=100.0),
)


def test_prediction_against_simulation():
    """Seeds 0, 1 and 2 gave factors of 0.77 to 0.92 at 36 particles: the FSC's noise spreads them by 10 %. 1.7
    either way leaves five of it, and a model that is wrong by two fails."""
    few, many = verify_plan(SMALL, particles=(12, 36), image_size=144)
    assert (few["particles"], many["particles"]) == (12, 36)
    assert many["measured_truth_A"] < few["measured_truth_A"]
    for key in ("factor_in_N", "factor_in_N_truth"):
        assert 1 / 1.7 < many[key] < 1.7


@pytest.mark.parametrize("series", [1, 6, 7])
def test_particles_are_dealt_out(series):
    """All are given once, and a larger number takes no particle back."""
    before = [0] * series
    for count in range(40):
        given = [_share(count, number, series) for number in range(1, series + 1)]
        assert sum(given) == count and max(given) - min(given) <= 1
        assert all(now >= then for now, then in zip(given, before, strict=True))
        before = given


def test_crossing_is_beyond_the_best_shell():
    """A dip before the best shell, as the CTF makes it at low frequency, ends nothing."""
    fsc = torch.tensor([1.0, 0.02, 0.3, 0.9, 0.9, 0.9, 0.5, 0.1, 0.0, 0.0])
    assert 100 / 8 < crossing(fsc, 100.0, 1 / 7) < 100 / 7
    assert crossing(torch.ones(10), 100.0, 1 / 7) == pytest.approx(100 / 9)
    assert math.isinf(crossing(torch.zeros(10), 100.0, 1 / 7))


def test_power_of_one_kind_of_atom():
    """Of carbons at random places |F|² is that of one times their number, but for interference: a body of 80 Å has some
    400 independent values in the shell at 10 Å, which leaves 5 % of it."""
    rng = np.random.default_rng(0)
    position = rng.uniform(-40, 40, (200, 3))
    atoms = Atoms(position=position, element=np.full(200, "C"), b_factor=np.full(200, 0.0))
    scatterer = scatterer_from_atoms(atoms)
    k = np.array([0.08, 0.1, 0.12])
    factors = scatterer.form_factors(torch.as_tensor(k))
    one = scatterer.weight[0, 0] * factors[0].numpy() - scatterer.weight[0, 1] * factors[1].numpy()
    assert power_of(scatterer, 2.0, k) / (200 * (one / 47.878) ** 2) == pytest.approx(np.ones(3), abs=0.15)


def test_series_follows_the_schedule():
    params = SMALL.model_copy(update={"slab": SlabParams(thickness=400.0, pretilt=5.0)})
    trial = prepare_trial(params, 12, 160, 0)
    series = planned_series(trial, 1)
    in_time = np.argsort(series.acquisition_order)
    assert series.stage_tilt_angle[in_time] == pytest.approx(trial.schedule.tilt_angle - 5.0)
    assert series.pre_exposure[in_time] == pytest.approx(trial.schedule.pre_exposure)
    assert len(trial.defocus) >= 6 and np.ptp(trial.defocus) > 0.8 * 20_000


def test_what_the_simulator_cannot_do_is_said_or_taken_out():
    small = SMALL.model_copy(update={"target": TargetParams(molecular_weight=6e4, diameter=60.0, resolution=20)})
    with pytest.raises(InputError, match="more than 100 kDa"):
        verify_plan(small)
    simulated = as_simulated(SMALL.model_copy(update={"detector": "k2"}), 160)
    assert simulated.detector == "counting" and simulated.budget.alignment_error == 0
    assert simulated.budget.shift_error == SMALL.budget.shift_error
