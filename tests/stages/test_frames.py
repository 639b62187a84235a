"""Frames refined on particles: known motion is taken back, images sharpen; where nothing is told nothing is touched."""

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

sys.path.append(str(Path(__file__).parents[1] / "ops"))
from made_movies import make_movie
from movie_scene import FRAMES, NAME, movie_scene, walks
from particle_scene import DIAMETER, PIXEL, SIZE

from tiltwise.data.defects import DefectMap
from tiltwise.data.errors import InputError
from tiltwise.data.maps import HalfMaps
from tiltwise.data.optics import Optics
from tiltwise.data.progress import no_progress
from tiltwise.data.tilt_series import TiltSeries
from tiltwise.data.volume import Volume
from tiltwise.io.movie_motions import read_motions, write_motions
from tiltwise.io.movies import open_movie
from tiltwise.io.mrc import write_mrc
from tiltwise.params.frames import FramesParams
from tiltwise.params.motion import MotionParams
from tiltwise.stages.frames import frames
from tiltwise.stages.frames.setup import check_movies
from tiltwise.stages.frames.sums import sum_anew
from tiltwise.stages.motion import motion

PARAMS = FramesParams(particle_diameter=DIAMETER, shift_step=5.0, field_step=1.5)
STEP = 5.0
SHAPE = (192, 256)
DRIFT = np.array([[0, 0], [6, -3], [9, -6], [10, -7.0]])
GAIN = np.clip(1 + 0.1 * np.random.default_rng(7).standard_normal(SHAPE), 0.6, 1.4)
"""Sensitivity of the pixels, by which counts are divided."""


def still_series(count, shape):
    """A series of movies, not aligned."""
    return TiltSeries(
        name="TS",
        images=np.broadcast_to(np.float32(0), (count, *shape)),
        image_names=(),
        pixel_size=2.0,
        optics=Optics(),
        stage_tilt_angle=np.linspace(-3, 3, count),
        nominal_tilt_axis_angle=None,
        exposure=np.full(count, 2.4),
        pre_exposure=np.arange(count) * 2.4,
        acquisition_order=np.arange(count),
        use=np.ones(count, bool),
        why_not=("",) * count,
    )


def run(made, params=PARAMS, **changed):
    given = {"tilt_series": made.tilt_series, "particles": made.particles, "half_maps": made.half_maps}
    given |= {"motions": made.motions, "gain": None} | changed
    return frames(*given.values(), params)


@pytest.fixture(scope="module")
def moving():
    """Walks of 5 Å a frame on each axis beside a drift of 18 Å that is known: 4.5 Å rms are left in the images."""
    shifts = walks(21, FRAMES, STEP)
    known = np.linspace(-8, 8, FRAMES)[:, None] * np.array([1, 0.5])
    return shifts, movie_scene(shifts, noise=0.5, known=known)


@pytest.fixture(scope="module")
def corrected(moving):
    return run(moving[1])


def left(images, clean, band):
    """The amplitude of the clean images in a band (Å, from and to)."""
    k = np.hypot(np.fft.fftfreq(SIZE, PIXEL)[:, None], np.fft.rfftfreq(SIZE, PIXEL))
    inside = (k > 1 / band[0]) & (k < 1 / band[1])
    seen, known = (np.fft.rfft2(np.asarray(x, float))[:, inside] for x in (images, clean))
    return float((known.conj() * seen).real.sum() / (np.abs(known) ** 2).sum())


def test_shifts_come_back_within_their_errors(moving, corrected):
    """χ² of 21 · 5 · 2 shifts against the stated errors: at most 1 + 4 sqrt(2 / 210) = 1.4. It may be less: the noise
    is measured by how much frames differ, which holds, at first, what their motion does to the signal."""
    shifts, made = moving
    found = np.array([m.shift for m in corrected.motions.motion]) - made.motions.motion[0].shift
    error = np.array(corrected.quality["shift_error_A"])
    square = float((((found - shifts) / error[:, None, None]) ** 2).mean())
    print("rms", np.sqrt((shifts**2).mean()), "left", np.sqrt(((found - shifts) ** 2).mean()), "χ²", square)
    assert 0.3 < square < 1.4
    assert np.sqrt(((found - shifts) ** 2).mean()) < 0.1 * np.sqrt((shifts**2).mean())
    assert corrected.quality["taken"] == ["shift"]  # no field is there, and frames fade alike
    assert corrected.quality["gates"]["shift"]["accepted"] and not corrected.quality["gates"]["field"]["accepted"]


