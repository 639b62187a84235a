"""Patches tile the field, and what the whole images cannot tell, axis and angles of each tilt, comes out of them."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from made_series import geometry

from tiltwise.data.tilt_series import TiltGeometry
from tiltwise.ops.alignment.comparison import remove_gauge
from tiltwise.ops.alignment.image_cleaning import Frames
from tiltwise.ops.alignment.patch_alignment import align_to_patches
from tiltwise.ops.alignment.patch_tracking import patch_width, place_patches, track_patches
from tiltwise.ops.alignment.projection_matching import prepare_level
from tiltwise.ops.geometry import project_points, tilt_rotations

PIXEL, SIDE = 15.0, 192


def blob_frames(tilts, seed=0, noise=1.0):
    """Images of 600 blobs of 25 Å in a slab of 600 Å, with noise; sides are 2880 Å."""
    rng = np.random.default_rng(seed)
    points = torch.as_tensor(rng.uniform(-1, 1, (600, 3)) * [2400, 1500, 300])
    position = project_points(points, tilt_rotations(tilts), torch.as_tensor(tilts.shift))[0].numpy()
    grid = (np.arange(SIDE) - SIDE // 2) * PIXEL
    profiles = [np.exp(-((grid - position[..., c, None]) ** 2) / (2 * 25.0**2)) for c in (0, 1)]
    clean = np.einsum("tpy,tpx->tyx", profiles[1], profiles[0])
    data = clean / clean.std() + rng.normal(0, noise, clean.shape)
    return Frames(data=torch.as_tensor(data).float(), pixel_size=PIXEL, window=torch.ones(SIDE, SIDE))


@pytest.fixture(scope="module")
def scene():
    """The truth, what the stage says, and a level of images matched with the latter."""
    number = 25
    stage = replace(geometry(number), tilt_angle=np.linspace(-60, 60, number), shift=np.zeros((number, 2)))
    rng = np.random.default_rng(1)
    truth = replace(
        stage,
        tilt_angle=stage.tilt_angle + rng.normal(0, 0.3, number),
        tilt_axis_angle=stage.tilt_axis_angle + np.linspace(-0.5, 0.5, number),
    )
    return truth, stage, prepare_level(blob_frames(truth), stage.tilt_angle, 45.0, 900.0)


@pytest.mark.parametrize("side, number", [(1500.0, 2), (4000.0, 5), (20000.0, 7)])
def test_patches_tile_the_field_like_a_chessboard(side, number):
    width = patch_width(side)
    points = place_patches(side, width, 30.0)
    assert len(points) == number**2
    level = TiltGeometry(
        tilt_angle=np.zeros(1), tilt_axis_angle=np.full(1, 30.0), x_tilt=np.zeros(1), shift=np.zeros((1, 2))
    )
    turned = project_points(torch.as_tensor(points), tilt_rotations(level), torch.zeros(1, 2))[0][0].numpy()
    assert np.abs(turned).max() == pytest.approx(side / 2 - width / 2)
    fields = np.round((turned + side / 2) / width - 0.5).astype(int)
    assert (fields.sum(1) % 2 == np.arange(number**2) % 2).all()


def test_a_displaced_image_displaces_its_patches(scene):
    _, stage, level = scene
    before = track_patches(level, stage, 45.0).observations
    moved = replace(level.frames, data=torch.roll(level.frames.data, (1,), dims=(2,)))
    pixel = level.frames.pixel_size
    data = level.frames.data.clone()
    data[12] = moved.data[12]
    after = track_patches(replace(level, frames=replace(level.frames, data=data)), stage, 45.0).observations
    both = {(t, p): place for t, p, place in zip(before.tilt, before.point, before.position, strict=True)}
    own = [(place - both[t, p]) for t, p, place in zip(after.tilt, after.point, after.position, strict=True) if t == 12]
    assert len(own) >= 6
    np.testing.assert_allclose(np.mean(own, axis=0), [pixel, 0.0], atol=0.1 * pixel)


def test_axis_and_angles_come_out_of_patches(scene):
    truth, stage, level = scene
    found = align_to_patches(level, stage)
    assert found.better and found.model == "drifting axis, tilt angles"
    errors = []
    points = torch.as_tensor(np.random.default_rng(2).uniform(-1, 1, (200, 3)) * [1300, 1300, 300])
    for tilts in (stage, found.geometry):
        levelled = remove_gauge(tilts, truth)
        places = [project_points(points, tilt_rotations(g), torch.as_tensor(g.shift))[0] for g in (levelled, truth)]
        errors.append(float(((places[0] - places[1]) ** 2).sum(-1).mean().sqrt()))
    assert errors[1] < 0.5 * errors[0]
    axis = found.geometry.tilt_axis_angle - truth.tilt_axis_angle
    assert np.abs(axis - np.median(axis)).max() < 0.25


def test_images_of_nothing_hold_no_patches(scene):
    _, stage, level = scene
    noise = torch.randn(level.frames.data.shape, generator=torch.Generator().manual_seed(0))
    empty = replace(level, frames=replace(level.frames, data=noise))
    assert align_to_patches(empty, stage) is None
