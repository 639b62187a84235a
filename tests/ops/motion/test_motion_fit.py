from dataclasses import replace

import numpy as np
import pytest
import torch
from made_movies import make_movie

from tiltwise.data.motion import Motion
from tiltwise.ops.motion.estimate import Exposures, estimate_motion
from tiltwise.ops.motion.fit import coherent_sum, fit_field, gradient, information, log_likelihood, measure_signal
from tiltwise.ops.motion.model import (
    bspline_basis,
    centred,
    displacement,
    field_basis,
    frame_times,
    grid_displacement,
    smooth_factor,
    whole_basis,
)
from tiltwise.ops.motion.patches import crop_frame, cut_patches, gather_frames, working_shape
from tiltwise.ops.motion.start import coarse_shifts

PIXEL, SHAPE, FRAMES, RESOLUTION = 2.0, (480, 640), 6, 8.0
TRACK = np.array([[0, 0], [7, -3], [11, -5], [13, -9], [14.5, -9], [15, -10.0]])
EXPOSURE = np.full(FRAMES, 0.6)


def prepare(movie):
    shape = working_shape(movie.shape[1:], PIXEL, RESOLUTION)
    frames = [crop_frame(torch.from_numpy(frame.astype(np.float32)), shape) for frame in movie]
    return gather_frames(frames, movie.shape[1:], PIXEL)


def estimate(movie, controls=(5, 4, 4)):
    exposures = Exposures(before=EXPOSURE.cumsum() - EXPOSURE, during=EXPOSURE, voltage=300.0)
    return estimate_motion(
        prepare(movie), exposures, resolution=RESOLUTION, patch_size=300.0, controls=controls, limit=60.0
    )


def bend(frame, x, y):
    course = 1 - np.exp(-frame / 2)
    u, v = x / 640, y / 640
    return TRACK[frame] + course * np.stack([6 * u + 4 * u * v, -6 * v + 5 * v * v], axis=-1)


@pytest.fixture(scope="module")
def rigid_movie():
    return make_movie(lambda frame, x, y: np.broadcast_to(TRACK[frame], (*x.shape, 2)), SHAPE, PIXEL, 0.6)


@pytest.fixture(scope="module")
def patches(rigid_movie):
    frames = prepare(rigid_movie)
    weights = (EXPOSURE.cumsum() - EXPOSURE, EXPOSURE, 300.0)
    return cut_patches(frames, TRACK - TRACK.mean(axis=0), 300.0, weights, RESOLUTION)


def rmse(found, true):
    error = found - true
    return float(np.sqrt(((error - error.mean(axis=0)) ** 2).sum(axis=-1).mean()))


def test_the_whole_frame_moves_as_it_was_moved(rigid_movie):
    found = estimate(rigid_movie)
    assert found.kept in ("whole", "local") and found.gain[0] > 0
    # the fit states its own standard error of one component; two components, and a factor for its scatter
    assert rmse(found.motion.shift, TRACK) < 3 * np.sqrt(2) * found.error
    assert found.error < 0.3
    assert np.allclose(found.motion.shift.mean(axis=0), 0, atol=1e-9)


def test_the_first_answer_is_near(rigid_movie):
    assert rmse(coarse_shifts(prepare(rigid_movie), 60.0), TRACK) < 2.0


def test_local_motion_is_found_and_kept_only_where_there_is_some(rigid_movie):
    grid = np.stack(np.meshgrid(np.linspace(-550, 550, 9), np.linspace(-400, 400, 7)), axis=-1).reshape(-1, 2)
    true = np.stack([bend(frame, *grid.T) for frame in range(FRAMES)])
    bent = estimate(make_movie(bend, SHAPE, PIXEL, 0.6, seed=1))
    assert bent.kept == "local" and bent.gain[1] > bent.gain[0]
    whole = replace(bent.motion, coefficient=None)
    assert rmse(displacement(bent.motion, grid), true) < 0.5 * rmse(displacement(whole, grid), true)
    straight = estimate(rigid_movie)
    still = displacement(straight.motion, grid) - straight.motion.shift[:, None]
    assert np.sqrt((still**2).sum(axis=-1).mean()) < 0.3


def test_noise_alone_is_left_where_it_is():
    """Either half of the field finds another motion, and neither helps the other."""
    kept = []
    for seed in range(3):
        found = estimate(np.random.default_rng(seed).poisson(2.4, (FRAMES, 320, 320)).astype(np.uint16))
        kept.append(found.kept)
        if found.kept == "none":
            assert not found.motion.shift.any() and found.motion.coefficient is None
    assert kept.count("none") >= 2  # two random motions of ten numbers each agree by chance in one case of twenty


