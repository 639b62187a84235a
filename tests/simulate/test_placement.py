"""Molecules lie in the ice, in their region, and apart."""

import numpy as np
import pytest
from scipy.spatial.distance import cdist

from tiltwise.data.errors import InputError
from tiltwise.simulate.acquisition import acquire
from tiltwise.simulate.placement import coarse_shape, place_molecules
from tiltwise.simulate.session import populate


def test_apart_and_within_the_ice(small_scatterer):
    def draw(rng):
        return rng.uniform(-1, 1, 3) * (250, 250, 130)

    ((position, rotation),) = place_molecules(
        small_scatterer.position, [(10, draw)], 260.0, 20.0, np.random.default_rng(0)
    )
    shape = coarse_shape(small_scatterer.position)
    bodies = [r.apply(shape) + p for r, p in zip(rotation, position, strict=True)]
    assert max(np.abs(b[:, 2]).max() for b in bodies) <= 130
    apart = min(cdist(a, b).min() for i, a in enumerate(bodies) for b in bodies[:i])
    assert apart >= 20


def test_too_many_is_an_error(small_scatterer):
    with pytest.raises(InputError, match="of 50 particles"):
        place_molecules(
            small_scatterer.position, [(50, lambda rng: rng.uniform(-60, 60, 3))], 200.0, 20.0, np.random.default_rng(0)
        )


def test_counted_particles_lie_in_the_untilted_field_and_the_others_do_not(small_scatterer, small_params):
    params = small_params.model_copy(update={"nominal_tilt_axis_angle": 40.0})
    series = acquire(params, "TS_01", np.random.default_rng(0))
    inside, around = populate(small_scatterer, params, series, np.random.default_rng(1))
    assert len(inside) == params.specimen.particles and len(around) > 0
    turn = np.radians(np.median(series.geometry.tilt_axis_angle))
    matrix = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    half = params.image_size * params.pixel_size / 2
    assert np.abs(inside.position[:, :2] @ matrix.T).max() <= half - small_scatterer.radius
    assert np.abs(around.position[:, 0]).min() >= half + small_scatterer.radius
