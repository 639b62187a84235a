"""Methods, halves, memory and numbers of the reconstruction, on one small series of beads."""

from dataclasses import replace

import numpy as np
import pydantic
import pytest
from test_reconstruct import TILTS, series

from tiltwise.data.errors import StageError
from tiltwise.params.reconstruct import IterativeParams, ReconstructParams
from tiltwise.stages.reconstruct import reconstruct

POINTS = np.random.default_rng(3).uniform(-1, 1, (25, 3)) * [210.0, 210.0, 130.0]
VOXEL = 8.0


@pytest.fixture(scope="module")
def beads():
    return series(POINTS, shape=(130, 141), sd=10.0)


def run(beads, **given):
    return reconstruct(beads, ReconstructParams(**({"voxel_size": VOXEL, "thickness": 400.0} | given)))


def truth(shape):
    z, y, x = np.ogrid[tuple(slice(n) for n in shape)]
    volume = np.zeros(shape)
    for px, py, pz in POINTS / VOXEL:
        squared = (x - shape[2] // 2 - px) ** 2 + (y - shape[1] // 2 - py) ** 2 + (z - shape[0] // 2 - pz) ** 2
        volume += np.exp(-squared / (2 * (10.0 / VOXEL) ** 2))
    return volume


def agreement(volume):
    return np.corrcoef(np.asarray(volume, float).ravel(), truth(volume.shape).ravel())[0, 1]


def test_iterations_come_nearer_to_the_truth_and_positivity_nearer_still(beads):
    plain = agreement(run(beads).tomogram.data)
    cg = run(beads, method="cg", iterative=IterativeParams(iterations=6))
    sirt = run(beads, method="sirt", iterative=IterativeParams(iterations=12))
    positive = run(beads, method="sirt", iterative=IterativeParams(iterations=12, positivity=True))
    for result in (cg, sirt):
        residual = result.quality["residual"]
        assert (np.diff(residual) < 0).all() and residual[-1] < 0.5
        assert agreement(result.tomogram.data) > 0.9 * plain
    assert positive.tomogram.data.min() >= 0
    assert agreement(positive.tomogram.data) > 1.1 * max(plain, agreement(sirt.tomogram.data))


def test_total_variation_flattens_the_background(beads):
    rough = run(beads, method="sirt").tomogram.data
    flat = run(beads, method="sirt", iterative=IterativeParams(total_variation=0.3)).tomogram.data

    def variation(volume):
        return sum(np.abs(np.diff(volume, axis=axis)).sum() for axis in range(3)) / volume.std()

    assert variation(flat) < 0.9 * variation(rough)
    assert agreement(flat) > 0.95 * agreement(rough)


def test_the_tomogram_is_the_mean_of_its_halves_which_share_no_noise(beads):
    one, three = run(beads), run(beads, half_tomograms=True)
    assert one.half_tomograms is None
    halves = three.half_tomograms.half1.data, three.half_tomograms.half2.data
    np.testing.assert_allclose(three.tomogram.data, one.tomogram.data, atol=1e-5 * np.abs(one.tomogram.data).max())
    np.testing.assert_allclose((halves[0] + halves[1]) / 2, three.tomogram.data, atol=1e-6)
    noise = replace(beads, images=np.random.default_rng(1).normal(size=beads.images.shape).astype(np.float32))
    halves = run(noise, half_tomograms=True).half_tomograms
    independent = 1 / np.sqrt(halves.half1.data.size / 8)  # neighbours within two voxels are alike
    assert abs(np.corrcoef(halves.half1.data.ravel(), halves.half2.data.ravel())[0, 1]) < 5 * independent


@pytest.mark.parametrize("method", ["wbp", "cg"])
def test_halves_are_of_frames_where_there_are_any(beads, method):
    """Odd and even frames each hold all tilts: beads in both, noise in one; their mean is that of the whole images."""
    rng, n = np.random.default_rng(2), len(TILTS)
    noise = rng.normal(0, 0.2 * np.abs(beads.images).max(), (2, *beads.images.shape)).astype(np.float32)
    odd, even = beads.images / 2 + noise
    filmed = replace(beads, images=odd + even, half_images=(odd, even))
    result, whole = run(filmed, half_tomograms=True, method=method), run(filmed, method=method)
    assert (result.quality["halves"], result.quality["tilts"], whole.quality["halves"]) == ("frames", n, None)
    assert run(beads, half_tomograms=True).quality["halves"] == "tilts"
    halves = [half.data for half in (result.half_tomograms.half1, result.half_tomograms.half2)]
    # clipping at 10 sd is of each part by itself, and cg takes steps of its own length for each
    error = result.tomogram.data - whole.tomogram.data
    assert error.std() < (0.1 if method == "cg" else 1e-3) * whole.tomogram.data.std()
    r = agreement(whole.tomogram.data)  # were all that differs from the truth noise, a half would have twice of it
    assert all(0.95 * r / np.sqrt(2 - r**2) < agreement(half) < r for half in halves)
    blank = replace(filmed, half_images=tuple(noise))
    independent = 1 / np.sqrt(halves[0].size / 8)  # neighbours within two voxels are alike
    found = run(blank, half_tomograms=True, method=method).half_tomograms
    assert abs(np.corrcoef(found.half1.data.ravel(), found.half2.data.ravel())[0, 1]) < 5 * independent


@pytest.mark.parametrize("given", [{}, {"half_tomograms": True, "output": "float16"}, {"method": "cg"}])
def test_slabs_within_a_bound_are_the_same_tomogram(beads, given, monkeypatch):
    """With the images and the program left out of the plan, the rows decide; x-tilt makes slabs reach into others."""
    monkeypatch.setattr("tiltwise.stages.reconstruct.memory._PROGRAM", 0.0)
    monkeypatch.setattr("tiltwise.stages.reconstruct.memory._IMAGE_COPIES", 0)
    whole = run(beads, **given)
    said = []
    params = ReconstructParams(
        voxel_size=VOXEL, thickness=400.0, memory_GB=0.96 * whole.quality["planned_memory_GB"], **given
    )
    part = reconstruct(beads, params, progress=lambda _, message: said.append(message))
    assert part.quality["slabs"] == 2 or "scratch" in said[0]
    assert part.quality["planned_memory_GB"] <= params.memory_GB + 1e-3
    assert said[0].startswith("planned")
    # float16 holds 3 digits; with cg each slab takes steps of its own length
    error = (part.tomogram.data - whole.tomogram.data.astype(np.float32)).std() / whole.tomogram.data.std()
    assert error < (0.1 if given.get("method") == "cg" else 1e-3)


def test_eight_bits_state_their_step(beads):
    exact, small = run(beads), run(beads, output="int8", ome_zarr=True)
    step = small.tomogram.step
    assert small.tomogram.data.dtype == np.int8 and step == small.quality["int8_step"]
    assert small.pyramid is small.tomogram and exact.pyramid is None
    inside = np.abs(exact.tomogram.data) < 126 * step
    error = np.abs(small.tomogram.data * step - exact.tomogram.data)[inside]
    assert error.max() <= 0.5 * step + 2.0**-11 * 127 * step  # half a step, and the float16 it was kept in
    assert inside.mean() > 0.999


def test_doubtful_input_is_named_and_worked_with(beads):
    three = run(replace(beads, use=np.isin(TILTS, [-30.0, 0.0, 30.0])))
    assert three.quality["notes"] == ["3 tilts only: expect streaks along each of them"]
    images = beads.images.copy()
    images[4] = 7.0
    one_blank = run(replace(beads, images=images))
    assert one_blank.quality["notes"] == ["tilt 5: the image is constant and was left out"]
    assert one_blank.quality["tilts"] == len(TILTS) - 1
    unset = replace(beads, pixel_size=1.0)
    with pytest.raises(StageError, match="exactly 1 Å.*set it"):
        run(unset, thickness=2000.0)
    assert "exactly 1 Å" in run(unset, thickness=100.0, voxel_size=2.0).quality["notes"][0]
    with pytest.raises(StageError, match="are the least"):
        run(beads, memory_GB=0.01)


def test_options_that_do_not_fit_the_method_are_refused():
    with pytest.raises(pydantic.ValidationError, match="need method sirt"):
        ReconstructParams(method="cg", iterative=IterativeParams(positivity=True))
    with pytest.raises(pydantic.ValidationError, match="use phase_flip"):
        ReconstructParams(method="sirt", ctf_correction="wiener")


def test_wiener_keeps_more_of_what_every_tilt_sees_well():
    """Beads through the CTF in noise: the Wiener tomogram is nearer to the truth than the flipped one."""
    seen = series(POINTS, shape=(130, 141), sd=10.0, defocus=30000.0, handedness=1)
    flipped, wiener = (run(seen, ctf_correction=kind).tomogram.data for kind in ("phase_flip", "wiener"))
    assert agreement(wiener) > agreement(flipped) > agreement(run(seen, ctf_correction="none").tomogram.data)
