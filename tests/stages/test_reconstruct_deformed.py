"""A specimen that bends while it is imaged: its tomogram is as sharp as that of one that does not."""

from dataclasses import replace

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter
from test_reconstruct import TILTS, series

from tiltwise.data.deformation import Deformation, ImageWarp, SampleDeformation
from tiltwise.data.tilt_series import GoldBeads
from tiltwise.ops.deformation import specimen_in_images
from tiltwise.ops.geometry import tilt_rotations
from tiltwise.params.reconstruct import IterativeParams, ReconstructParams
from tiltwise.stages.reconstruct import reconstruct
from tiltwise.stages.reconstruct.setup import set_up

PIXEL, SHAPE, BLOB = 4.0, (150, 160), 6.0
_PLACES = [(x, z) for z in (-120.0, 0.0, 110.0) for x in (170.0, -180.0, 5.0)]
POINTS = np.array([[x, 45.0 * (j - 4), z] for j, (x, z) in enumerate(_PLACES)])
"""Each in a plane of its own across the tilt axis, so that no streaks of another go through it."""
EXTENT = (SHAPE[1] * PIXEL, SHAPE[0] * PIXEL)


def bend(rigid):
    """The series with the images of its points moved: x by z², z by xy, more with exposure; a shear of each image.

    The places are written out here, by the equation of data/deformation.py, not computed by what is tested.
    """
    n, last = len(TILTS), 3.0 * len(TILTS)
    coefficient = np.zeros((2, 10, 3))
    coefficient[1, 6, 0], coefficient[1, 7, 2] = 4.0, 6.0  # at the end of the exposure, z² along x and xy along z
    magnification = 1 + 0.004 * np.sin(np.arange(n))
    sample = SampleDeformation(
        exposure=np.array([0.0, last]), coefficient=coefficient, scale=150.0, magnification=magnification
    )
    shear = 0.015 * np.cos(np.arange(n))
    y = ((np.arange(5) - 1) / 2 - 0.5) * EXTENT[1]  # control values linear in their place make that line
    control = np.zeros((n, 5, 4, 2))
    control[..., 0] = shear[:, None, None] * y[:, None]
    warp = ImageWarp(coefficient=control, extent=EXTENT)
    x, y, z = (POINTS / 150.0).T
    places = []
    for i, rotation in enumerate(tilt_rotations(rigid.geometry).numpy()):
        part = (rigid.pre_exposure[i] + 1.5) / last
        moved = POINTS + part * np.column_stack([4 * z * z, 0 * x, 6 * x * y])
        place = magnification[i] * ((moved @ rotation.T)[:, :2] + rigid.geometry.shift[i])
        inside = np.clip(place[:, 1], -EXTENT[1] / 2, EXTENT[1] / 2)
        places.append(place + np.column_stack([shear[i] * inside, 0 * inside]))
    return replace(rigid, deformation=Deformation(sample=sample, image=warp)), np.array(places)