def test_a_specimen_at_rest_is_left_at_rest():
    found = estimate(make_movie(lambda frame, x, y: np.zeros((*x.shape, 2)), SHAPE, PIXEL, 0.6))
    assert np.abs(found.motion.shift).max() < 5 * found.error


def test_gradient_is_the_difference_quotient(patches):
    rng = np.random.default_rng(0)
    place = rng.normal(0, 2.0, (patches.number, FRAMES, 2)) - patches.offset + TRACK - TRACK.mean(axis=0)
    total = coherent_sum(patches, place)
    signal = measure_signal(patches, total)
    analytic = gradient(patches, signal, total, place)
    for index in [(0, 0, 0), (1, 3, 1), (patches.number - 1, 5, 0)]:
        step = np.zeros_like(place)
        step[index] = 0.02
        high, low = (log_likelihood(patches, signal, coherent_sum(patches, place + s)) for s in (step, -step))
        # single precision sums of some 1e4 nats leave about 1e-2 nats of rounding in each
        assert analytic[index] == pytest.approx((high - low) / 0.04, rel=0.02, abs=0.5)


def test_information_has_the_gauge_as_its_null_space(patches):
    place = np.broadcast_to(TRACK - TRACK.mean(axis=0), (patches.number, FRAMES, 2)) - patches.offset
    known = information(patches, measure_signal(patches, coherent_sum(patches, place)))
    assert np.allclose(known.sum(axis=2), 0, atol=1e-9 * known.max())
    assert (np.linalg.eigvalsh(known)[:, 1:] > 0).all()


def test_scatter_of_the_shift_is_the_standard_error():
    """Over movies that differ in noise alone, the error divided by what the fit states has a variance of one."""
    basis, ratios = whole_basis(FRAMES), []
    for seed in range(6):
        movie = make_movie(lambda f, x, y: np.broadcast_to(TRACK[f], (*x.shape, 2)), (240, 240), PIXEL, 0.6, seed)
        found = cut_patches(prepare(movie), TRACK, 220.0, (0 * EXPOSURE, 0 * EXPOSURE, 300.0), RESOLUTION)
        everywhere = np.broadcast_to(basis, (found.number, *basis.shape))
        fit = fit_field(found, everywhere, basis.T @ TRACK)
        ratios.append((fit.value - basis.T @ TRACK) / fit.error[:, None])
    spread = float(np.mean(np.square(ratios)))
    assert 0.5 < spread < 2.0  # 60 squares of unit normals scatter by 0.18; the weights are measured, not known


def test_splines_sum_to_one_and_fields_agree():
    assert np.allclose(bspline_basis(np.linspace(0, 1, 17), 6).sum(axis=1), 1)
    basis = whole_basis(7)
    assert np.allclose(basis.T @ basis, np.eye(6)) and np.allclose(basis.sum(axis=0), 0)
    with pytest.raises(ValueError, match="at least 4"):
        bspline_basis(np.zeros(1), 3)
    rng = np.random.default_rng(0)
    coefficient = rng.normal(size=(5, 4, 5, 2))
    motion = Motion(exposure=EXPOSURE, shift=TRACK, coefficient=coefficient, extent=(100.0, 80.0))
    x, y = np.linspace(-50, 50, 6), np.linspace(-40, 40, 4)
    points = np.stack(np.meshgrid(x, y), axis=-1).reshape(-1, 2)
    assert np.allclose(displacement(motion, points)[2], grid_displacement(motion, 2, y, x).reshape(-1, 2))
    assert smooth_factor(motion.extent, (5, 4, 5)).shape == (100, 100)
    assert field_basis(frame_times(EXPOSURE), points, motion.extent, (5, 4, 5)).shape == (24, FRAMES, 100)


def test_the_gauge_moves_nothing_relative():
    rng = np.random.default_rng(1)
    motion = Motion(exposure=EXPOSURE, shift=TRACK, coefficient=rng.normal(size=(5, 4, 4, 2)), extent=(100.0, 80.0))
    shift, coefficient = centred(motion.shift, motion.coefficient, frame_times(EXPOSURE))
    points = rng.uniform(-40, 40, (20, 2))
    before = displacement(motion, points)
    after = displacement(replace(motion, shift=shift, coefficient=coefficient), points)
    assert np.allclose(after, before - before.mean(axis=0))
    assert np.allclose(shift.mean(axis=0), 0)
