"""The lattice on a sphere: spacings, six-fold order, coverage."""

import numpy as np
import pytest
from scipy.spatial import cKDTree

from tiltwise.simulate.lattice import grow_lattice


@pytest.mark.parametrize("radius", [370.0, 570.0])
def test_spacing_and_order(radius):
    normal, tangent = grow_lattice(radius, 75.0, 0.7, np.random.default_rng(0))
    distance, index = (a[:, 1:] for a in cKDTree(normal * radius).query(normal * radius, k=7))
    assert distance.min() > 66.0
    assert (np.abs(distance[:, 0] - 75) < 5).mean() > 0.64  # as in the real lattice of conventions.md
    assert np.median(distance[:, :4]) == pytest.approx(75, abs=1.5)
    assert np.allclose((normal * tangent).sum(axis=1), 0, atol=1e-9)
    assert np.allclose(np.linalg.norm(tangent, axis=1), 1) and np.allclose(np.linalg.norm(normal, axis=1), 1)
    across = np.cross(normal, tangent)
    towards = normal[index[:, :3]] - normal[:, None]
    angle = np.degrees(np.arctan2((towards * across[:, None]).sum(-1), (towards * tangent[:, None]).sum(-1)))
    off = np.abs((angle + 30) % 60 - 30)
    assert np.median(off) < 5  # neighbours stand at sixths of a turn from the tangent


def test_coverage_counts_sites():
    full = 4 * np.pi * 400.0**2 / (np.sqrt(0.75) * 75.0**2)
    for coverage in (0.3, 0.7):
        normal, _ = grow_lattice(400.0, 75.0, coverage, np.random.default_rng(1))
        assert len(normal) == pytest.approx(coverage * full, abs=1)


def test_seed_decides():
    first, again, other = (grow_lattice(370.0, 75.0, 0.5, np.random.default_rng(s))[0] for s in (1, 1, 2))
    assert np.array_equal(first, again) and not np.allclose(first, other)
