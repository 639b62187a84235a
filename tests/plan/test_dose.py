"""Damage and schemes against notes on physics 4.3: 41 tilts of ±60°, 120 e⁻/Å², 300 kV; given to four digits."""

import numpy as np
import pytest

from tiltwise.params.plan import PlanParams, TiltingParams
from tiltwise.plan.dose import INTEGRATED, critical, damage_amplitude, information_fraction, optimum_exposure
from tiltwise.plan.schedule import draw_up_schedule

SPACINGS = np.array([20.0, 10.0, 5.0])
SCHEMES = {
    "unidirectional": (TiltingParams(scheme="unidirectional"), (0.4095, 0.1729, 0.0687)),
    "bidirectional from 0": (TiltingParams(scheme="bidirectional"), (0.4341, 0.2103, 0.1023)),
    "bidirectional from -21": (TiltingParams(scheme="bidirectional", start_tilt=-21.0), (0.4432, 0.2168, 0.1024)),
    "dose-symmetric": (TiltingParams(), (0.4483, 0.2207, 0.1050)),
}


@pytest.mark.parametrize("name", SCHEMES)
def test_signal_that_a_scheme_leaves(name):
    tilting, expected = SCHEMES[name]
    schedule = draw_up_schedule(PlanParams(tilting=tilting), 120.0)
    assert len(schedule) == 41 and schedule.exposure.sum() == pytest.approx(120)
    q = damage_amplitude(schedule, 1 / SPACINGS, 300.0)
    mean = (np.cos(np.radians(schedule.tilt_angle))[:, None] * q).mean(axis=0)
    assert mean == pytest.approx(expected, abs=6e-5)


@pytest.mark.parametrize(
    ("thickness", "expected"), [(2000.0, (0.1544, 0.0617, 0.0280, 0.0210)), (1000.0, (0.2178, 0.0852, 0.0385, 0.0288))]
)
def test_information_that_ice_and_damage_leave(thickness, expected):
    """Σ D A² η / 120 at 20, 10, 5 and 3.5 Å, Λ = 315 nm."""
    schedule = draw_up_schedule(PlanParams(), 120.0)
    q = damage_amplitude(schedule, 1 / np.array([20.0, 10.0, 5.0, 3.5]), 300.0)
    eta = np.exp(-thickness / 3150.0 / np.cos(np.radians(schedule.tilt_angle)))
    assert ((schedule.exposure * eta) @ q**2 / 120) == pytest.approx(expected, abs=6e-5)


def test_critical_exposure():
    spacings = np.array([3.0, 4, 5, 6, 8, 10, 15, 20, 40])
    expected = [4.340, 5.277, 6.386, 7.652, 10.625, 14.139, 25.059, 38.726, 116.69]
    assert critical(1 / spacings, 300.0) == pytest.approx(expected, rel=1e-4)
    assert critical(1 / spacings, 200.0) == pytest.approx(0.8 * np.array(expected), rel=1e-4)


def test_optima_maximise_what_they_say():
    """Signal ∫ q dD over √D: q falls along the exposure in one model, is that of the end in the other."""
    n_e = float(critical(1 / 8, 300.0))
    d = np.linspace(0.01, 5, 50_000) * n_e
    integrated = (1 - np.exp(-d / (2 * n_e))) / np.sqrt(d)
    terminal = d * np.exp(-d / (2 * n_e)) / np.sqrt(d)
    assert optimum_exposure(8.0, 300.0, "integrated") == pytest.approx(d[integrated.argmax()], rel=1e-3)
    assert optimum_exposure(8.0, 300.0, "terminal") == pytest.approx(d[terminal.argmax()], rel=1e-3)
    assert np.exp(INTEGRATED / 2) == pytest.approx(1 + INTEGRATED, rel=1e-4)


def test_information_saturates():
    """Notes on physics 3.2: 90 % is in the first 2.3 N_e, 10, 12, 18, 33 and 89 e⁻/Å² at 3, 4, 6, 10 and 20 Å."""
    for spacing, exposure in ((3, 10), (4, 12), (6, 18), (10, 33), (20, 89)):
        assert information_fraction(exposure, spacing, 300.0) == pytest.approx(0.9, abs=0.01)


def test_exposure_follows_the_path():
    """Notes on physics 3.1: 120 e⁻/Å² as 1 / cos: 2.29 at 0° and 4.59 at 60°."""
    schedule = draw_up_schedule(PlanParams(tilting=TiltingParams(exposure_power=1.0)), 120.0)
    assert schedule.exposure[0] == pytest.approx(2.29, abs=0.01)
    assert schedule.exposure[-1] == pytest.approx(4.59, abs=0.01)
    assert schedule.pre_exposure[1:] == pytest.approx(np.cumsum(schedule.exposure)[:-1])
