"""Tilts that the alignment lost are found on the images of their particles, and none is moved that was not lost."""

from dataclasses import replace

import numpy as np
import pytest
from particles_on_images import BOX, NAME, PIXEL, apart, scene, species_of

from tiltwise.ops.polishing.geometry_blocks import ANGLE, see_particles
from tiltwise.ops.polishing.geometry_change import change_geometry, geometry_blocks
from tiltwise.ops.polishing.geometry_on_images import refine_geometry
from tiltwise.ops.polishing.geometry_refinement import LADDER, GeometrySoFar
from tiltwise.ops.polishing.lost_tilts import find_lost_tilts

FINEST = 25.0
"""Spacing of species_of, Å; shifts are tried every quarter of it, so that one lies within 4.4 Å of any place."""


@pytest.fixture(scope="module")
def made():
    return scene(series=2, noise=0.5)


@pytest.fixture(scope="module")
def kind(made):
    return species_of(made)


def shifted(series, away):
    """Tilts moved off by away, {tilt: (x, y)} Å."""
    shift = series.geometry.shift.copy()
    for tilt, step in away.items():
        shift[tilt] += step
    return replace(series, geometry=replace(series.geometry, shift=shift))


def test_lost_tilts_are_found_to_the_step_of_the_search(made, kind):
    """30 to 50 Å off, where the particle is 150 Å wide: all three, and no other; then the block of the shifts has them
    back to what it leaves of 4 Å."""
    truth, away = made.tilt_series[NAME], {2: (-30.0, 15.0), 9: (0.0, 50.0), 18: (35.0, 35.0)}
    wrong = shifted(truth, away)
    found = find_lost_tilts([kind.with_series(wrong)], NAME)
    assert set(found.found) == set(away)
    for tilt, step in away.items():
        own = found.found[tilt]
        assert np.hypot(*(np.array(own.moved) + step)) < FINEST / 4 / np.sqrt(2) + 1
        assert all(gain > chance > 0 for gain, chance in zip(own.gain, own.chance, strict=True))
        assert np.allclose(found.tilt_series.geometry.shift[tilt], wrong.geometry.shift[tilt] + own.moved)
    position = made.particles.position[made.particles.tilt_series == NAME]
    fitted = refine_geometry([kind.with_series(found.tilt_series)], NAME)
    assert apart(fitted.tilt_series, truth, position) < 1.5
    alone = refine_geometry([kind.with_series(wrong)], NAME)
    assert apart(alone.tilt_series, truth, position) > 10  # what the quadratics make of it
    assert set(found.record()) == {"3", "10", "19"}


def test_a_tilt_weighed_down_is_found_as_well(made, kind):
    """The amplitude of a lost tilt falls towards nothing, and that of the model with it: their ratio tells."""
    wrong = shifted(made.tilt_series[NAME], {10: (40.0, 0.0)})
    weights = dict(kind.weights)
    scale = weights[NAME].scale.clone()
    scale[10] *= 0.05
    weights[NAME] = replace(weights[NAME], scale=scale)
    found = find_lost_tilts([replace(kind.with_series(wrong), weights=weights)], NAME)
    assert set(found.found) == {10}


def test_what_is_right_or_near_is_not_moved(made, kind):
    """A third of the finest spacing is for the block of the shifts."""
    truth = made.tilt_series[NAME]
    near = shifted(truth, {4: (FINEST / 3, 0.0), 12: (0.0, -FINEST / 3)})
    for series in (truth, near):
        found = find_lost_tilts([kind.with_series(series)], NAME)
        assert not found.found and found.tilt_series is series


def test_images_of_nothing_are_left_where_they_are(made, kind):
    """Noise alone in all 21 tilts: each half passes three deviations once in 740 tilts, both once in half a million."""
    series = made.tilt_series[NAME]
    for seed in range(5):
        noise = np.random.default_rng(seed).normal(size=series.images.shape).astype(np.float32)
        blank = replace(series, images=noise)
        source = replace(kind.source, ready={}).with_series({**kind.source.tilt_series, NAME: blank})
        assert not find_lost_tilts([replace(kind, source=source)], NAME).found


def test_beyond_its_reach_a_tilt_is_not_moved(made, kind):
    """A quarter of the box is 64 Å."""
    far = shifted(made.tilt_series[NAME], {10: (0.0, BOX * PIXEL / 2)})
    assert not find_lost_tilts([kind.with_series(far)], NAME).found


