"""Beads of every size are measured, found and followed; none are seen in noise; a drifting axis comes out of them."""

from dataclasses import replace

import numpy as np
import pytest
from beads_scene import PIXEL, bead_frames, made_geometry, made_points
from scipy.spatial import cKDTree

from tiltwise.ops.alignment.bead_alignment import align_to_beads
from tiltwise.ops.alignment.beads import find_beads, measure_bead_diameter, track_beads
from tiltwise.ops.alignment.bundle_system import BundleState, predict


@pytest.fixture(scope="module")
def scene():
    geometry, points = made_geometry(drift=0.6), made_points()
    frames = bead_frames(geometry, points)
    return geometry, points, [find_beads(frames, i, 100.0) for i in range(21)]


@pytest.mark.parametrize("diameter", [50.0, 70.0, 100.0, 150.0, 200.0])
def test_the_size_of_beads_is_measured(diameter):
    frames = bead_frames(made_geometry(5), made_points(), diameter=diameter, height=10.0)
    # sizes are tried in steps of 1.17, the parabola between them leaves a part of a step
    assert measure_bead_diameter(frames, np.linspace(-60, 60, 5)) == pytest.approx(diameter, rel=0.12)


def test_noise_holds_no_beads():
    frames = bead_frames(made_geometry(5), made_points(), height=0.0)
    assert measure_bead_diameter(frames, np.linspace(-60, 60, 5)) is None


def test_beads_are_found_where_they_are(scene):
    geometry, points, candidates = scene
    for tilt in (0, 10, 20):
        truth = predict(BundleState.undistorted(geometry, points), np.full(20, tilt), np.arange(20))
        truth = truth[np.abs(truth).max(1) < 1200]
        alone = cKDTree(truth).query(truth, k=2)[0][:, 1] > 250
        distance = cKDTree(candidates[tilt].position).query(truth[alone])[0]
        assert distance.max() < 0.3 * PIXEL  # localisation: sd of the noise over height and size, and the parabola


def test_beads_are_followed_from_a_rough_geometry(scene):
    geometry, points, candidates = scene
    rough = made_geometry(axis=84.6)
    tracks = track_beads(candidates, rough, 100.0, 800.0, 50.0)
    distance, _ = cKDTree(points).query(tracks.points)
    assert len(tracks.points) >= 16 and np.median(distance) < 50


def test_the_geometry_comes_out_of_the_beads_and_a_lost_tilt_is_found(scene):
    geometry, points, candidates = scene
    rough = made_geometry(axis=84.4)
    shift = rough.shift + np.random.default_rng(4).normal(0, 8, rough.shift.shape)
    shift[0] += [150.0, -90.0]
    found = align_to_beads(candidates, replace(rough, shift=shift), 100.0, 800.0)
    assert "drifting" in found.model
    np.testing.assert_allclose(found.geometry.tilt_axis_angle, geometry.tilt_axis_angle, atol=0.1)
    assert found.held_out < 0.3 * PIXEL and found.held_out < 0.3 * found.held_out_before
    residual = found.residual_by_tilt()
    assert np.isfinite(residual).all() and residual.max() < 0.5 * PIXEL


def test_too_few_beads_give_no_alignment(scene):
    geometry, _, candidates = scene
    few = [replace(c, position=c.position[:3], score=c.score[:3]) for c in candidates]
    assert align_to_beads(few, geometry, 100.0, 800.0) is None
