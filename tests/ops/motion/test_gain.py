import numpy as np
import pytest

from tiltwise.data.errors import InputError
from tiltwise.ops.motion.gain import ORIENTATIONS, correct_frame, find_defects, fit_gain, lay_gain, orient, replacements

SHAPE = (200, 260)


def made_gain(shape, rng):
    gain = 1 + 0.05 * rng.standard_normal(shape) + 0.03 * rng.standard_normal(shape[1])
    return (gain / gain.mean()).astype(np.float32)


@pytest.mark.parametrize("orientation", range(8), ids=ORIENTATIONS)
@pytest.mark.parametrize("inverted", [False, True])
def test_the_orientation_is_found(orientation, inverted):
    rng = np.random.default_rng(orientation)
    turned = SHAPE if orientation % 2 == 0 else SHAPE[::-1]
    stored = made_gain(turned, rng)
    true = orient(1 / stored if inverted else stored, orientation)
    raw = rng.poisson(20 / true)
    found = fit_gain(stored, raw)
    assert (found.orientation, found.inverted, found.certain) == (orientation, inverted, True)
    laid = lay_gain(stored, found.orientation, inverted=found.inverted)
    assert np.allclose(laid, true / true.mean(), rtol=1e-4)


def test_an_unrelated_reference_is_not_certain():
    rng = np.random.default_rng(0)
    assert not fit_gain(made_gain((200, 200), rng), rng.poisson(20, (200, 200))).certain


def test_a_reference_of_another_size_is_one_line():
    with pytest.raises(InputError, match="the gain reference is 30 × 20 px, but frames are 40 × 20"):
        fit_gain(np.ones((20, 30)), np.ones((20, 40)))


def test_orientations_are_eight_different_ones():
    image = np.arange(6).reshape(2, 3)
    assert len({(orient(image, o).shape, tuple(orient(image, o).ravel())) for o in range(8)}) == 8


def test_a_turn_of_90_degrees_takes_x_to_y():
    image = np.zeros((5, 5))
    image[2, 4] = 1  # on +x from the centre
    assert orient(image, 1)[4, 2] == 1  # on +y, counter-clockwise with row 0 at the bottom


def test_defects_are_found_and_sound_pixels_are_left():
    rng = np.random.default_rng(0)
    total = rng.poisson(30 * (1 + 0.3 * np.sin(np.arange(260) / 20)), SHAPE)
    total[10, 20], total[50, 60:63], total[100, :] = 400, 300, 0
    found = find_defects(total)
    assert found[10, 20] and found[50, 60:63].all() and found[100].all()
    assert found.sum() <= 264 + 3


def test_defects_are_replaced_by_sound_neighbours():
    rng = np.random.default_rng(0)
    bad = np.zeros(SHAPE, bool)
    bad[40:45, 60:66], bad[0, 0] = True, True
    frame = rng.poisson(5, SHAPE).astype(np.uint8)
    frame[bad] = 200
    at, source = replacements(bad)
    assert set(at) == set(np.flatnonzero(bad)) and not bad.ravel()[source].any()
    fixed = correct_frame(frame, np.full(SHAPE, 2.0, np.float32), (at, source))
    assert fixed.max() < 60 and np.array_equal(fixed[~bad], 2.0 * frame[~bad])


def test_rare_electrons_do_not_make_pixels_dead():
    total = np.random.default_rng(0).poisson(2.0, SHAPE)
    assert find_defects(total).sum() <= 3
