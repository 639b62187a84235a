"""Gold, carbon and edges are excluded where they are, and next to nothing where they are not."""

from dataclasses import replace
from functools import cache

import numpy as np
import pytest
import torch
from scipy.ndimage import distance_transform_edt, gaussian_filter

from tiltwise.data.optics import Optics
from tiltwise.data.tilt_series import GoldBeads, TiltGeometry, TiltSeries
from tiltwise.data.volume import Volume
from tiltwise.ops.interpolate import centred_points
from tiltwise.ops.picking.exclusion import REASONS, exclude, find_carbon_edge, find_gold, unseen_part
from tiltwise.params.microscope import CameraParams, MicroscopeParams, MotionParams, SchemeParams
from tiltwise.params.reconstruct import ReconstructParams
from tiltwise.params.scene import CarbonParams, GoldParams, IceParams, SceneParams, TargetParams
from tiltwise.params.session import SessionParams
from tiltwise.simulate.image_scene import image_scene
from tiltwise.simulate.scene_session import prepare_series
from tiltwise.stages.reconstruct import reconstruct

SHAPE, VOXEL, DIAMETER = (60, 120, 130), 20.0, 200.0
BEADS = np.array([[-700.0, 400, 240], [0, -500, -300], [640, 660, 100], [-300, -800, 280], [800, -300, -200]])
ANGLES = np.arange(-60, 61, 3.0)


def series(shift=None, pixels=(240, 260), **known):
    """Aligned, its axis along y, the field of the tomogram."""
    n = len(ANGLES)
    geometry = TiltGeometry(
        tilt_angle=ANGLES,
        tilt_axis_angle=np.zeros(n),
        x_tilt=np.zeros(n),
        shift=np.zeros((n, 2)) if shift is None else shift,
    )
    return TiltSeries(
        name="TS_1",
        images=np.broadcast_to(np.int16(0), (n, *pixels)),
        image_names=("",) * n,
        pixel_size=VOXEL / 2,
        optics=Optics(),
        stage_tilt_angle=ANGLES,
        nominal_tilt_axis_angle=0.0,
        exposure=np.full(n, 3.0),
        pre_exposure=3.0 * np.arange(n),
        acquisition_order=np.arange(n),
        use=np.ones(n, bool),
        why_not=("",) * n,
        geometry=geometry,
        **known,
    )


@cache
def noise():
    return np.random.default_rng(0).normal(size=SHAPE).astype(np.float32)


