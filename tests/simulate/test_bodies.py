"""Bodies in boxes: as the demo images them, in motion, and in place."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from optical_bench import clean_microscope, exact_series
from scipy.spatial.transform import Rotation

from tiltwise.data.deformation import ImageWarp, SampleDeformation
from tiltwise.data.motion import FrameMotion
from tiltwise.data.particles import Particles
from tiltwise.ops.exposure import exposure_amplitude
from tiltwise.ops.fourier import frequency_grid_2d, shift_phase
from tiltwise.params.simulate import SimulateParams
from tiltwise.simulate.bodies import add_population
from tiltwise.simulate.disturbances import Disturbances
from tiltwise.simulate.microscope import optics_of, particle_contrast
from tiltwise.simulate.proof import one_body, protein_ball
from tiltwise.simulate.scene import Population

SIZE, PIXEL = 160, 4.0


@pytest.fixture(scope="module")
def ball():
    return protein_ball(1e5, np.random.default_rng(0))


def contrast(population, series, tilt, disturbances, frames=1):
    fields = torch.zeros(frames, SIZE, SIZE)
    add_population(fields, population, series, tilt, clean_microscope(SIZE, PIXEL), disturbances)
    return fields


def test_as_the_demo_images_them(ball):
    """Two ways to the same image: the demo projects in the large box, this one in a small one whose border cuts off the
    ringing at Nyquist: up to nine tenths of that, the two agree to 2 %."""
    scatterer, radius = ball
    series = exact_series(SIZE, PIXEL)
    position = np.array([[20.0, -60, 80], [-70, 50, -40]])
    rotation = Rotation.random(2, np.random.default_rng(1))
    ours = contrast(
        Population(name="target", scatterer=scatterer, position=position, rotation=rotation, half_extent=radius),
        series, 2, Disturbances(),
    )[0]  # fmt: skip
    params = SimulateParams(pixel_size=PIXEL, image_size=SIZE, motion_b_factor=0.0)
    group = Particles(
        tilt_series=np.full(2, "TS_01"), position=position, rotation=rotation, score=np.ones(2),
        half_set=np.zeros(2, int), region=np.full(2, -1),
    )  # fmt: skip
    demo = particle_contrast(optics_of(scatterer, series, params), scatterer, series, group, 2)
    kept = frequency_grid_2d((SIZE, SIZE), PIXEL).norm(dim=-1) < 0.9 / (2 * PIXEL)
    difference, whole = (torch.fft.rfft2(image)[kept].abs().square().sum().sqrt() for image in (ours - demo, demo))
    assert float(difference / whole) < 0.02


def frame_motion(coefficient, exposure):
    """One tilt's motion for every tilt of three."""
    frames = len(exposure)
    return FrameMotion(
        exposure=np.tile(exposure, (3, 1)),
        coefficient=np.tile(coefficient, (3, 1, 1, 1)),
        blur=np.zeros((3, frames, 2)),
        scale=SIZE * PIXEL / 2,
    )


def test_a_moved_body_is_the_same_body_elsewhere(ball):
    """Global drift of (7, -3) Å and a gradient of 10 Å a half field along x: at x = 100 Å of 320 the sum is exact."""
    series = exact_series(SIZE, PIXEL, axis=0.0)
    coefficient = np.zeros((2, 6, 2))
    coefficient[1, 0] = (7.0, -3.0)
    coefficient[1, 1] = (10.0, 0.0)
    population = one_body(ball[0], np.array([100.0, 0.0, 0.0]), ball[1])
    fields = contrast(population, series, 1, Disturbances(frames=frame_motion(coefficient, np.full(2, 1e-6))), frames=2)
    moved = torch.tensor([7.0 + 10.0 * 100 / 320, -3.0])
    phase = shift_phase(frequency_grid_2d((SIZE, SIZE), PIXEL), moved)
    expected = torch.fft.irfft2(torch.fft.rfft2(fields[0]) * phase, s=(SIZE, SIZE))
    assert float((fields[1] - expected).abs().max() / expected.abs().max()) < 0.02  # rings cut off at the box's border


