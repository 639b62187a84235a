"""Gauges put in are taken out, and errors put in are found."""

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from tiltwise.data.tilt_series import TiltGeometry
from tiltwise.ops.geometry import tilt_rotations
from tiltwise.ops.poses.comparison import compare_poses, match_points, nearest_equivalent, tomogram_motion
from tiltwise.ops.symmetry import symmetry_rotations


def _geometry() -> TiltGeometry:
    angle = np.arange(-60, 61, 10.0)
    rng = np.random.default_rng(0)
    return TiltGeometry(
        tilt_angle=angle,
        tilt_axis_angle=np.full(len(angle), 84.0),
        x_tilt=np.zeros(len(angle)),
        shift=rng.normal(0, 30, (len(angle), 2)),
    )


def test_tilt_offset_and_translation_are_a_motion_of_the_tomogram():
    """Tilt angles larger by 2° are the same images of a specimen turned by -2° about y; b moves every image by
    (R'b)_xy."""
    truth, b = _geometry(), np.array([20.0, -10.0, 35.0])
    offset = TiltGeometry(
        tilt_angle=truth.tilt_angle + 2, tilt_axis_angle=truth.tilt_axis_angle, x_tilt=truth.x_tilt, shift=truth.shift
    )
    moved = (tilt_rotations(offset).numpy() @ b)[:, :2]
    estimated = TiltGeometry(
        tilt_angle=offset.tilt_angle,
        tilt_axis_angle=offset.tilt_axis_angle,
        x_tilt=offset.x_tilt,
        shift=truth.shift - moved,
    )
    motion = tomogram_motion(estimated, truth, np.ones(13, bool))
    assert np.allclose(motion.rotation, Rotation.from_rotvec([0, -2, 0], degrees=True).as_matrix(), atol=1e-9)
    assert np.allclose(motion.shift, b)
    point = np.array([100.0, -50.0, 20.0])
    there = motion.rotation @ point + motion.shift
    true_image = tilt_rotations(truth).numpy()[:, :2] @ point + truth.shift
    assert np.allclose(tilt_rotations(estimated).numpy()[:, :2] @ there + estimated.shift, true_image)


def test_matching_is_one_to_one_and_within_the_distance():
    first = np.array([[0.0, 0, 0], [1.0, 0, 0], [50.0, 0, 0]])
    second = np.array([[0.9, 0, 0], [0.4, 0, 0], [100.0, 0, 0]])
    rows, columns = match_points(first, second, 5.0)
    assert sorted(zip(rows.tolist(), columns.tolist(), strict=True)) == [(0, 1), (1, 0)]
    assert len(match_points(np.empty((0, 3)), second, 5.0)[0]) == 0


def test_reference_frame_is_removed_and_errors_are_found():
    rng = np.random.default_rng(1)
    n, error_deg, error_shift = 40, 3.0, 2.0
    true_rotation, true_position = Rotation.random(n, random_state=2), rng.normal(0, 300, (n, 3))
    q, d = Rotation.from_rotvec([10, 20, -15], degrees=True), np.array([5.0, -8.0, 3.0])
    axis = rng.normal(size=(n, 3))
    axis /= np.linalg.norm(axis, axis=1, keepdims=True)
    rotation = true_rotation * q.inv() * Rotation.from_rotvec(error_deg * axis, degrees=True)
    position = true_position - (true_rotation * q.inv()).apply(d) + error_shift * axis
    rotation = Rotation.concatenate([Rotation.random(4, random_state=3), rotation[4:]])  # four gross errors
    found = compare_poses(position, rotation, true_position, true_rotation)
    assert np.median(found.angle) == pytest.approx(error_deg, abs=0.5)
    assert np.median(found.shift) == pytest.approx(error_shift, abs=0.6)
    assert np.degrees((Rotation.from_matrix(found.reference_motion.rotation) * q.inv()).magnitude()) < 1.5
    assert np.allclose(found.reference_motion.shift, d, atol=1.5)
    perfect = compare_poses(true_position, true_rotation, true_position, true_rotation)
    assert perfect.angle.max() < 1e-5 and perfect.shift.max() < 1e-9


def test_poses_that_a_point_group_cannot_tell_apart_are_the_same():
    """R · g turned by 3° more comes back as R turned by 3°: half of the least angle of O, 90°, is far larger."""
    rng = np.random.default_rng(5)
    true = Rotation.random(40, random_state=rng)
    mates = Rotation.from_matrix(symmetry_rotations("O").numpy()[rng.integers(24, size=40)])
    error = Rotation.from_rotvec([3.0, 0, 0], degrees=True)
    found = nearest_equivalent(error * true * mates, true, "O")
    assert np.allclose((found * true.inv()).as_rotvec(degrees=True), [3.0, 0, 0], atol=1e-9)
