"""Weights behind gates: the closed form is the likelihood, noise passes no gate, errors are found in their series."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy import stats

from tiltwise.ops.particles.gated_weights import amplitude_gain, gated_weights, noise_gain
from tiltwise.ops.particles.images import TiltWeights, spread_shells
from tiltwise.ops.particles.slices import band_points
from tiltwise.ops.particles.tilt_weights import AgreementSums
from tiltwise.ops.particles.weight_blocks import Columns

BOX, TILTS, SHELLS = 16, 9, 9
POINTS = band_points(BOX, 7.0)
COLUMNS = Columns(points=POINTS, box_size=BOX, radius=5.0)
CHOICE = ({}, COLUMNS, "critical")


def images(rng, number, factor=1.0, noise=1.0):
    """(particle, tilt, point) X and m: models within the band, X = factor m + noise, both whitened."""
    shape = (number, TILTS, len(POINTS))
    model = (rng.normal(size=shape) + 1j * rng.normal(size=shape)) * (POINTS.norm(dim=-1).numpy() <= COLUMNS.radius)
    unit = rng.normal(size=shape) + 1j * rng.normal(size=shape)
    return factor * model + np.sqrt(noise) * unit, model


def sums_of(seen, model):
    values = (abs(seen) ** 2, (seen.conj() * model).real, abs(model) ** 2)
    observed, cross, power = (torch.as_tensor(v.sum(0)) for v in values)
    return AgreementSums(
        observed=observed, cross=cross, model=power, number=torch.full((TILTS,), float(len(seen))).double()
    )


def weights():
    return TiltWeights(
        scale=torch.ones(TILTS).double(),
        decay=torch.ones(TILTS, SHELLS).double(),
        noise=torch.ones(TILTS, SHELLS).double(),
    )


def made(rng, number=6, names=("A", "B"), **errors):
    """Sums by half set and series; errors: keywords of `images` by series."""
    return {half: {name: sums_of(*images(rng, number, **errors.get(name, {}))) for name in names} for half in (1, 2)}


def judged(halves, names=("A", "B")):
    return gated_weights(halves, {name: weights() for name in names}, {}, COLUMNS, "critical")


def accepted(found, name):
    return {gate.block for gate in found.gates[name] if gate.accepted}


def test_the_closed_form_is_the_likelihood():
    """Against normal densities of every real and imaginary part, summed over the images."""
    rng = np.random.default_rng(0)
    seen, model = images(rng, 3, factor=1.3, noise=1.4)
    after, before = (torch.as_tensor(rng.uniform(0.7, 1.3, size)) for size in ((TILTS, SHELLS), (SHELLS,)))
    noise, noise_before = torch.as_tensor(rng.uniform(0.7, 1.5, (2, TILTS, SHELLS)))

    def likelihood(amplitude, power):
        rest = seen - amplitude * model
        return sum(stats.norm.logpdf(part, scale=np.sqrt(power)).sum() for part in (rest.real, rest.imag))

    new, old, power, power_before = (spread_shells(v, POINTS).numpy() for v in (after, before, noise, noise_before))
    sums = sums_of(seen, model)
    assert amplitude_gain(sums, after, before, POINTS)[0] == pytest.approx(likelihood(new, 1) - likelihood(old, 1))
    rise = noise_gain(sums, torch.ones_like(noise), noise, noise_before, POINTS)[0]
    assert rise == pytest.approx(likelihood(1.0, power) - likelihood(1.0, power_before))


def test_weights_that_are_right_stay():
    """Images of the model itself, 30 series: a gate that chance passes once in a thousand times passes none, and
    amplitude and noise stay to the bit, but for the gauge."""
    rng, taken = np.random.default_rng(1), 0
    for _ in range(15):
        found = judged(made(rng, number=4))
        taken += sum(len(accepted(found, name)) for name in "AB")
        assert all(torch.equal(found.weights[name].noise, weights().noise) for name in "AB")
    assert taken == 0


def test_wrong_amplitudes_and_noise_are_found_in_their_series_alone():
    """A: amplitudes wrong by 20 % (sd), noise by a half; B: right, and kept as it is, in one scale with A.

    What remains of A is known to 1 / sqrt(Σ |m|²) = 0.017, and a prior of 0.2 pulls by less.
    """
    rng = np.random.default_rng(2)
    wrong = 1 + 0.2 * rng.normal(size=TILTS)
    found = judged(made(rng, number=12, A={"factor": wrong[:, None], "noise": 1.5}))
    assert accepted(found, "A") == {"scale", "noise"} and not accepted(found, "B")
    ratio = found.weights["A"].scale.numpy() / found.weights["B"].scale.numpy().mean()
    assert np.std(ratio / wrong) < 0.04
    assert found.weights["A"].noise.mean() == pytest.approx(1.5, rel=0.02)
    assert torch.equal(found.weights["B"].noise, weights().noise)
    assert torch.allclose(found.weights["B"].scale, found.weights["B"].scale[:1])
    assert found.determined["A"]["scale"] == pytest.approx(TILTS, rel=0.02) and found.determined["B"]["scale"] == 0


def test_a_level_of_all_tilts_is_nobodys_gain():
    """Images twice as strong as the reference in every tilt: it is the reference that is to grow."""
    found = judged(made(np.random.default_rng(3), A={"factor": 2.0}, B={"factor": 2.0}))
    for name in "AB":
        assert "scale" not in accepted(found, name)
        assert torch.allclose(found.weights[name].scale, weights().scale)


def test_a_series_in_one_half_keeps_what_it_has():
    halves = made(np.random.default_rng(4), A={"factor": 1.5 + 0.3 * np.arange(TILTS)[:, None]})
    halves = {1: halves[1], 2: {"B": halves[2]["B"]}}
    found = judged(halves)
    assert not accepted(found, "A") and found.gates["A"][0].gain == (0.0, 0.0)
    none = judged({1: halves[1], 2: {}})
    assert not accepted(none, "A") and not accepted(none, "B")


def test_halves_that_disagree_change_nothing():
    """What half 1 says of the noise costs half 2, and the other way round."""
    rng = np.random.default_rng(5)
    more, less = (made(rng, names=("A",), A={"noise": noise}) for noise in (1.3, 0.7))
    found = judged({1: more[1], 2: less[2]}, ("A",))
    assert not accepted(found, "A")
    assert found.record("A")["blocks"]["noise"]["chance"] == [0.0, 0.0]
    assert not replace(found, gates={}).record("A")["accepted"]


def test_a_refit_is_judged_by_what_the_same_half_said_before():
    """40 images whose reference at first lacks 4 % of the signal's variance in every value, then nothing: their noise
    falls by 4 %, which is worth some 10 units in either half, six draws of two series. Against the joint noise, which
    knows the half that is asked, most begin behind and the gate stays shut; against the half's own it opens."""
    opened, gains = {"joint": 0, "own": 0}, {"joint": [], "own": []}
    for seed in range(6):
        first, found = refitted(np.random.default_rng(seed), lack=0.04)
        for name in "AB":
            assert "noise" in accepted(first, name)
            for kind, again in found.items():
                opened[kind] += "noise" in accepted(again, name)
                gains[kind] += again.gates[name][1].gain
    assert opened["joint"] == 0 and opened["own"] >= 8
    assert np.mean(gains["joint"]) < 0 < 5 < np.mean(gains["own"])


