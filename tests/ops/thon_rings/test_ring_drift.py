"""Astigmatism that drifts over a series is followed; where it does not, nothing is made of noise."""

import math
from dataclasses import replace

import pytest
import torch

from tiltwise.data.optics import Optics
from tiltwise.ops.thon_rings.fit import fit_rings
from tiltwise.ops.thon_rings.model import RingSpectra, background_basis, drift_course, ring_pattern
from tiltwise.ops.thon_rings.prior import DRIFT_START, SHARED, RingFit, learn_drift, settle_drift
from tiltwise.ops.thon_rings.spectra import patch_centres, patch_layout, polar_bins

PIXEL, SIZE, SIDE, STRENGTH, TILTS = 2.5, 192, 384, 0.4, 9
DEFOCUS = 20000.0 + 100 * torch.arange(TILTS, dtype=torch.float64)
MEAN = torch.tensor([150.0, -60.0], dtype=torch.float64)


def made(drift, seed):
    """Nine untilted images of a thin film, their powers gamma-distributed as means of exponential ones are."""
    layout, bins = patch_layout((SIDE, SIDE), SIZE), polar_bins(SIZE, PIXEL, 1 / 30, 1 / 5.3, 8)
    centre = (patch_centres(layout) - SIDE // 2) * PIXEL
    rings = bins.frequency.shape[1]
    shape = (TILTS, len(centre), *bins.count.shape)
    weight = (layout.independent[:, None, None] * bins.count).expand(shape).clone().double()
    course = drift_course(torch.arange(TILTS))
    local = DEFOCUS[:, None, None] + sum(
        (MEAN + course @ drift)[:, i, None, None] * c for i, c in enumerate((bins.cosine, bins.sine))
    )
    torch.manual_seed(seed)
    noise = torch.distributions.Gamma(weight, weight).sample()
    given = RingSpectra(
        power=noise,
        weight=weight,
        position=centre.expand(TILTS, -1, -1).clone(),
        rotations=torch.eye(3, dtype=torch.float64).expand(TILTS, 3, 3).clone(),
        tilt_angle=torch.zeros(TILTS, dtype=torch.float64),
        course=course,
        damage=torch.ones(TILTS, rings, dtype=torch.float64),
        coherence=torch.ones(TILTS, rings, dtype=torch.float64),
        bins=bins,
        layout=layout,
        pixel_size=PIXEL,
        optics=Optics(),
    )
    given.power.mul_(1 + STRENGTH * ring_pattern(given, bins.frequency, local[:, None])[0])
    return given


def start(given):
    """A fit whose defoci and astigmatism are off by 80 Å, without drift."""
    ratio = STRENGTH / (1 - STRENGTH) / 2
    return RingFit(
        handedness=1,
        defocus=DEFOCUS + 80,
        defocus_error=torch.full_like(DEFOCUS, math.nan),
        astigmatism=MEAN + 80,
        drift=torch.zeros(2, 2, dtype=torch.float64),
        drift_sd=DRIFT_START,
        shared_error=torch.full((SHARED,), math.nan, dtype=torch.float64),
        slope=torch.zeros(2, dtype=torch.float64),
        thickness=100.0,
        phase_shift=0.0,
        contrast=torch.ones(TILTS, dtype=torch.float64),
        shape=torch.full((2, len(given.ring_frequency)), ratio, dtype=torch.float64),
        background=torch.zeros(TILTS, background_basis(given.bins).shape[-1], dtype=torch.float64),
        variation=(150.0, 150.0),
        drift_evidence=math.nan,
        log_evidence=0.0,
    )


def test_the_courses_are_orthogonal_and_of_mean_0_and_mean_square_1():
    order = torch.tensor([4, 0, 2, 1, 3, 5])
    course = drift_course(order)
    assert torch.allclose(course.T @ course / 6, torch.eye(2, dtype=torch.float64))
    assert torch.allclose(course.sum(0), torch.zeros(2, dtype=torch.float64), atol=1e-12)
    steps = course[order.argsort(), 0].diff()
    assert torch.allclose(steps, steps[:1].expand(5))  # the first is linear in time
    assert torch.all(drift_course(torch.tensor([7])) == 0)
    assert torch.all(drift_course(torch.tensor([7, 3]))[:, 1] == 0)


@pytest.mark.parametrize("seed", [0, 1])
def test_a_drift_is_followed_within_its_errors(seed):
    drift = torch.tensor([[120.0, 60.0], [-40.0, 50.0]], dtype=torch.float64)
    given = made(drift, seed)
    fit = fit_rings(given, start(given))
    error = fit.shared_error[-4:].reshape(2, 2)
    assert fit.drift_evidence > 10 and error.max() < 25
    assert ((fit.drift - drift).abs() < 4 * error).all()
    assert ((fit.astigmatism - MEAN).abs() < 4 * fit.shared_error[:2]).all()


@pytest.mark.parametrize("seed", [0, 1])
def test_a_series_without_drift_is_given_none(seed):
    given = made(torch.zeros(2, 2, dtype=torch.float64), seed)
    fit = fit_rings(given, start(given))
    assert fit.drift_evidence < 2 and torch.all(fit.drift == 0)
    assert ((fit.astigmatism - MEAN).abs() < 4 * fit.shared_error[:2]).all()


def test_the_evidence_is_the_ratio_of_the_closed_forms():
    """Normal prior of sd s and one measurement of error e in each of four terms: log N(x; e² + s²) - log N(x; e²)."""
    given = made(torch.zeros(2, 2, dtype=torch.float64), 0)
    seen, e, s = torch.tensor([[30.0, -10.0], [5.0, 20.0]], dtype=torch.float64), 12.0, 40.0
    posterior = 1 / (e**-2 + s**-2)
    mean = replace(start(given), drift=seen * s**2 / (e**2 + s**2), drift_sd=s)
    fit = learn_drift(mean, posterior * torch.eye(4, dtype=torch.float64))
    expected = sum(-0.5 * math.log(1 + s**2 / e**2) + x**2 / 2 * (e**-2 - 1 / (e**2 + s**2)) for x in seen.flatten())
    assert fit.drift_evidence == pytest.approx(float(expected), rel=1e-9)
    assert (settle_drift(fit).drift_sd > 0) == (expected > 2)
