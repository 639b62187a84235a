"""Scenes: as many bodies as asked for, none overlapping, in the slab, the same for the same seed."""

import numpy as np
import pytest
from scipy.spatial import cKDTree

from tiltwise.data.errors import InputError
from tiltwise.io.model import read_molecule
from tiltwise.params.presets import SCENES
from tiltwise.params.scene import (
    CarbonParams,
    ContaminationParams,
    CrowdParams,
    GoldParams,
    IceParams,
    LatticeParams,
    MembraneParams,
    SceneParams,
    TargetParams,
)
from tiltwise.simulate import region
from tiltwise.simulate.build_scene import build_scene
from tiltwise.simulate.scene import Field

FIELD = Field(side=1000.0, tilt_axis_angle=80.0, tilt_max=45.0)
SMALL = TargetParams(number=12, mass=6e4, diameter=70.0, symmetry="C2", gap=6.0)
BENT = IceParams(thickness=500.0, incline=8.0, azimuth=30.0, bend=2e4, margin=10.0)
FULL = SceneParams(
    target=SMALL,
    ice=BENT,
    crowd=CrowdParams(fraction=0.03, masses=(2e5, 8e4), detail=0.0),
    membranes=MembraneParams(spheres=1, radius_min=160.0, radius_max=180.0, sheets=1),
    gold=GoldParams(number=4, diameter_min=60.0, diameter_max=100.0),
    carbon=CarbonParams(distance=420.0, azimuth=20.0, thickness=100.0),
    contamination=ContaminationParams(number=2, diameter_min=200.0, diameter_max=300.0),
)
LATTICE = SceneParams(
    target=TargetParams(site="lattice", number=0, mass=6e4, diameter=84.0, width=54.0, symmetry="C6", gap=3.0),
    ice=IceParams(thickness=1000.0),
    membranes=MembraneParams(spheres=1, radius_min=400.0, radius_max=420.0),
    lattice=LatticeParams(depth=90.0, coverage=0.6, disorder=1.0),
)
SURFACE = SceneParams(
    target=SMALL.model_copy(update={"site": "membrane", "number": 10, "tilt_spread": 5.0}),
    ice=IceParams(thickness=700.0),
    membranes=MembraneParams(spheres=1, radius_min=180.0, radius_max=200.0, sheets=1, sheet_tilt=80.0),
)


def bodies(scene):
    """(name, points, centre) of every body; patches of one membrane are one body."""
    result, membrane = [], []
    for p in scene.populations:
        for place, turn in zip(p.position, p.rotation, strict=True):
            points = turn.apply(p.scatterer.position) + place
            (membrane if p.name == "membrane" else result).append((p.name, points, place))
    return result, membrane


def least_distance(scene):
    """Brute force over all points of all pairs of bodies, membranes against all others included."""
    found, membrane = bodies(scene)
    trees = [cKDTree(points) for _, points, _ in found]
    if membrane:
        trees.append(cKDTree(np.concatenate([points for _, points, _ in membrane])))
    middle = np.array([t.data.mean(axis=0) for t in trees])
    reach = np.array([np.linalg.norm(t.data - m, axis=1).max() for t, m in zip(trees, middle, strict=True)])
    best = np.inf
    for i, tree in enumerate(trees):
        for j in range(i):
            if np.linalg.norm(middle[i] - middle[j]) < reach[i] + reach[j] + 6:
                best = min(best, tree.query(trees[j].data, distance_upper_bound=6.0)[0].min())
    return best


@pytest.fixture(scope="module")
def full():
    return build_scene(FULL, FIELD, np.random.default_rng(3))


@pytest.mark.parametrize("params", [FULL, LATTICE, SURFACE], ids=["full", "lattice", "surface"])
def test_no_two_bodies_overlap(params):
    assert least_distance(build_scene(params, FIELD, np.random.default_rng(3))) >= 3.0


def test_counts_and_order(full):
    names = [p.name for p in full.populations]
    assert names[:2] == ["target", "target"] and "membrane" in names and names[-1] == "contamination"
    within, beside = full.populations[:2]
    assert len(within.position) == 12 and len(beside.position) > 0
    assert region.distance_from_field(FIELD, within.position[:, :2]).max() <= -within.half_extent
    assert region.distance_from_field(FIELD, beside.position[:, :2]).min() >= within.half_extent
    assert region.in_view(FIELD, beside.position[:, :2], 500.0).all()
    gold = np.concatenate([p.position for p in full.populations if p.name == "gold"])
    assert (region.distance_from_field(FIELD, gold[:, :2]) <= 0).sum() == 4
    crowd = [p for p in full.populations if p.name == "crowd"]
    volume = region.view_area(FIELD, 500.0) * 500.0
    filled = sum(len(p.position) * m * 1.227 for p, m in zip(crowd, (2e5, 8e4), strict=True)) / volume
    assert filled == pytest.approx(0.03, rel=0.35)  # of the view, widened by a body's radius


