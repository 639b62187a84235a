"""Beads that the alignment followed are gone from the tomogram where that is asked for, and nothing else is."""

from dataclasses import replace

import numpy as np
import pytest
from test_reconstruct import series

from tiltwise.data.errors import StageError
from tiltwise.data.tilt_series import GoldBeads
from tiltwise.ops.tomogram.elongation import elongation
from tiltwise.params.reconstruct import ReconstructParams
from tiltwise.stages.reconstruct import reconstruct

BEADS = np.array([[-90.0, 60.0, 40.0], [100.0, -70.0, -50.0]])
MOLECULE = np.array([0.0, 0.0, 0.0])
PARAMS = ReconstructParams(voxel_size=8.0, thickness=300.0)


@pytest.fixture(scope="module")
def scene():
    """Two blobs that are called beads of 60 Å and one that is not, in noise: a series with what align would say."""
    made = series(np.vstack([BEADS, MOLECULE]), sd=12.0)
    return replace(made, beads=GoldBeads(position=BEADS, diameter=60.0))


def peaks(volume, points):
    """(point,) highest voxel within 16 Å, in standard deviations of the volume."""
    centre = np.array(volume.data.shape) // 2
    places = centre + np.round(points[:, ::-1] / volume.voxel_size).astype(int)
    return np.array([volume.data[tuple(slice(p - 2, p + 3) for p in place)].max() for place in places])


def test_beads_are_erased_and_what_is_no_bead_stays(scene):
    plain = reconstruct(scene, PARAMS)
    erased = reconstruct(scene, PARAMS.model_copy(update={"erase_beads": True}))
    noise = float(np.median(np.abs(plain.tomogram.data))) * 1.4826
    before, after = peaks(plain.tomogram, np.vstack([BEADS, [MOLECULE]])), peaks(erased.tomogram, BEADS)
    assert (before > 10 * noise).all()
    assert (after < 0.35 * before[:2]).all()
    assert peaks(erased.tomogram, MOLECULE[None])[0] == pytest.approx(before[2], rel=0.15)
    assert (plain.quality["beads_erased"], erased.quality["beads_erased"]) == (0, 2)
    assert erased.quality["bead_shape"] is None


def test_the_record_says_how_long_beads_are_beside_the_closed_form():
    """Two beads of 24 Å standard deviation, tilts of ±60° in steps of 5°: between the closed forms for ±60° and for
    ±67.5°, of one step and a half more (tests/ops/test_elongation.py), in noise of a tenth."""
    beads = np.array([[-150.0, 100.0, 30.0], [140.0, -110.0, -20.0]])
    made = replace(series(beads, sd=24.0, shape=(170, 170)), beads=GoldBeads(position=beads, diameter=60.0))
    shape = reconstruct(made, PARAMS.model_copy(update={"thickness": 500.0})).quality["bead_shape"]
    assert shape["beads"] == 2 and shape["tilt_range_deg"] == [-60.0, 60.0]
    assert shape["elongation_expected"] == pytest.approx(1.55, abs=0.01)
    assert elongation(-67.5, 67.5) - 0.05 < shape["elongation"] < elongation(-60, 60) + 0.05
    assert abs(shape["lowest_angle_deg"] + 60) <= 6 and abs(shape["highest_angle_deg"] - 60) <= 6
    assert reconstruct(replace(made, beads=None), PARAMS).quality["bead_shape"] is None


def test_without_beads_there_is_nothing_to_erase(scene):
    with pytest.raises(StageError, match="erase_beads"):
        reconstruct(replace(scene, beads=None), PARAMS.model_copy(update={"erase_beads": True}))


def test_beads_are_erased_from_both_halves_of_the_frames(scene):
    rng = np.random.default_rng(5)
    noise = rng.normal(0, 0.1 * np.abs(scene.images).max(), scene.images.shape).astype(np.float32)
    filmed = replace(scene, half_images=(scene.images / 2 + noise, scene.images / 2 - noise))
    params = PARAMS.model_copy(update={"half_tomograms": True})
    plain, erased = (
        reconstruct(filmed, params.model_copy(update={"erase_beads": erase})).half_tomograms for erase in (False, True)
    )
    for before, after in ((plain.half1, erased.half1), (plain.half2, erased.half2)):
        assert (peaks(after, BEADS) < 0.35 * peaks(before, BEADS)).all()
        assert peaks(after, MOLECULE[None]) == pytest.approx(peaks(before, MOLECULE[None]), rel=0.15)
