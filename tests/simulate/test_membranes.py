"""Bilayers: their potential against the lipid's sum rule, no seams, and spheres closed exactly."""

import math

import gemmi
import numpy as np
import pytest
from scipy.spatial import cKDTree
from scipy.spatial.transform import Rotation

from tiltwise.simulate.membranes import layer_table, sheet_patch, sphere_patches


def lipid_excess():
    """V Å3 by which a POPC molecule exceeds the ice that it displaces."""
    formula = {"C": 42, "H": 82, "N": 1, "O": 8, "P": 1}
    return 47.878 * sum(n * sum(gemmi.Element(s).c4322.get_coefs()[:5]) for s, n in formula.items()) - 4.53 * 1256.0


def test_two_leaflets_hold_two_lipids_per_area():
    height, potential, ice = layer_table().T
    assert ((potential - 4.53 * ice).sum()) == pytest.approx(2 * lipid_excess() / 64.3, rel=1e-4)
    assert height.max() - height.min() == pytest.approx(38.0)
    assert (height * potential).sum() == pytest.approx(0.0, abs=1e-9)


def test_sheet_is_even_across_its_seams():
    scatterer, outline, side = sheet_patch()
    assert side == pytest.approx(126.0) and np.abs(outline[:, 2]).max() == pytest.approx(24.0)
    head = scatterer.position[scatterer.position[:, 2] > 18]
    tiled = np.concatenate([head + [i * side, j * side, 0] for i in (-1, 0, 1) for j in (-1, 0, 1)])
    nearest = cKDTree(tiled).query(head, k=5)[0][:, 1:]
    assert np.allclose(nearest, 7.0, atol=1e-3)
    weight = scatterer.weight.astype(float).sum(axis=0)
    assert (weight[0] - weight[1]) / side**2 == pytest.approx(2 * lipid_excess() / 64.3, rel=1e-4)


def test_sphere_is_closed_and_even():
    radius = 400.0
    patches = sphere_patches(np.array([10.0, 20, 30]), radius, Rotation.random(random_state=3))
    point, potential = [], []
    for p in patches:
        assert len(p.position) == 20
        for place, turn in zip(p.position, p.rotation, strict=True):
            point.append(turn.apply(p.scatterer.position) + place - [10, 20, 30])
            potential.append(p.scatterer.weight[:, 0].astype(float))
    point, potential = np.concatenate(point), np.concatenate(potential)
    distance = np.linalg.norm(point, axis=1)
    for height, volts, _ in layer_table():
        layer = np.abs(distance - radius - height) < 0.5
        assert potential[layer].sum() == pytest.approx(4 * math.pi * (radius + height) ** 2 * volts, rel=1e-5)
    head = point[distance > radius + 18]
    nearest = cKDTree(head).query(head, k=2)[0][:, 1]
    assert nearest.min() > 3.5 and nearest.max() < 8.0  # no holes and no doubles, at seams as elsewhere
    directions = Rotation.random(200, random_state=0).apply([0, 0, 1.0])
    share = [potential[distance > radius + 18][(head / 419.0) @ d > math.cos(0.2)].sum() for d in directions]
    assert np.std(share) / np.mean(share) < 0.03


def test_patches_are_small_enough_to_be_rigid():
    for patches in sphere_patches(np.zeros(3), 650.0, Rotation.identity()):
        assert patches.scatterer.radius < 260
