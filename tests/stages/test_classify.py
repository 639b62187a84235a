"""The classification: two molecules told apart without references, posteriors that keep their word, faults named."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from class_scene import MISSING, accuracy, kinds_scene, mixed_scene
from particle_scene import DIAMETER, PIXEL, reference
from scipy.spatial.transform import Rotation

from tiltwise.data.errors import InputError
from tiltwise.data.volume import Volume
from tiltwise.ops.filters import low_pass
from tiltwise.ops.masks import soft_sphere
from tiltwise.ops.particles.half_maps import average_particles
from tiltwise.params.classify import ClassifyParams
from tiltwise.stages.classify import classify
from tiltwise.stages.classify.halves import matching

BOX = 32
PARAMS = ClassifyParams(box_size=BOX, particle_diameter=DIAMETER, resolution=28.0, starts=1, iterations=4)
TWO_STARTS = PARAMS.model_copy(update={"starts": 2})


@pytest.fixture(scope="module")
def made():
    return mixed_scene(noise=1.5)


@pytest.fixture(scope="module")
def classified(made):
    return classify(made.tilt_series, made.particles, None, TWO_STARTS)


def test_two_molecules_are_told_apart_without_references(made, classified):
    particles, quality = classified.particles, classified.quality
    assert accuracy(particles.class_number, made.truth) == 1.0
    assert np.allclose(particles.class_posterior.sum(1), 1)
    assert quality["halves_agree"] == 1.0
    assert quality["likelihood_gain_per_particle"] > 10 * quality["likelihood_gain_error"]
    assert "note" not in quality
    assert quality["class_particles"] == sorted(np.bincount(made.truth).tolist(), reverse=True)
    kept = np.array([start["kept"] for start in quality["starts"]])
    gains = np.array([start["likelihood_gain"] for start in quality["starts"]])
    assert (kept.sum(0) == 1).all() and (gains[kept.argmax(0), [0, 1]] == gains.max(0)).all()


def test_three_molecules_are_told_apart():
    """Whole, without one end, without the other: each third of the particles in a class of its own, which shows it."""
    three = kinds_scene((slice(None), slice(MISSING, None), slice(None, -MISSING)), noise=0.7)
    result = classify(three.tilt_series, three.particles, None, TWO_STARTS.model_copy(update={"classes": 3}))
    number, quality = result.particles.class_number, result.quality
    assert result.particles.class_posterior.shape == (len(three.truth), 3) and len(result.class_maps.maps) == 3
    assert accuracy(number, three.truth, classes=3) > 0.95 and quality["halves_agree"] > 0.95
    assert "note" not in quality
    own = [np.bincount(three.truth[number == k]).argmax() for k in (1, 2, 3)]
    truth = [reference(three.centres[kept], box=BOX, sigma=15.0).data for kept in three.kinds]
    maps = [low_pass(torch.as_tensor(np.asarray(one.data)), 28.0, PIXEL).numpy() for one in result.class_maps.maps]
    inside = soft_sphere((BOX,) * 3, DIAMETER / 2 / PIXEL, 0.0).numpy() > 0
    shown = np.corrcoef(
        [(one - np.mean(maps, axis=0))[inside] for one in maps],
        [(one - np.mean(truth, axis=0))[inside] for one in truth],
    )[:3, 3:]
    assert sorted(own) == [0, 1, 2] and (shown.argmax(1) == own).all()


def test_class_maps_differ_by_what_is_missing(made, classified):
    """The difference of the maps against that of the molecules, seen at 25 Å."""
    whole = int(np.argmax([np.mean(made.truth[classified.particles.class_number == k] == 0) for k in (1, 2)]))
    maps = [np.asarray(one.data) for one in classified.class_maps.maps]
    difference = maps[whole] - maps[1 - whole]
    difference = low_pass(torch.as_tensor(difference), 25.0, PIXEL).numpy()
    missing = low_pass(torch.as_tensor(reference(made.centres[:MISSING], box=BOX, sigma=9.0).data), 25.0, PIXEL).numpy()
    inside = soft_sphere((BOX,) * 3, DIAMETER / 2 / PIXEL, 0.0).numpy() > 0
    assert np.corrcoef(difference[inside], missing[inside])[0, 1] > 0.7
    assert classified.class_maps.maps[0].voxel_size == PIXEL


def test_order_of_the_particles_does_not_matter(made, classified):
    order = np.random.default_rng(5).permutation(len(made.particles))
    again = classify(made.tilt_series, made.particles[order], None, TWO_STARTS)
    assert np.array_equal(again.particles.class_posterior, classified.particles.class_posterior[order])
    assert np.array_equal(again.particles.position, made.particles.position[order])
    for one, other in zip(again.class_maps.maps, classified.class_maps.maps, strict=True):
        assert np.array_equal(one.data, other.data)


def test_one_class_is_the_plain_average(made):
    one = classify(made.tilt_series, made.particles, None, PARAMS.model_copy(update={"classes": 1}))
    halves = average_particles(made.tilt_series, made.particles, box_size=BOX, particle_diameter=DIAMETER)
    plain = 0.5 * (halves.half1.data + halves.half2.data)
    assert np.abs(one.class_maps.maps[0].data - plain).max() < 1e-4 * np.abs(plain).max()
    assert (one.particles.class_posterior == 1).all()
    assert one.quality["likelihood_gain_per_particle"] == 0


def test_a_focus_finds_its_own_difference_beside_a_larger_one():
    """Three Gaussians come and go at one end, two at the other: alone the three decide; with a mask, what is in it."""
    busy = mixed_scene(missing=2, elsewhere=3, noise=1.0)
    x = np.broadcast_to((np.arange(BOX) - BOX // 2) * PIXEL, (BOX,) * 3)
    half = Volume(data=np.clip(0.5 - x / 16, 0, 1).astype(np.float32), voxel_size=PIXEL)
    focused = classify(busy.tilt_series, busy.particles, half, PARAMS)
    free = classify(busy.tilt_series, busy.particles, None, PARAMS)
    assert accuracy(focused.particles.class_number, busy.truth) > 0.95
    assert accuracy(free.particles.class_number, busy.truth) < 0.75


def test_posteriors_keep_their_word(made):
    """Of particles hard to tell as many are in the right class as the posteriors say, within 4 counting errors."""
    hard = mixed_scene(noise=2.2, missing=1, seed=3)
    result = classify(hard.tilt_series, hard.particles, None, PARAMS)
    best = result.particles.class_posterior.max(1)
    right = accuracy(result.particles.class_number, hard.truth) * len(best)
    assert abs(right - best.sum()) < 4 * np.sqrt((best * (1 - best)).sum()) + 1
    assert accuracy(result.particles.class_number, hard.truth) > 0.85


def test_one_kind_of_molecule_gives_no_evidence_for_two():
    alone = mixed_scene(noise=3.0, missing=0)
    result = classify(alone.tilt_series, alone.particles, None, PARAMS)
    quality = result.quality
    assert "no evidence" in quality["note"]
    assert quality["likelihood_gain_per_particle"] < 2 * quality["likelihood_gain_error"]


def test_alignment_for_each_class_puts_poses_right():
    """Given poses are 4.7 Å and 4.3° off in the median; the particle is 110 Å wide and seen at 20 Å."""
    clear, rng = mixed_scene(noise=0.7), np.random.default_rng(4)
    true, count = clear.particles, (len(clear.particles), 3)
    off = replace(
        true,
        position=true.position + rng.normal(0, 3, count),
        rotation=true.rotation * Rotation.from_rotvec(rng.normal(0, 3, count), degrees=True),
    )
    result = classify(
        clear.tilt_series, off, None, PARAMS.model_copy(update={"align": True, "iterations": 3, "resolution": 20.0})
    )
    assert accuracy(result.particles.class_number, clear.truth) == 1.0
    moved = [np.median(np.linalg.norm(one.position - true.position, axis=1)) for one in (off, result.particles)]
    assert moved[1] < 0.5 * moved[0]
    turns = [true.rotation.inv() * one.rotation for one in (off, result.particles)]
    turned = [np.median((turn * turn.mean().inv()).magnitude()) for turn in turns]
    assert turned[1] < 0.8 * turned[0]


def test_classes_of_halves_are_matched():
    own = torch.eye(3, dtype=torch.float64)[[0, 1, 2, 0, 1, 2]]
    crossed = own.clone()
    crossed[:3], crossed[3:] = own[:3][:, [2, 0, 1]], own[3:][:, [1, 2, 0]]
    halves = np.array([1, 1, 1, 2, 2, 2])
    order = matching(own, crossed, halves)
    assert torch.equal(crossed[:3][:, order], own[:3])
    assert torch.equal(own[3:][:, order], crossed[3:])


@pytest.mark.parametrize(
    ("focus", "fault"),
    [
        (Volume(data=np.ones((16,) * 3, np.float32), voxel_size=PIXEL), "16 × 16 × 16 voxels of 8 Å; 32 × 32 × 32"),
        (Volume(data=np.ones((BOX,) * 3, np.float32), voxel_size=2.0), "32 voxels of 2 Å;"),
        (Volume(data=np.full((BOX,) * 3, 7.0, np.float32), voxel_size=PIXEL), "values from 0 to 1"),
        (Volume(data=np.zeros((BOX,) * 3, np.float32), voxel_size=PIXEL), "not 0 alone"),
    ],
)
def test_a_mask_at_fault_is_named(made, focus, fault):
    with pytest.raises(InputError, match=fault):
        classify(made.tilt_series, made.particles, focus, PARAMS)


def test_faults_of_the_input_are_named(made):
    with pytest.raises(InputError, match="72 cannot make 80 classes"):
        classify(made.tilt_series, made.particles, None, PARAMS.model_copy(update={"classes": 80}))
    with pytest.raises(InputError, match="10 are too few"):
        classify(made.tilt_series, made.particles[:10], None, PARAMS)
    with pytest.raises(InputError, match="none to classify"):
        classify(made.tilt_series, made.particles[:0], None, PARAMS)
    first = sorted(made.tilt_series)[0]
    unaligned = made.tilt_series | {first: replace(made.tilt_series[first], geometry=None)}
    with pytest.raises(InputError, match=f"{first}: not aligned; run align before classify"):
        classify(unaligned, made.particles, None, PARAMS)
