"""Gold beads and lumps of ice have the potential of their material, and points of them are not seen."""

import math

import numpy as np
import pytest
import torch

from tiltwise.simulate.potential import potential_map
from tiltwise.simulate.solids import gold_bead, gold_potential, ice_lump


def test_potential_of_gold_from_density_and_form_factor():
    """47.878 V Å2 · 10.5714 Å · 19.3 / 196.967 · 0.602214 per Å3 = 29.87 V."""
    assert gold_potential() == pytest.approx(47.878 * 10.5714 * 19.3 / 196.967 * 0.602214, rel=1e-4)


def test_bead_is_an_even_sphere():
    bead = gold_bead(100.0, np.random.default_rng(0))
    gold, ice = bead.weight.astype(float).sum(axis=0)
    assert gold == pytest.approx(29.87 * math.pi / 6 * 1e6, rel=1e-3)
    assert ice == pytest.approx(4.53 * math.pi / 6 * 1e6, rel=1e-6)
    volume = potential_map(bead, 4.0, 40).data
    radius = np.linalg.norm(np.indices(volume.shape) - 20, axis=0) * 4.0
    assert volume[radius < 36].mean() == pytest.approx(29.87 - 4.53, rel=0.02)
    assert volume[radius < 36].std() < 0.03 * 25
    assert np.abs(volume[radius > 66]).max() < 0.4


def test_lump_displaces_nothing_and_has_the_potential_of_ice():
    lump = ice_lump(400.0, np.random.default_rng(1))
    assert (lump.weight[:, 1] == 0).all() and lump.radius <= 200 + 1e-3
    volume = potential_map(lump, 12.0, 48).data
    assert np.median(volume[volume > 3]) == pytest.approx(4.53, rel=0.02)


def test_both_form_factors_of_even_points_are_one_gaussian():
    bead = gold_bead(60.0, np.random.default_rng(0))
    k = torch.linspace(0, 0.3, 20, dtype=torch.float64)
    first, second = bead.form_factors(k)
    assert torch.allclose(first, second) and float(first[0]) == 1
    assert float(bead.form_factors(torch.tensor(1 / 4.0))[0]) == pytest.approx(8.2e-4, rel=0.02)
