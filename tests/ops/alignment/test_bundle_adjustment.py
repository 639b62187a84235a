"""The bundle adjuster: derivatives, gauge, recovery of made problems, robustness, errors, and two real problems."""

import importlib.util
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tiltwise.data.tilt_series import TiltGeometry
from tiltwise.ops.alignment.bundle_adjustment import Freedom, Freedoms, adjust, triangulate
from tiltwise.ops.alignment.bundle_system import (
    NUMBER,
    BundleState,
    Observations,
    gauge_directions,
    linearise,
    move,
    predict,
)

SHARED = Path(__file__).parents[3].parent / "shared" / "data" / "alignment_text" / "imod_bb"
TILTS, POINTS = 21, 12
ALL = Freedoms(tilt_angle=Freedom(deviation=1.0), magnification=Freedom())


def made_state(seed=0):
    rng = np.random.default_rng(seed)
    geometry = TiltGeometry(
        tilt_angle=np.linspace(-60, 60, TILTS) + rng.normal(0, 0.2, TILTS),
        tilt_axis_angle=84 + rng.normal(0, 0.2, TILTS),
        x_tilt=rng.normal(0, 0.2, TILTS),
        shift=rng.normal(0, 100, (TILTS, 2)),
    )
    return BundleState(
        geometry=geometry,
        magnification=1 + rng.normal(0, 0.002, TILTS),
        stretch=rng.normal(0, 0.002, TILTS),
        skew=rng.normal(0, 0.002, TILTS),
        points=rng.uniform(-1, 1, (POINTS, 3)) * [2000, 2000, 500],
    )


def pairs():
    return (index.ravel() for index in np.meshgrid(np.arange(TILTS), np.arange(POINTS), indexing="ij"))


def observed(state, noise=0.0, seed=1):
    tilt, point = pairs()
    position = predict(state, tilt, point) + np.random.default_rng(seed).normal(0, 1, (len(tilt), 2)) * noise
    return Observations(tilt=tilt, point=point, position=position, weight=np.ones(len(tilt)))


def plain_truth(seed=0):
    """A state that the default parameters can reach: no x-tilt, no strain."""
    state, zero = made_state(seed), np.zeros(TILTS)
    geometry = replace(state.geometry, x_tilt=zero)
    return replace(state, geometry=geometry, stretch=zero, skew=zero)


def nominal(state):
    geometry = replace(
        state.geometry,
        tilt_angle=np.linspace(-60, 60, TILTS),
        tilt_axis_angle=np.full(TILTS, 85.0),
        shift=np.zeros((TILTS, 2)),
    )
    return BundleState.undistorted(geometry, np.zeros((0, 3)))


def fit_of(observations, state, freedoms=ALL, loss="cauchy"):
    return adjust(observations, triangulate(observations, nominal(state)), freedoms, loss=loss)


def test_the_jacobian_is_that_of_finite_differences():
    state, (tilt, point) = made_state(), pairs()
    jacobian = linearise(state, tilt, point)
    for k in range(NUMBER + 3):
        h = 1e-2 if k < 2 or k >= NUMBER else 1e-6  # Å; radians and factors
        steps = np.zeros((TILTS, NUMBER)), np.zeros((POINTS, 3))
        (steps[0] if k < NUMBER else steps[1])[:, k % NUMBER] = h
        there, back = (predict(move(state, s * steps[0], s * steps[1]), tilt, point) for s in (1, -1))
        found = jacobian.tilt_part[:, :, k] if k < NUMBER else jacobian.point_part[:, :, k - NUMBER]
        # central differences: rounding 1e-16 · 2000 / h, and the third derivative h² · 2000 / 6
        np.testing.assert_allclose(found, (there - back) / (2 * h), atol=2e-6)


@pytest.mark.parametrize(
    ("fixed", "number"), [((), 12), ((2, 3, 4, 5, 6, 7), 3), ((6, 7), 7), ((4, 6, 7), 4), ((3, 4, 5, 6, 7), 3)]
)
def test_gauge_directions_change_no_prediction(fixed, number):
    state = made_state()
    zero = np.zeros(TILTS)
    if 6 in fixed:  # fixed strains that differ tell the turns of the specimen
        state = replace(state, stretch=zero, skew=zero)
    if 4 in fixed:  # a turn about the tilt axis is gauge where there is no x-tilt
        state = replace(state, geometry=replace(state.geometry, x_tilt=zero))
    held = np.zeros((TILTS, NUMBER), bool)
    held[:, list(fixed)] = True
    found = gauge_directions(state, held.ravel(), np.zeros((TILTS * NUMBER,) * 2))
    # with no x-tilt and no axis change: three translations; scale; the turn about the tilt axis if the angle is free
    expected = {(4, 6, 7): 5, (3, 4, 5, 6, 7): 3}.get(fixed, number)
    assert found.shape[1] == expected
    tilt, point = pairs()
    jacobian = linearise(state, tilt, point)
    for direction in found.T.reshape(-1, TILTS, NUMBER):
        moved = np.einsum("oak,ok->oa", jacobian.tilt_part, direction[tilt])
        design = np.zeros((len(tilt), 2, POINTS, 3))
        design[np.arange(len(tilt)), :, point] = jacobian.point_part
        flat = design.reshape(-1, POINTS * 3)
        taken = flat @ np.linalg.lstsq(flat, moved.ravel(), rcond=None)[0]
        np.testing.assert_allclose(taken, moved.ravel(), atol=1e-7 * np.abs(moved).max())


