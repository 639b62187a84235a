"""Origin, specimen and axis: the parts of projection matching with an answer known beforehand."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from made_series import geometry

from tiltwise.ops.alignment.comparison import remove_gauge
from tiltwise.ops.alignment.image_cleaning import Frames
from tiltwise.ops.alignment.projection_matching import (
    Alignment,
    align_neighbours,
    find_specimen,
    move_origin,
    parabola_maximum,
    prepare_level,
)
from tiltwise.ops.geometry import tilt_rotations
from tiltwise.ops.projection import project

PIXEL = 20.0


def state(axis, shift):
    number = len(shift)
    figures = dict.fromkeys(("step", "correlation", "correlation_before"), np.zeros(number))
    return Alignment(axis=axis, shift=shift, information=0.0, **figures)


def slab_frames(tilts, depth, thickness, shape=(48, 64, 64)):
    """Projections of white density in a slab of this thickness about this depth, Å."""
    volume = torch.rand(shape, generator=torch.Generator().manual_seed(0)) ** 8
    z = (torch.arange(shape[0]) - shape[0] // 2) * PIXEL
    volume[(z - depth).abs() > thickness / 2] = 0
    volume[:, :8], volume[:, -8:], volume[:, :, :8], volume[:, :, -8:] = 0, 0, 0, 0
    images = project(volume, tilt_rotations(tilts), torch.as_tensor(tilts.shift), PIXEL, shape[1:], PIXEL)
    return Frames(data=images, pixel_size=PIXEL, window=torch.ones(shape[1:]))


def test_a_new_origin_is_only_a_gauge():
    tilts = geometry(15, seed=4)
    moved = move_origin(state(85.0, tilts.shift), tilts.tilt_angle, 130.0)
    back = remove_gauge(replace(tilts, shift=moved.shift), tilts)
    np.testing.assert_allclose(back.shift, tilts.shift, atol=1e-6)
    again = move_origin(moved, tilts.tilt_angle, 0.0)
    np.testing.assert_allclose(again.shift, moved.shift, atol=1e-9)


def test_the_slab_is_found_where_it_is_and_can_be_centred():
    tilts = geometry(25)
    tilts = replace(tilts, shift=np.zeros((25, 2)))
    level = prepare_level(slab_frames(tilts, 100.0, 200.0), tilts.tilt_angle, 60.0, 900.0)
    found = state(85.0, tilts.shift)
    depth, thickness = find_specimen(level, found)
    # one voxel of the level's grid and the smoothing by the wedge and by 60 Å
    assert depth == pytest.approx(100.0, abs=25.0)
    assert thickness == pytest.approx(200.0, abs=80.0)
    assert find_specimen(level, move_origin(found, tilts.tilt_angle, depth))[0] == pytest.approx(0.0, abs=25.0)


def test_neighbours_give_the_shifts_of_a_flat_specimen():
    tilts = geometry(25)
    tilts = replace(tilts, tilt_angle=np.linspace(-60, 60, 25), shift=tilts.shift / 2)
    level = prepare_level(slab_frames(tilts, 0.0, 20.0), tilts.tilt_angle, 60.0, 300.0)
    found = replace(tilts, shift=align_neighbours(level, 85.0))
    error = remove_gauge(found, tilts).shift - tilts.shift
    assert float(np.sqrt((error**2).sum(1).mean())) < 0.25 * PIXEL


@pytest.mark.parametrize("centre", [-0.3, 0.0, 0.7])
def test_a_parabola_is_solved_between_its_samples(centre):
    x = np.linspace(-2, 2, 9)
    assert parabola_maximum(x, 5 - (x - centre) ** 2) == pytest.approx(centre)


def test_the_maximum_never_leaves_the_range():
    x = np.linspace(-1, 1, 5)
    assert parabola_maximum(x, x) == 1.0
    assert parabola_maximum(np.zeros(1), np.ones(1)) == 0.0
    assert -1 <= parabola_maximum(x, -((x - 3) ** 2)) <= 1
