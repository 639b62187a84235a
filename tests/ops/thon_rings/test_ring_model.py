"""The ring model's parts in closed form, and its fast sums against plain ones."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from tiltwise.data.optics import Optics
from tiltwise.ops.ctf import ctf_phase
from tiltwise.ops.thon_rings.fit import _normal_equations, shape_splines
from tiltwise.ops.thon_rings.model import (
    RingSpectra,
    background_basis,
    background_splines,
    patch_depth,
    ring_pattern,
    ring_pattern_plain,
    thickness_contrast,
)
from tiltwise.ops.thon_rings.moments import local_defocus, signal_and_contrast
from tiltwise.ops.thon_rings.prior import SHARED, RingFit
from tiltwise.ops.thon_rings.search import score_defocus
from tiltwise.ops.thon_rings.spectra import patch_centres, patch_layout, polar_bins

PIXEL, SIZE, SIDE = 4.0, 64, 160
FREQUENCY = torch.linspace(1 / 30, 1 / 5, 12, dtype=torch.float64)


@pytest.mark.parametrize("angle", [0.0, 45.0])
def test_thickness_contrast_is_the_mean_over_the_layers(angle):
    thickness, optics = 1500.0, Optics()
    path = thickness / math.cos(math.radians(angle))
    depth = (torch.arange(20000, dtype=torch.float64) + 0.5) / 20000 * path - path / 2
    twice = 2 * ctf_phase(FREQUENCY, 30000.0 + depth[:, None], optics)
    middle = 2 * ctf_phase(FREQUENCY, torch.tensor(30000.0, dtype=torch.float64), optics)
    mean = torch.polar(torch.ones_like(twice), twice - middle).mean(0)
    value, _ = thickness_contrast(FREQUENCY, torch.tensor([angle], dtype=torch.float64), thickness, optics.voltage)
    torch.testing.assert_close(value[0], mean.real, rtol=0, atol=1e-6)  # midpoint rule: (phase per layer)² / 24
    assert float(value.min()) < 0 < float(value.max())  # it changes sign within the band


def test_thickness_derivative():
    angle, step = torch.tensor([10.0, 55.0], dtype=torch.float64), 1e-5
    more, less = (thickness_contrast(FREQUENCY, angle, 1200 * math.exp(s), 300.0)[0] for s in (step, -step))
    slope = thickness_contrast(FREQUENCY, angle, 1200.0, 300.0)[1]
    torch.testing.assert_close(slope, (more - less) / (2 * step), rtol=0, atol=1e-8)


def spectra(seed: int = 0, tilts: int = 2) -> RingSpectra:
    """Spectra of noise with what a fit needs to know of them."""
    random = torch.Generator().manual_seed(seed)
    layout, bins = patch_layout((SIDE, SIDE), SIZE), polar_bins(SIZE, PIXEL, 1 / 30, 1 / 9, 4)
    angle = torch.tensor([0.0, 40.0], dtype=torch.float64)[:tilts]
    c, s = torch.cos(torch.deg2rad(angle)), torch.sin(torch.deg2rad(angle))
    rotations = torch.zeros(tilts, 3, 3, dtype=torch.float64)
    rotations[:, 0, 0], rotations[:, 0, 2], rotations[:, 1, 1], rotations[:, 2, 0], rotations[:, 2, 2] = c, s, 1, -s, c
    centre = (patch_centres(layout) - SIDE // 2) * PIXEL
    rings = bins.frequency.shape[1]
    shape = (tilts, len(centre), *bins.count.shape)
    power = -torch.rand(shape, generator=random, dtype=torch.float64).log()
    return RingSpectra(
        power=power,
        weight=(layout.independent[:, None, None] * bins.count).expand(shape).clone(),
        position=centre.expand(tilts, -1, -1).clone(),
        rotations=rotations,
        tilt_angle=angle,
        course=torch.tensor([[-1.0, 0.7], [1.0, -0.4]], dtype=torch.float64)[:tilts],
        damage=torch.linspace(0.9, 0.4, rings, dtype=torch.float64).expand(tilts, -1).clone(),
        coherence=torch.ones(tilts, rings, dtype=torch.float64),
        bins=bins,
        layout=layout,
        pixel_size=PIXEL,
        optics=Optics(),
    )


def test_scores_with_one_table_of_patterns_equal_plain_sums():
    given, grid = spectra(), torch.arange(20000.0, 24000.0, 250.0, dtype=torch.float64)
    shape = torch.stack([torch.full_like(given.ring_frequency, value) for value in (0.3, 0.05)])
    score, variance = score_defocus(given, shape, -1, grid)
    basis, half = background_splines(given.ring_frequency), 125.0
    depth = (-patch_depth(given, grid.new_zeros(2)) / half).round() * half
    for tilt in range(2):
        ratio = given.damage[tilt] * 0.3 + 0.05
        envelope = ratio / (1 + ratio)
        weight = given.weight[tilt].sum(1)
        surprise = ((given.power[tilt] - 1) * given.weight[tilt]).sum(1)
        for g in (0, 7, 15):
            pattern = envelope * ring_pattern(given, given.ring_frequency, (grid[g] + depth[tilt])[:, None])[0]
            # made orthogonal to the background in the metric of the weights
            normal = basis.T @ (weight.sum(0)[:, None] * basis)
            explained = basis @ torch.linalg.solve(normal, basis.T @ (weight * pattern).sum(0))
            rest = pattern - explained
            assert float(score[tilt, g]) == pytest.approx(float((rest * surprise).sum()), rel=1e-6, abs=1e-8)
            assert float(variance[tilt, g]) == pytest.approx(float((rest**2 * weight).sum()), rel=1e-6)


def state(given: RingSpectra) -> RingFit:
    tilts, rings = given.power.shape[0], given.power.shape[-1]
    number = background_basis(given.bins).shape[-1]
    return RingFit(
        handedness=1,
        defocus=torch.tensor([25000.0, 27000.0], dtype=torch.float64)[:tilts],
        defocus_error=torch.full((tilts,), torch.nan, dtype=torch.float64),
        astigmatism=torch.tensor([150.0, -80.0], dtype=torch.float64),
        drift=torch.tensor([[40.0, -25.0], [10.0, 30.0]], dtype=torch.float64),
        drift_sd=100.0,
        shared_error=torch.full((SHARED,), torch.nan, dtype=torch.float64),
        slope=torch.tensor([0.01, -0.02], dtype=torch.float64),
        thickness=900.0,
        phase_shift=20.0,
        contrast=torch.tensor([1.1, 0.9], dtype=torch.float64)[:tilts],
        shape=torch.stack([torch.linspace(a, b, rings, dtype=torch.float64) for a, b in ((0.5, 0.2), (0.05, 0.1))]),
        background=torch.zeros(tilts, number, dtype=torch.float64),
        variation=(150.0, 150.0),
        drift_evidence=math.nan,
        log_evidence=0.0,
    )


def log_likelihood(given: RingSpectra, fit: RingFit, tilt: int, change: np.ndarray) -> float:
    """Whittle's log likelihood at small changes of defocus, A, B, slopes, log thickness, phase shift, drift, s(k),
    contrast, background."""
    splines = shape_splines(given)
    number = 2 * splines.shape[1]
    moved = replace(
        fit,
        defocus=fit.defocus + change[0],
        astigmatism=fit.astigmatism + torch.as_tensor(change[1:3]),
        slope=fit.slope + torch.as_tensor(change[3:5]),
        thickness=fit.thickness * math.exp(change[5]),
        phase_shift=fit.phase_shift + math.degrees(change[6]),
        drift=fit.drift + torch.as_tensor(change[7:11]).reshape(2, 2),
        shape=fit.shape + torch.as_tensor(change[11 : 11 + number]).reshape(2, -1) @ splines.T,
        contrast=fit.contrast + change[11 + number],
        background=fit.background + torch.as_tensor(change[12 + number :]),
    )
    pattern = ring_pattern(given, given.bins.frequency, local_defocus(given, moved, tilt), moved.phase_shift)[0]
    ratio, contrast, _ = signal_and_contrast(given, moved, tilt)
    ring = 1 + contrast * ratio / (1 + ratio) * pattern
    mu = ring * torch.exp(background_basis(given.bins) @ moved.background[tilt])
    return float((-given.weight[tilt] * (mu.log() + given.power[tilt] / mu)).sum())


@pytest.mark.parametrize("phase_shift", [0.0, 40.0])
def test_compiled_pattern_is_that_of_its_plain_twin(phase_shift):
    given = spectra(seed=3)
    defocus = 20000 + 3000 * torch.randn(3, *given.bins.frequency.shape, dtype=torch.float64)
    for frequency, where in ((given.bins.frequency, defocus), (given.ring_frequency, defocus[:, 0, :1])):
        found = ring_pattern(given, frequency, where, phase_shift)
        plain = ring_pattern_plain(given, frequency, where, phase_shift)
        for own, twin, unit in zip(found, plain, (1.0, 1e-2), strict=True):  # 2 π λ k² is 0.005 / Å at 5 Å
            assert own.shape == twin.shape
            # phases of some 10³ radians are right to 10³ · 10⁻¹⁶
            assert float((own - twin).abs().max()) < 1e-11 * unit


def test_score_of_the_joint_fit_is_the_slope_of_the_likelihood(monkeypatch):
    # the fit holds the window's contrast when it derives by defocus; without a window both are exact
    ones = torch.ones(spectra(seed=3).layout.size, dtype=torch.float64)
    monkeypatch.setattr("tiltwise.ops.thon_rings.model.window_correlation", lambda layout: ones)
    given = spectra(seed=3)
    fit, tilt, step = state(given), 1, 1e-4
    sides = []
    for axis in range(2):
        offset = torch.zeros(2, dtype=torch.float64)
        offset[axis] = step
        sides.append((patch_depth(given, fit.slope + offset) - patch_depth(given, fit.slope - offset)) / (2 * step))
    depth_slope = torch.stack(sides, -1)[tilt]
    information, score, _ = _normal_equations(given, fit, tilt, depth_slope)
    sizes = np.array([*[1.0] * 3, *[1e-4] * 4, *[1.0] * 4, *[1e-4] * (len(score) - 11)])
    for j in range(len(score)):
        change = np.zeros(len(score))
        change[j] = sizes[j]
        slope = (log_likelihood(given, fit, tilt, change) - log_likelihood(given, fit, tilt, -change)) / (2 * sizes[j])
        assert abs(slope - float(score[j])) < 1e-4 * math.sqrt(float(information[j, j])) + 1e-7 / sizes[j], j
    assert torch.linalg.eigvalsh(information).min() > -1e-9 * information.diagonal().max()
