"""Laws of the projection pair: adjointness, parity with the plain twins, positions, the ramp filter as inverse."""

import numpy as np
import pytest
import torch

from tiltwise.data.tilt_series import TiltGeometry
from tiltwise.ops import projection
from tiltwise.ops.geometry import project_points, tilt_rotations


def geometry(angles, axis=85.0, x_tilt=0.0, shift=0.0, seed=0):
    n = len(angles)
    shifts = np.random.default_rng(seed).normal(0, 1, (n, 2)) * shift
    tilts = TiltGeometry(
        tilt_angle=np.asarray(angles, float),
        tilt_axis_angle=np.full(n, axis),
        x_tilt=np.full(n, x_tilt),
        shift=shifts,
    )
    return tilt_rotations(tilts), torch.as_tensor(shifts)


CASES = [
    (5.0, (16, 41, 36), (40, 37), 10.0, 8.0),
    (85.0, (15, 40, 33), (64, 50), 8.0, 10.0),
    (-40.0, (12, 20, 21), (25, 25), 5.0, 5.0),
]


@pytest.mark.parametrize("axis, volume_shape, image_shape, voxel_size, pixel_size", CASES)
def test_projection_and_back_projection_are_adjoint(axis, volume_shape, image_shape, voxel_size, pixel_size):
    rotations, shift = geometry(np.linspace(-60, 60, 7), axis, 2.0, 20.0)
    torch.manual_seed(1)
    volume, images = torch.randn(volume_shape), torch.randn(7, *image_shape)
    projected = projection.project(volume, rotations, shift, voxel_size, image_shape, pixel_size)
    spread = projection.back_project(images, rotations, shift, pixel_size, volume_shape, voxel_size)
    left = (projected.double() * images).sum()
    right = (volume.double() * spread).sum()
    # float32 sample positions near 64 px carry 4e-6 px of rounding; the sums are of random sign
    scale = projected.double().norm() * images.double().norm()
    assert abs(left - right) < 2e-6 * scale


@pytest.mark.parametrize("axis, volume_shape, image_shape, voxel_size, pixel_size", CASES)
def test_kernels_agree_with_plain_twins(axis, volume_shape, image_shape, voxel_size, pixel_size):
    rotations, shift = geometry(np.linspace(-60, 60, 7), axis, 2.0, 20.0)
    torch.manual_seed(2)
    volume, images = torch.randn(volume_shape), torch.randn(7, *image_shape)
    coefficients = projection.voxel_to_sample(rotations, shift, pixel_size, image_shape, volume_shape, voxel_size)
    plain = torch.zeros(volume_shape)
    projection.gather_plain(torch.nn.functional.pad(images, (1, 1, 1, 1)), coefficients, plain)
    fast = projection.back_project(images, rotations, shift, pixel_size, volume_shape, voxel_size)
    assert torch.allclose(fast, plain, atol=3e-4)  # 7 tilts, slope up to 6 per px, 4e-6 px
    plain_images = torch.zeros(7, image_shape[0] + 2, image_shape[1] + 2)
    projection.scatter_plain(volume, coefficients, plain_images)
    fast_images = projection.project(volume, rotations, shift, voxel_size, image_shape, pixel_size)
    assert torch.allclose(fast_images, plain_images[:, 1:-1, 1:-1], atol=1e-3)


@pytest.mark.parametrize("size", [48, 49])
def test_a_bead_appears_where_the_geometry_says(size):
    rotations, shift = geometry(np.linspace(-60, 60, 9), 85.0, 1.5, 15.0)
    voxel, pixel = 10.0, 10.0
    shape = (20 + size % 2, size, size + 1)
    point = np.array([60.0, -40.0, 30.0])
    index = (point / voxel).astype(int)[::-1] + np.array(shape) // 2
    volume = torch.zeros(shape)
    volume[tuple(index)] = 1.0
    images = projection.project(volume, rotations, shift, voxel, (size + 20, size + 21), pixel)
    place, _ = project_points(torch.as_tensor(point[None]), rotations, shift)
    column = (images.sum(1) * torch.arange(size + 21)).sum(1) / images.sum((1, 2)) - (size + 21) // 2
    row = (images.sum(2) * torch.arange(size + 20)).sum(1) / images.sum((1, 2)) - (size + 20) // 2
    assert np.allclose(torch.stack([column, row], -1) * pixel, place[:, 0], atol=2e-3)


