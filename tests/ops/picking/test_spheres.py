"""Spheres: normals and their rotations, point spacing, the fit of a coat."""

import numpy as np
import torch
from scipy.spatial import cKDTree

from tiltwise.ops.picking import spheres


def test_rotations_put_z_on_the_normal_and_turn_at_random():
    normals = spheres.surface_points(400.0, 60.0)
    rotations = spheres.rotations_to_normals(normals, np.random.default_rng(0))
    assert np.allclose(rotations.apply([0, 0, 1]), normals, atol=1e-12)
    turned = spheres.rotations_to_normals(normals, np.random.default_rng(1))
    assert (rotations.inv() * turned).magnitude().std() > 0.5


def test_surface_points_are_as_far_apart_as_asked():
    points = 450.0 * spheres.surface_points(450.0, 45.0)
    nearest = cKDTree(points).query(points, k=2)[0][:, 1]
    assert np.quantile(nearest, 0.05) > 30 and np.median(nearest) < 55
    assert 0.8 < len(points) * 45.0**2 * np.sqrt(3) / 2 / (4 * np.pi * 450.0**2) < 1.25


def test_which_surfaces_a_tilt_range_sees():
    normals = np.array(
        [[1.0, 0, 0], [0, 1.0, 0], [0, 0, 1.0], [np.sin(0.5), 0, np.cos(0.5)], [np.sin(0.6), 0, np.cos(0.6)]]
    )
    assert spheres.visible_normals(normals, 60.0).tolist() == [True, True, False, False, True]


def coat(shape, voxel, centre, radius):
    axes = [(torch.arange(n) - n // 2) * voxel for n in shape]
    z, y, x = torch.meshgrid(*axes, indexing="ij")
    distance = ((x - centre[0]) ** 2 + (y - centre[1]) ** 2 + (z - centre[2]) ** 2).sqrt()
    return ((distance - radius).abs() < spheres.SHELL_THICKNESS / 2).float()


def test_a_coat_is_fitted_from_a_rough_start():
    torch.manual_seed(0)
    volume = coat((70, 80, 80), 20.0, (40.0, -60.0, 30.0), 440.0) + torch.randn(70, 80, 80)
    centre, radius, coverage = spheres.fit_sphere(volume, 20.0, (np.array([80.0, -20.0, 0.0]), 410.0), 60.0)
    assert np.abs(centre - [40, -60, 30]).max() < 8 and abs(radius - 440) < 6 and coverage > 0.9
    best = spheres.best_radius(volume, 20.0, np.array([40.0, -60.0, 30.0]), (300.0, 600.0), 60.0)
    assert abs(best - 440) <= 20


def test_a_coat_cut_by_the_border_stays_where_it_was_seen():
    torch.manual_seed(1)
    volume = coat((70, 80, 80), 20.0, (600.0, 0.0, 0.0), 420.0) + 0.5 * torch.randn(70, 80, 80)
    centre, radius, _ = spheres.fit_sphere(volume, 20.0, (np.array([570.0, 20.0, 20.0]), 440.0), 60.0)
    assert np.abs(centre - [600, 0, 0]).max() < 25 and abs(radius - 420) < 20


def test_overlapping_spheres_are_dropped_in_order():
    centre = np.array([[0.0, 0, 0], [500.0, 0, 0], [900.0, 0, 0]])
    assert spheres.keep_apart(centre, np.array([450.0, 450.0, 450.0])).tolist() == [0, 2]
