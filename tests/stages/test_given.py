"""Particles that came with the import, in the place of picks."""

from dataclasses import replace

import numpy as np
import particle_scene
import pytest

from tiltwise.data.errors import InputError
from tiltwise.params.pick import PickParams
from tiltwise.stages.given import given_particles


@pytest.fixture(scope="module")
def made():
    scene = particle_scene.scene(series=1, particles=6)
    return scene.tilt_series["TS_1"], replace(scene.particles, region=np.array([0, 0, 1, 1, 4, -1]))


def test_particles_are_taken_over(made):
    series, particles = made
    result = given_particles(particles, series, PickParams())
    assert np.array_equal(result.particles.position, particles.position)
    assert result.quality["given"] and result.quality["particles"] == 6
    assert result.quality["regions"] == 3 and result.quality["outside"] == 0
    some = given_particles(particles, series, PickParams(max_particles=2)).particles
    assert np.array_equal(some.position, particles.position[:2])


def test_particles_that_no_image_shows(made):
    """The field is 1024 Å wide and the tilt axis, along which a tilt moves nothing, stands at 85 degrees: Rz(85) turns
    the specimen's y axis onto the axis of the images, so 700 Å along y is outside in all."""
    series, particles = made
    far = particles.position.copy()
    far[0] = [0, 700, 0]
    assert given_particles(replace(particles, position=far), series, PickParams()).quality["outside"] == 1
    lost = replace(particles, position=particles.position + np.array([0, 5000.0, 0]))
    with pytest.raises(InputError, match="no tilt image shows any of the imported particles"):
        given_particles(lost, series, PickParams())
    with pytest.raises(InputError, match="holds none"):
        given_particles(particles[np.zeros(6, bool)], series, PickParams())
