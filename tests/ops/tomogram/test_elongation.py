"""Elongation and missing wedge of synthetic beads against the closed forms."""

import numpy as np
import pytest
import torch

from tiltwise.data.tilt_series import TiltGeometry
from tiltwise.ops.geometry import project_points, tilt_rotations
from tiltwise.ops.tomogram import straight_projection as straight
from tiltwise.ops.tomogram.elongation import elongation, measure_bead_shape, missing_wedge_fraction
from tiltwise.ops.tomogram.slice_weights import slice_weight

VOXEL, SHAPE = 5.0, (80, 128, 128)
BEADS = np.array([[x, y, (x + 2 * y) / 30] for x in (-190.0, 3.0, 188.0) for y in (-194.0, 0.0, 191.0)])


def tomogram(angles, sd=6.0, radius=0.0):
    """Back projection of images of Gaussian beads of sd Å, or of balls of a radius, Å; weighted for their angles."""
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
        image = (_balls if radius else _gaussians)(place, x, y, radius or sd)
        overlap = slice_weight((ky, kx), t, angles, 0.0, torch.ones(n, 2), SHAPE[0] * VOXEL)
        weight = straight.spline_prefilter((192, 192)) / overlap
        image = torch.fft.irfft2(torch.fft.rfft2(image) * weight, s=(192, 192))
        affine = straight.plane_affine(geometry, planes, t, 0, ((VOXEL, VOXEL), (96.0, 96.0)))
        straight.resample(image, affine, samples[planes.start[t] : planes.start[t + 1]])
    volume = torch.zeros(SHAPE)
    straight.gather(samples, np.arange(n), straight.kernel_table(geometry, planes), volume, (0, 0))
    return volume.numpy()


def _gaussians(place, x, y, sd):
    along = [torch.exp(-((place[:, None] - p) ** 2) / (2 * sd**2)) for p in (y, x)]
    return along[0] @ along[1].T


def _balls(place, x, y, radius):
    squares = [(radius**2 - (place[:, None] - v) ** 2 - (place - u) ** 2) for u, v in zip(x, y, strict=True)]
    return 2 * torch.stack(squares).clamp_min(0).sqrt().sum(0)


def test_the_closed_forms_have_the_published_values():
    assert elongation(-60.0, 60.0) == pytest.approx(1.55, abs=0.005)
    assert elongation(-70.0, 70.0) == pytest.approx(1.31, abs=0.005)
    assert elongation(-90.0, 90.0) == pytest.approx(1.0) and elongation(0.0, 0.0) == np.inf
    angle = np.radians(np.linspace(-20, 60, 200001))
    numbers = np.sqrt((np.cos(angle) ** 2).sum() / (np.sin(angle) ** 2).sum())
    assert elongation(-20.0, 60.0) == pytest.approx(numbers, rel=1e-4)
    assert missing_wedge_fraction(-60.0, 60.0) == pytest.approx(1 / 3)


def closed(half):
    return elongation(-half, half)


@pytest.mark.parametrize("half, step", [(60.0, 3.0), (70.0, 2.0), (45.0, 3.0)])
def test_beads_are_stretched_as_the_closed_form_says(half, step):
    """n tilts stand for a range of n steps, half a step more at each end; the weights of the outermost slices, which
    have neighbours on one side only, may stretch it by another half step: half a step of the closed form either way."""
    shape = measure_bead_shape(tomogram(np.arange(-half, half + 0.1, step)), VOXEL, BEADS, 12.0)
    assert shape.beads == len(BEADS)
    assert closed(half + 1.5 * step) - 0.01 < shape.elongation < closed(half) + 0.01
    # a box of 32 resolves 1 / (2π · 3 samples) = 3° at its inner edge, 1° at its outer
    assert abs(shape.highest_angle - half) <= 4 and abs(shape.lowest_angle + half) <= 4


def test_a_ball_of_gold_is_stretched_as_much():
    """A ball's middle is flat; the weight, as wide as the ball, takes the curvature from all of it."""
    shape = measure_bead_shape(tomogram(np.arange(-60.0, 60.1, 3.0), radius=30.0), VOXEL, BEADS, 60.0)
    assert shape.beads == len(BEADS)
    assert closed(64.5) - 0.01 < shape.elongation < closed(60.0) + 0.01
    assert abs(shape.highest_angle - 60) <= 4 and abs(shape.lowest_angle + 60) <= 4


def test_beads_beside_others_do_not_count():
    crowded = np.vstack([BEADS, BEADS[:2] + [20.0, 0.0, 0.0]])
    shape = measure_bead_shape(tomogram(np.arange(-60.0, 60.1, 3.0)), VOXEL, crowded, 12.0)
    assert shape.beads == len(BEADS) - 2


def test_a_range_on_one_side_is_seen_as_such():
    shape = measure_bead_shape(tomogram(np.arange(-20.0, 60.1, 2.0)), VOXEL, BEADS, 12.0)
    assert abs(abs(shape.highest_angle) + abs(shape.lowest_angle) - 80) <= 8
    assert {round(abs(a) / 20) for a in (shape.lowest_angle, shape.highest_angle)} == {1, 3}


def test_no_bead_inside_is_said():
    assert measure_bead_shape(np.zeros(SHAPE, np.float32), VOXEL, np.array([[1e4, 0, 0]]), 12.0) is None