def test_a_problem_without_noise_is_solved_exactly():
    truth = plain_truth()
    fit = fit_of(observed(truth), truth, replace(ALL, tilt_angle=Freedom()))
    assert np.abs(fit.residual).max() < 1e-3
    assert fit.gauge == 5 and fit.parameters == 5 * TILTS + 3 * POINTS - 5
    # what no gauge touches: the axis
    np.testing.assert_allclose(fit.state.geometry.tilt_axis_angle, truth.geometry.tilt_axis_angle, atol=1e-4)


def test_errors_are_as_large_as_they_are_said_to_be():
    truth = plain_truth()
    freedoms = Freedoms()
    truth = replace(
        truth, magnification=np.ones(TILTS), geometry=replace(truth.geometry, tilt_angle=np.linspace(-60, 60, TILTS))
    )
    errors = []
    for seed in range(12):
        fit = fit_of(observed(truth, noise=2.0, seed=seed), truth, freedoms, loss="huber")
        errors.append((fit.state.geometry.tilt_axis_angle - truth.geometry.tilt_axis_angle) / fit.tilt_error[:, 2])
        assert fit.scale == pytest.approx(2.0, rel=0.2)  # 252 observations: the median's sd is 6 %
    # 12 x 21 standard normal values, robust weights cost a few percent
    assert np.std(errors) == pytest.approx(1.0, abs=0.15)


def test_wrong_observations_do_no_harm_and_are_told():
    truth = plain_truth()
    observations = observed(truth, noise=1.0)
    rng = np.random.default_rng(3)
    wrong = rng.choice(len(observations.tilt), 20, replace=False)
    observations.position[wrong] += rng.choice([-1, 1], (20, 2)) * rng.uniform(30, 60, (20, 2))
    fit = fit_of(observations, truth)
    right = np.setdiff1d(np.arange(len(observations.tilt)), wrong)
    assert fit.robust_weight[wrong].max() < 0.05 and np.median(fit.robust_weight[right]) > 0.7
    assert np.abs(fit.state.geometry.tilt_axis_angle - truth.geometry.tilt_axis_angle).max() < 0.1
    assert fit.scale == pytest.approx(1.0, rel=0.25)


def test_held_out_residuals_are_those_of_fits_without_the_observation():
    truth = plain_truth()
    observations = observed(truth, noise=1.0)
    fit = fit_of(observations, truth, loss="squares")
    for out in (0, 100, 251):
        keep = np.arange(len(observations.tilt)) != out
        names = ("tilt", "point", "position", "weight")
        part = Observations(**{name: getattr(observations, name)[keep] for name in names})
        other = adjust(part, fit.state, replace(ALL, tilt_angle=Freedom(deviation=0.0)), loss="squares")
        fixed = adjust(observations, fit.state, replace(ALL, tilt_angle=Freedom(deviation=0.0)), loss="squares")
        place = predict(other.state, observations.tilt[[out]], observations.point[[out]])
        expected = (observations.position[[out]] - place)[0]
        np.testing.assert_allclose(fixed.held_out_residual[out], expected, atol=0.02 * np.linalg.norm(expected))


def test_a_prior_holds_the_angles_and_a_tie_makes_them_smooth():
    truth = plain_truth()
    observations = observed(truth, noise=3.0)
    loose, tied, fixed = (
        fit_of(observations, truth, replace(ALL, tilt_axis_angle=freedom)).state.geometry.tilt_axis_angle
        for freedom in (Freedom(), Freedom(step=0.01), Freedom(deviation=0.0))
    )
    assert np.diff(tied).std() < 0.2 * np.diff(loose).std()
    np.testing.assert_array_equal(fixed, 85.0)


def test_a_tilt_without_observations_stays_where_it_was():
    truth = plain_truth()
    observations = observed(truth)
    keep = observations.tilt != 5
    names = ("tilt", "point", "position", "weight")
    part = Observations(**{name: getattr(observations, name)[keep] for name in names})
    fit = fit_of(part, truth, Freedoms(magnification=Freedom()))
    np.testing.assert_array_equal(fit.state.geometry.shift[5], 0.0)
    assert np.isfinite(fit.tilt_error).all()


def test_what_cannot_be_solved_is_refused():
    truth = plain_truth()
    observations = observed(truth)
    with pytest.raises(ValueError, match="two tilts"):
        adjust(observations, replace(truth, points=np.zeros((POINTS + 1, 3))), ALL)
    with pytest.raises(ValueError, match="cauchy"):
        adjust(observations, truth, ALL, loss="median")


@pytest.mark.skipif(not SHARED.is_dir(), reason="the shared real data are not here")
@pytest.mark.parametrize("name", ["BBa", "BBb"])
def test_real_beads_are_solved_as_well_as_by_the_other_program(name):
    path = Path(__file__).parents[3] / "benchmarks" / "accuracy" / "bundle_imod.py"
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    figures = module.measure(SHARED, name)
    assert figures["residual_ratio"] <= 1.0 and figures["beads_rms_px"] <= 0.5
