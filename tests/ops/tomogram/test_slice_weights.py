"""Laws of the slice weights: the ramp for even steps, shared angles share, uneven steps count by their gaps."""

import numpy as np
import torch

from tiltwise.ops.tomogram.slice_weights import overlap_sum_plain, slice_weight

PIXEL, THICKNESS = 4.0, 800.0
KY, KX = torch.fft.fftfreq(64, PIXEL, dtype=torch.float64), torch.fft.rfftfreq(64, PIXEL, dtype=torch.float64)


def weights(angles, tilt, axis=0.0, power=None):
    power = torch.ones(len(angles), 9) if power is None else power
    return (PIXEL / THICKNESS) / slice_weight((KY, KX), tilt, np.asarray(angles, float), axis, power, THICKNESS)


def test_even_steps_give_the_ramp_and_then_a_constant():
    step = 1.0
    found = weights(np.arange(-60, 61, step), 60)[0]
    for column in range(2, 33):
        slices = 1 / (THICKNESS * float(KX[column]) * np.deg2rad(step))  # that overlap on each side
        ramp = float(KX[column]) * PIXEL * np.deg2rad(step)
        if slices > 3:  # the sum of a triangle is its area within 1 / (4 slices²), arcsine(x) is x within x² / 6
            assert abs(found[column] / ramp - 1) < 1 / (4 * slices**2) + (slices * np.deg2rad(step)) ** 2 / 6 + 1e-3
        elif slices < 1:
            assert np.isclose(found[column], PIXEL / THICKNESS, rtol=1e-6)


def test_images_at_one_angle_share_its_weight():
    once, twice = weights([-30, 0, 30], 1), weights([-30, 0, 0, 30], 1)
    far = KX * THICKNESS * np.sin(np.deg2rad(30)) > 1
    assert torch.allclose(twice[0][far], once[0][far] / 2)
    assert torch.allclose(once[0][0], torch.tensor(PIXEL / THICKNESS / 3))


def test_a_lone_tilt_counts_more_than_those_of_a_dense_range():
    angles = np.concatenate([np.arange(-10, 11, 1.0), [20.0, 40.0]])
    middle, lone = weights(angles, 10)[0], weights(angles, 22)[0]
    assert (lone[1:8] > 2 * middle[1:8]).all()


def test_the_kernel_agrees_with_its_twin_for_any_axis_and_transfer():
    rng = np.random.default_rng(0)
    angles, power = np.sort(rng.uniform(-50, 60, 12)), torch.as_tensor(rng.random((12, 20)))
    fast = slice_weight((KY, KX), 4, angles, 85.0, power, THICKNESS)
    sines = THICKNESS * np.abs(np.sin(np.deg2rad(angles - angles[4])))
    direction = (np.cos(np.deg2rad(85.0)), np.sin(np.deg2rad(85.0)))
    step = np.hypot(float(KY.abs().max()), float(KX.max())) / 19
    assert torch.allclose(fast, overlap_sum_plain((KY, KX, step), direction, sines, power), atol=1e-5)
    assert (fast > 0).all()
