"""Two alignments that differ by gauge alone are the same alignment."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from made_series import geometry, series

from tiltwise.ops.alignment.comparison import compare_alignments, kurtosis_ratio, remove_gauge
from tiltwise.ops.geometry import project_points, tilt_rotations


def test_a_moved_specimen_is_the_same_alignment():
    truth, move = geometry(), torch.tensor([120.0, -35.0, 60.0], dtype=torch.float64)
    moved_shift = truth.shift - project_points(move[None], tilt_rotations(truth), torch.zeros(13, 2))[0][:, 0].numpy()
    back = remove_gauge(replace(truth, shift=moved_shift), truth)
    np.testing.assert_allclose(back.shift, truth.shift, atol=1e-9)


def test_offsets_of_tilt_and_x_tilt_are_gauge():
    truth = geometry()
    turned = replace(truth, tilt_angle=truth.tilt_angle + 4.0, x_tilt=truth.x_tilt - 2.0)
    comparison = compare_alignments(series(turned), series(truth))
    assert comparison.tilt_offset == pytest.approx(4.0)
    assert comparison.shift_rms == pytest.approx(0.0, abs=1e-9)
    np.testing.assert_allclose(remove_gauge(turned, truth).tilt_angle, truth.tilt_angle)


def test_errors_stay():
    truth = geometry(61)
    wrong = np.random.default_rng(3).normal(0, 5, truth.shift.shape)
    comparison = compare_alignments(series(replace(truth, shift=truth.shift + wrong)), series(truth))
    # the three components of the translation take 3 of 122 degrees of freedom of the errors away
    assert comparison.shift_rms == pytest.approx(5 * np.sqrt(2 * (1 - 3 / 122)), rel=0.15)


def test_only_tilts_used_by_both_are_compared():
    truth = geometry()
    use = np.ones(13, bool)
    use[4] = False
    shift = truth.shift.copy()
    shift[4] += 1000.0
    comparison = compare_alignments(replace(series(replace(truth, shift=shift)), use=use), series(truth))
    assert comparison.shift_rms == pytest.approx(0.0, abs=1e-9)


@pytest.mark.parametrize("turn", [0.25, 360.25, -359.75])
def test_axis_error_is_modulo_a_turn(turn):
    truth = geometry()
    comparison = compare_alignments(series(geometry(axis=85.0 + turn)), series(truth))
    assert comparison.axis_error == pytest.approx(0.25)
    assert compare_alignments(series(geometry(axis=265.0)), series(truth)).axis_error == pytest.approx(180.0)


def test_kurtosis_ratio_is_one_for_a_gauge_and_falls_with_errors():
    truth = geometry(15, seed=5)
    truth = replace(truth, shift=truth.shift / 5)
    beads = torch.tensor(np.random.default_rng(1).uniform(-150, 150, (12, 3)) * [1, 1, 0.3])
    position, _ = project_points(beads, tilt_rotations(truth), torch.as_tensor(truth.shift))
    grid = (np.arange(48) - 24) * 10.0
    x, y = position[..., 0].numpy()[..., None], position[..., 1].numpy()[..., None]
    images = -np.einsum("tpy,tpx->tyx", np.exp(-((grid - y) ** 2) / 200), np.exp(-((grid - x) ** 2) / 200))
    true_series, shape = series(truth, images.astype(np.float32)), (16, 48, 48)
    move = tilt_rotations(truth)[:, :2].numpy() @ np.array([15.0, 5.0, -20.0])
    same = series(replace(truth, shift=truth.shift + move), images.astype(np.float32))
    assert kurtosis_ratio(same, true_series, shape) == pytest.approx(1.0, abs=1e-6)
    blurred = truth.shift + np.random.default_rng(2).normal(0, 20, truth.shift.shape)
    assert kurtosis_ratio(series(replace(truth, shift=blurred), images), true_series, shape) < 0.7
