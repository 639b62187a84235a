"""Shifts of frames: gradients by differences, shifts recovered within their stated errors, motions that hold them."""

import numpy as np
import pytest

from tiltwise.data.motion import Motion
from tiltwise.ops.frames.frame_gates import choose_motion, gather_evidence
from tiltwise.ops.frames.frame_images import FrameImages
from tiltwise.ops.frames.frame_shifts import (
    agreement,
    fit_shifts,
    position_monomials,
    shell_sums,
    shift_problem,
    shifts_at,
)
from tiltwise.ops.frames.moved import add_shifts
from tiltwise.ops.kernels.frames import shifted_agreement, shifted_agreement_alone
from tiltwise.ops.motion.model import displacement
from tiltwise.ops.particles.slices import band_points

SCALE, WIDTH, FRAMES = 2000.0, 200.0, 8
POINTS = band_points(64, 20.0).numpy().astype(np.int64)


def made(coefficient, rng, *, particles=40, strength=0.15, noise=1.0, share=None):
    """Images of particles whose models are random, of power strength² · 2 in each point, in frames shifted by
    coefficient (frame, 6, 2), Å."""
    share = np.full(FRAMES, 1 / FRAMES) if share is None else share
    place = rng.uniform(-SCALE, SCALE, (particles, 2))
    model = (strength * rng.normal(size=(particles, len(POINTS), 2)) @ [1, 1j]).astype(np.complex64)
    shift = np.einsum("pj,fjc->fpc", position_monomials(place, SCALE), coefficient)
    phase = np.exp(-2j * np.pi / WIDTH * np.einsum("nc,fpc->fpn", POINTS, shift))
    data = np.sqrt(share)[:, None, None] * model * phase
    data = data + noise * (rng.normal(size=(*data.shape, 2)) @ [1, 1j])
    return FrameImages(
        data=data.astype(np.complex64),
        model=model,
        other=model,
        share=share,
        place=place,
        half_set=1 + 2 * np.arange(particles) // particles,
        points=POINTS,
        width=WIDTH,
    )


def walk(rng, steps):
    """(frame, 6, 2) walks of zero mean with steps (6,) Å."""
    path = np.cumsum(rng.normal(size=(FRAMES, 6, 2)) * np.asarray(steps)[:, None], axis=0)
    return path - path.mean(axis=0)


def test_the_gradient_is_that_of_the_likelihood_written_out():
    """By central differences of Σ Re(X* sqrt(s) m exp(-2πi k·t)) in double precision. The kernel's phases are single:
    4e-7 of each of 40 × 627 terms, against a gradient of the root of their number, leaves 1e-4."""
    rng = np.random.default_rng(0)
    share = rng.uniform(0.5, 1.5, FRAMES)
    images = made(walk(rng, [2.0] + [0.5] * 5), rng, share=share / share.sum())
    problem, at = shift_problem(images, SCALE), walk(rng, [1.0] + [0.3] * 5)

    def written_out(coefficient):
        shift = np.einsum("pj,fjc->fpc", problem.monomials, coefficient)
        phase = np.exp(-2j * np.pi / WIDTH * np.einsum("nc,fpc->fpn", POINTS, shift))
        model = np.sqrt(images.share)[:, None, None] * images.model * phase
        return float((images.data.conj().astype(complex) * model).real.sum())

    value, gradient = agreement(problem, at)
    assert value == pytest.approx(written_out(at), rel=1e-5, abs=0.1)
    for place in ((0, 0, 0), (3, 0, 1), (5, 1, 0), (7, 3, 1), (2, 5, 0)):
        step = np.zeros_like(at)
        step[place] = 1e-3
        slope = (written_out(at + step) - written_out(at - step)) / 2e-3
        assert gradient[place] == pytest.approx(slope, rel=1e-3, abs=1e-3 * np.abs(gradient).max())


def test_one_thread_and_many_agree_to_rounding():
    """Each may add the points of an image in an order of its own, in single precision."""
    images = made(np.zeros((8, 6, 2)), np.random.default_rng(1), particles=7)
    shifts = np.random.default_rng(2).normal(0, 0.1, (8, 7, 2))
    many, one = (np.full((8, 7, 3), np.nan) for _ in range(2))
    shifted_agreement(images.data, images.model, images.points, shifts, many)
    shifted_agreement_alone(images.data, images.model, images.points, shifts, one)
    assert np.abs(many).min() > 0
    assert np.allclose(one, many, rtol=0, atol=len(POINTS) * 2.0**-24 * np.abs(many).max())


def test_the_information_is_the_curvature_where_frames_are_in_their_places():
    """Without noise, at the true shifts, -∂²L = s_f H: by differences of the gradient, to second order in the step."""
    rng = np.random.default_rng(1)
    truth = walk(rng, [1.0] + [0.3] * 5)
    problem = shift_problem(made(truth, rng, noise=0.0), SCALE)
    for j, c in ((0, 0), (0, 1), (1, 0), (5, 1)):
        step = np.zeros_like(truth)
        step[2, j, c] = 0.02
        slope = (agreement(problem, truth + step)[1] - agreement(problem, truth - step)[1])[2] / 0.04
        row = problem.information[2 * j + c].reshape(6, 2) / FRAMES
        # phases of 2π 20/200 0.02 = 0.013: curvature falls by their square, and single precision
        assert np.allclose(-slope, row, atol=2e-3 * np.abs(problem.information).max() / FRAMES)


