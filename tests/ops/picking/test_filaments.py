"""Centre lines against curves known in closed form: straight, arc, helix; frames, turns, tubes."""

import numpy as np
import pytest

from tiltwise.ops.picking.filaments import along_line, around_line, centre_line

RADIUS, PITCH = 300.0, 800.0
TURN = np.hypot(RADIUS, PITCH / (2 * np.pi))
"""Å of a helix's length for a radian."""


def helix(angle):
    return np.stack([RADIUS * np.cos(angle), RADIUS * np.sin(angle), PITCH * angle / (2 * np.pi)], -1)


def helix_tangent(angle):
    return (
        np.stack([-RADIUS * np.sin(angle), RADIUS * np.cos(angle), np.full_like(angle, PITCH / (2 * np.pi))], -1) / TURN
    )


def test_straight_line_is_exact():
    line = centre_line(np.array([[0, 0, 0], [300.0, 400, 0]]), 50.0)
    assert line.length == pytest.approx(500) and len(line.position) == 11 and line.step == pytest.approx(50)
    assert np.allclose(line.position[3], [90, 120, 0]) and np.allclose(line.frame[:, :, 2], [0.6, 0.8, 0])
    assert np.allclose(line.frame, line.frame[0])


def test_arc_of_three_points_and_its_direction():
    """Through three points of an arc of 20 degrees goes a parabola: off by about L^4 / (128 · 8 R^3), 2e-3 Å here."""
    angle = np.radians([0, 10, 20])
    points = 500 * np.stack([np.cos(angle), np.sin(angle), 0 * angle], -1)
    line = centre_line(points, 10.0)
    assert np.abs(np.linalg.norm(line.position, axis=1) - 500).max() < 0.03
    assert line.length == pytest.approx(500 * np.radians(20), abs=0.02)
    back = centre_line(points[::-1], 10.0)
    assert np.allclose(back.position, line.position[::-1], atol=1e-6)
    assert np.allclose(back.frame[:, :, 2], -line.frame[::-1, :, 2], atol=1e-6)


def test_helix():
    """Points 15 degrees apart: a cubic spline errs by about 5/384 h^4 R in the middle, 0.02 Å, more at the ends, where
    it does not know the curvature; equal steps of length, tangents along."""
    angle = np.radians(np.arange(0, 541, 15.0))
    line = centre_line(helix(angle), 20.0)
    assert line.length == pytest.approx(TURN * angle[-1], rel=1e-5)
    expected = np.linspace(0, angle[-1], len(line.position))
    assert np.abs(line.position - helix(expected)).max() < 0.25
    inner = slice(len(expected) // 8, -len(expected) // 8)
    assert np.abs((line.position - helix(expected))[inner]).max() < 0.05
    turned = np.degrees(np.arccos(np.clip((line.frame[:, :, 2] * helix_tangent(expected)).sum(1), -1, 1)))
    assert turned[inner].max() < 0.05 and turned.max() < 1.0


def test_frames_do_not_turn_about_the_line():
    """The derivative of x along the line has no part along y. One step turns the frame by h k, k the curvature; what is
    left about the tangent is of the third order, (h k)^3."""
    line = centre_line(helix(np.radians(np.arange(0, 541, 15.0))), 5.0)
    change = (np.diff(line.frame[:, :, 0], axis=0) * line.frame[:-1, :, 1]).sum(1)
    curvature = RADIUS / TURN**2
    assert np.abs(change).max() < 5 * (line.step * curvature) ** 2
    assert np.allclose(line.frame @ np.swapaxes(line.frame, 1, 2), np.eye(3), atol=1e-9)
    assert np.allclose(np.linalg.det(line.frame), 1)


def test_subunits_stand_at_the_rise_and_turn_by_the_twist():
    line = centre_line(np.array([[0, 0, 0], [0, 0, 820.0]]), 41.0)
    position, rotation = along_line(line, 27.0, np.random.default_rng(0))
    assert np.allclose(np.diff(position[:, 2]), 41) and np.allclose(rotation.apply([0, 0, 1]), [0, 0, 1])
    steps = (rotation[1:] * rotation[:-1].inv()).as_rotvec(degrees=True)
    assert np.allclose(steps, [0, 0, 27])
    free = along_line(line, None, np.random.default_rng(0))[1]
    assert np.allclose(free.apply([0, 0, 1]), [0, 0, 1]) and (free[1:] * free[:-1].inv()).magnitude().std() > 0.3


def test_tube_normals_point_outwards_and_keep_the_direction():
    angle = np.radians(np.arange(0, 91, 5.0))
    points = 900 * np.stack([np.cos(angle), np.sin(angle), 0 * angle], -1)
    line = centre_line(points, 40.0)
    position, rotation = around_line(line, 110.0, 40.0)
    # a torus: the distance of a point from the circle of radius 900 is the tube's radius, its gradient the normal
    ring = np.hypot(position[:, 0], position[:, 1])
    assert np.abs(np.hypot(ring - 900, position[:, 2]) - 110).max() < 0.05
    radial = np.stack([position[:, 0] / ring, position[:, 1] / ring, 0 * ring], -1)
    normal = ((ring - 900)[:, None] * radial + position * [0, 0, 1]) / 110
    assert np.abs(rotation.apply([0, 0, 1]) - normal).max() < 2e-3
    forward = np.stack([-radial[:, 1], radial[:, 0], 0 * ring], -1)
    assert ((rotation.apply([1, 0, 0]) * forward).sum(1) > 0.999).all()
    around = int(round(2 * np.pi * 110 / 40))
    assert len(position) == around * len(line.position)