def test_frames_are_damaged_by_all_exposure_before_them(ball):
    """The ratio of the transforms of two frames is that of the critical-exposure curve: 30 e⁻/Å² before, 2 in each."""
    series = replace(exact_series(SIZE, PIXEL), pre_exposure=np.full(3, 30.0), exposure=np.full(3, 4.0))
    still = frame_motion(np.zeros((2, 6, 2)), np.full(2, 2.0))
    population = one_body(ball[0], np.zeros(3), ball[1])
    first, second = (torch.fft.rfft2(f) for f in contrast(population, series, 1, Disturbances(frames=still), frames=2))
    k = frequency_grid_2d((SIZE, SIZE), PIXEL).norm(dim=-1)
    two = torch.tensor(2.0)
    expected = exposure_amplitude(k, torch.tensor(32.0), two, 300.0) / exposure_amplitude(
        k, torch.tensor(30.0), two, 300.0
    )
    band = (k > 1 / 20) & (k < 1 / 12)
    weight = first.abs()[band] ** 2
    seen = (second * first.conj()).real[band].sum() / weight.sum()
    assert float(seen) == pytest.approx(float((expected[band] * weight).sum() / weight.sum()), abs=0.005)


def test_metal_is_not_damaged(ball):
    series = replace(exact_series(SIZE, PIXEL), pre_exposure=np.full(3, 100.0), exposure=np.full(3, 1e-6))
    fresh = exact_series(SIZE, PIXEL)
    gold = replace(one_body(ball[0], np.zeros(3), ball[1]), name="gold")
    assert torch.equal(contrast(gold, series, 1, Disturbances()), contrast(gold, fresh, 1, Disturbances()))


def test_deformation_and_magnification_move_bodies(ball):
    """u = 12 Å along x everywhere, and a magnification of 1.1, put the centroid of amplitude contrast at 1.1 · 62; a
    warp of 9 Å along y everywhere, of control values all alike, moves it by that."""
    coefficient = np.zeros((2, 10, 3))
    coefficient[:, 0, 0] = 12.0
    deformation = SampleDeformation(
        exposure=np.array([0.0, 1.0]), coefficient=coefficient, scale=100.0, magnification=np.full(3, 1.1)
    )
    series = exact_series(SIZE, PIXEL, axis=0.0)
    ctf = replace(series.ctf, defocus_u=np.full(3, 1.0), defocus_v=np.full(3, 1.0))
    series = replace(series, ctf=ctf)
    population = one_body(ball[0], np.array([50.0, 0.0, 0.0]), ball[1])
    image = contrast(population, series, 1, Disturbances(deformation=deformation))[0].double()
    axis = (torch.arange(SIZE) - SIZE // 2) * PIXEL
    assert float((image.sum(0) * axis).sum() / image.sum()) == pytest.approx(1.1 * 62.0, abs=0.5)
    warp = ImageWarp(coefficient=np.full((3, 5, 5, 2), 9.0) * [0, 1], extent=(SIZE * PIXEL,) * 2)
    warped = contrast(population, series, 1, Disturbances(deformation=deformation, warp=warp))[0].double()
    rows = [float((one.sum(1) * axis).sum() / one.sum()) for one in (image, warped)]
    assert rows[1] - rows[0] == pytest.approx(9.0, abs=0.1)


def test_weak_metal_is_linear_and_strong_metal_is_not(ball):
    """To first order contrast is -2 φ (sin χ + r cos χ) = √(1 + r²) times that of amplitude contrast sin(atan r), with
    r = 0.234. A thousandth of protein's phase of 0.1 rad leaves 1e-4 of second order."""
    scatterer, radius = ball
    faint = replace(scatterer, weight=scatterer.weight * np.float32(1e-3))
    series = exact_series(SIZE, PIXEL)
    plain = replace(series, optics=replace(series.optics, amplitude_contrast=np.sin(np.arctan(0.234))))
    gold = replace(one_body(faint, np.zeros(3), radius), name="gold")
    protein = one_body(faint, np.zeros(3), radius)
    expected = np.hypot(1, 0.234) * contrast(protein, plain, 1, Disturbances())[0]
    found = contrast(gold, series, 1, Disturbances())[0]
    assert float((found - expected).abs().max() / expected.abs().max()) < 0.01
    bead = replace(gold, scatterer=replace(scatterer, weight=scatterer.weight * np.float32([20.0, 0.0])))
    dark = contrast(bead, series, 1, Disturbances())[0]
    assert -1.001 < float(dark.min()) < -0.5  # an intensity is never negative, whatever the phase
