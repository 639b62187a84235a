"""The geometry refined on images: shaken tilts come back, and a geometry that is right stays."""

from dataclasses import replace

import numpy as np
import pytest
from particles_on_images import NAME, apart, scene, species_of

from tiltwise.ops.polishing.geometry_on_images import refine_geometry


@pytest.fixture(scope="module")
def made():
    return scene(series=2, noise=0.5)


def shaken(series, shift=0.0, angle=0.0, seed=5):
    rng, g = np.random.default_rng(seed), series.geometry
    moved = replace(
        g,
        shift=g.shift + rng.normal(0, shift, g.shift.shape),
        tilt_angle=g.tilt_angle + rng.normal(0, angle, len(g.tilt_angle)),
    )
    return replace(series, geometry=moved)


def test_shaken_shifts_come_back(made):
    """4 Å off on each axis, 5.7 Å in length; half a pixel's eighth of a pixel remains, of 8 Å and 12 particles."""
    kind, truth = species_of(made), made.tilt_series[NAME]
    wrong = shaken(truth, shift=4.0)
    position = made.particles.position[made.particles.tilt_series == NAME]
    found = refine_geometry([kind.with_series(wrong)], NAME)
    assert found.accepted and found.fit.gates[0].accepted
    again = refine_geometry(list(found.species), NAME, known=found.so_far)
    best = again if again.accepted else found
    assert apart(wrong, truth, position) > 4
    assert apart(best.tilt_series, truth, position) < 1.5
    assert found.record()["blocks"]["shift"]["accepted"]


def test_two_species_share_a_geometry(made):
    """Each half of the particles as a species of its own: as good as one of all, and both follow."""
    number = len(made.particles)
    kinds = [species_of(made, np.arange(number) % 2 == part) for part in (0, 1)]
    truth = made.tilt_series[NAME]
    wrong = shaken(truth, shift=4.0)
    found = refine_geometry([kind.with_series(wrong) for kind in kinds], NAME)
    position = made.particles.position[made.particles.tilt_series == NAME]
    assert found.accepted and apart(found.tilt_series, truth, position) < 2.5
    assert all(kind.source.tilt_series[NAME] is found.tilt_series for kind in found.species)


def test_what_is_right_stays_right(made):
    """Little is accepted, and what is moves images by less than the 1.5 Å that are found above."""
    found = refine_geometry([species_of(made)], NAME)
    position = made.particles.position[made.particles.tilt_series == NAME]
    assert apart(found.tilt_series, made.tilt_series[NAME], position) < 1.0


def test_a_series_without_both_halves_is_left_as_it_is(made):
    kind = species_of(made)
    alone = replace(kind, particles=replace(kind.particles, half_set=np.minimum(kind.particles.half_set, 1)))
    found = refine_geometry([alone], NAME)
    assert not found.accepted and found.tilt_series is made.tilt_series[NAME] and found.fit is None


def test_who_told_is_counted_among_all_species(made):
    """The first kind has no particles in this series: what is known, and later refits, name the second."""
    kind, truth = species_of(made), made.tilt_series[NAME]
    absent = replace(kind, particles=replace(kind.particles, half_set=np.zeros_like(kind.particles.half_set)))
    wrong = shaken(truth, shift=4.0)
    found = refine_geometry([absent.with_series(wrong), kind.with_series(wrong)], NAME)
    assert found.accepted and found.telling == found.so_far.telling == (1,)
    again = refine_geometry(list(found.species), NAME, known=found.so_far)
    assert again.telling == again.so_far.telling == (1,)
