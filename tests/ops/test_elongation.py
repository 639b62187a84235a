"""Elongation and missing wedge of synthetic beads against the closed forms."""

import numpy as np
import pytest
import torch

from tiltwise.data.tilt_series import TiltGeometry
from tiltwise.ops import straight_projection as straight
from tiltwise.ops.elongation import elongation, measure_bead_shape, missing_wedge_fraction
from tiltwise.ops.geometry import project_points, tilt_rotations
from tiltwise.ops.slice_weights import slice_weight

VOXEL, SHAPE = 5.0, (80, 128, 128)
BEADS = np.array([[x, y, (x + 2 * y) / 30] for x in (-190.0, 3.0, 188.0) for y in (-194.0, 0.0, 191.0)])


def tomogram(angles, sd=6.0):
    """Back projection of images of Gaussian beads of sd Å, weighted for their angles."""
    n, zero = len(angles), np.zeros(len(angles))
    tilts = TiltGeometry(tilt_angle=angles, tilt_axis_angle=zero, x_tilt=zero, shift=np.zeros((n, 2)))
    rotations = tilt_rotations(tilts)
    places, _ = project_points(torch.as_tensor(BEADS), rotations, torch.zeros(n, 2))
    geometry = straight.straighten(rotations, tilts.shift, VOXEL, SHAPE, columns_per_voxel=2)
    planes = straight.lay_out_planes(geometry)
    samples = torch.empty(int(planes.start[-1]), straight.stored_rows(geometry, SHAPE[1]))
    ky, kx = torch.fft.fftfreq(192, VOXEL), torch.fft.rfftfreq(192, VOXEL)
    place = (torch.arange(192) - 96) * VOXEL
    for t in range(n):
        x, y = places[t].float().T
        along = [torch.exp(-((place[:, None] - p) ** 2) / (2 * sd**2)) for p in (y, x)]
        overlap = slice_weight((ky, kx), t, angles, 0.0, torch.ones(n, 2), SHAPE[0] * VOXEL)
        weight = straight.spline_prefilter((192, 192)) / overlap
        image = torch.fft.irfft2(torch.fft.rfft2(along[0] @ along[1].T) * weight, s=(192, 192))
        affine = straight.plane_affine(geometry, planes, t, 0, ((VOXEL, VOXEL), (96.0, 96.0)))
        straight.resample(image, affine, samples[planes.start[t] : planes.start[t + 1]])
    volume = torch.zeros(SHAPE)
    straight.gather(samples, np.arange(n), straight.kernel_table(geometry, planes), volume, (0, 0))
    return volume.numpy()


def test_the_closed_forms_have_the_published_values():
    assert elongation(60.0) == pytest.approx(1.55, abs=0.005)
    assert elongation(70.0) == pytest.approx(1.31, abs=0.005)
    assert elongation(90.0) == pytest.approx(1.0)
    assert missing_wedge_fraction(-60.0, 60.0) == pytest.approx(1 / 3)


@pytest.mark.parametrize("half, step", [(60.0, 3.0), (70.0, 2.0), (45.0, 3.0)])
def test_beads_are_stretched_as_the_closed_form_says(half, step):
    """n tilts stand for a range of n steps, half a step more at each end; the weights of the outermost slices, which
    have neighbours on one side only, may stretch it by another half step: half a step of the closed form either way."""
    shape = measure_bead_shape(tomogram(np.arange(-half, half + 0.1, step)), VOXEL, BEADS, 32)
    assert shape.beads == len(BEADS)
    assert elongation(half + 1.5 * step) - 0.01 < shape.elongation < elongation(half) + 0.01
    # a box of 32 resolves 1 / (2π · 3 samples) = 3° at its inner edge, 1° at its outer
    assert abs(shape.highest_angle - half) <= 4 and abs(shape.lowest_angle + half) <= 4


def test_a_range_on_one_side_is_seen_as_such():
    shape = measure_bead_shape(tomogram(np.arange(-20.0, 60.1, 2.0)), VOXEL, BEADS, 32)
    assert abs(abs(shape.highest_angle) + abs(shape.lowest_angle) - 80) <= 8
    assert {round(abs(a) / 20) for a in (shape.lowest_angle, shape.highest_angle)} == {1, 3}


def test_no_bead_inside_is_said():
    assert measure_bead_shape(np.zeros(SHAPE, np.float32), VOXEL, np.array([[1e4, 0, 0]]), 32) is None