def test_the_sums_hold_the_whole_signal_again(moving, corrected):
    """exp(-2π² σ² k²) of it was left: 0.73 and 0.66 here. Noise tells an amplitude of a band to a few thousandths,
    0.3 Å of rest takes 0.4 %, so all of it to 2 % (5 % where there is least)."""
    _, made = moving
    for band, before, exact in (((80, 40), 0.9, 0.02), ((40, 30), 0.8, 0.02), ((30, 22), 0.7, 0.05)):
        assert left(made.tilt_series.images, made.clean, band) < before
        assert left(corrected.tilt_series.images, made.clean, band) == pytest.approx(1, abs=exact)
    odd, even = corrected.tilt_series.half_images
    assert np.allclose(corrected.tilt_series.images, odd + even, atol=1e-3)
    assert corrected.tilt_series.image_names == ()  # the store gives them a stack of their own


def test_movies_are_decoded_twice_where_something_is_taken(corrected):
    assert {movie.times for movie in corrected.motions.movies} == {2}


def test_once_more_there_is_nothing_left_to_take(corrected, moving):
    again = run(moving[1], tilt_series=corrected.tilt_series, motions=corrected.motions)
    assert again.quality["taken"] == []


@pytest.mark.parametrize(
    "case",
    [
        {"particles": 12, "noise": 0.5},
        {"particles": 5, "noise": 0.5},
        {"particles": 12, "noise": 1.5},
        {"particles": 12, "noise": 0.5, "signal": 0.0},
    ],
    ids=["still", "five", "weak", "noise"],
)
def test_where_nothing_moves_nothing_is_touched(case):
    """Images and motions are those given, and each movie was decoded once."""
    for seed in (0, 3):
        made = movie_scene(np.zeros((21, FRAMES, 2)), seed=seed, **case)
        result = run(made)
        assert result.quality["taken"] == [] and result.tilt_series is made.tilt_series
        assert result.motions.motion == made.motions.motion and result.motions.weighting == "plain"
        assert {movie.times for movie in made.motions.movies} == {1}


def test_frames_that_blur_are_weighed_less():
    """B from 900 Å² in the first frame to 100 in the last: the sum holds more of the signal at the same noise."""
    fading = np.linspace(900, 100, FRAMES)
    made = movie_scene(np.zeros((21, FRAMES, 2)), noise=0.5, seed=1, b_factor=fading)
    result = run(made)
    assert result.quality["taken"] == ["measured"] and result.motions.weighting == "measured"
    found = np.array(result.quality["frame_b_factor_A2"]).mean(axis=0)
    assert (np.diff(found) < 0).all() and np.abs(found).max() < 500
    gain = [left(one.images, made.clean, (40, 22)) for one in (made.tilt_series, result.tilt_series)]
    assert gain[1] > gain[0]
    k = np.hypot(np.fft.fftfreq(SIZE, PIXEL)[:, None], np.fft.rfftfreq(SIZE, PIXEL)) > 1 / 18  # no signal there
    power = [
        (np.abs(np.fft.rfft2(one.images - 100)[:, k]) ** 2).mean() for one in (made.tilt_series, result.tilt_series)
    ]
    assert power[1] == pytest.approx(power[0], rel=0.02)


