"""Surfaces against those known in closed form: torus and plane of voxels, ellipsoid and saddle through points."""

import numpy as np
import pytest
from scipy.spatial import cKDTree

from tiltwise.ops.picking.surfaces import clicked_surface, sheet_parts, sheet_surface
from tiltwise.ops.rotations import direction_grid


def spread(points):
    """Distance of each point to its nearest neighbour."""
    return cKDTree(points).query(points, 2)[0][:, 1]


def torus_distance(points, ring=22.0):
    """Signed distance from the circle of the torus less its tube's radius 10, and the outward normal."""
    out = np.hypot(points[:, 0], points[:, 1])
    offset = np.stack([(out - ring) * points[:, 0] / out, (out - ring) * points[:, 1] / out, points[:, 2]], -1)
    length = np.linalg.norm(offset, axis=1)
    return length - 10.0, offset / length[:, None]


def test_torus_of_voxels():
    """A sheet 4 voxels thick about a torus of radius 10: a column of radius 2 lies inside by 2² / 4 / 10, 0.1 voxel;
    voxels end within half of one at either face. Normals are unbiased but for the voxels' steps, some degrees."""
    axes = np.arange(-36, 37)
    z, y, x = np.meshgrid(axes[24:-24], axes, axes, indexing="ij")
    grid = np.stack([x, y, z], -1).reshape(-1, 3).astype(float)
    grid[:, :2] += 1e-9
    mask = (np.abs(torus_distance(grid)[0]) < 2).reshape(z.shape)
    two = np.concatenate([mask, np.zeros_like(mask[:3]), mask[:2]])
    parts = sheet_parts(two)
    assert len(parts[0]) == mask.sum() and len(parts) >= 2
    points, normal = sheet_surface(parts[0], 4.0)
    off, true = torus_distance(points - [36, 36, 12])
    assert np.abs(off).max() < 0.6 and np.abs(off.mean()) < 0.2
    angle = np.degrees(np.arccos(np.clip((normal * true).sum(1), -1, 1)))
    assert np.median(angle) < 4 and angle.max() < 20  # a side that is wrong would be 160 degrees and more
    assert spread(points).min() >= 4 and np.median(spread(points)) < 6


def test_plane_of_voxels_is_exact():
    mask = np.zeros((12, 30, 30))
    mask[4:9] = 1  # sections 4 to 8: the middle is 6
    points, normal = sheet_surface(sheet_parts(mask)[0], 5.0)
    inner = ((points[:, :2] > 6) & (points[:, :2] < 23)).all(1)
    assert np.allclose(points[inner, 2], 6, atol=1e-6) and np.allclose(np.abs(normal[inner, 2]), 1)
    assert len({int(s) for s in np.sign(normal[inner, 2])}) == 1


def test_ellipsoid_through_clicked_points():
    """60 clicks on half axes 400, 350, 300 Å: a thin-plate spline of the radius over directions; outward normals."""
    axes = np.array([400.0, 350, 300])
    rng = np.random.default_rng(1)
    direction = rng.normal(size=(60, 3))
    clicks = axes * direction / np.linalg.norm(direction, axis=1, keepdims=True) + [1000, -500, 70]
    points, normal = clicked_surface(clicks, 60.0)
    local = points - [1000, -500, 70]
    assert np.abs((np.linalg.norm(local / axes, axis=1) - 1) * 350).max() < 8
    true = local / axes**2
    true /= np.linalg.norm(true, axis=1, keepdims=True)
    angle = np.degrees(np.arccos(np.clip((normal * true).sum(1), -1, 1)))
    assert np.median(angle) < 2 and angle.max() < 10
    assert spread(points).min() >= 60 and len(points) > 0.5 * len(direction_grid(np.degrees(60 / 350)))


def test_saddle_through_clicked_points():
    x, y = (a.ravel() for a in np.meshgrid(np.linspace(-300, 300, 7), np.linspace(-300, 300, 7)))
    height = (x**2 - y**2) / 3000
    turn = np.linalg.qr(np.random.default_rng(2).normal(size=(3, 3)))[0]
    points, normal = clicked_surface(np.stack([x, y, height], -1) @ turn.T + 50, 50.0)
    local = (points - 50) @ turn
    assert np.abs(local[:, 2] - (local[:, 0] ** 2 - local[:, 1] ** 2) / 3000).max() < 1.5
    true = np.stack([-local[:, 0] / 1500, local[:, 1] / 1500, np.ones(len(local))], -1)
    true /= np.linalg.norm(true, axis=1, keepdims=True)
    cosine = ((normal @ turn) * true).sum(1)
    assert np.degrees(np.arccos(np.clip(np.abs(cosine), -1, 1))).max() < 3
    assert abs(np.sign(cosine).sum()) == len(cosine)
    assert spread(points).min() == pytest.approx(50, abs=5)
