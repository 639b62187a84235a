"""Laws of the projection from straightened images: where points lie, parity with the plain twins, adjointness."""

import numpy as np
import pytest
import torch

from tiltwise.data.tilt_series import TiltGeometry
from tiltwise.ops.geometry import project_points, tilt_rotations
from tiltwise.ops.tomogram import straight_projection as straight

ANGLES = np.array([-60.0, -33.0, 0.0, 20.0, 58.0])
VOXEL = 7.0
SHAPE = (21, 90, 75)


def made(axis=85.0, x_tilt=2.0, step=np.inf, columns_per_voxel=1):
    n = len(ANGLES)
    shifts = np.random.default_rng(0).normal(0, 20, (n, 2))
    tilts = TiltGeometry(tilt_angle=ANGLES, tilt_axis_angle=np.full(n, axis), x_tilt=np.full(n, x_tilt), shift=shifts)
    rotations = tilt_rotations(tilts)
    geometry = straight.straighten(rotations, shifts, VOXEL, SHAPE, step, columns_per_voxel)
    return geometry, straight.lay_out_planes(geometry), rotations, shifts


def filled(geometry, planes, rows=SHAPE[1], seed=0):
    samples = torch.randn(int(planes.start[-1]), straight.stored_rows(geometry, rows))
    return samples, straight.kernel_table(geometry, planes)


