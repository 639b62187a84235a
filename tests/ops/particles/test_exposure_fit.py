"""The fit of amplitudes over exposures: truth found within the errors it states; gauge; prior without data."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from tiltwise.ops.exposure import exposure_amplitude
from tiltwise.ops.particles.exposure_fit import MeasuredAmplitudes, fit_exposures

SHELLS, RADIUS, WIDTH = 33, 20, 256.0  # shells of a box 256 Å wide, of which 20 are resolved (12.8 Å)


def scheme(seed=0, series=2):
    """Dose-symmetric tilts of ±60°, 3 e⁻/Å² each, and the expected amplitudes of two such series."""
    tilt = torch.arange(-60.0, 61.0, 3.0, dtype=torch.float64)
    order = torch.argsort(torch.argsort(tilt.abs(), stable=True), stable=True).double()
    cosine = torch.cos(torch.deg2rad(tilt))
    k = torch.arange(SHELLS, dtype=torch.float64) / WIDTH
    three = torch.tensor(3.0, dtype=torch.float64)
    expected = cosine[:, None] * exposure_amplitude(k, 3 * order[:, None], three, 300.0)
    blank = torch.zeros_like(expected)
    one = MeasuredAmplitudes(
        amplitude=blank, information=blank, expected=expected, exposure=3 * order + 1.5, path=1 / cosine
    )
    return [one] * series, k


def observed(plan, k, factor, information, rng):
    """Series whose true amplitudes are expected × factor (of a series), measured with noise up to RADIUS."""
    made = []
    for number, m in enumerate(plan):
        truth = m.expected * factor(number, m, k)
        seen = information * torch.exp(-torch.arange(SHELLS, dtype=torch.float64) / 8) * torch.ones_like(truth)
        seen[:, RADIUS + 1 :] = 0
        noise = torch.as_tensor(rng.normal(size=truth.shape)) / seen.clamp_min(1e-12).sqrt()
        made.append((truth, replace(m, amplitude=torch.where(seen > 0, truth + noise, 0), information=seen)))
    return [t for t, _ in made], [m for _, m in made]


def unlike_the_curve(number, m, k):
    """Half as much damage again, loss of sharpness with the path, a burst of motion in the first image."""
    extra = -m.exposure[:, None] * 1.2 * k**2 - 4.0 * (m.path[:, None] - 1) * k
    first = (m.exposure == m.exposure.min()).double()[:, None]
    return torch.exp(extra - 25.0 * first * k**2)


def in_gauge(truth, plan):
    level = sum(t.sum(0) for t in truth) / sum(m.expected.sum(0) for m in plan)
    return [t / level for t in truth]


def drawn(rng, plan, sd=0.25, own=0.15):
    """A factor for every series from the prior itself: a smooth function of exposure, one of path, and each image's own
    scale and blur. The covariances are written here anew."""

    def draw(place, length):
        shells = torch.arange(SHELLS, dtype=torch.float64) / RADIUS
        roots = [
            torch.linalg.cholesky(
                torch.exp(-0.5 * ((x[:, None] - x) / s) ** 2) + 1e-6 * torch.eye(len(x), dtype=torch.float64)
            )
            for x, s in ((place, length), (shells, 0.5))
        ]
        return sd * roots[0] @ torch.as_tensor(rng.normal(size=(len(place), SHELLS))) @ roots[1].T

    shared = draw(plan[0].exposure / float(plan[0].exposure.max()), 0.3) + draw(plan[0].path.log(), 0.5)
    kappa = torch.arange(SHELLS, dtype=torch.float64) / RADIUS
    each = [torch.as_tensor(rng.normal(0, own, (len(shared), 2))) for _ in plan]
    return lambda number, m, k: torch.exp(shared + each[number][:, :1] + each[number][:, 1:] * kappa**2)


def test_truth_is_recovered_within_the_errors_stated():
    """z = (log A - log truth) / error over the resolved shells, for truths drawn from the prior.

    The values of a fit are correlated: 6 data sets stand for at least 6 independent ones, so that the mean of z² has
    a standard deviation below √(2 / 6) = 0.58, and the mean of z one below 1 / √6 = 0.41; 1.3 of each are allowed.
    Smoothing must beat the single measurements, or it would be of no use.
    """
    plan, k = scheme()
    z2, z, gain = [], [], []
    for seed in range(6):
        rng = np.random.default_rng(seed)
        truth, data = observed(plan, k, drawn(rng, plan), 1000.0, rng)
        fit = fit_exposures(data, RADIUS)
        inside = slice(1, RADIUS + 1)
        for found, error, true, m in zip(fit.amplitude, fit.error, in_gauge(truth, plan), data, strict=True):
            score = ((found.log() - true.log()) / error)[:, inside]
            z.append(float(score.mean()))
            z2.append(float(score.square().mean()))
            gain.append(float(((found - true).square() * m.information)[:, inside].mean()))
    assert abs(np.mean(z)) < 0.53
    assert 0.25 < np.mean(z2) < 1.75
    assert np.mean(gain) < 0.2


def test_errors_shrink_with_information_and_the_estimate_is_consistent():
    """With noise a hundred times weaker the fit is right to the few per cent that its knots can follow."""
    plan, k = scheme()
    worst = []
    for information in (1e3, 1e7):
        truth, data = observed(plan, k, unlike_the_curve, information, np.random.default_rng(1))
        fit = fit_exposures(data, RADIUS)
        error = [
            (a.log() - t.log())[:, 1 : RADIUS + 1] for a, t in zip(fit.amplitude, in_gauge(truth, plan), strict=True)
        ]
        worst.append(float(torch.cat(error).square().mean().sqrt()))
    assert worst[1] < 0.03 and worst[1] < worst[0]


def test_without_data_the_expected_amplitude_remains():
    plan, _ = scheme()
    fit = fit_exposures(plan, RADIUS)
    for found, m in zip(fit.amplitude, plan, strict=True):
        torch.testing.assert_close(found, m.expected, rtol=1e-6, atol=0)


def test_beyond_the_resolved_shells_it_falls_back_on_the_curve():
    """Two lengths of correlation beyond the last shell measured, what was seen says no more than exp(-2)."""
    plan, k = scheme()

    def fading(number, m, k):
        return torch.exp(-0.01 * m.exposure[:, None] * torch.ones_like(k))

    _, data = observed(plan, k, fading, 1e5, np.random.default_rng(2))
    narrow = [replace(m, information=m.information * (torch.arange(SHELLS) <= 8)) for m in data]
    fit = fit_exposures(narrow, 8)
    drift = torch.cat([(a / m.expected).log() for a, m in zip(fit.amplitude, plan, strict=True)])
    spread = (drift - drift.mean(0)).std(0)
    assert spread[24] < 0.5 * spread[4]


@pytest.mark.parametrize("factor", [1e-3, 50.0])
def test_the_scale_of_the_reference_does_not_matter(factor):
    """A reference in other units changes the level, not the amplitudes."""
    plan, k = scheme(series=1)
    _, data = observed(plan, k, unlike_the_curve, 1e3, np.random.default_rng(3))
    other = [replace(m, amplitude=m.amplitude * factor, information=m.information / factor**2) for m in data]
    first, second = fit_exposures(data, RADIUS), fit_exposures(other, RADIUS)
    torch.testing.assert_close(second.amplitude[0], first.amplitude[0], rtol=1e-3, atol=0)
    torch.testing.assert_close(second.level[1:RADIUS], factor * first.level[1:RADIUS], rtol=1e-3, atol=0)
    total = sum(a.sum(0) for a in first.amplitude)
    torch.testing.assert_close(total, sum(m.expected.sum(0) for m in data))


def test_one_bad_image_does_not_pull_down_its_neighbours():
    plan, k = scheme(series=1)

    def blurred(number, m, k):
        return torch.exp(-60.0 * (m.exposure[:, None] == m.exposure[18]) * k**2)

    truth, data = observed(plan, k, blurred, 1e3, np.random.default_rng(4))
    fit = fit_exposures(data, RADIUS)
    ratio = (fit.amplitude[0] / in_gauge(truth, plan)[0])[:, RADIUS - 5]
    assert float((ratio - 1).abs().max()) < 0.25 and float((ratio[[17, 19]] - 1).abs().max()) < 0.1