def test_shells_add_up_to_the_whole():
    rng = np.random.default_rng(2)
    at = walk(rng, [1.0] + [0.3] * 5)
    problem = shift_problem(made(at, rng), SCALE)
    cross, model = shell_sums(problem, at, 33)
    root = np.sqrt(problem.images.share)
    assert (cross.sum()) == pytest.approx(agreement(problem, at)[0], rel=1e-5)
    assert model.sum() == pytest.approx(float((np.abs(problem.images.model) ** 2).sum()), rel=1e-5)
    assert root.shape == (len(cross),)


def test_shifts_are_found_within_their_stated_errors():
    """Walks of 2 Å a frame (0.6 Å for the field at the edge), the prior they are drawn from. Ratios of error to stated
    error over 8 scenes of 2 · 7 independent shifts, and 2 · 35 of the field: a χ² of mean 1 and standard deviation
    sqrt(2 / 112) = 0.13 for the shifts, so within 4 of them; the levels may state 5 % too little."""
    steps, ratio = np.array([2.0] + [0.6] * 5), []
    for seed in range(8):
        rng = np.random.default_rng(seed)
        truth = walk(rng, steps)
        fit = fit_shifts(shift_problem(made(truth, rng), SCALE), steps)
        assert np.allclose(fit.coefficient.mean(axis=0), 0, atol=1e-9)
        assert np.sqrt(((fit.coefficient - truth)[:, 0] ** 2).mean()) < 0.3 * np.sqrt((truth[:, 0] ** 2).mean())
        ratio.append((fit.coefficient - truth) / fit.error)
    square = np.mean(np.square(ratio), axis=(0, 1, 3))
    print("mean square of error over stated error, by monomial", square.round(2))
    assert 1 - 4 * 0.13 < square[0] < 1 + 4 * 0.13 + 0.05
    assert (square[1:] < 1 + 4 * 0.13 + 0.05).all()


@pytest.mark.parametrize(("steps", "expected"), [((0, 0), None), ((1.0, 0), "shift"), ((1.0, 1.5), "field")])
def test_what_is_there_is_taken_and_no_more(steps, expected):
    """Three tilts; the field's second-order terms are 1.5 Å a frame at the edge, told far beyond chance."""
    rng = np.random.default_rng(4)
    found = [
        gather_evidence(
            made(walk(rng, [steps[0]] + [steps[1]] * 5), rng),
            tilt,
            scale=SCALE,
            widths={"shift": 1.0, "field": 1.0},
            shells=33,
        )
        for tilt in range(3)
    ]
    choice = choose_motion(found)
    assert (choice.trial and choice.trial[0]) == expected
    assert all(len(gate.gain) == len(gate.chance) == 2 for gate in choice.gates)


def test_noise_passes_the_gate_once_in_a_thousand_times_at_most():
    """Images without signal, models of any strength: of 30 scenes none is taken (once in 10³ or less for each of four
    gates, of which both halves must pass: 0.1 expected at the very most)."""
    taken = 0
    for seed in range(30):
        rng = np.random.default_rng(seed)
        images = made(walk(rng, [1.0] * 6), rng, particles=8)
        noise = (rng.normal(size=(*images.data.shape, 2)) @ [1, 1j]).astype(np.complex64)
        images.data[:] = noise
        found = gather_evidence(images, 0, scale=SCALE, widths={"shift": 2.0, "field": 0.6}, shells=33)
        taken += choose_motion([found]).trial is not None
    assert taken == 0


@pytest.mark.parametrize("local", [False, True])
def test_a_motion_with_shifts_put_in_is_the_sum_of_both(local):
    """Exactly, in every frame and place of the image, and with zero mean over the frames."""
    rng = np.random.default_rng(5)
    exposure = rng.uniform(0.5, 1.0, FRAMES)
    inside = rng.normal(size=(5, 5, 4, 2)) if local else None
    extent = (3000.0, 4000.0)
    before = Motion(exposure=exposure, shift=walk(rng, [1] * 6)[:, 0], coefficient=inside, extent=extent)
    added = walk(rng, [1.0] * 6)
    place = rng.uniform(-0.5, 0.5, (30, 2)) * extent
    expected = displacement(before, place) + np.einsum("pj,fjc->fpc", position_monomials(place, SCALE), added)
    found = add_shifts(before, added, SCALE)
    assert np.allclose(displacement(found, place), expected, atol=1e-8)
    added[:, 1:] = 0
    only = add_shifts(before, added, SCALE)
    assert only.coefficient is before.coefficient
    assert np.allclose(only.shift, before.shift + added[:, 0])


def test_places_of_particles_turn_into_shifts():
    rng = np.random.default_rng(6)
    images = made(walk(rng, [1.0] * 6), rng, particles=3)
    coefficient = walk(rng, [1.0] * 6)
    x, y = images.place.T / SCALE
    expected = coefficient[4, 0] + np.outer(x * y, coefficient[4, 5]) + np.outer(x, coefficient[4, 1])
    expected += np.outer(y, coefficient[4, 2]) + np.outer(x * x, coefficient[4, 3]) + np.outer(y * y, coefficient[4, 4])
    assert np.allclose(shifts_at(shift_problem(images, SCALE), coefficient)[4], expected)
