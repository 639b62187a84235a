"""Where points appear and how deep they lie, against closed forms written out here."""

import math

import numpy as np
import pytest
import torch

from tiltwise.data.tilt_series import TiltGeometry
from tiltwise.ops.geometry import (
    defocus_at_depth,
    plane_depth,
    project_points,
    rotate_about_x,
    rotate_about_y,
    rotate_about_z,
    tilt_rotations,
)


def f64(values) -> torch.Tensor:
    return torch.as_tensor(values, dtype=torch.float64)


def geometry(tilt: float, axis: float = 0.0, x_tilt: float = 0.0, shift=(0.0, 0.0)) -> TiltGeometry:
    return TiltGeometry(
        tilt_angle=np.array([tilt]),
        tilt_axis_angle=np.array([axis]),
        x_tilt=np.array([x_tilt]),
        shift=np.array([shift]),
    )


@pytest.mark.parametrize(
    ("turn", "start", "end"),
    [
        (rotate_about_x, (0, 1, 0), (0, 0, 1)),
        (rotate_about_y, (0, 0, 1), (1, 0, 0)),
        (rotate_about_z, (1, 0, 0), (0, 1, 0)),
    ],
)
def test_rotations_are_active_and_right_handed(turn, start, end):
    assert torch.allclose(turn(f64(90.0)) @ f64(start), f64(end), atol=1e-12)


def test_order_is_x_tilt_then_tilt_then_axis():
    rotation = tilt_rotations(geometry(30.0, 85.0, 5.0))[0]
    expected = rotate_about_z(f64(85.0)) @ rotate_about_y(f64(30.0)) @ rotate_about_x(f64(5.0))
    assert torch.allclose(rotation, expected, atol=1e-12)
    assert torch.allclose(rotation @ rotation.T, torch.eye(3, dtype=torch.float64), atol=1e-12)


def test_projection_closed_form():
    """Axis along y: x' = x cos + z sin, y' = y, depth = -x sin + z cos; then the shift."""
    x, y, z, angle = 100.0, -40.0, 70.0, math.radians(25)
    g = geometry(25.0, shift=(11.0, -7.0))
    position, depth = project_points(f64([[x, y, z]]), tilt_rotations(g), f64(g.shift))
    assert torch.allclose(position[0, 0], f64([x * math.cos(angle) + z * math.sin(angle) + 11, y - 7]))
    assert float(depth) == pytest.approx(-x * math.sin(angle) + z * math.cos(angle))


def test_axis_angle_counts_from_y_counter_clockwise():
    """A point on the tilt axis stays there: at 90° the axis lies along -x."""
    g = geometry(60.0, axis=90.0)
    position, depth = project_points(f64([[0.0, 100.0, 0.0]]), tilt_rotations(g), f64(g.shift))
    assert torch.allclose(position[0, 0], f64([-100.0, 0.0]), atol=1e-10)
    assert float(depth) == pytest.approx(0.0, abs=1e-10)


def test_plane_depth_is_that_of_the_projected_points():
    generator = torch.Generator().manual_seed(1)
    normal = f64([0.05, -0.08, 1.0])
    normal = normal / normal.norm()
    height = 120.0
    points = 1000 * torch.randn(20, 3, generator=generator, dtype=torch.float64)
    points = points + (height - points @ normal)[:, None] * normal
    g = geometry(-48.0, 84.5, 1.5, (130.0, -90.0))
    rotations = tilt_rotations(g)
    position, depth = project_points(points, rotations, f64(g.shift))
    found = plane_depth(rotations @ normal, height, position - f64(g.shift)[:, None])
    assert torch.allclose(found, depth, atol=1e-8)


def test_plane_depth_figures():
    """270 Å of image shift at 60° is 468 Å of depth; a plane H above the centre lies at H / cos there."""
    rotation = tilt_rotations(geometry(60.0))
    normal = rotation @ f64([0.0, 0.0, 1.0])
    assert float(plane_depth(normal, 0.0, f64([[270.0, 0.0]]))) == pytest.approx(-270 * math.tan(math.radians(60)))
    assert abs(float(plane_depth(normal, 0.0, f64([[270.0, 0.0]])))) == pytest.approx(467.7, abs=0.1)
    assert float(plane_depth(normal, 50.0, f64([[0.0, 0.0]]))) == pytest.approx(100.0)


@pytest.mark.parametrize(("handedness", "expected"), [(1, 20300.0), (-1, 19700.0)])
def test_defocus_at_depth(handedness, expected):
    assert float(defocus_at_depth(f64([20000.0]), handedness, f64([[300.0]]))) == expected
