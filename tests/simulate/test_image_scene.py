"""Whole scenes: counts fall as they should, and the bits depend on nothing but the seed."""

from dataclasses import replace

import numpy as np
import pytest
from optical_bench import clean_microscope, exact_series

from tiltwise.simulate.camera import draw_gain
from tiltwise.simulate.disturbances import Disturbances, draw_deformation, draw_frame_motion
from tiltwise.simulate.image_scene import image_frames, image_scene, image_tilt
from tiltwise.simulate.proof import point_population
from tiltwise.simulate.scene import CarbonFilm, IceSlab, Scene

SIZE, PIXEL = 96, 6.0
ICE = IceSlab(thickness=2000.0, incline=(0.0, 0.0), curvature=0.0)
EMPTY = Scene(populations=(point_population(np.zeros((1, 3))),), ice=ICE, film=None)
PARAMS = clean_microscope(SIZE, PIXEL)


def exposed(tilt: float = 60.0):
    return replace(exact_series(SIZE, PIXEL, tilt=tilt, axis=0.0), exposure=np.full(5, 3.0)[: 2 * int(tilt // 30) + 1])


def test_counts_fall_with_the_path():
    """ln of the mean against 1 / cos θ has the slope -2000 / 3500; the mean of 96² px of some 60 e⁻ is known to 1.4e-3,
    so the slope, over a span of 1, to about 3e-3."""
    series = exposed()
    mean = [image.mean() for image in image_scene(EMPTY, series, PARAMS, (0,))]
    slope, level = np.polyfit(1 / np.cos(np.radians(series.stage_tilt_angle)), np.log(mean), 1)
    assert slope == pytest.approx(-2000 / 3500, abs=0.01)
    assert np.exp(level) == pytest.approx(3.0 * PIXEL**2, rel=0.02)


def test_carbon_takes_its_share():
    """Half the field behind 500 Å of carbon: exp(-500 / 1600) of what comes through ice alone."""
    film = CarbonFilm(azimuth=0.0, distance=0.0, thickness=500.0, height=0.0)
    image = image_tilt(replace(EMPTY, film=film), exposed(), 2, PARAMS, (0,)).astype(float)
    ratio = image[:, 60:].mean() / image[:, :36].mean()
    assert ratio == pytest.approx(np.exp(-500 / 1600), rel=0.02)


def test_every_tilt_has_random_numbers_of_its_own():
    series = exposed()
    every = list(image_scene(EMPTY, series, PARAMS, (7,)))
    assert np.array_equal(every[3], image_tilt(EMPTY, series, 3, PARAMS, (7,)))
    assert not np.array_equal(every[1], every[3])
    assert not np.array_equal(every[3], image_tilt(EMPTY, series, 3, PARAMS, (8,)))


def test_frames_add_up_to_the_exposure():
    """Raw counts times gain, summed: exposure · DQE(0) · exp(-t / Λ) a pixel; 0.9 · 108 · exp(-2000/3500) = 54.9."""
    series = exposed()
    disturbances = Disturbances(
        deformation=draw_deformation(PARAMS.motion, series, np.random.default_rng(0)),
        frames=draw_frame_motion(PARAMS.motion, series, 4, np.random.default_rng(1)),
    )
    gain = draw_gain(PARAMS.camera, np.random.default_rng(2))
    frames = image_frames(EMPTY, series, 2, PARAMS, (0,), gain=gain, disturbances=disturbances)
    assert frames.shape == (4, SIZE, SIZE)
    assert (frames.sum(axis=0) * gain).mean() == pytest.approx(54.9, rel=0.01)