@pytest.mark.parametrize("axis, x_tilt", [(0.0, 0.0), (85.0, 0.0), (-40.0, 2.0)])
def test_a_voxel_lies_where_the_conventions_say(axis, x_tilt):
    geometry, planes, rotations, shifts = made(axis, x_tilt)
    index = np.array([[3, 80, 2], [70, 5, 19], [37, 45, 10]], float)  # x, y, z
    points = (index - np.array([n // 2 for n in reversed(SHAPE)])) * VOXEL
    truth, _ = project_points(torch.as_tensor(points), rotations, torch.as_tensor(shifts))
    for t in range(len(ANGLES)):
        column = index[:, [0, 2]] @ geometry.column[t, :2] + geometry.column[t, 2]
        row = index[:, 1] + geometry.row[t, 0] * index[:, 2] + geometry.row[t, 1]
        affine = straight.plane_affine(geometry, planes, t, 0, ((4.0, 5.0), (30.0, 40.0)))
        place = (np.stack([column, row, np.ones(3)], 1) @ affine.T - [30.0, 40.0]) * [4.0, 5.0]
        assert np.allclose(place, truth[t].numpy(), atol=1e-9)


@pytest.mark.parametrize("axis, x_tilt, step", [(0.0, 0.0, np.inf), (85.0, 0.0, 60.0), (-40.0, 2.0, 60.0)])
def test_kernels_agree_with_plain_twins(axis, x_tilt, step):
    torch.manual_seed(1)
    geometry, planes, _, _ = made(axis, x_tilt, step)
    samples, table = filled(geometry, planes)
    fast, plain = torch.zeros(SHAPE), torch.zeros(SHAPE)
    straight.gather(samples, np.arange(len(ANGLES)), table, fast, (0, 0))
    straight.gather_plain(samples, np.arange(len(ANGLES)), table, plain, (0, 0))
    # positions in float64, weights and sums in float32 of numbers near 1: rounding 6e-8 × 5 tilts × 4 samples
    assert torch.allclose(fast, plain, atol=1e-5)
    one = made(axis, x_tilt)
    table = straight.kernel_table(*one[:2])
    fast, plain = (torch.zeros(int(one[1].start[-1]), straight.stored_rows(one[0], SHAPE[1])) for _ in range(2))
    volume = torch.randn(SHAPE)
    straight.scatter(volume, np.arange(len(ANGLES)), table, fast, (0, 0))
    straight.scatter_plain(volume, np.arange(len(ANGLES)), table, plain, (0, 0))
    assert torch.allclose(fast, plain, atol=1e-4)  # up to 40 voxels meet a sample


def test_a_slab_of_rows_is_the_same_as_the_whole():
    torch.manual_seed(2)
    geometry, planes, _, _ = made(85.0, 0.0, 60.0)
    samples, table = filled(geometry, planes)
    whole, part = torch.zeros(SHAPE), torch.zeros(5, 20, SHAPE[2])
    straight.gather(samples, np.arange(5), table, whole, (0, 0))
    straight.gather(samples[:, 64:].contiguous(), np.arange(5), table, part, (7, 64))
    assert torch.allclose(part, whole[7:12, 64:84], atol=1e-6)


@pytest.mark.parametrize("x_tilt", [0.0, 2.0])
def test_gather_and_scatter_are_adjoint(x_tilt):
    torch.manual_seed(3)
    geometry, planes, _, _ = made(85.0, x_tilt, columns_per_voxel=2)
    samples, table = filled(geometry, planes)
    volume, gathered, spread = torch.randn(SHAPE), torch.zeros(SHAPE), torch.zeros_like(samples)
    straight.gather(samples, np.arange(5), table, gathered, (0, 0))
    straight.scatter(volume, np.arange(5), table, spread, (0, 0))
    left, right = (gathered.double() * volume).sum(), (spread.double() * samples).sum()
    assert abs(left - right) < 1e-6 * spread.double().norm() * samples.double().norm()


def test_levels_hold_the_columns_that_their_voxels_meet():
    """Every column that a voxel asks of its level is kept: where it were not, the kernel would read a neighbour."""
    for axis, x_tilt in ((0.0, 0.0), (85.0, 3.0)):
        geometry, planes, _, _ = made(axis, x_tilt, 40.0)
        z, y, x = (a.ravel() for a in np.indices(SHAPE))
        for t in range(len(ANGLES)):
            column = geometry.column[t, 0] * x + geometry.column[t, 1] * z + geometry.column[t, 2]
            level = np.stack([x, y // 64 * 64 + 32, z, np.ones_like(x)], 1) @ geometry.level[t]
            plane = planes.of_tilt[t, 0] + np.clip(np.floor(level), 0, planes.of_tilt[t, 1] - 1).astype(int)
            kept = np.diff(planes.start)
            assert (column >= planes.first[plane]).all()
            assert (column + 1 <= planes.first[plane] + kept[plane]).all()


def test_the_spline_goes_through_its_samples_and_agrees_with_its_twin():
    torch.manual_seed(4)
    image = torch.randn(32, 40)
    filtered = torch.fft.rfft2(image) * straight.spline_prefilter((32, 40))
    coefficients = torch.fft.irfft2(filtered, s=(32, 40))
    out = torch.empty(40, 32)
    straight.resample(coefficients, np.array([[1.0, 0, 0], [0, 1.0, 0]]), out)
    assert torch.allclose(out.T[1:29, 1:37], image[1:29, 1:37], atol=1e-5)
    affine = np.array([[0.7, 0.6, -3.017], [-0.6, 0.7, 12.013]])  # no place on the very edge of the frame
    twin = torch.empty(40, 32)
    straight.resample(coefficients, affine, out)
    straight.resample_plain(coefficients, affine, twin)
    assert torch.allclose(out, twin, atol=1e-5) and (twin == 0).any() and (twin != 0).any()


def test_a_displacement_is_read_between_its_nodes_and_agrees_with_its_twin():
    """A displacement linear in column and row is an affine map: exactly what lines between nodes can say."""
    torch.manual_seed(5)
    image, affine = torch.randn(64, 80), np.array([[0.7, 0.6, -3.017], [-0.6, 0.7, 32.013]])
    change = np.array([[0.02, -0.01, 1.3], [0.03, 0.015, -0.7]])
    out, twin, expected = torch.empty(70, 50), torch.empty(70, 50), torch.empty(70, 50)
    columns, rows = 16.0 * np.arange(6), 16.0 * np.arange(5)
    grid = np.stack([*np.meshgrid(columns, rows, indexing="ij"), np.ones((6, 5))], axis=-1)
    straight.resample(image, affine + change, expected)
    straight.resample(image, affine, out, grid @ change.T)
    straight.resample_plain(image, affine, twin, grid @ change.T)
    assert torch.allclose(out, twin, atol=1e-5) and torch.allclose(out, expected, atol=1e-5)
    assert (expected == 0).any() and (expected != 0).any()
    bent = np.random.default_rng(0).normal(0, 2, (6, 5, 2))
    straight.resample(image, affine, out, bent)
    straight.resample_plain(image, affine, twin, bent)
    assert torch.allclose(out, twin, atol=1e-5) and not torch.allclose(out, expected, atol=0.1)
