"""A reprojection is foretold by the other tilts alone."""

import numpy as np
import pytest
import torch
from made_series import geometry

from tiltwise.ops.alignment.reprojection import VolumeGrid, reproject_others, scatter_rest_plain
from tiltwise.ops.geometry import tilt_rotations
from tiltwise.ops.kernels.reprojection import scatter_rest
from tiltwise.ops.projection import back_project, project, voxel_to_sample

GRID = VolumeGrid(shape=(12, 30, 28), voxel_size=10.0)


def made(number=5, axis=85.0, seed=0):
    tilts = geometry(number, seed, axis)
    images = torch.randn(number, 32, 33, generator=torch.Generator().manual_seed(seed))
    return images, tilt_rotations(tilts), torch.as_tensor(tilts.shift / 5)


@pytest.mark.parametrize("axis", [3.0, 85.0, -130.0])
def test_it_is_the_projection_of_what_the_others_leave_above_the_threshold(axis):
    images, rotations, shift = made(axis=axis)
    found = reproject_others(images, rotations, shift, 10.0, GRID, 0.5)
    total = back_project(images, rotations, shift, 10.0, GRID.shape, 10.0)
    for i in range(5):
        others = [j for j in range(5) if j != i]
        rest = back_project(images[others], rotations[others], shift[others], 10.0, GRID.shape, 10.0)
        # a voxel whose own sample lies outside the image has no place in it: both leave it out
        rest = (rest - 0.5 * total.std()).clamp_min(0)
        expected = project(rest, rotations[i : i + 1], shift[i : i + 1], 10.0, (32, 33), 10.0)[0]
        np.testing.assert_allclose(found[i], expected, atol=2e-3 * float(expected.max()))


def test_a_single_tilt_foretells_nothing_of_itself():
    images, rotations, shift = made(1)
    assert float(reproject_others(images, rotations, shift, 10.0, GRID, 0.0).abs().max()) < 1e-4


def test_kernel_and_plain_twin_agree():
    images, rotations, shift = made()
    volume = back_project(images, rotations, shift, 10.0, GRID.shape, 10.0)
    coefficients = voxel_to_sample(rotations, shift, 10.0, (32, 33), GRID.shape, 10.0)
    samples = torch.nn.functional.pad(images, (1, 1, 1, 1)).contiguous()
    fast, plain = torch.zeros_like(samples), torch.zeros_like(samples)
    scatter_rest(volume.numpy(), samples.numpy(), coefficients.numpy(), 0.7, fast.numpy())
    scatter_rest_plain(volume, samples, coefficients, 0.7, plain)
    # float32 positions differ by 4e-6 px times the steepest gradient; sums of about 100 terms
    np.testing.assert_allclose(fast, plain, atol=2e-3 * float(plain.max()))