def balls(centres, radius):
    """(z, y, x) 1 in balls of a radius, Å, about the voxels nearest to centres (ball, 3), Å."""
    apart = np.ones(SHAPE, bool)
    apart[tuple((np.round(centres[:, ::-1] / VOXEL).astype(int) + np.array(SHAPE) // 2).T)] = False
    return (distance_transform_edt(apart) * VOXEL <= radius).astype(np.float32)


def excluded(density, tilt_series=None):
    tomogram = Volume(data=torch.as_tensor(density), voxel_size=VOXEL)
    return exclude(tomogram, tilt_series or series(), DIAMETER)


def test_gold_is_excluded_as_far_as_a_quarter_of_the_diameter_from_its_surface():
    """Balls of 50 + 50 Å, known to a voxel."""
    found = excluded(noise() + 30 * balls(BEADS, 50.0))
    assert (found.reason(BEADS) == REASONS.index("gold")).all()
    for distance, held in ((75.0, True), (125.0, False)):
        around = BEADS[:, None] + distance * np.array([[1.0, 0, 0], [0, -1, 0], [0, 0, 1]])
        assert (found.allows(around.reshape(-1, 3)) != held).all()
    balls_of = [len(BEADS) * 4 / 3 * np.pi * (r / VOXEL) ** 3 for r in (80.0, 120.0)]
    assert balls_of[0] < found.gold.sum() < balls_of[1]


def test_beads_that_the_alignment_followed_are_excluded_though_they_are_erased():
    found = excluded(noise(), series(beads=GoldBeads(position=BEADS, diameter=100.0)))
    assert not found.gold.any()
    assert (found.reason(BEADS + [0.0, 99.0, 0]) == REASONS.index("gold")).all()
    assert found.allows(BEADS - [0.0, 101.0, 0]).all()


@pytest.mark.parametrize("contrast", [0.0, 8.0, 40.0])
def test_without_gold_nothing_is_lost_however_strong_molecules_are(contrast):
    """Molecules that fill 0.8 %, of any contrast to the noise: gold that stands no further out is no gold."""
    places = np.random.default_rng(1).uniform(-0.4, 0.4, (30, 3)) * np.array(SHAPE[::-1]) * VOXEL
    molecules = gaussian_filter(balls(places, 90.0), 1.0)
    found = excluded(noise() + contrast * molecules)
    assert not found.gold.any() and not found.carbon.any()


def test_gold_is_told_from_strong_molecules():
    places = np.random.default_rng(1).uniform(-0.4, 0.4, (30, 3)) * np.array(SHAPE[::-1]) * VOXEL
    molecules = balls(places, 90.0) * (balls(BEADS, 150.0) == 0)
    density = noise() + 8 * molecules + 60 * balls(BEADS, 50.0)
    assert find_gold(torch.as_tensor(density)).sum() == balls(BEADS, 50.0).sum()


def wedged(density):
    """As transfer and missing wedge leave it: neither fine detail nor what is level and wide."""
    return gaussian_filter(density, 1.5) - gaussian_filter(density, (1.5, 12, 12))


def film(direction, offset):
    """(z, y, x) 1 in a film 120 Å thick whose edge is a line across the field."""
    x, y, z = np.moveaxis(centred_points(SHAPE).numpy() * VOXEL, -1, 0)
    beyond = x * np.cos(np.radians(direction)) + y * np.sin(np.radians(direction)) > offset
    return (beyond & (np.abs(z + 300) <= 60)).astype(np.float32)


@pytest.mark.parametrize(("direction", "offset"), [(30.0, 500.0), (-120.0, 0.0), (90.0, -700.0)])
def test_the_edge_of_a_carbon_film_is_excluded_and_little_else(direction, offset):
    found = excluded(noise() + 4 * wedged(film(direction, offset)))
    angle = np.radians(direction)
    along, across = np.array([-np.sin(angle), np.cos(angle), 0]), np.array([np.cos(angle), np.sin(angle), 0])
    line = offset * across + np.arange(-600, 601, 100)[:, None] * along + [0, 0, -300]
    assert (found.reason(line) == REASONS.index("carbon")).all()
    assert found.allows(line + [0, 0, 300]).all()  # the ice above it
    assert found.allows(line - 250 * across).all() and found.allows(line + 450 * across).all()
    assert not found.gold.any()


def lines_and_walls():
    """Filaments and sheets across the field, and a vesicle that its face cuts."""
    x, y, z = np.moveaxis(centred_points(SHAPE).numpy() * VOXEL, -1, 0)
    radius = np.sqrt((x - 1300) ** 2 + y**2 + z**2)
    return {
        "filament": np.hypot(y - 100, z + 300) < 125,
        "upright membrane": np.abs(y - 0.3 * x) < 40,
        "cut vesicle": np.abs(radius - 500) < 40,
        "cell with its membrane": (y > 0) & (np.abs(z) < 500),
    }


@pytest.mark.parametrize("shape", lines_and_walls())
def test_what_crosses_the_field_and_is_no_film_stays(shape):
    density = noise() + 4 * wedged(lines_and_walls()[shape].astype(np.float32))
    assert not find_carbon_edge(density, VOXEL).any()


def test_unseen_part_in_closed_form():
    """Images 2600 Å wide, the axis along y: x, z appear at x cos + z sin; a shift moves a fifth of them out of view."""
    shift = np.zeros((len(ANGLES), 2))
    shift[:8, 1] = 1000.0
    rows = np.array([[0.0, 0, 0], [0, 1190, 0], [0, 300, 0], [1290, 0, 0], [1290, 0, 600], [0, -1300, 0]])
    part = unseen_part(series(shift), rows)
    x, z = 1290.0, 600.0
    theta = np.radians(ANGLES)
    wide = np.abs(x * np.cos(theta) + z * np.sin(theta)) > 1300
    ends = np.full(len(ANGLES), 1.0)
    ends[[0, -1]] = 1.0
    first = (ends[:8].sum()) / ends.sum()
    assert part == pytest.approx([0, first, first, 0, (wide * ends).sum() / ends.sum(), 1 - first], abs=0.02)


def test_edges_are_what_is_cut_not_seen_or_outside_the_specimen():
    found = excluded(noise())
    half = np.array(SHAPE[::-1]) * VOXEL / 2
    for axis in range(3):
        for sign in (-1, 1):
            place = np.zeros((1, 3))
            place[0, axis] = sign * (half[axis] - DIAMETER / 4 + 1)
            assert found.reason(place) == [0]
            place[0, axis] -= 2 * sign
            assert found.reason(place) == [-1]
    thin = replace(found, tilt_series=series(specimen_thickness=400.0))
    assert thin.reason(np.array([[0, 0, 249.0], [0, 0, -251.0]])).tolist() == [-1, 0]
    thick = replace(found, diameter=800.0)  # of a thin side the middle three quarters are left
    assert thick.reason(np.array([[0, 0, 449.0], [0, 0, 451.0]])).tolist() == [-1, 0]
    moved = np.zeros((len(ANGLES), 2))
    moved[:3, 1] = 1000.0  # one image in fourteen misses a place: it stays
    assert replace(found, tilt_series=series(moved)).allows(np.array([[0.0, 700, 0]])).all()
    moved[:8, 1] = 1000.0  # one in five: it does not
    assert not replace(found, tilt_series=series(moved)).allows(np.array([[0.0, 700, 0]])).any()


def test_an_unused_tilt_sees_nothing_and_hides_nothing():
    moved = np.zeros((len(ANGLES), 2))
    moved[:8, 1] = 1000.0
    whole = series(moved)
    spared = replace(whole, use=np.arange(len(ANGLES)) >= 8)
    assert unseen_part(spared, np.array([[0.0, 700, 0]])) == [0.0]


def test_parts_are_those_of_the_volume():
    found = excluded(noise() + 30 * balls(BEADS, 50.0))
    inner = np.prod((np.array(SHAPE) * VOXEL - DIAMETER) / (np.array(SHAPE) * VOXEL))
    parts = replace(found, diameter=2 * DIAMETER).parts()  # farther from the faces than from where tilts do not see
    assert parts["edges"] == pytest.approx(1 - inner, abs=0.002)
    assert parts["gold"] == pytest.approx(found.gold.mean(), abs=0.003) and parts["carbon"] == 0


SCENE = SessionParams(
    scene=SceneParams(
        target=TargetParams(number=12, mass=5e5, diameter=150.0, surroundings=False),
        ice=IceParams(thickness=800.0),
        gold=GoldParams(number=4),
        carbon=CarbonParams(distance=400.0, azimuth=30.0),
    ),
    microscope=MicroscopeParams(
        scheme=SchemeParams(tilt_step=6.0, exposure=5.0, defocus_min=30000.0, defocus_max=40000.0),
        camera=CameraParams(pixel_size=16.0, image_size=128),
        motion=MotionParams(local=0.0, deformation=0.0, magnification=0.0),
    ),
)


@pytest.fixture(scope="module")
def scene():
    """Gold, film and targets under the microscope; and the same ice with its targets alone."""
    made = prepare_series(SCENE, 1, frames=False)
    bare = replace(made.scene, film=None, populations=[p for p in made.scene.populations if p.name == "target"])
    found = []
    for one in (made.scene, bare):
        images = np.stack(list(image_scene(one, made.series, made.params, made.seed, disturbances=made.disturbances)))
        aligned = replace(made.series, images=images)
        tomogram = reconstruct(aligned, ReconstructParams(voxel_size=16.0, thickness=1200.0)).tomogram
        tomogram = replace(tomogram, data=torch.as_tensor(np.asarray(tomogram.data)))
        found.append(exclude(tomogram, aligned, SCENE.scene.target.diameter))
    return made.scene, *found


def within(populations, name, margin):
    """(body, 3) those of a name that lie in the field, farther than a margin (Å) from its faces."""
    position = np.concatenate([p.position for p in populations if p.name == name])
    return position[(np.abs(position[:, :2]) < 1024 - margin).all(axis=1)]


def test_a_scene_loses_its_gold_and_film_but_not_its_particles(scene):
    made, found, _ = scene
    gold, targets = (within(made.populations, name, 80.0) for name in ("gold", "target"))
    assert len(gold) and (found.reason(gold) == REASONS.index("gold")).all()
    assert found.carbon.any() and found.allows(targets).mean() >= 0.9
    # an edge of 2000 Å, and what lies 75 Å about its fringe, 200 Å each way: 350² 2000 of 1200 · 2048² Å³ are 0.05
    assert found.parts()["gold"] + found.parts()["carbon"] < 0.06


def test_a_scene_without_gold_and_carbon_loses_nothing_to_them(scene):
    made, _, bare = scene
    assert not bare.gold.any() and not bare.carbon.any()
    assert bare.allows(within(made.populations, "target", 80.0)).all()