@pytest.mark.parametrize("binning", [1, 2])
def test_movies_read_once_more_give_the_same_sums(binning, tmp_path):
    """To the bit, from the motions as they lie on disk: gain divided and turned, a map of defects, hot pixels, motion
    of the whole, weights of the critical curve, sums on wider pixels."""
    rng = np.random.default_rng(0)
    movies = []
    for number in range(2):
        movie = make_movie(lambda f, x, y: np.broadcast_to(DRIFT[f], (*x.shape, 2)), SHAPE, 2.0, 0.6, number, 4)
        movie = rng.binomial(movie.astype(int), np.clip(GAIN / 2, 0, 1)).astype(np.uint16)
        movie[:, 100, 150] = 60
        write_mrc(tmp_path / f"{number}.mrc", movie, 2.0, stack=True)
        movies.append(open_movie(tmp_path / f"{number}.mrc"))
    series = replace(
        still_series(2, SHAPE), movies=tuple(movies), image_names=tuple(str(tmp_path / f"{n}.mrc") for n in range(2))
    )
    defects = DefectMap(rectangles=np.array([[20, 30, 2, 100]]), shape=SHAPE)
    params = MotionParams(patch_size=200.0, largest_shift=50.0, exposure_weighting=True, binning=binning)
    stored = np.ascontiguousarray(np.rot90(GAIN, 1))
    found = motion(series, stored, defects, params)
    assert "counts divided" in found.quality["gain_reference"] and min(found.quality["defective_pixels"]) > 200
    write_motions(tmp_path / "motions.star", found.motions, root=tmp_path)
    motions = read_motions(tmp_path / "motions.star", root=tmp_path)
    read, _ = check_movies(found.tilt_series, motions, stored)
    again = sum_anew(read, found.tilt_series, motions, no_progress)
    assert np.array_equal(again.images, found.tilt_series.images)
    assert all(np.array_equal(*both) for both in zip(again.half_images, found.tilt_series.half_images, strict=True))


def test_switched_off_is_off(moving):
    still = run(moving[1], PARAMS.model_copy(update={"refine_motion": False, "refine_weights": False}))
    assert still.quality["taken"] == [] and still.tilt_series is moving[1].tilt_series
    assert still.quality["gates"] == {}


def test_a_series_without_particles_stays(moving):
    made = moving[1]
    for none in (made.particles[:0], replace(made.particles, half_set=np.ones(12, int))):
        result = run(made, particles=none)
        assert result.tilt_series is made.tilt_series and "nothing can be held out" in result.quality["notes"][0]


def bad_inputs(made):
    motion = made.motions
    one = replace(motion.motion[0], exposure=np.ones(1), shift=np.zeros((1, 2)))
    maps = HalfMaps(half1=replace(made.half_maps.half1, voxel_size=4.0), half2=made.half_maps.half2)
    flat = Volume(data=np.zeros((8, 8, 9), np.float32), voxel_size=PIXEL)
    return {
        "has no movies of two frames": {"motions": replace(motion, motion=(None,) * 21)},
        "movies of two frames or more": {"motions": replace(motion, motion=(one,) * 21)},
        "tilt 4.mrc: cut short": {
            "motions": replace(motion, movies=(None,) * 21, faults=("tilt 4.mrc: cut short",) * 21)
        },
        "motion of 20 movies": {"motions": replace(motion, motion=motion.motion[:20])},
        "some are in no half set": {"particles": replace(made.particles, half_set=np.zeros(12, int))},
        "voxels of 4 Å": {"half_maps": maps},
        "not two cubes": {"half_maps": HalfMaps(half1=flat, half2=flat)},
        "not aligned": {"tilt_series": replace(made.tilt_series, geometry=None)},
        "the gain reference must be that": {"gain": np.ones((SIZE, SIZE), np.float32)},
    }


@pytest.mark.parametrize("said", list(bad_inputs(movie_scene(np.zeros((21, 2, 2)), noise=0.5))))
def test_what_cannot_be_used_is_said_in_one_line(moving, said):
    with pytest.raises(InputError) as fault:
        run(moving[1], **bad_inputs(moving[1])[said])
    assert said in str(fault.value) and "\n" not in str(fault.value)
    assert any(what in str(fault.value) for what in (NAME, "particles", "gain", "half maps"))
