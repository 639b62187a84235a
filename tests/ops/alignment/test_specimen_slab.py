"""The slab of the specimen is found and made level; a specimen that is level stays so."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from made_series import geometry

from tiltwise.ops.alignment.image_cleaning import Frames
from tiltwise.ops.alignment.projection_matching import dense_part, prepare_level
from tiltwise.ops.alignment.specimen_slab import Slab, find_slab, level_slab
from tiltwise.ops.geometry import project_points, tilt_rotations
from tiltwise.ops.projection import project

VOXEL = 20.0


def slab_density(slope, height, thickness, shape=(64, 96, 96), seed=0):
    """Random density (z, y, x) within |z - height - slope·(x, y)| < thickness / 2."""
    z, y, x = np.meshgrid(*((np.arange(n) - n // 2) * VOXEL for n in shape), indexing="ij")
    inside = np.abs(z - height - slope[0] * x - slope[1] * y) < thickness / 2
    return torch.as_tensor(inside * np.random.default_rng(seed).random(shape) ** 8, dtype=torch.float32)


@pytest.mark.parametrize("slope", [(0.0, 0.0), (0.12, -0.05), (-0.2, 0.15)])
def test_a_slab_is_found_where_it_is(slope):
    slab = find_slab(slab_density(slope, 60.0, 410.0), VOXEL, 1000.0)
    # edges are sharp to a voxel over 1920 Å: a hundredth in slope; half a voxel in height, one and a half in thickness
    np.testing.assert_allclose(slab.slope, slope, atol=0.01)
    assert slab.height == pytest.approx(60.0, abs=VOXEL / 2)
    assert slab.thickness == pytest.approx(410.0, abs=1.5 * VOXEL)


def test_noise_without_a_slab_stays_level():
    """A level that chance passes three times in a thousand is not passed in four trials."""
    for seed in range(4):
        assert not find_slab(torch.rand(64, 96, 96, generator=_seeded(seed)), VOXEL, 1000.0).slope.any()


def test_few_molecules_in_a_level_slab_stay_level():
    """Forty balls have a slope by chance, of 2° (sd): that is no inclination of the slab."""
    inclined = 0
    for seed in range(4):
        place = np.random.default_rng(seed).uniform(-1, 1, (40, 3)) * [900, 900, 200]
        density = torch.zeros(64, 96, 96)
        for x, y, z in np.round(place / VOXEL).astype(int) + [48, 48, 32]:
            density[z - 3 : z + 4, max(y - 3, 0) : y + 4, max(x - 3, 0) : x + 4] = 1.0
        inclined += find_slab(density, VOXEL, 1000.0).slope.any()
    assert inclined <= 1


def _seeded(seed):
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("x_tilt", [0.0, 4.0])
def test_levelling_changes_no_image_and_brings_the_slab_to_the_middle(x_tilt):
    tilts = replace(geometry(9), x_tilt=np.full(9, x_tilt))
    slab = Slab(slope=np.array([0.12, -0.2]), height=70.0, thickness=300.0)
    levelled = level_slab(tilts, slab)
    xy = np.random.default_rng(0).uniform(-500, 500, (40, 2))
    points = np.column_stack([xy, slab.height + xy @ slab.slope])
    # the motion of the specimen, from the rotations alone: R' = R G, and X = G X' + (0, 0, height)
    turn = tilt_rotations(tilts)[0].numpy().T @ tilt_rotations(levelled)[0].numpy()
    moved = (points - [0, 0, slab.height]) @ turn
    np.testing.assert_allclose(moved[:, 2], 0.0, atol=1e-9)
    places = [
        project_points(torch.as_tensor(p), tilt_rotations(g), torch.as_tensor(g.shift))[0].numpy()
        for p, g in ((points, tilts), (moved, levelled))
    ]
    np.testing.assert_allclose(places[0], places[1], atol=1e-8)
    if x_tilt == 0.0:
        np.testing.assert_allclose(levelled.tilt_axis_angle, tilts.tilt_axis_angle, atol=1e-9)
        assert np.ptp(levelled.x_tilt) < 1e-9 and np.ptp(levelled.tilt_angle - tilts.tilt_angle) < 1e-9


def test_an_inclined_slab_is_found_in_its_projections():
    """The wedge of ±60° elongates along z, so edges are less sharp than those of the density itself."""
    tilts = replace(geometry(31, axis=85.0), shift=np.zeros((31, 2)))
    slope = np.array([0.1, -0.08])
    volume = slab_density(slope, 40.0, 400.0, shape=(48, 96, 96))
    fade = torch.as_tensor(np.abs(np.arange(96) - 48) < 42).float()
    images = project(volume * fade * fade[:, None], tilt_rotations(tilts), torch.zeros(31, 2), VOXEL, (96, 96), VOXEL)
    frames = Frames(data=images, pixel_size=VOXEL, window=torch.ones(96, 96))
    level = prepare_level(frames, tilts.tilt_angle, 60.0, 1000.0)
    density = dense_part(level, tilts)
    edge = density.shape[1] // 5
    slab = find_slab(density[:, edge:-edge, edge:-edge], level.grid.voxel_size, 1000.0)
    found = np.degrees(np.arctan(slab.slope)) - np.degrees(np.arctan(slope))
    assert np.abs(found).max() < 1.0
    assert slab.height == pytest.approx(40.0, abs=level.grid.voxel_size)
    assert slab.thickness == pytest.approx(400.0, abs=120.0)