def test_unused_tilts_and_halves_that_are_missing(made, kind):
    """Tilts are counted in the series, not among the used ones; one half alone says nothing that the other could
    check."""
    use = np.ones(made.tilt_series[NAME].number, bool)
    use[:3] = False
    wrong = shifted(replace(made.tilt_series[NAME], use=use), {12: (40.0, 0.0)})
    weights = {
        name: replace(own, scale=own.scale[-18:], decay=own.decay[-18:], noise=own.noise[-18:]) if name == NAME else own
        for name, own in kind.weights.items()
    }
    source = replace(kind.source, ready={}).with_series({**kind.source.tilt_series, NAME: wrong})
    some = replace(kind, source=source, weights=weights)
    assert set(find_lost_tilts([some], NAME).found) == {12}
    half = replace(some.particles, half_set=np.minimum(some.particles.half_set, 1))
    assert not find_lost_tilts([replace(some, particles=half)], NAME).found


def test_several_kinds_tell_together(made):
    number = len(made.particles)
    kinds = [species_of(made, np.arange(number) % 2 == part) for part in (0, 1)]
    wrong = shifted(made.tilt_series[NAME], {6: (-30.0, 30.0)})
    found = find_lost_tilts([kind.with_series(wrong) for kind in kinds], NAME)
    assert set(found.found) == {6}


def test_a_tilt_that_was_fitted_to_what_is_none_of_it_begins_again(made, kind):
    """Turned by 4° and warped by 10 Å by what was taken before: it goes back to what it was given, and what is known
    of it to nothing; what is known of other tilts stays."""
    given = made.tilt_series[NAME]
    seen = see_particles(given, np.zeros((0, 3)), np.zeros((0, 3, 3)))
    blocks = geometry_blocks(given, seen, LADDER)
    number = {block.name: block.number for block in blocks}
    first = dict(zip(number, np.cumsum([0, *number.values()]), strict=False))
    change = np.zeros(sum(number.values()))
    warps = number["warp"] // given.number
    change[first["angles"] + 2 * 10] = 4.0 / ANGLE
    change[first["warp"] + 10 * warps : first["warp"] + 11 * warps] = np.random.default_rng(1).normal(0, 2, warps)
    change[first["shift"] + 2 * 3] = 0.2
    change[first["sample"]] = 0.1
    wrong = change_geometry(given, seen, blocks, change)
    known = GeometrySoFar(width=(change != 0).astype(float), joint=change, by_half={1: 0.9 * change, 2: 1.1 * change})
    found = find_lost_tilts([kind.with_series(wrong)], NAME, LADDER, known)
    assert set(found.found) == {10} and found.found[10].as_given
    assert np.hypot(*found.found[10].moved) < FINEST / 4
    after, moved = found.tilt_series, np.array(found.found[10].moved)
    assert after.geometry.tilt_axis_angle[10] == pytest.approx(given.geometry.tilt_axis_angle[10], abs=1e-9)
    assert np.abs(after.deformation.image.coefficient[10]).max() < 1e-9
    assert np.allclose(after.geometry.shift[10], given.geometry.shift[10] + moved)
    assert np.allclose(after.geometry.shift[3], wrong.geometry.shift[3])
    kept = np.isin(np.arange(len(change)), [first["shift"] + 2 * 3, first["sample"]])
    for left, was in ((found.so_far.joint, 1.0), (found.so_far.by_half[1], 0.9), (found.so_far.by_half[2], 1.1)):
        assert np.allclose(left, np.where(kept, was * change, 0.0))


def test_a_tilt_of_inverted_contrast_is_not_moved(made, kind):
    """It gains wherever it goes, for it loses where it is; what it would find is a side lobe."""
    series = made.tilt_series[NAME]
    images = series.images.copy()
    images[[8, 12]] = 2 * images[[8, 12]].mean() - images[[8, 12]]
    inverted = replace(series, images=images)
    source = replace(kind.source, ready={}).with_series({**kind.source.tilt_series, NAME: inverted})
    assert not find_lost_tilts([replace(kind, source=source)], NAME).found


def test_of_a_tilt_found_elsewhere_the_halves_know_what_both_said(made, kind):
    given = made.tilt_series[NAME]
    change = np.zeros(2 * given.number)
    change[2 * 5] = 0.1
    known = GeometrySoFar(width=np.ones(len(change)), joint=change, by_half={1: change + 0.3, 2: change - 0.3})
    found = find_lost_tilts([kind.with_series(shifted(given, {9: (-40.0, 0.0)}))], NAME, ("shift",), known)
    assert set(found.found) == {9} and not found.found[9].as_given
    own = np.isin(np.arange(len(change)) // 2, [9])
    assert np.array_equal(found.so_far.joint, change)
    assert np.array_equal(found.so_far.by_half[1], np.where(own, change, change + 0.3))
    assert np.array_equal(found.so_far.by_half[2], np.where(own, change, change - 0.3))
