"""A map found in another at low resolution, and a map without imposed symmetry brought to the setting of its group."""

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from tiltwise.ops.interpolate import centred_points, rotate_volume, sample_volume
from tiltwise.ops.poses.alignment import search_grid
from tiltwise.ops.poses.map_search import find_map
from tiltwise.ops.poses.symmetry_setting import standard_setting
from tiltwise.ops.symmetry import symmetrise_volume

BOX, PIXEL, RESOLUTION, DIAMETER = 24, 10.0, 55.0, 180.0


def bodies(centres, sizes):
    points = centred_points((BOX,) * 3)
    total = torch.zeros(BOX, BOX, BOX, dtype=torch.float64)
    for size, centre in zip(sizes, centres, strict=True):
        total += size * torch.exp(-(points - torch.tensor(centre)).square().sum(-1) / 7)
    return total.float()


def moved(volume, turn, shift):
    """Turned, then moved by a shift in voxels."""
    turned = rotate_volume(volume, torch.as_tensor(turn.as_matrix()))
    return sample_volume(turned, centred_points((BOX,) * 3) - torch.tensor(shift), method="cubic")


def test_a_rigid_motion_is_found():
    volume = bodies([(6, 0, 0), (-5, 3, 1), (0, -5, 4), (1, 4, -6)], (2.0, 1.0, 1.4, 0.8))
    turn, shift = Rotation.from_rotvec([50, -70, 20], degrees=True), (1.0, -1.5, 0.5)
    grid = search_grid(RESOLUTION, DIAMETER, 180.0, 30.0)
    motion, value = find_map(volume, moved(volume, turn, shift), PIXEL, grid)
    wrong = (Rotation.from_matrix(motion.rotation) * turn.inv()).magnitude()
    # the last grid's steps are a ninth of the first's, by which a rim at half the diameter moves 0.35 resolution; turn
    # and shift may each be off by half the diagonal of three steps
    step = np.sqrt(3) / 2 * 0.35 * RESOLUTION / 9
    assert wrong * DIAMETER / 2 + np.linalg.norm(motion.shift - PIXEL * np.array(shift)) < 2 * step
    assert value > 0.98


@pytest.mark.parametrize("symmetry", ["C3", "D2"])
def test_a_symmetric_map_is_brought_to_its_setting(symmetry):
    unit = bodies([(6, 1, 2), (4, 3, -5)], (2.0, 1.0))
    volume = symmetrise_volume(unit, symmetry)
    turned = moved(volume, Rotation.from_rotvec([40, 25, -60], degrees=True), (0.6, -0.8, 0.4))
    motion, share = standard_setting(turned, PIXEL, symmetry, resolution=RESOLUTION, diameter=DIAMETER)
    back = moved(turned, Rotation.from_matrix(motion.rotation), tuple(motion.shift / PIXEL))
    kept = symmetrise_volume(back, symmetry)
    assert share > 0.97
    assert float((back * kept).sum() / (back.norm() * kept.norm())) > 0.98
    assert float((turned * symmetrise_volume(turned, symmetry)).sum() / turned.norm() ** 2) < 0.8


def test_a_map_without_the_symmetry_shows_little_of_it():
    volume = bodies([(6, 0, 0), (-5, 3, 1), (0, -5, 4), (1, 4, -6)], (2.0, 1.0, 1.4, 0.8))
    assert standard_setting(volume, PIXEL, "D3", resolution=RESOLUTION, diameter=DIAMETER)[1] < 0.81