def images_at(places):
    """(tilt, y, x) dark Gaussian blobs at places (tilt, point, 2), Å, on a checkerboard a tenth as deep.

    The checkerboard gives images the spread by which outliers are told; nothing of it is seen through a Gaussian.
    """
    y, x = ((np.arange(n) - n // 2) * PIXEL for n in SHAPE)
    along_x = np.exp(-((x - places[..., :1]) ** 2) / (2 * BLOB**2))
    along_y = np.exp(-((y - places[..., 1:]) ** 2) / (2 * BLOB**2))
    checkerboard = 0.1 * (-1.0) ** np.add.outer(*(np.arange(n) for n in SHAPE))
    return (checkerboard - np.einsum("tpy,tpx->tyx", along_y, along_x)).astype(np.float32)


def peaks(result):
    """(point, 3) offsets of the peaks from their points, voxels, by parabolas; (point,) their heights.

    Seen through a Gaussian nearly as wide as the blobs, as a fit of a blob would.
    """
    data, voxel = gaussian_filter(result.tomogram.data, 1.5), result.tomogram.voxel_size
    offsets, heights = [], []
    for point in POINTS:
        exact = point[::-1] / voxel + np.array(data.shape) // 2
        near = np.round(exact).astype(int)
        part = data[tuple(slice(c - 2, c + 3) for c in near)]
        peak = near - 2 + np.array(np.unravel_index(part.argmax(), part.shape))
        vertex, height = [], float(data[tuple(peak)])
        for step in np.eye(3, dtype=int):
            before, at, after = (float(data[tuple(peak + s * step)]) for s in (-1, 0, 1))
            vertex.append((before - after) / (2 * (before - 2 * at + after)))
            height += (before - after) ** 2 / (8 * (2 * at - before - after))
        offsets.append((peak + vertex - exact)[::-1])
        heights.append(height)
    return np.array(offsets), np.array(heights)


@pytest.fixture(scope="module")
def scene():
    blank = replace(series(POINTS, shape=SHAPE, pixel_size=PIXEL), ctf=None, defocus_handedness=None)
    rotations = tilt_rotations(blank.geometry).numpy()
    rigid_places = np.array([(POINTS @ r.T)[:, :2] + s for r, s in zip(rotations, blank.geometry.shift, strict=True)])
    bent, places = bend(blank)
    return replace(blank, images=images_at(rigid_places)), replace(bent, images=images_at(places))


@pytest.mark.parametrize("given", [{}, {"method": "cg"}, {"method": "sirt"}])
def test_a_bent_specimen_is_as_sharp_as_a_straight_one(scene, given):
    """Places within a tenth of a voxel of the truth, as a level of depth may misplace the voxels at its ends by, and
    heights within the loss of it: (0.1 voxel)² / (2 · (1.5² + 1.5²)) of a blob of 1.5 voxels, 0.1 %, times the change
    of the weights where rays are bent by up to (2 · 4 · 120 + 6 · 250) / 150² = 6 degrees, 5 %."""
    straight, bent = scene
    params = ReconstructParams(voxel_size=PIXEL, thickness=340.0, iterative=IterativeParams(iterations=4), **given)
    expected, found = peaks(reconstruct(straight, params)), peaks(reconstruct(bent, params))
    assert np.abs(found[0]).max() < 0.1
    assert found[1] == pytest.approx(expected[1], rel=0.05)


def test_without_its_deformation_the_same_specimen_is_misplaced_and_blurred(scene):
    straight, bent = scene
    params = ReconstructParams(voxel_size=PIXEL, thickness=340.0)
    expected, found = (peaks(reconstruct(s, params)) for s in (straight, replace(bent, deformation=None)))
    assert np.abs(found[0]).max() > 1 and np.median(found[1] / expected[1]) < 0.99


def test_depth_levels_follow_the_deformation_and_the_record_says_how_far_it_reaches(scene):
    straight, bent = scene
    params = ReconstructParams(voxel_size=PIXEL, thickness=340.0)
    rigid, moved = reconstruct(straight, params).quality, reconstruct(bent, params).quality
    assert (rigid["depth_levels"], rigid["deformation_A"]) == (1, 0.0)
    # z² and xy move a point by up to (2 · 4 · 170 + 6 · 300) / 150² = 0.14 an Å of depth; 0.8 Å a level, 700 Å deep
    assert 20 < moved["depth_levels"] < 700 * 0.14 / 0.8 and 10 < moved["deformation_A"] < 60


def lifted(rigid, height):
    """The series with its specimen lifted along z by up to height, Å, with exposure: nothing bends, but depths change;
    with a CTF and a hand."""
    coefficient = np.zeros((2, 10, 3))
    coefficient[1, 0, 2] = height
    sample = SampleDeformation(
        exposure=np.array([0.0, 3.0 * len(TILTS)]),
        coefficient=coefficient,
        scale=150.0,
        magnification=np.ones(len(TILTS)),
    )
    given = series(POINTS[:1], defocus=30000.0, handedness=-1, shape=SHAPE, pixel_size=PIXEL)
    known = replace(rigid, ctf=given.ctf, defocus_handedness=-1)
    return replace(known, deformation=Deformation(sample=sample))


def along_beam(tilt_series):
    """Of a lift along z by 1 at the end of the exposure, the most that any tilt sees along its beam."""
    part = (tilt_series.pre_exposure + 1.5) / (3 * len(TILTS))
    return (part * np.cos(np.radians(TILTS)) * np.cos(np.radians(0.7))).max()  # x-tilt of 0.7°


def test_the_ctf_is_right_to_the_same_phase_where_depths_change(scene):
    """The level of a voxel is at most voxel² / 2λ, 406 Å, from where the voxel is: π / 8 at its Nyquist frequency.
    With the levels of a rigid specimen it is farther by what the specimen is lifted along the beam."""
    tilt_series = lifted(scene[0], 150.0)
    params, bound = ReconstructParams(voxel_size=PIXEL, thickness=1600.0), PIXEL**2 / (2 * 0.0196875)
    deformed, rigid = (set_up(s, params) for s in (tilt_series, replace(tilt_series, deformation=None)))
    index = np.random.default_rng(2).uniform(0, deformed.shape[::-1], (2000, 3)).round()
    point = (index - np.array([n // 2 for n in deformed.shape[::-1]])) * PIXEL
    depth = specimen_in_images(tilt_series, point)[1][deformed.tilts]

    def farthest(setup):
        level = setup.geometry.level
        number = np.floor(level[:, :3] @ index.T + level[:, 3:]).astype(int)
        pairs = zip(setup.geometry.depth, number, depth, strict=True)
        return max(np.abs(own[n.clip(0, len(own) - 1)] - d).max() for own, n, d in pairs)

    assert farthest(deformed) <= bound + 1e-6 < farthest(rigid)
    assert deformed.deeper == pytest.approx(150 * along_beam(tilt_series)) and not deformed.notes


def test_a_specimen_that_leaves_its_depth_by_far_is_named(scene):
    tilt_series = lifted(scene[0], 1000.0)
    setup = set_up(tilt_series, ReconstructParams(voxel_size=PIXEL, thickness=340.0))
    # 203 Å of half a level of half the width, and the lift, over 406 Å, are so much of π / 8
    worst = (203.2 + 1000 * along_beam(tilt_series)) / 406.3 * 22.5
    assert 40 < worst < 41 and f"right to {worst:.0f}°" in setup.notes[-1]


def test_no_deformation_is_no_change_at_all(scene):
    straight, _ = scene
    nothing = replace(straight, deformation=Deformation())
    params = ReconstructParams(voxel_size=PIXEL, thickness=340.0)
    first, second = (reconstruct(s, params).tomogram.data for s in (straight, nothing))
    assert np.abs(first - second).max() < 1e-4 * first.max()  # nodes of zeros, in rounding errors of float64


def test_beads_are_erased_where_they_appear(scene):
    _, bent = scene
    beads = replace(bent, beads=GoldBeads(position=POINTS[:1], diameter=50.0))
    params = ReconstructParams(voxel_size=PIXEL, thickness=340.0, erase_beads=True)
    left = peaks(reconstruct(beads, params))[1]
    assert left[0] < 0.1 * left[1:].min()