@pytest.mark.parametrize("size", [48, 49])
def test_a_bead_in_the_images_comes_back_to_its_place(size):
    rotations, shift = geometry(np.linspace(-60, 60, 21), 85.0, 1.5, 15.0)
    shape, point, voxel = (24, size, size), torch.tensor([[63.0, -44.0, 31.0]]), 10.0
    place, _ = project_points(point, rotations, shift)
    y, x = torch.meshgrid(*[(torch.arange(n) - n // 2) * voxel for n in (64, 65)], indexing="ij")
    squared = (x - place[:, 0, 0, None, None]) ** 2 + (y - place[:, 0, 1, None, None]) ** 2
    images = projection.ramp_filter(torch.exp(-squared / (2 * 15.0**2)), np.linspace(-60, 60, 21), 85.0, voxel)
    volume = projection.back_project(images, rotations, shift, voxel, shape, voxel)
    peak = torch.nonzero(volume == volume.max())[0].flip(0)
    found = (peak - torch.tensor([shape[2] // 2, shape[1] // 2, shape[0] // 2])) * voxel
    assert (found - point[0]).abs().max() <= voxel / 2 + 1e-3


def blobs(shape, voxel, seed):
    """Gaussian blobs of sd 25 Å well inside the volume."""
    rng = np.random.default_rng(seed)
    axes = np.meshgrid(*[(np.arange(n) - n // 2) * voxel for n in shape], indexing="ij")
    volume = np.zeros(shape)
    for _ in range(12):
        centre = [rng.uniform(-0.3, 0.3) * n * voxel for n in shape]
        volume += np.exp(-sum((a - c) ** 2 for a, c in zip(axes, centre, strict=True)) / (2 * 25.0**2))
    return torch.as_tensor(volume, dtype=torch.float32)


@pytest.mark.parametrize("uneven", [False, True])
def test_ramp_filter_inverts_the_projection_over_a_half_turn(uneven):
    """All directions measured: the volume comes back on its own scale, for even and for uneven steps of the angle."""
    angles = np.arange(-90, 90, 2.0)
    if uneven:
        angles = np.concatenate([np.arange(-90, 0, 3.0), np.arange(0, 90, 1.0)])
    shape, voxel = (40, 40, 40), 10.0
    rotations, shift = geometry(angles, 85.0)
    volume = blobs(shape, voxel, 4)
    images = projection.project(volume, rotations, shift, voxel, (80, 80), voxel)
    filtered = projection.ramp_filter(images, angles, np.full(len(angles), 85.0), voxel)
    back = projection.back_project(filtered, rotations, shift, voxel, shape, voxel)
    inner = (slice(6, -6),) * 3
    a, b = volume[inner].flatten().double(), back[inner].flatten().double()
    a, b = a - a.mean(), b - b.mean()
    assert torch.corrcoef(torch.stack([a, b]))[0, 1] > 0.99
    assert float((a @ b) / (a @ a)) == pytest.approx(1, abs=0.05)  # bilinear twice: sinc^4(0.06) at 1/160 per Å


def test_tilt_widths_share_the_range():
    assert np.allclose(np.rad2deg(projection.tilt_widths(np.array([-60.0, 0.0, 30.0]))), [60.0, 45.0, 30.0])
    even = np.rad2deg(projection.tilt_widths(np.arange(-60, 61, 3.0)))
    assert np.allclose(even, 3.0)
    assert np.allclose(np.rad2deg(projection.tilt_widths(np.array([0.0, 10.0, 0.0]))), [5.0, 10.0, 5.0])
