"""A deformation comes out of tracks to their noise; a rigid series keeps none; rigid parts change no image."""

from dataclasses import replace

import numpy as np
import pytest

from tiltwise.data.deformation import Deformation, ImageWarp, SampleDeformation
from tiltwise.data.optics import Optics
from tiltwise.data.tilt_series import TiltGeometry, TiltSeries
from tiltwise.ops.alignment.bundle_adjustment import Freedom
from tiltwise.ops.alignment.bundle_system import Observations, rotations_of
from tiltwise.ops.alignment.track_alignment import DRIFT, fit_tracks
from tiltwise.ops.alignment.track_deformation import deform_to_tracks, take_out_rigid, used_geometry
from tiltwise.ops.deformation import specimen_in_images
from tiltwise.params.microscope import MotionParams
from tiltwise.simulate.disturbances import draw_deformation

SIDE, PIXEL, NOISE = 100, 40.0, 2.0


def made_series(number=21):
    """4000 Å wide, dose-symmetric, rigid."""
    angles = np.linspace(-60, 60, number)
    order = np.argsort(np.argsort(np.abs(angles), kind="stable"))
    rng = np.random.default_rng(3)
    return TiltSeries(
        name="made",
        images=np.zeros((number, SIDE, SIDE), np.float32),
        image_names=("",) * number,
        pixel_size=PIXEL,
        optics=Optics(),
        stage_tilt_angle=angles,
        nominal_tilt_axis_angle=84.0,
        exposure=np.full(number, 4.0),
        pre_exposure=4.0 * order,
        acquisition_order=order,
        use=np.arange(number) != 4,
        why_not=("",) * number,
        geometry=TiltGeometry(
            tilt_angle=angles,
            tilt_axis_angle=np.full(number, 84.0),
            x_tilt=np.zeros(number),
            shift=rng.normal(0, 30, (number, 2)),
        ),
    )


def deformed(series, size, seed=0):
    params = MotionParams(deformation=size, magnification=5e-4 if size else 0.0)
    return replace(
        series, deformation=Deformation(sample=draw_deformation(params, series, np.random.default_rng(seed)))
    )


def observe(series, number, seed=1):
    """Places of points with noise, one in fifty of them wrong by far; tilts count the used ones."""
    rng = np.random.default_rng(seed)
    points = rng.uniform(-1, 1, (number, 3)) * [1700, 1700, 700]
    used = np.flatnonzero(series.use)
    places = specimen_in_images(series, points, used)[0] + rng.normal(0, NOISE, (len(used), number, 2))
    places += (rng.uniform(size=(len(used), number, 1)) < 0.02) * rng.normal(0, 60, (len(used), number, 2))
    tilt, point = np.indices(places.shape[:2]).reshape(2, -1)
    return points, Observations(tilt=tilt, point=point, position=places.reshape(-1, 2), weight=np.ones(len(tilt)))


def fitted(series, observations):
    """The series with the best rigid geometry: what the bundle adjustment leaves to the deformation."""
    fit = fit_tracks(observations, used_geometry(series), replace(DRIFT, tilt_angle=Freedom(deviation=0.3)))
    every, used = series.geometry, np.flatnonzero(series.use)
    values = {name: getattr(every, name).copy() for name in ("tilt_angle", "tilt_axis_angle", "x_tilt", "shift")}
    for name, value in values.items():
        value[used] = getattr(fit.state.geometry, name)
    return replace(series, geometry=TiltGeometry(**values))


def misplaced(found, truth, seed=5):
    """Rms (Å) by which new points lie off, each moved to where the found series shows it best."""
    points = np.random.default_rng(seed).uniform(-1, 1, (200, 3)) * [1700, 1700, 700]
    used = np.flatnonzero(truth.use)
    there, here = (specimen_in_images(s, points, used)[0] for s in (truth, found))
    views = rotations_of(truth.geometry)[used, :2].reshape(-1, 3)
    error = (there - here).transpose(0, 2, 1).reshape(-1, len(points))
    error -= views @ np.linalg.lstsq(views, error, rcond=None)[0]
    return float(np.sqrt(2 * (error**2).mean()))


@pytest.mark.parametrize("size", [10.0, 20.0])
def test_a_deformation_comes_out_of_tracks(size):
    truth = deformed(made_series(), size)
    _, seen = observe(truth, 40)
    rigid = fitted(replace(truth, deformation=None), seen)
    found = deform_to_tracks(rigid, seen)
    assert "sample" in found.widths and found.held_out < found.held_out_before
    before, after = misplaced(rigid, truth), misplaced(found.tilt_series, truth)
    assert after < 0.75 * before
    # noise alone, 208 parameters fitted to 1600 numbers: NOISE sqrt(2 · 208 / 1600) = NOISE / 2; as much again for what
    # the prior holds back and knots cannot follow
    assert after < NOISE


def test_deformation_and_warp_come_out_of_tracks_together():
    """Images warped by 8 Å at most, a swell over half the side, beside the specimen's deformation; a tilt left out."""
    truth = deformed(made_series(), 20.0)
    rng = np.random.default_rng(7)
    across = np.cos(np.pi * np.linspace(-1, 1, 6))
    swell = across[:, None, None] * across[None, :, None] * np.ones(2)
    warp = ImageWarp(
        coefficient=8.0 * rng.choice([-1, 1], (truth.number, 1, 1, 1)) * swell, extent=(SIDE * PIXEL, SIDE * PIXEL)
    )
    truth = replace(truth, deformation=replace(truth.deformation, image=warp))
    _, seen = observe(truth, 80)
    rigid = fitted(replace(truth, deformation=None), seen)
    found = deform_to_tracks(rigid, seen)
    assert {"sample", "warp"} <= set(found.widths)
    # each half of the points predicts the other by what was fitted; what is applied must do as well
    assert misplaced(found.tilt_series, truth) < 0.6 * misplaced(rigid, truth)


def test_a_rigid_series_keeps_none_or_takes_no_harm():
    series = made_series()
    for seed in range(2):
        _, seen = observe(series, 30, seed)
        found = deform_to_tracks(series, seen)
        assert found.widths == {} and found.tilt_series.deformation is None


def test_few_points_are_not_asked():
    series = made_series()
    assert deform_to_tracks(series, observe(series, 8)[1]) is None


def test_what_is_rigid_in_a_deformation_moves_into_the_geometry():
    """The same places to second order: a displacement of 5 Å at 2000 Å, squared, is 0.01 Å."""
    series, rng = made_series(), np.random.default_rng(0)
    sample = SampleDeformation(
        exposure=np.linspace(0, 124, 5),
        coefficient=rng.normal(0, 3, (5, 10, 3)),
        scale=2000.0,
        magnification=rng.normal(1, 5e-4, series.number),
    )
    warp = ImageWarp(coefficient=rng.normal(0, 3, (series.number, 5, 5, 2)), extent=(4000.0, 4000.0))
    full = replace(series, deformation=Deformation(sample=sample, image=warp))
    bare = take_out_rigid(full)
    points = rng.uniform(-1, 1, (50, 3)) * [1500, 1500, 700]
    places = [specimen_in_images(s, points)[0] for s in (full, bare)]
    np.testing.assert_allclose(places[0], places[1], atol=0.1)
    linear = bare.deformation.sample.coefficient[:, 1:4]
    np.testing.assert_allclose(np.trace(linear, axis1=1, axis2=2), 0, atol=1e-9)
    np.testing.assert_allclose(linear, linear.transpose(0, 2, 1), atol=1e-9)
