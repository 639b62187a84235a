"""Closed forms of notes on physics 3.1, 3.3 and 3.4."""

import numpy as np
import pytest

from tiltwise.params.plan import BudgetParams, PlanParams, SessionParams, TargetParams
from tiltwise.plan import geometry
from tiltwise.plan.sweet_spot import find_sweet_spot


def test_crowther():
    """200 nm at ±60°: 209 Å at 3°, 140 Å at 2°."""
    extent = geometry.sampled_extent("slab", 0.0, 2000.0, 60.0)
    assert geometry.crowther_resolution(3.0, extent) == pytest.approx(209, abs=0.6)
    assert geometry.crowther_resolution(2.0, extent) == pytest.approx(140, abs=0.6)
    assert geometry.crowther_step(209.44, extent) == pytest.approx(3.0, abs=1e-3)
    assert geometry.sampled_extent("particle", 260.0, 2000.0, 60.0) == 260.0


def test_path_and_focus():
    eta = np.exp(-geometry.path_length(np.array([0.0, 60, 70]), 2000.0) / 3950)
    assert eta == pytest.approx([0.60, 0.36, 0.23], abs=0.005)
    assert geometry.path_length(np.array([9.0]), 2000.0, 9.0) == pytest.approx(2000)
    assert geometry.filling_defocus_spread(20.0, 300.0) == pytest.approx(20_300, rel=0.01)
    assert geometry.filling_defocus_spread(10.0, 300.0) == pytest.approx(5_080, rel=0.01)
    assert geometry.delocalisation(10.0, 30_000.0, 300.0) == pytest.approx(59.1, abs=0.1)


def test_sweet_spot_stops_where_sampling_is_complete():
    """Without overhead and with alignment that needs exposure, more tilts only lose: the best is Crowther's number."""
    params = PlanParams(target=TargetParams(resolution=12.0))
    spot = find_sweet_spot(params, 120.0)
    assert spot.crowther == int(np.ceil(120 / np.degrees(12 / 250))) + 1
    assert spot.best - spot.crowther in (0, 1)
    after = spot.tilts >= spot.crowther
    assert (np.diff(spot.alignment) < 0).all() and (np.diff(spot.total[after]) < 0).all()
    assert (spot.damage[(spot.tilts >= 21) & (spot.tilts <= 121)] > 0.97).all()  # notes on physics 3.3: < 3 %


def test_overhead_and_poor_alignment_ask_for_fewer_tilts():
    target = TargetParams(resolution=6.0)
    free = find_sweet_spot(PlanParams(target=target), 120.0).best
    costly = PlanParams(target=target, session=SessionParams(tracking_exposure=0.9))
    assert find_sweet_spot(costly, 120.0).best < free
    loose = PlanParams(target=target, budget=BudgetParams(alignment_exposure_error=3.0))
    assert find_sweet_spot(loose, 120.0).best < free
