"""Polishing particles of several kinds: they share the geometry, and a kind that tells nothing harms none."""

from dataclasses import dataclass, replace

import numpy as np
import pytest
from particle_scene import DIAMETER, blobs, project_blobs, put_together, tilts_of, with_noise
from scipy.spatial.transform import Rotation

from tiltwise.data.errors import InputError
from tiltwise.data.particles import Particles
from tiltwise.ops.deformation import specimen_in_images
from tiltwise.ops.geometry import tilt_rotations
from tiltwise.params.polish import PolishParams, SpeciesParams
from tiltwise.stages.polish import polish

NAME = "TS_1"
PARAMS = PolishParams(
    box_size=32,
    particle_diameter=DIAMETER,
    cycles=2,
    refine_deformation=False,
    species=(SpeciesParams(name="second", box_size=36),),
)


@dataclass(frozen=True)
class Two:
    truth: object
    wrong: object
    kinds: dict[str, Particles]


@pytest.fixture(scope="module")
def made():
    """One series of two kinds of particles, 9 and 7 px apart in the same field, shaken by 4 Å on each axis."""
    rng = np.random.default_rng(11)
    truth = tilts_of(NAME, rng)
    lattice = np.stack(np.meshgrid(*[np.arange(-1.5, 2) * 190.0] * 2, indexing="ij"), -1).reshape(-1, 2)
    place = np.concatenate([lattice, rng.uniform(-100, 100, (len(lattice), 1))], 1)
    total, kinds = 0.0, {}
    for number, name in enumerate(("first", "second")):
        own = place[(np.arange(16) // 4 + np.arange(16)) % 2 == number]
        turn = Rotation.random(len(own), random_state=number)
        total = total + project_blobs(truth, own, turn, blobs(seed=1 + number))
        particles = put_together([(NAME, own, turn)])
        kinds[name] = replace(particles, half_set=1 + np.arange(len(own)) % 2)
    truth = replace(truth, images=with_noise(total, 0.7, rng))
    g = truth.geometry
    wrong = replace(truth, geometry=replace(g, shift=g.shift + rng.normal(0, 4, g.shift.shape)))
    return Two(truth=truth, wrong=wrong, kinds=kinds)


def apart(found, made):
    """Rms distance (Å) of all particles' images from the true ones, a shift of each particle free."""
    particles = np.concatenate([own.position for own in made.kinds.values()])
    difference = specimen_in_images(made.truth, particles)[0] - specimen_in_images(found, particles)[0]
    rows = tilt_rotations(made.truth.geometry).numpy()[:, :2].reshape(-1, 3)
    right = difference.transpose(0, 2, 1).reshape(-1, len(particles))
    rest = right - rows @ np.linalg.lstsq(rows, right, rcond=None)[0]
    return float(np.sqrt(2 * (rest**2).mean()))


@pytest.fixture(scope="module")
def both(made):
    return polish({NAME: made.wrong}, made.kinds, PARAMS)


def test_a_geometry_of_both_is_better_than_of_one(made, both):
    """Twice the evidence: errors fall by sqrt(2), asked for is a tenth; the references gain by it once more."""
    alone = polish({NAME: made.wrong}, made.kinds["first"], PARAMS.model_copy(update={"species": ()}))
    before, one, two = (apart(s[NAME], made) for s in ({NAME: made.wrong}, alone.tilt_series, both.tilt_series))
    assert before > 4
    assert two < 0.9 * one < before


def test_each_kind_keeps_its_own(made, both):
    assert list(both.particles) == list(both.half_maps) == ["first", "second"]
    sizes = {name: maps.half1.data.shape[0] for name, maps in both.half_maps.items()}
    assert sizes == {"first": 32, "second": 36}
    for name, given in made.kinds.items():
        assert np.array_equal(both.particles[name].half_set, given.half_set)
    assert set(both.quality["species"]) == set(both.quality["cycles"][0]["species"]) == {"first", "second"}


def test_three_particles_take_no_part(made):
    """The result is that of the other kind alone, to the bit, and says why."""
    few = {**made.kinds, "second": made.kinds["second"][np.arange(3)]}
    params = PARAMS.model_copy(update={"cycles": 1, "refine_defocus": False})
    found = polish({NAME: made.wrong}, few, params)
    alone = polish({NAME: made.wrong}, made.kinds["first"], params.model_copy(update={"species": ()}))
    assert np.array_equal(found.tilt_series[NAME].geometry.shift, alone.tilt_series[NAME].geometry.shift)
    assert found.quality["notes"] == ["second took no part: particles: 2 and 1 in the halves, 4 are needed in each"]
    assert list(found.half_maps) == ["first"] and found.particles["second"] is few["second"]


def test_a_kind_of_noise_harms_nothing(made, both):
    """Eight places and poses of nothing: the geometry stays about as good as that of the first kind alone, and the area
    under an FSC that is noise does not undo the cycle (with each kind's growth counted alike it did)."""
    rng = np.random.default_rng(3)
    nowhere = replace(made.kinds["second"], rotation=Rotation.random(8, random_state=9))
    nowhere = replace(nowhere, position=nowhere.position + rng.uniform(-60, 60, (8, 3)))
    params = PARAMS.model_copy(update={"cycles": 1, "refine_defocus": False})
    found = polish({NAME: made.wrong}, {**made.kinds, "second": nowhere}, params)
    alone = polish({NAME: made.wrong}, made.kinds["first"], params.model_copy(update={"species": ()}))
    assert apart(found.tilt_series[NAME], made) < 1.2 * apart(alone.tilt_series[NAME], made)


def test_names_that_nobody_gave_are_one_line(made):
    with pytest.raises(InputError, match="species 'second': no particles of this name are given"):
        polish({NAME: made.wrong}, made.kinds["first"], PARAMS)
