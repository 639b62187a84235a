import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

sys.path.extend(str(Path(__file__).parents[1] / folder) for folder in ("ops", "io"))
from made_eer import write_eer
from made_movies import make_movie

from tiltwise.data.defects import DefectMap
from tiltwise.data.errors import InputError
from tiltwise.data.optics import Optics
from tiltwise.data.tilt_series import TiltGeometry, TiltSeries
from tiltwise.io.movies import open_movie
from tiltwise.ops.motion.gain import orient
from tiltwise.params.motion import MotionParams
from tiltwise.stages.motion import motion

SHAPE, PIXEL, EXPOSURE, FRAMES = (384, 512), 2.0, 0.6, 6
TRACK = np.array([[0, 0], [7, -3], [11, -5], [13, -9], [14.5, -9], [15, -10.0]])
PARAMS = MotionParams(patch_size=300.0, largest_shift=50.0)


def moved(frame, x, y):
    return np.broadcast_to(TRACK[frame], (*x.shape, 2))


class Damaged:
    shape = (FRAMES, *SHAPE)

    def __iter__(self):
        raise InputError("movie 3 is cut short")


def made_series(movies):
    count = len(movies)
    return TiltSeries(
        name="TS",
        images=np.broadcast_to(np.float32(0), (count, *SHAPE)),
        image_names=(),
        pixel_size=PIXEL,
        optics=Optics(),
        stage_tilt_angle=np.linspace(-30, 30, count),
        nominal_tilt_axis_angle=None,
        exposure=np.full(count, EXPOSURE * FRAMES),
        pre_exposure=np.arange(count) * EXPOSURE * FRAMES,
        acquisition_order=np.arange(count),
        use=np.ones(count, bool),
        why_not=("",) * count,
        movies=tuple(movies),
    )


@pytest.fixture(scope="module")
def movie():
    return make_movie(moved, SHAPE, PIXEL, EXPOSURE)


def test_a_series_of_movies_becomes_images(movie):
    rng = np.random.default_rng(0)
    gain = np.clip(1 + 0.1 * rng.standard_normal(SHAPE), 0.5, 2).astype(np.float32)
    raw = rng.binomial(movie.astype(int), np.clip(0.6 / gain, 0, 1)).astype(np.uint16)
    raw[:, 100, 200] = 60
    stored = np.ascontiguousarray(orient(gain, 6))
    result = motion(made_series([raw, None, Damaged()]), stored, None, PARAMS)
    series = result.tilt_series
    assert series.use.tolist() == [True, False, False]
    assert series.why_not[2] == "movie 3 is cut short" and series.why_not[1]
    assert "mirrored in x, then turned by 180°, counts multiplied" in result.quality["gain_reference"]
    assert result.quality["defective_pixels"][0] == 1 and result.quality["defective_pixels"][1] is None
    error = result.motions.motion[0].shift - TRACK + TRACK.mean(axis=0)
    assert np.sqrt((error**2).sum(axis=1).mean()) < 5 * result.quality["shift_error"][0]
    odd, even = series.half_images
    assert np.allclose(series.images[0], odd[0] + even[0], atol=1e-3)
    assert series.images[0].mean() == pytest.approx((raw * gain).sum(axis=0).mean(), rel=1e-3)
    assert series.movies is None and not series.images[1].any()


def test_electrons_are_counted_at_more_samples_where_asked(tmp_path):
    """An EER movie of an edge between few and many electrons, at one, two and four samples for each pixel: all its
    electrons, smaller pixels, the edge at the same place (in Å), and a list of defects in pixels of the camera."""
    rng, shape, pages = np.random.default_rng(0), (48, 64), []
    for _ in range(6):
        hit = np.argwhere(rng.uniform(size=shape) < np.where(np.arange(64) < 24, 0.02, 0.4))
        pages.append([(int(y), int(x), *map(int, rng.integers(0, 4, 2))) for y, x in hit if (y, x) != (40, 50)])
    write_eer(tmp_path / "movie.eer", pages, shape)
    movie = open_movie(tmp_path / "movie.eer")
    shift = np.array([[5.0, -3.0]])
    geometry = TiltGeometry(tilt_angle=np.zeros(1), tilt_axis_angle=np.zeros(1), x_tilt=np.zeros(1), shift=shift)
    series = replace(
        made_series([movie]), images=np.broadcast_to(np.float32(0), (1, *shape)), exposure=np.ones(1), geometry=geometry
    )
    dead = DefectMap(rectangles=np.array([[50, 7, 1, 1]]), shape=None)  # row 40 from the top is row 7 from the bottom
    for samples in (1, 2, 4):
        params = MotionParams(model="none", eer_sampling=samples, defects=False)
        result = motion(series, None, dead, params)
        found = result.tilt_series
        image = found.images[0]
        assert found.pixel_size == PIXEL / samples and image.shape == (48 * samples, 64 * samples)
        assert result.quality["defective_pixels"] == [samples**2]
        assert image.sum() == pytest.approx(sum(map(len, pages)), abs=8)
        columns = image.mean(axis=0)
        edge = np.flatnonzero(columns > 6 * 0.2 / samples**2)[0]
        assert edge == 24 * samples
        x = (edge - 0.5 - 32 * samples - found.geometry.shift[0, 0] / found.pixel_size) * found.pixel_size
        assert x == pytest.approx((24 - 0.5 - 32) * PIXEL - 5.0, abs=1e-9)


