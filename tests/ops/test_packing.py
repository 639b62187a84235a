"""Packed bodies keep their distance, judged by brute force over all their points."""

import numpy as np
import pytest
from scipy.spatial.distance import cdist
from scipy.spatial.transform import Rotation

from tiltwise.ops.packing import Bounds, Packing, shape_of_points


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
    nearest = [cdist(a, b).min() for i, a in enumerate(bodies) for b in bodies[:i]]
    assert min(nearest) >= gap
    assert min(nearest) < gap + 8  # not far more cautious than asked for


def test_bodies_lie_in_the_slab_and_outside_the_film():
    _, bodies = packed(BOUNDS, 3.0)
    x, y, z = np.concatenate(bodies).T
    slope = np.array([0.2, -0.1])[:, None] + 4e-4 * np.stack([x, y])
    middle = 0.2 * x - 0.1 * y + 4e-4 * (x**2 + y**2) / 2
    assert (np.abs(z - middle) / np.sqrt(1 + (slope**2).sum(0))).max() <= 118.0
    assert not ((0.6 * x + 0.8 * y > 93) & (np.abs(z) < 37)).any()


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
