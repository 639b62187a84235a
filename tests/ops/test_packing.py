"""Packed bodies keep their distance, judged by brute force over all their points."""

import numpy as np
import pytest
from scipy.spatial import cKDTree
from scipy.spatial.transform import Rotation

from tiltwise.ops.packing import Bounds, Packing, shape_of_points, shell_shape


def ellipsoid(axes, rng, number=1500):
    return rng.normal(size=(number, 3)) @ np.diag(axes) / 2


def packed(bounds, gap, seed=0):
    """Points of every body that stands, of two kinds, and their places."""
    rng = np.random.default_rng(seed)
    kinds = [np.clip(ellipsoid(a, rng), -60, 60) for a in ((40, 25, 20), (12, 12, 25))]
    packing, bodies = Packing(bounds), []
    for points, number in zip(kinds, (12, 60), strict=True):
        kind = packing.add_kind(shape_of_points(points, gap + 10))
        centre = rng.uniform(bounds.low, bounds.high, (4000, 3))
        turn = Rotation.random(4000, random_state=rng)
        accepted = packing.place(kind, centre, turn, gap, number, margin=2.0)
        bodies += [r.apply(points) + c for r, c in zip(turn[accepted], centre[accepted], strict=True)]
    return packing, bodies


BOUNDS = Bounds(
    low=np.full(3, -200.0),
    high=np.full(3, 200.0),
    surface=(0.2, -0.1, 4e-4),
    half_thickness=120.0,
    film=(0.6, 0.8, 90.0, -40.0, 40.0),
)


@pytest.mark.parametrize("gap", [3.0, 12.0])
def test_no_two_bodies_come_nearer_than_the_gap(gap):
    packing, bodies = packed(BOUNDS, gap)
    assert len(packing) == len(bodies) and len(bodies) > 30
    trees = [cKDTree(body) for body in bodies]
    nearest = [a.query(b.data, distance_upper_bound=50.0)[0].min() for i, a in enumerate(trees) for b in trees[:i]]
    assert min(nearest) >= gap
    assert min(nearest) < gap + 8  # not far more cautious than asked for


def test_bodies_lie_in_the_slab_and_outside_the_film():
    _, bodies = packed(BOUNDS, 3.0)
    x, y, z = np.concatenate(bodies).T
    slope = np.array([0.2, -0.1])[:, None] + 4e-4 * np.stack([x, y])
    middle = 0.2 * x - 0.1 * y + 4e-4 * (x**2 + y**2) / 2
    height = (z - middle) / np.sqrt(1 + (slope**2).sum(0))
    assert np.abs(height).max() <= 118.0
    assert not ((0.6 * x + 0.8 * y > 93) & (np.abs(height) < 37)).any()


def test_a_small_body_within_a_large_one_is_a_collision():
    rng = np.random.default_rng(1)
    small, large = rng.uniform(-5, 5, (200, 3)), rng.uniform(-50, 50, (20000, 3))
    packing = Packing(BOUNDS)
    inner, outer = (packing.add_kind(shape_of_points(p, 10.0)) for p in (small, large))
    packing.insert(inner, np.zeros((1, 3)), Rotation.identity(1))
    assert not packing.place(outer, np.zeros((1, 3)), Rotation.identity(1), 3.0, 1).any()
    assert packing.place(outer, np.array([[0, 0, 75.0]]), Rotation.identity(1), 3.0, 1, margin=-20).all()


def test_nothing_depends_on_anything_but_the_poses():
    first, again = packed(BOUNDS, 3.0)[1], packed(BOUNDS, 3.0)[1]
    assert all(np.array_equal(a, b) for a, b in zip(first, again, strict=True))


def test_bodies_lie_outside_a_shell_or_within_it():
    rng = np.random.default_rng(2)
    points = rng.uniform(-10, 10, (3000, 3))
    packing = Packing(BOUNDS)
    packing.insert(packing.add_kind(shell_shape(80.0, 20.0)), np.zeros((1, 3)), Rotation.identity(1))
    kind = packing.add_kind(shape_of_points(points, 13.0))
    centre = rng.uniform(-110, 110, (3000, 3))
    turn = Rotation.random(3000, random_state=rng)
    accepted = packing.place(kind, centre, turn, 3.0, 60)
    radii = [np.linalg.norm(r.apply(points) + c, axis=1) for r, c in zip(turn[accepted], centre[accepted], strict=True)]
    assert all(r.max() <= 57 or r.min() >= 103 for r in radii)
    assert any(r.max() <= 57 for r in radii) and any(r.min() >= 103 for r in radii)
    assert packing.place(kind, np.zeros((1, 3)), Rotation.identity(1), 3.0, 1).sum() <= 1
