"""Paths through the slab, in closed form."""

import math
from dataclasses import replace

import numpy as np
import pytest
from optical_bench import exact_series

from tiltwise.simulate.scene import CarbonFilm, IceSlab
from tiltwise.simulate.slab import film_layer, ice_layer

FLAT = IceSlab(thickness=1000.0, incline=(0.0, 0.0), curvature=0.0)


def test_a_flat_slab():
    """t / cos 60°, and depth u tan θ across the axis: Ry(60) takes (x, 0, 0) to (x/2, 0, -x √3/2), so z = -√3 u."""
    layer = ice_layer(FLAT, exact_series(64, 10.0, tilt=60.0, axis=0.0), -1)
    assert np.allclose(layer.path.numpy(), 2000.0, rtol=1e-5)
    assert float(layer.depth[32, 42]) == pytest.approx(-math.sqrt(3) * 100, rel=1e-5)
    assert float(layer.depth[50, 32]) == pytest.approx(0.0, abs=1e-3)


def test_an_inclined_slab_is_one_tilted_more():
    """Slope of 20° along x rises towards +x; Ry(30) lowers +x by 30°: 10° are left."""
    layer = ice_layer(replace(FLAT, incline=(20.0, 0.0)), exact_series(64, 10.0, tilt=30.0, axis=0.0), -1)
    assert np.allclose(layer.path.numpy(), 1000 / math.cos(math.radians(10)), rtol=1e-5)


def test_a_bent_slab():
    """At zero tilt and x = 100 Å a curvature of 1e-3 / Å slopes by 0.1: the path is √1.01 times the thickness."""
    layer = ice_layer(replace(FLAT, curvature=1e-3), exact_series(64, 10.0, axis=0.0), 1)
    assert float(layer.path[32, 42]) == pytest.approx(1000 * math.sqrt(1.01), rel=1e-5)
    assert float(layer.depth[32, 42]) == pytest.approx(5.0, rel=1e-4)


def test_the_edge_of_the_film():
    """Upright edge at x = 100 of a film of 120 Å at 60°: its shadow is a ramp 120 Å · sin 60° wide about x cos 60° plus
    what its height adds; seen beyond it is 240 Å of carbon, before it none."""
    film = CarbonFilm(azimuth=0.0, distance=100.0, thickness=120.0, height=0.0)
    layer = film_layer(film, FLAT, exact_series(96, 4.0, tilt=60.0, axis=0.0), -1)
    profile = layer.path[48].numpy()
    x = (np.arange(96) - 48) * 4.0
    half_width = 120 * math.sqrt(3) / 2 / 2
    assert np.allclose(profile[x > 50 + half_width + 5], 240, rtol=1e-4)
    assert np.allclose(profile[x < 50 - half_width - 5], 0)
    assert np.interp(120, profile, x) == pytest.approx(50, abs=1.0)