def test_binned_sums_hold_the_same_electrons_on_pixels_twice_as_wide(movie):
    one, two = (
        motion(made_series([movie]), None, None, PARAMS.model_copy(update={"binning": b})).tilt_series for b in (1, 2)
    )
    assert (two.pixel_size, two.image_shape) == (2 * PIXEL, (SHAPE[0] // 2, SHAPE[1] // 2))
    assert two.images[0].sum() == pytest.approx(one.images[0].sum(), rel=1e-5)
    assert two.half_images[0].shape == two.images.shape


def test_a_defect_map_is_laid_as_the_frames_say(movie):
    """A column and a patch of pixels that count half: the map is stored turned, found, and its pixels are replaced."""
    bad = np.zeros(SHAPE, bool)
    bad[:, 77], bad[200:210, 300:320] = True, True
    raw = np.random.default_rng(1).binomial(movie.astype(int), np.where(bad, 0.5, 1.0)).astype(np.uint8)
    rows = [[x, y, 1, 1] for y, x in np.argwhere(orient(bad, 2))]  # a half turn is its own inverse
    given = DefectMap(rectangles=np.array(rows), shape=SHAPE)
    result = motion(made_series([raw]), None, given, replace_model("none"))
    assert result.quality["defect_map"] == f"turned by 180°, {bad.sum()} pixels"
    image, whole = result.tilt_series.images[0], raw.sum(axis=0)
    assert image[bad].mean() == pytest.approx(whole[~bad].mean(), rel=0.02)
    unknown = motion(made_series([movie]), None, given, replace_model("none")).quality["defect_map"]
    assert unknown.endswith("the frames do not tell how it lies")


@pytest.mark.parametrize(
    ("rectangle", "shape", "said"),
    [((0, 0, 1, 1), (30, 40), "the defect map is 40 × 30 px"), ((512, 0, 1, 1), None, "beyond the camera's")],
)
def test_a_defect_map_of_another_camera_is_one_line(movie, rectangle, shape, said):
    given = DefectMap(rectangles=np.array([rectangle]), shape=shape)
    with pytest.raises(InputError, match=said):
        motion(made_series([movie]), None, given, PARAMS)


def test_the_corrected_sum_is_sharper(movie):
    corrected = motion(made_series([movie]), None, None, PARAMS).tilt_series.images[0]
    plain = motion(made_series([movie]), None, None, replace_model("none")).tilt_series.images[0]
    assert (np.abs(plain - movie.sum(axis=0)) > 1e-2).sum() <= 3  # false alarms among the pixels
    band = np.hypot(np.fft.fftfreq(SHAPE[0], PIXEL)[:, None], np.fft.rfftfreq(SHAPE[1], PIXEL)[None])
    band = (band > 1 / 50) & (band < 1 / 25)
    power = [np.mean(np.abs(np.fft.rfft2(image))[band] ** 2) for image in (corrected, plain)]
    assert power[0] > 1.3 * power[1]


def test_a_tilt_that_drifts_is_flagged_with_its_score_and_a_burst_is_not(movie):
    """Frames rolled by 16 Å each against the last, and the same movie whose first frame alone lies far off."""
    step = round(16 / PIXEL)
    drifting = np.stack([np.roll(frame, step * f, axis=1) for f, frame in enumerate(movie)])
    burst = np.concatenate([np.roll(movie[:1], -step, axis=2), movie[1:]])
    result = motion(made_series([movie, drifting, burst]), None, None, replace_model("whole"))
    assert result.tilt_series.use.tolist() == [True, False, True]
    assert "blurred by drift" in result.tilt_series.why_not[1]
    assert result.quality["median_step_A"][1] > 15 > max(result.quality["median_step_A"][i] for i in (0, 2))
    assert len(result.quality["track_A"][0]) == len(movie) and result.quality["local_rms_A"][0] == 0


def replace_model(model):
    return PARAMS.model_copy(update={"model": model})


def test_exposure_weights_leave_the_halves_additive(movie):
    params = PARAMS.model_copy(update={"exposure_weighting": True, "model": "whole"})
    series = motion(made_series([movie]), None, None, params).tilt_series
    odd, even = series.half_images
    assert np.allclose(series.images[0], odd[0] + even[0], atol=1e-2)


def test_what_cannot_be_done_is_one_line(movie):
    for series, gain, said in [
        (replace(made_series([movie]), movies=None), None, "has no movies"),
        (made_series([Damaged()]), None, "none of its movies can be read; the first: movie 3 is cut short"),
        (made_series([movie]), np.ones((40, 30), np.float32), "the gain reference is 30 × 40 px"),
    ]:
        with pytest.raises(InputError, match=said) as error:
            motion(series, gain, None, PARAMS)
        assert "\n" not in str(error.value)