def refitted(rng, lack):
    """Weights against a reference that lacks a part of the signal's variance; then, against the whole of it, judged by
    the joint fit and by each half's own."""
    seen = {half: {name: images(rng, 40) for name in "AB"} for half in (1, 2)}
    lost = {half: {name: np.sqrt(lack) * images(rng, 40)[1] for name in "AB"} for half in (1, 2)}

    def sums(known, part):
        return {
            half: {
                name: whitened(sums_of(values + lost[half][name], model + part * lost[half][name]), known[name])
                for name, (values, model) in own.items()
            }
            for half, own in seen.items()
        }

    given = dict.fromkeys("AB", replace(weights(), noise=2 * weights().noise))
    first = gated_weights(sums(given, 0), given, *CHOICE)
    again = sums(first.weights, 1)
    return first, {
        "joint": gated_weights(again, first.weights, *CHOICE),
        "own": gated_weights(again, first.weights, *CHOICE, first.so_far),
    }


def whitened(sums, known):
    """Sums of images over a noise and of models under an amplitude."""
    power = spread_shells(known.noise, POINTS)
    amplitude = spread_shells(known.scale[:, None] * known.decay, POINTS)
    return replace(
        sums,
        observed=sums.observed / power,
        cross=amplitude * sums.cross / power,
        model=amplitude**2 * sums.model / power,
    )


def test_a_scale_found_once_is_found_again():
    """The same images, now under the weights that they gave: the amplitudes stay, and neither half gains by them."""
    rng = np.random.default_rng(2)
    raw = made(rng, number=40, A={"factor": (1 + 0.2 * rng.normal(size=TILTS))[:, None]})
    given = dict.fromkeys("AB", weights())
    first = gated_weights(raw, given, *CHOICE)
    assert "scale" in accepted(first, "A")
    kept = {name: replace(one, noise=weights().noise) for name, one in first.weights.items()}
    under = {half: {name: whitened(one, kept[name]) for name, one in own.items()} for half, own in raw.items()}
    again = gated_weights(under, kept, *CHOICE, first.so_far)
    ratio = again.weights["A"].scale / first.weights["A"].scale
    assert torch.allclose(ratio, ratio[:1])  # but for the gauge
    # the first gained some hundreds; what is left is the level, fitted once more
    assert max(abs(gain) for gain in again.gates["A"][0].gain) < 2
    for half in (1, 2):
        said = again.so_far.by_half[half]["A"].scale / first.so_far.by_half[half]["A"].scale
        assert torch.allclose(said, said[:1])
