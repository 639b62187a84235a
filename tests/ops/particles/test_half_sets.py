"""Halves of whole regions, and duplicates across them."""

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from tiltwise.data.errors import InputError
from tiltwise.data.particles import Particles
from tiltwise.ops.particles.half_sets import (
    assign_half_sets,
    distinct_particles,
    some_of_halves,
    well_explained,
)


def particles(position, region, names=None, half_set=None):
    number = len(position)
    return Particles(
        tilt_series=np.full(number, "a") if names is None else np.asarray(names),
        position=np.asarray(position, dtype=float),
        rotation=Rotation.identity(number),
        score=np.ones(number),
        half_set=np.zeros(number, dtype=int) if half_set is None else np.asarray(half_set),
        region=np.asarray(region),
    )


def test_regions_are_never_split_and_halves_are_balanced():
    rng = np.random.default_rng(0)
    region = np.repeat(np.arange(8), [50, 40, 30, 20, 20, 10, 5, 5])
    made = particles(rng.uniform(0, 1000, (len(region), 3)), region)
    halves = assign_half_sets(made, 50.0, seed=0)
    for number in range(8):
        assert len(set(halves[region == number])) == 1
    assert abs((halves == 1).sum() - (halves == 2).sum()) <= 10


def test_same_region_number_in_two_series_is_two_regions():
    position = np.arange(8)[:, None] * [100.0, 0, 0]
    made = particles(position, np.zeros(8, int), names=["a"] * 4 + ["b"] * 4)
    halves = assign_half_sets(made, 50.0, seed=0)
    assert set(halves[:4]) != set(halves[4:])


def test_close_particles_without_region_stay_together():
    position = [[0, 0, 0], [30, 0, 0], [60, 0, 0], [500, 0, 0], [900, 0, 0], [940, 0, 0]]
    halves = assign_half_sets(particles(position, [-1] * 6), 50.0, seed=1)
    assert len(set(halves[:3])) == 1 and halves[4] == halves[5]
    assert set(halves) == {1, 2}


def test_one_region_is_an_error_in_one_line():
    with pytest.raises(InputError, match="one region"):
        assign_half_sets(particles(np.eye(3), [0, 0, 0]), 50.0, seed=0)


def test_halves_that_are_given_are_kept():
    made = particles(np.eye(4)[:, :3] * 1000, [0, 0, 0, 0], half_set=[2, 1, 1, 2])
    assert assign_half_sets(made, 50.0, seed=0).tolist() == [2, 1, 1, 2]


def test_the_best_of_close_particles_stays_and_series_do_not_mix():
    position = np.array([[0, 0, 0], [10, 0, 0], [20, 0, 0], [100, 0, 0], [5, 0, 0]], dtype=float)
    names = np.array(["a", "a", "a", "a", "b"])
    keep = distinct_particles(names, position, np.array([1.0, 3.0, 2.0, 0.5, 0.1]), 15.0)
    assert keep.tolist() == [False, True, False, True, True]


def test_wrong_picks_are_told_by_their_amplitude_in_each_half_for_itself():
    names, halves = np.array(["a"] * 8), np.repeat([1, 2], 4)
    amplitude = np.array([1.0, 0.9, 0.2, 1.1, 0.5, 0.52, 0.48, np.nan])  # the reference of half 2 is too strong
    keep = well_explained(names, halves, amplitude, 0.6)
    assert keep.tolist() == [True, True, False, True, True, True, True, True]


def test_some_of_each_half_or_all_there_are():
    halves = np.array([1, 2, 0, 1, 1, 2, 1])
    assert some_of_halves(halves, 10, 0).tolist() == [0, 1, 3, 4, 5, 6]
    some = some_of_halves(halves, 2, 0)
    assert sorted(halves[some].tolist()) == [1, 1, 2, 2] and (np.diff(some) > 0).all()
    assert np.array_equal(some, some_of_halves(halves, 2, 0))
