"""Weights of frames: an imposed amplitude and B come back within their errors, nothing is taken where nothing is."""

import numpy as np
import pytest

from tiltwise.ops.frames.frame_gates import AmplitudeSums
from tiltwise.ops.frames.frame_weights import (
    TiltAmplitudes,
    choose_weights,
    critical_amplitudes,
    fit_amplitudes,
    levelled,
    relative_amplitude,
)

FRAMES, SHELLS, TILTS = 8, 40, 20
FREQUENCY = np.arange(SHELLS) / 120.0  # to 3 Å
SHARE = np.full(FRAMES, 1 / FRAMES)


def made(rng, amplitude, *, information=400.0, before="plain", level=1.0):
    """Tilts of 3 e⁻/Å² whose frames have the critical curve times amplitude (frame, 2), A and B: sums of both halves
    with their noise, of variance s_f M; M falls from `information` with a B factor of 60 Å² and is `level` off."""
    tilts = []
    for tilt in range(TILTS):
        dose = np.full(FRAMES, 3.0 / FRAMES)
        start = 3.0 * tilt + np.cumsum(dose) - dose
        critical = critical_amplitudes(start, dose, FREQUENCY, 300.0)
        true = relative_amplitude(critical, FREQUENCY**2, amplitude)
        sums = {}
        for half in (1, 2):
            model = information * np.exp(-60.0 / 2 * FREQUENCY**2)
            share = SHARE[:, None] * model
            cross = true * share + np.sqrt(share) * rng.normal(size=true.shape)
            sums[half] = AmplitudeSums(cross=level * cross, model=level**2 * model)
        assumed = np.ones_like(critical) if before == "plain" else relative_amplitude(critical, FREQUENCY**2, None)
        tilts.append(TiltAmplitudes(sums=sums, share=SHARE, critical=critical, square=FREQUENCY**2, before=assumed))
    return tilts


def courses(factor=1.0):
    """A blurred first frame, and one that fades at the end."""
    b = factor * np.array([60.0, 20, 0, -10, -15, -15, -20, -20])
    a = factor * np.array([-0.1, 0.05, 0.05, 0.05, 0.02, 0.0, -0.02, -0.05])
    return np.stack([np.exp(a - a.mean()), b - b.mean()], axis=-1)


def test_imposed_amplitudes_come_back_within_their_errors():
    """All tilts alike. The χ² of 8 frames by 20 tilts is mostly that of the 7 shared numbers of each kind, and of the
    prior, which a blurred first frame exceeds by 3 of its standard deviations: at most 1 + 4 sqrt(2 / 7) = 3.1."""
    truth = courses()
    tilts = made(np.random.default_rng(0), truth)
    fit = fit_amplitudes(tilts, (1, 2), (3.0, 0.1))
    found, error = np.array(fit.amplitude), np.array(fit.error)
    square = (((np.log(found[..., 0]) - np.log(truth[:, 0])) / error[..., 0]) ** 2).mean()
    square_b = (((found[..., 1] - truth[:, 1]) / error[..., 1]) ** 2).mean()
    print("χ² of A and B", square, square_b, "rms B", np.sqrt(((found[..., 1] - truth[:, 1]) ** 2).mean()))
    assert max(square, square_b) < 3.1
    assert np.allclose(found[..., 1].mean(axis=0), truth[:, 1], atol=4 * error[..., 1].max())
    choice = choose_weights(tilts, "plain")
    assert choice.weighting == "measured" and choice.fit is not None


@pytest.mark.parametrize("level", [0.4, 1.0, 2.5])
def test_the_level_of_the_model_decides_nothing(level):
    """The same noise, models 2.5 times too weak or too strong: the level fits, and the same is taken."""
    choice = choose_weights(made(np.random.default_rng(1), courses(), level=level), "plain")
    gain = [choose_weights(made(np.random.default_rng(1), courses()), "plain").gates[-1].gain, choice.gates[-1].gain]
    assert choice.weighting == "measured"
    assert np.allclose(*gain, rtol=0.02)


def test_levels_bring_the_model_to_what_frames_show():
    """To within the error of one in all 20 · 2 · M, and of the prior of 1 ± 0.2 on each tilt."""
    tilts = levelled(made(np.random.default_rng(2), None, level=3.0))
    cross = sum(s.cross.sum() for t in tilts for s in t.sums.values())
    model = sum(s.model.sum() for t in tilts for s in t.sums.values())
    assert cross / model == pytest.approx(1, abs=0.01)


def test_the_critical_curve_is_taken_alone_where_it_is_the_truth():
    """Frames weighted by it so far: nothing more in 20 scenes; summed plainly: the curve itself, never more."""
    for seed in range(20):
        rng = np.random.default_rng(seed)
        assert choose_weights(made(rng, None, before="critical"), "critical").weighting is None
        assert choose_weights(made(rng, None, information=4000.0), "plain").weighting in ("critical", None)


def test_of_frames_alike_the_plain_sum_stays():
    """The curve's own amplitude undone: nothing is taken in 20 scenes without signal."""
    for seed in range(20):
        rng = np.random.default_rng(seed)
        tilts = made(rng, None, information=400.0)
        for tilt in tilts:
            for one in tilt.sums.values():
                one.cross[:] = np.sqrt(SHARE[:, None] * one.model) * rng.normal(size=one.cross.shape)
        assert choose_weights(tilts, "plain").weighting is None


def test_weights_leave_a_mean_of_one():
    relative = relative_amplitude(made(np.random.default_rng(0), None)[3].critical, FREQUENCY**2, courses())
    assert np.allclose(relative.mean(axis=0), 1)
