"""Picks on filaments, tubes and membranes that a user points out; their direction survives the refinement's search."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import particle_scene
import pytest
import tifffile
from scipy.ndimage import map_coordinates
from scipy.spatial.transform import Rotation

from tiltwise.data.errors import InputError, StageError
from tiltwise.data.shapes import Shapes
from tiltwise.data.volume import Volume
from tiltwise.ops.particles.half_sets import assign_half_sets
from tiltwise.ops.picking.shape_particles import on_tubes
from tiltwise.ops.poses.alignment import search_grid
from tiltwise.params.pick import PickParams
from tiltwise.stages.pick import pick

MICROTUBULE = Path(__file__).parents[2].parent / "shared" / "data" / "microtubule" / "13pf_MT.tif"
VOXEL = 10.0
TOMOGRAM = Volume(data=np.zeros((60, 100, 101), np.float32), voxel_size=VOXEL)
SERIES = particle_scene.tilts_of("TS_1", np.random.default_rng(0))
TWO = Shapes(
    points=np.array([[-400.0, -200, 0], [0, -180, 50], [400, -200, 0], [300, 300, -100], [-300, 300, 100]]),
    shape=np.array([0, 0, 0, 1, 1]),
)


def picked(shapes, **params):
    return pick(TOMOGRAM, SERIES, None, None, shapes, PickParams(**params)).particles


def test_filaments_keep_identity_and_direction():
    particles = picked(TWO, method="filaments", surface_spacing=50.0)
    assert np.unique(particles.region).tolist() == [0, 1]
    axis = particles.rotation.apply([0, 0, 1])
    first, second = axis[particles.region == 0], axis[particles.region == 1]
    assert (first[:, 0] > 0.9).all()
    assert np.allclose(second, np.array([-600, 0, 200]) / np.hypot(600, 200))
    # the same line clicked from its other end: the same places, the axis the other way
    turned = replace(TWO, points=TWO.points[[2, 1, 0, 4, 3]])
    back = picked(turned, method="filaments", surface_spacing=50.0)
    one = back.region == 0
    assert np.allclose(back.position[one], particles.position[particles.region == 0][::-1], atol=1e-6)
    assert np.allclose(back.rotation.apply([0, 0, 1])[one], -first[::-1], atol=1e-6)
    halves = assign_half_sets(particles, 100.0, seed=0)
    assert [len(set(halves[particles.region == number].tolist())) for number in (0, 1)] == [1, 1]


def test_polarity_is_kept_by_the_search_of_the_refinement():
    """Every rotation that the search tries turns the axis by no more than the cone: never to the other end."""
    axis = picked(TWO, method="filaments", surface_spacing=50.0).rotation
    grid = search_grid(20.0, 250.0, cone=25.0, shift=10.0)
    tried = Rotation.from_matrix(grid.rotations.numpy())
    for start in (axis[0], axis[-1]):
        cosine = (start * tried).apply([0, 0, 1]) @ start.apply([0, 0, 1])
        assert np.degrees(np.arccos(np.clip(cosine, -1, 1))).max() < 25 + np.degrees(0.7 * 20 / 250)


def test_voxels_of_a_model_count_from_the_first():
    """The centre of 101 × 100 × 60 voxels is 50, 50, 30."""
    index = TWO.points / VOXEL + [50, 50, 30]
    model = Shapes(points=index, shape=TWO.shape, unit="voxel", drawn_on=(101, 100, 60))
    ours, theirs = (picked(one, method="tubes", tube_radius=80.0) for one in (TWO, model))
    assert np.allclose(ours.position, theirs.position)
    with pytest.raises(
        InputError, match="TS_1: the model was drawn on 50 × 50 × 30 voxels, the tomogram has 101 × 100"
    ):
        picked(replace(model, drawn_on=(50, 50, 30)), method="tubes")


def test_membranes_of_a_segmentation_are_regions_of_their_own():
    """A vesicle of radius 200 Å and a plane: normals outwards and along z; the density plays no part."""
    z, y, x = np.meshgrid(*[(np.arange(n) - n // 2) * VOXEL for n in TOMOGRAM.data.shape], indexing="ij")
    vesicle = np.abs(np.sqrt((x + 250) ** 2 + y**2 + z**2) - 200) < 25
    plane = (np.abs(z - 30) < 25) & (x > 150)
    mask = Volume(data=(vesicle | plane).astype(np.int8), voxel_size=VOXEL)
    particles = picked(mask, method="membranes", surface_spacing=60.0)
    offset = particles.position - [-250, 0, 0]
    on_vesicle = np.abs(np.linalg.norm(offset, axis=1) - 200) < 15
    normal = particles.rotation.apply([0, 0, 1])
    assert len(np.unique(particles.region[on_vesicle])) == len(np.unique(particles.region[~on_vesicle])) == 1
    assert ((normal * offset).sum(1)[on_vesicle] > 0.97 * 200).all()
    inner = ~on_vesicle & (np.abs(particles.position[:, 1]) < 400) & (particles.position[:, 0] > 250)
    assert np.allclose(np.abs(normal[inner, 2]), 1, atol=0.02) and abs(np.sign(normal[inner, 2]).sum()) == inner.sum()
    with pytest.raises(InputError, match="segmentation has 9 × 9 × 9 voxels, the tomogram 101 × 100 × 60; make them"):
        picked(Volume(data=np.ones((9, 9, 9)), voxel_size=VOXEL), method="membranes")


@pytest.mark.skipif(not MICROTUBULE.is_file(), reason="the real microtubule is not here")
def test_thirteen_protofilaments_of_a_real_microtubule():
    """Tube points about five clicks on a tomogram of 10.52 Å voxels: the density of the wall, averaged along the tube
    at each angle of the carried frame, has 13 waves. Two waves are the missing wedge's; of 7 to 20 the thirteenth leads
    by far. A frame that turned about the line, or a centre line off by 2 voxels, would smear them out."""
    density = tifffile.imread(MICROTUBULE).astype(np.float32)
    clicks = np.array([[84.7, 2, 16.5], [67.4, 53, 16.9], [51.5, 103, 17.8], [35.5, 154, 17.4], [19.8, 203, 17.8]])
    centre = np.array([n // 2 for n in density.shape[::-1]])
    placed = on_tubes((clicks - centre) * 10.52, np.zeros(5, int), radius=126.0, spacing=10.0)
    around = round(2 * np.pi * 126 / 10)
    index = placed.position / 10.52 + centre
    wall = map_coordinates(density, index[:, ::-1].T, order=1, mode="nearest").reshape(-1, around)
    # every second ring stands half a step further: its waves are brought back by half a step's phase
    waves = np.fft.rfft(wall, axis=1) * np.exp(
        -1j * np.pi / around * np.outer(np.arange(len(wall)) % 2, np.arange(around // 2 + 1))
    )
    power = np.abs(waves.mean(0))
    assert power[7:21].argmax() + 7 == 13 and power[13] > 1.8 * np.delete(power[7:21], 6).max()
    inner = (placed.rotation.apply([1, 0, 0]) @ (clicks[-1] - clicks[0])) / np.linalg.norm(clicks[-1] - clicks[0])
    assert inner.min() > 0.98  # from the first click to the last


@pytest.mark.parametrize(
    ("shapes", "params", "error", "fault"),
    [
        (None, {"method": "tubes"}, InputError, "TS_1: method tubes needs shapes"),
        (TWO, {"method": "membranes"}, InputError, "shape 1 has fewer than 6 points, too few for membranes"),
        (replace(TWO, points=TWO.points * 9), {"method": "tubes"}, StageError, "no point of the shapes lies in"),
        (replace(TWO, points=np.zeros((5, 3))), {"method": "filaments"}, InputError, "two points of shape 1 that"),
        (TOMOGRAM, {"method": "filaments"}, InputError, "a segmentation is for method membranes"),
    ],
)
def test_faults_in_one_line(shapes, params, error, fault):
    with pytest.raises(error, match=fault):
        picked(shapes, **params)
