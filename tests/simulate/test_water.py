"""The noise of ice against closed forms: its limits, its peak, and the power of independent molecules."""

import pytest
import torch

from tiltwise.simulate.water import (
    WATER_DENSITY,
    water_form_factor,
    water_phase_spectrum,
    water_structure_factor,
)


def test_long_waves_are_damped_twentyfold_and_short_ones_not():
    low = water_structure_factor(torch.linspace(0, 1 / 8.0, 50, dtype=torch.float64))
    assert (low > 0.049).all() and (low < 0.06).all()
    high = water_structure_factor(torch.linspace(0.45, 1.0, 50, dtype=torch.float64))
    assert (high - 1).abs().max() < 0.01


def test_peak_stands_at_the_ring_of_vitreous_ice():
    k = torch.linspace(0.1, 0.6, 5001, dtype=torch.float64)
    s = water_structure_factor(k)
    assert 1 / float(k[s.argmax()]) == pytest.approx(3.7, abs=0.25)
    assert float(water_structure_factor(torch.tensor(1 / 3.7, dtype=torch.float64))) == pytest.approx(2.0, abs=1e-6)


def test_molecule_at_zero_weighs_its_atoms():
    assert float(water_form_factor(torch.tensor(0.0))) == pytest.approx(1.9834 + 2 * 0.5288, rel=1e-4)
    assert float(water_form_factor(torch.tensor(0.3))) < 2.2


def test_mean_potential_of_ice_follows_from_the_same_numbers():
    """V = K n f(0): 47.878 · 0.0311 · 3.041 = 4.53 V."""
    assert 47.878 * WATER_DENSITY * float(water_form_factor(torch.tensor(0.0))) == pytest.approx(4.53, abs=0.01)


def test_phase_power_in_closed_form():
    """At 300 kV γ λ = 0.031246 Å (notes on physics, 4.1): 0.0311 · 1000 · (0.031246 · 3.041)² · 0.05 at k = 0."""
    expected = 0.0311 * 1000 * (0.031246 * 3.041) ** 2 * 0.05
    power = water_phase_spectrum(torch.zeros(1, dtype=torch.float64), 1000.0, 300.0)
    assert float(power) == pytest.approx(expected, rel=2e-3)
    k = torch.linspace(0, 0.5, 7, dtype=torch.float64)
    assert torch.allclose(water_phase_spectrum(k, 2000.0, 200.0), 2 * water_phase_spectrum(k, 1000.0, 200.0))
    ratio = water_phase_spectrum(k, 1.0, 200.0) / water_phase_spectrum(k, 1.0, 300.0)
    assert torch.allclose(ratio, torch.full_like(k, (0.034895 / 0.031246) ** 2), rtol=1e-4)