def test_bodies_lie_in_the_slab_and_lumps_on_it(full):
    for name, points, _ in bodies(full)[0]:
        height = region.height_in_slab(full.ice, points)
        if name == "contamination":
            assert np.abs(height).min() > 250 and np.ptp(np.sign(height)) == 0
        else:
            assert np.abs(height).max() <= 240 + 0.5


def test_nothing_lies_in_the_carbon(full):
    azimuth = np.radians(full.film.azimuth)
    found, membrane = bodies(full)
    points = np.concatenate([p for name, p, _ in found + membrane if name != "contamination"])
    along = points[:, 0] * np.cos(azimuth) + points[:, 1] * np.sin(azimuth)
    height = region.height_in_slab(full.ice, points)
    inside = (along > full.film.distance) & (np.abs(height - full.film.height) < full.film.thickness / 2)
    assert not inside.any() and (along > full.film.distance).any()


def test_targets_on_membranes_stand_on_their_normals():
    scene = build_scene(SURFACE, FIELD, np.random.default_rng(5))
    lipid = np.concatenate([points for _, points, _ in bodies(scene)[1]])
    target = scene.populations[0]
    foot = -target.scatterer.position[:, 2].min()
    axis = target.rotation.apply([0.0, 0.0, 1.0])
    anchor = target.position - axis * (foot + 24 + 6)  # in the middle of the membrane, but for the tilt
    assert len(axis) == 10
    assert cKDTree(lipid).query(anchor)[0].max() < 20
    above = target.position + axis * 30
    nearest = cKDTree(lipid)
    assert (nearest.query(above)[0] > nearest.query(target.position)[0]).all()


def test_lattice_lies_under_its_sphere():
    scene = build_scene(LATTICE, FIELD, np.random.default_rng(4))
    within, beside = scene.populations[:2]
    assert len(within.position) > 100
    lipid = np.concatenate([points for name, points, _ in bodies(scene)[1]])
    outward = within.rotation.apply([0.0, 0.0, 1.0])
    centre = np.linalg.lstsq(
        np.tile(np.eye(3), (len(outward), 1)), (within.position - 320 * outward).ravel(), rcond=None
    )[0]
    radius = np.linalg.norm(within.position - centre, axis=1)
    assert 300 < radius.mean() < 335 and radius.std() < 12
    assert cKDTree(lipid).query(within.position + 90 * outward)[0].max() < 45
    everyone = np.concatenate([within.position, beside.position])
    nearest = cKDTree(everyone).query(everyone, k=2)[0][:, 1]
    assert (np.abs(nearest - 75) < 6).mean() > 0.6


def test_seed_decides():
    params = FULL.model_copy(update={"crowd": CrowdParams()})
    first, again, other = (build_scene(params, FIELD, np.random.default_rng(s)) for s in (1, 1, 2))
    assert len(first.populations) == len(again.populations)
    for a, b in zip(first.populations, again.populations, strict=True):
        assert np.array_equal(a.position, b.position)
        assert np.array_equal(a.rotation.as_quat(), b.rotation.as_quat())
        assert np.array_equal(a.scatterer.position, b.scatterer.position)
        assert np.array_equal(a.scatterer.weight, b.scatterer.weight)
    assert not np.array_equal(first.populations[0].position, other.populations[0].position)


def test_a_model_takes_the_place_of_the_procedural_target(shared_data):
    atoms = read_molecule(shared_data / "models" / "4v1w_apoferritin.cif")
    params = SceneParams(target=TargetParams(number=6, surroundings=False), ice=IceParams(thickness=400.0))
    scene = build_scene(params, FIELD, np.random.default_rng(0), model=atoms)
    assert len(scene.populations[0].scatterer.position) == len(atoms) and len(scene.populations[0].position) == 6


@pytest.mark.parametrize(
    "change, fault",
    [
        ({"target": TargetParams(number=9, mass=6e4, diameter=70.0, gap=40.0)}, "of 9 bodies"),
        ({"membranes": MembraneParams(spheres=1, radius_min=300.0, radius_max=300.0)}, "spheres of radius"),
        ({"membranes": MembraneParams(spheres=1, radius_min=300.0, radius_max=200.0)}, "above the largest"),
        ({"target": SMALL.model_copy(update={"site": "membrane"})}, "need spheres or sheets"),
        ({"target": SMALL.model_copy(update={"site": "lattice"})}, "needs spheres"),
        ({"target": TargetParams(number=1, mass=1e5, diameter=210.0)}, "does not hold"),
    ],
)
def test_what_does_not_fit_is_said_in_one_line(change, fault):
    params = SceneParams(target=SMALL, ice=IceParams(thickness=400.0)).model_copy(update=change)
    with pytest.raises(InputError, match=fault) as caught:
        build_scene(params, Field(side=200.0, tilt_axis_angle=0.0, tilt_max=45.0), np.random.default_rng(0))
    assert "\n" not in str(caught.value)


def test_every_field_of_the_presets_is_described():
    for scene in SCENES.values():
        for group in type(scene).model_fields:
            fields = type(getattr(scene, group)).model_fields
            assert len(fields) <= 12
            assert all(f.description and f.description.endswith(".") for f in fields.values())
