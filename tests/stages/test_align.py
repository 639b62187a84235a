"""A simulated series is aligned to a fraction of a pixel, a real one as well as with its beads; bad tilts are named."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.ndimage import affine_transform

from tiltwise.data.deformation import Deformation, SampleDeformation
from tiltwise.data.errors import InputError, StageError
from tiltwise.data.optics import Optics
from tiltwise.data.tilt_series import TiltGeometry, TiltSeries
from tiltwise.ops.alignment.comparison import compare_alignments
from tiltwise.ops.deformation import specimen_in_images
from tiltwise.ops.geometry import project_points, tilt_rotations
from tiltwise.params.align import AlignParams
from tiltwise.stages.align import align

SHARED = Path(__file__).parents[2].parent / "shared" / "data" / "hiv_empiar10164"
PIXEL, SIDE = 10.0, 128
PARAMS = AlignParams(thickness=800.0)


def made_series(seed=0, axis=84.2, number=31, slope=(0.0, 0.0)):
    """Images of 60 blobs of 25 Å in a slab of 300 Å, noise four times as strong as they, and the truth."""
    rng = np.random.default_rng(seed)
    walk = np.cumsum(rng.normal(0, 12, (number, 2)), axis=0)
    truth = TiltGeometry(
        tilt_angle=np.linspace(-60, 60, number),
        tilt_axis_angle=np.full(number, axis),
        x_tilt=np.zeros(number),
        shift=walk - walk[number // 2],
    )
    points = rng.uniform(-1, 1, (60, 3)) * [600, 600, 150]
    points = torch.tensor(points + np.outer(points[:, :2] @ slope, [0, 0, 1]))
    position, _ = project_points(points, tilt_rotations(truth), torch.as_tensor(truth.shift))
    grid = (np.arange(SIDE) - SIDE // 2) * PIXEL
    profiles = [np.exp(-((grid - position[..., c].numpy()[..., None]) ** 2) / (2 * 25.0**2)) for c in (0, 1)]
    clean = -np.einsum("tpy,tpx->tyx", profiles[1], profiles[0])
    images = 40 + clean / clean.std() + rng.normal(0, 2, clean.shape)
    series = TiltSeries(
        name="made",
        images=images.astype(np.float32),
        image_names=tuple(f"{i + 1:06d}@made.mrc" for i in range(number)),
        pixel_size=PIXEL,
        optics=Optics(),
        stage_tilt_angle=truth.tilt_angle,
        nominal_tilt_axis_angle=85.0,
        exposure=np.full(number, 3.0),
        pre_exposure=3.0 * np.arange(number),
        acquisition_order=np.arange(number),
        use=np.ones(number, bool),
        why_not=("",) * number,
    )
    return series, replace(series, geometry=truth)


@pytest.fixture(scope="module")
def aligned():
    series, truth = made_series()
    heard = []
    return align(series, PARAMS, progress=lambda fraction, message: heard.append(fraction)), truth, heard


def test_shifts_and_axis_are_recovered(aligned):
    result, truth, heard = aligned
    comparison = compare_alignments(result.tilt_series, truth)
    assert comparison.shift_rms < 0.3 * PIXEL
    assert comparison.axis_error < 0.3
    assert heard == sorted(heard)


def test_quality_speaks_of_every_tilt(aligned):
    quality, number = aligned[0].quality, aligned[0].tilt_series.number
    for key in ("shift_x_A", "shift_y_A", "residual_A", "correlation"):
        assert len(quality[key]) == number and all(np.isfinite(v) for v in quality[key])
    assert quality["sharpness_after"] > quality["sharpness_before"]
    assert quality["excluded"] == []
    assert quality["patches"] is None  # the field is smaller than six of them
    assert 200.0 < quality["specimen"]["thickness_A"] < 450.0  # blobs of 25 Å sd within 300 Å, seen at 80 Å
    assert quality["tilt_axis_angle_deg"] == pytest.approx(84.2, abs=0.3)


def test_the_same_input_gives_the_same_bits(aligned):
    series, _ = made_series()
    again = align(series, PARAMS).tilt_series.geometry
    np.testing.assert_array_equal(again.shift, aligned[0].tilt_series.geometry.shift)


def test_bad_tilts_are_flagged_with_reasons_and_keep_their_rows():
    series, truth = made_series(seed=1)
    images = series.images.copy()
    images[0] *= 0.02
    images[7] = 40 + np.random.default_rng(5).normal(0, 2, images[7].shape)
    images[30] = np.nan
    use, why = np.ones(31, bool), [""] * 31
    use[12], why[12] = False, "left out by the user"
    series = replace(series, images=images, use=use, why_not=tuple(why))
    result = align(series, PARAMS)
    found = result.tilt_series
    assert np.flatnonzero(~found.use).tolist() == [0, 7, 12, 30]
    reasons = [found.why_not[i] for i in (0, 7, 12, 30)]
    for word, reason in zip(("dark", "agree", "user", "finite"), reasons, strict=True):
        assert word in reason
    assert [entry["tilt"] for entry in result.quality["excluded"]] == [0, 7, 12, 30]
    assert result.quality["shift_x_A"][7] is None
    assert found.number == 31 and len(found.geometry.shift) == 31 and np.isfinite(found.geometry.shift).all()
    between = (found.geometry.shift[11] + found.geometry.shift[13]) / 2
    np.testing.assert_allclose(found.geometry.shift[12], between)
    assert compare_alignments(found, truth).shift_rms < 0.3 * PIXEL


def test_the_order_of_the_images_does_not_matter(aligned):
    series, truth = made_series()
    order = np.random.default_rng(2).permutation(31)
    turned = replace(
        series,
        images=series.images[order],
        stage_tilt_angle=series.stage_tilt_angle[order],
        acquisition_order=series.acquisition_order[order],
    )
    shift = align(turned, PARAMS).tilt_series.geometry.shift
    np.testing.assert_allclose(shift, aligned[0].tilt_series.geometry.shift[order], atol=0.02 * PIXEL)


def test_the_axis_stays_in_the_half_turn_of_its_prior():
    series, _ = made_series()
    result = align(series, AlignParams(thickness=800.0, tilt_axis_angle=-95.0))
    assert result.quality["tilt_axis_angle_deg"] == pytest.approx(84.2 - 180.0, abs=0.3)


def test_without_an_axis_the_remedy_is_named():
    series, _ = made_series(number=7)
    with pytest.raises(InputError, match="tilt_axis_angle"):
        align(replace(series, nominal_tilt_axis_angle=None), PARAMS)


def test_too_few_tilts_are_refused():
    series, _ = made_series(number=7)
    use = np.arange(7) < 4
    with pytest.raises(InputError, match="4 usable tilts"):
        align(replace(series, use=use, why_not=tuple("" if u else "bad" for u in use)), PARAMS)


@pytest.mark.slow
@pytest.mark.skipif(not SHARED.exists(), reason="the shared real data are not here")
def test_a_real_series_is_aligned_from_its_stack_alone():
    from tiltwise.io.acquisition import read_acquisition
    from tiltwise.io.relion import read_tilt_series_set

    stacks = {name: read_acquisition(SHARED / "stacks" / f"{name}.mrc").tilt_series for name in ("TS_03", "TS_43")}
    images = {name: series.images for name, series in stacks.items()}
    published = read_tilt_series_set(SHARED / "relion5" / "Tomograms" / "job006" / "tomograms.star", images=images)
    result = align(stacks["TS_43"], AlignParams(resolution=120.0, iterations=2))
    comparison = compare_alignments(result.tilt_series, published["TS_43"])
    assert comparison.shift_rms < 10.0
    assert comparison.axis_error < 0.5


def with_beads(seed=3, drift=0.5):
    """The made series with 12 beads of 100 Å, whose axis drifts over the tilts; and the truth."""
    series, truth = made_series(seed)
    rng = np.random.default_rng(seed)
    geometry = replace(truth.geometry, tilt_axis_angle=84.2 + drift * truth.geometry.tilt_angle / 120)
    points = torch.tensor(rng.uniform(-1, 1, (12, 3)) * [400, 400, 250])
    position, _ = project_points(points, tilt_rotations(geometry), torch.as_tensor(geometry.shift))
    grid = (np.arange(SIDE) - SIDE // 2) * PIXEL
    images = series.images.copy()
    for image, places in zip(images, position.numpy(), strict=True):
        for x, y in places:
            squared = (grid[None, :] - x) ** 2 + (grid[:, None] - y) ** 2
            image -= 12 * np.sqrt(np.maximum(0, 1 - squared / 50.0**2))
    return replace(series, images=images), replace(truth, geometry=geometry)


def test_beads_are_taken_where_they_place_held_out_beads_better():
    series, truth = with_beads(drift=3.0)
    result = align(series, PARAMS)
    beads = result.quality["beads"]
    assert result.quality["method"] == "beads" and "drift" in beads["model"]
    assert beads["held_out_residual_A"] < beads["held_out_residual_without_A"]
    assert beads["number"] >= 8 and beads["diameter_A"] == pytest.approx(100.0, rel=0.15)
    assert len(result.quality["residual_A"]) == series.number
    assert result.tilt_series.beads.position.shape == (beads["number"], 3)
    assert compare_alignments(result.tilt_series, truth).shift_rms < 0.3 * PIXEL
    axis = result.tilt_series.geometry.tilt_axis_angle - truth.geometry.tilt_axis_angle
    assert np.abs(axis).max() < 0.5 * 1.5  # the ties of 0.05° a tilt give way, by more than half, to a drift of 0.1°


def test_beads_are_left_where_they_place_held_out_beads_worse():
    """Few beads in noise against a specimen that all fits: both figures are in the record, and the smaller one wins."""
    series, truth = with_beads()
    result = align(series, PARAMS)
    beads = result.quality["beads"]
    assert result.quality["method"] == "projection"
    assert beads["held_out_residual_A"] > beads["held_out_residual_without_A"]
    forced = align(series, PARAMS.model_copy(update={"method": "beads"}))
    assert forced.quality["method"] == "beads"
    errors = [compare_alignments(r.tilt_series, truth).shift_rms for r in (result, forced)]
    assert errors[0] < errors[1] < 0.3 * PIXEL


def test_a_charged_and_a_blocked_tilt_are_flagged_with_scores():
    """One tilt magnified by 4.5 % along x and shrunk by 3.5 % along y, 13 Å rms at beads; half of another hidden."""
    series, truth = with_beads(drift=3.0)
    images, zoom = series.images.copy(), np.array([1 - 0.035, 1 + 0.045])
    middle = SIDE // 2
    images[20] = affine_transform(images[20], 1 / zoom, middle - middle / zoom, order=3, mode="nearest")
    images[27, :, :70] *= 0.01
    result = align(replace(series, images=images), PARAMS.model_copy(update={"method": "beads"}))
    found = result.tilt_series
    assert np.flatnonzero(~found.use).tolist() == [20, 27]
    assert "blocked: 50 %" in found.why_not[27] and "charged: distorted by" in found.why_not[20]
    assert 8 < float(found.why_not[20].split("by ")[1].split(" Å")[0]) < 18
    assert result.quality["distortion_A"][20] is None and max(filter(None, result.quality["distortion_A"])) < 8
    assert compare_alignments(found, truth).shift_rms < 0.3 * PIXEL


@pytest.mark.parametrize("method", ["beads", "patches"])
def test_a_series_without_what_is_asked_for_says_so(method):
    series, _ = made_series(number=9)
    with pytest.raises(StageError, match=f"too few.*{method}.*projection"):
        align(series, PARAMS.model_copy(update={"method": method}))


def test_an_inclined_specimen_is_made_level():
    """Blobs in a slab that rises by 9° along x: the tilt angles are offset against it, and no image is moved."""
    series, truth = made_series(seed=4, number=21, slope=np.array([0.16, 0.0]))
    result = align(series, PARAMS.model_copy(update={"iterations": 2}))
    offset = result.tilt_series.geometry.tilt_angle - series.stage_tilt_angle
    assert result.quality["specimen"]["incline_deg"] == pytest.approx([9.1, 0.0], abs=2.0)
    assert np.ptp(offset) < 1e-6 and offset[0] == pytest.approx(-9.1, abs=2.0)
    assert compare_alignments(result.tilt_series, truth).shift_rms < 0.3 * PIXEL


def test_a_deformation_comes_out_of_beads_and_stands_in_the_record():
    """30 beads of a field that deforms by 25 Å at its edge over the series: held-out beads gain."""
    series, truth = made_series(seed=5, number=25)
    bends = np.zeros((10, 3))
    bends[4, 0], bends[5, 1], bends[4, 2] = 25.0, -25.0, 25.0  # x² along x, y² along y, x² along z
    deformation = SampleDeformation(
        exposure=np.array([0.0, 40.0, 80.0]),
        coefficient=np.array([0.0, 0.5, 1.0])[:, None, None] * bends,
        scale=SIDE * PIXEL / 2,
        magnification=np.ones(25),
    )
    truth = replace(truth, deformation=Deformation(sample=deformation))
    points = np.random.default_rng(5).uniform(-1, 1, (30, 3)) * [520, 520, 250]
    grid = (np.arange(SIDE) - SIDE // 2) * PIXEL
    images = 40 + np.random.default_rng(6).normal(0, 1, series.images.shape).astype(np.float32)
    for image, places in zip(images, specimen_in_images(truth, points)[0], strict=True):
        for x, y in places:
            squared = (grid[None, :] - x) ** 2 + (grid[:, None] - y) ** 2
            image -= 16 * np.sqrt(np.maximum(0, 1 - squared / 50.0**2))
    result = align(replace(series, images=images), PARAMS.model_copy(update={"method": "beads"}))
    figures = result.quality["deformation"]
    assert "sample" in figures["kept"]
    assert figures["held_out_residual_A"] < figures["held_out_residual_without_A"]
    assert len(figures["moved_A"]) == 25 and len(figures["arrows_A"]) == 81
    assert result.tilt_series.deformation.sample is not None


def test_the_median_of_the_data_set_finds_what_a_wrong_prior_cannot():
    series, truth = made_series()
    astray = replace(series, nominal_tilt_axis_angle=70.0)
    result = align(astray, PARAMS.model_copy(update={"tilt_axis_median": 84.2 - 180.0}))
    assert result.quality["tilt_axis_from"] == "median"
    assert compare_alignments(result.tilt_series, truth).axis_error < 0.3
    assert compare_alignments(result.tilt_series, truth).shift_rms < 0.3 * PIXEL


def test_the_median_stands_in_for_an_axis_that_nothing_tells():
    series, truth = made_series()
    unknown = replace(series, nominal_tilt_axis_angle=None)
    result = align(unknown, PARAMS.model_copy(update={"tilt_axis_median": 84.2}))
    assert result.quality["tilt_axis_own_deg"] is None and result.quality["tilt_axis_from"] == "median"
    assert compare_alignments(result.tilt_series, truth).axis_error < 0.3


def test_images_that_insist_keep_their_axis(aligned):
    series, _ = made_series()
    result = align(series, PARAMS.model_copy(update={"tilt_axis_median": 81.0}))
    assert result.quality["tilt_axis_from"] == "images" and result.quality["tilt_axis_own_evidence"] > 3
    np.testing.assert_array_equal(result.tilt_series.geometry.shift, aligned[0].tilt_series.geometry.shift)


def test_a_series_that_agrees_with_the_median_is_the_same_to_the_bit(aligned):
    series, _ = made_series()
    result = align(series, PARAMS.model_copy(update={"tilt_axis_median": 84.5}))
    assert "tilt_axis_from" not in result.quality
    np.testing.assert_array_equal(result.tilt_series.geometry.shift, aligned[0].tilt_series.geometry.shift)


def test_an_axis_that_is_held_stays():
    series, _ = made_series()
    held = {"tilt_axis_angle": 83.5, "tilt_axis_range": 0.0, "method": "projection"}
    for median in (None, 85.0):
        result = align(series, PARAMS.model_copy(update=held | {"tilt_axis_median": median}))
        assert result.tilt_series.geometry.tilt_axis_angle == pytest.approx(83.5)
