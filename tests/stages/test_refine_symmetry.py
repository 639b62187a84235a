"""The symmetry that a map shows by itself: in the record where none was imposed, and in the report in plain words."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import particle_scene
import pytest
import torch
from scipy.spatial.transform import Rotation

from tiltwise.data.errors import InputError
from tiltwise.ops.interpolate import centred_points
from tiltwise.ops.maps.rotational_symmetry import RotationalSymmetry
from tiltwise.ops.symmetry import symmetrise_volume
from tiltwise.params.refine import RefineParams
from tiltwise.report.map_part import _symmetry
from tiltwise.stages.refine import refine, stage
from tiltwise.stages.refine.symmetry import symmetry_shown, symmetry_that_holds

VOXEL = 5.0
SETUP = SimpleNamespace(source=SimpleNamespace(settings=SimpleNamespace(pixel_size=VOXEL)))
PARAMS = RefineParams(search_cone=15.0, particle_diameter=120.0)


@pytest.fixture(scope="module")
def maps() -> dict[int, torch.Tensor]:
    """Six balls about z and one on it, and independent noise in each half."""
    points, generator = centred_points((32,) * 3) * VOXEL, torch.Generator().manual_seed(1)
    turns = torch.arange(6) * torch.pi / 3
    centres = [(35 * float(torch.cos(t)), 35 * float(torch.sin(t)), 0.0) for t in turns] + [(0.0, 0.0, 10.0)]
    density = sum(torch.exp(-(((points - torch.tensor(c)).norm(dim=-1) / 10) ** 2)) for c in centres)
    return {half: density + 0.1 * torch.randn(density.shape, generator=generator) for half in (1, 2)}


def test_six_balls_are_found_where_nothing_was_imposed(maps):
    shown = symmetry_shown(SETUP, maps, 15.0, PARAMS, "C1")["rotational_symmetry"]
    assert shown["order"] == 6
    assert shown["correlation"][60] > 2 * shown["correlation"][30]  # balls between the balls
    (sentence,) = _symmetry(shown)
    assert "C6 leaves" in str(sentence) and "by chance it would be 0.17" in str(sentence)
    assert "showed C6, which was imposed" in str(_symmetry(shown, "C6")[0])


@pytest.mark.parametrize(("imposed", "cone"), [("C6", 15.0), ("C1", 180.0)])
def test_nothing_is_said_of_what_was_imposed_or_has_no_axis(maps, imposed, cone):
    assert symmetry_shown(SETUP, maps, 15.0, PARAMS.model_copy(update={"search_cone": cone}), imposed) == {}
    assert _symmetry(None) == []


def seen(share: float) -> RotationalSymmetry:
    nothing = np.zeros(181)
    return RotationalSymmetry(
        order=4,
        share={4: share},
        angle=nothing,
        correlation=nothing,
        point=np.array([10.0, -6.0]),
        lean=np.array([3.0, -4.0]),
    )


def test_half_way_from_chance_to_all_decides():
    assert symmetry_that_holds(seen(0.62)) is None
    found = symmetry_that_holds(seen(0.63))
    assert found.group == "C4"
    axis = Rotation.from_rotvec([3.0, -4.0, 0.0], degrees=True).as_matrix()[:, 2]
    on_axis = np.array([10.0, -6.0, 0.0]) + 37.0 * axis
    assert np.allclose(found.motion.rotation @ on_axis + found.motion.shift, [0.0, 0.0, 37.0])


POINT, LEAN = np.array([12.0, -9.0, 0.0]), Rotation.from_rotvec([4.0, -3.0, 0.0], degrees=True)


def windmill() -> np.ndarray:
    """(Gaussian, 3) four arms and a foot, about an axis that is not the reference's z."""
    arm = np.array([[35.0, 0.0, 0.0], [42.0, 20.0, 12.0]])
    arms = [Rotation.from_euler("z", 90 * k, degrees=True).apply(arm) for k in range(4)]
    return LEAN.apply(np.concatenate([*arms, [[0.0, 0.0, -30.0]]])) + POINT


@pytest.fixture(scope="module")
def lying() -> tuple[dict, particle_scene.Particles]:
    rng = np.random.default_rng(2)
    series = particle_scene.tilts_of("TS_1", rng)
    lattice = np.stack(np.meshgrid(*[np.arange(-1, 2) * 220.0] * 2, indexing="ij"), -1).reshape(-1, 2)
    position = np.concatenate([lattice, rng.uniform(-80, 80, (len(lattice), 1))], 1)
    rotation = Rotation.random(len(position), random_state=3)
    images = particle_scene.project_blobs(series, position, rotation, windmill())
    series = replace(series, images=particle_scene.with_noise(images, 0.3, rng))
    return {"TS_1": series}, particle_scene.put_together([("TS_1", position, rotation)])


def test_an_axis_off_z_is_found_brought_onto_z_and_imposed(lying):
    """Poses start right but for the axis; what they then show lies about z, and stands where the axis is."""
    series, particles = lying
    given = particle_scene.reference(windmill())
    params = RefineParams(
        symmetry="find",
        search_cone=10.0,
        search_shift=16.0,
        particle_diameter=particle_scene.DIAMETER,
        iterations=2,
        refine_tilt_shifts=False,
    )
    result = refine(series, particles, given, params)
    assert result.quality["symmetry"] == result.half_maps.symmetry == "C4"
    assert [row["symmetry"] for row in result.quality["iterations"]] == ["C1", "C1"]
    assert result.quality["rotational_symmetry"]["order"] == 4
    axis = particles.rotation.inv() * result.particles.rotation  # of the found z, in the frame of the true body
    lean = LEAN.inv().apply(axis.apply([0.0, 0.0, 1.0]))[:, :2]
    place = LEAN.inv().apply(particles.rotation.inv().apply(result.particles.position - particles.position) - POINT)
    for mean, error in (
        (np.degrees(lean.mean(0)), np.degrees(lean.std(0))),
        (place[:, :2].mean(0), place[:, :2].std(0)),
    ):
        assert (np.abs(mean) < 3 * error / np.sqrt(len(particles) - 1)).all()
    assert np.degrees(np.linalg.norm(lean.mean(0))) < 1.5 and np.linalg.norm(place[:, :2].mean(0)) < 3.0
    average = torch.as_tensor(result.half_maps.half1.data + result.half_maps.half2.data)
    assert float((symmetrise_volume(average, "C4") - average).std() / average.std()) < 0.1


def test_some_particles_tell_and_all_have_it_from_the_start(lying, monkeypatch):
    """Three of each half are aligned in C1; all of them, from where they started, in C4 only."""
    monkeypatch.setattr(stage, "_TELLING", 3)
    series, particles = lying
    given = particle_scene.reference(windmill())
    own = {"search_cone": 10.0, "search_shift": 20.0, "particle_diameter": particle_scene.DIAMETER, "iterations": 2}
    result = refine(series, particles, given, RefineParams(symmetry="find", refine_tilt_shifts=False, **own))
    assert result.quality["symmetry"] == result.half_maps.symmetry == "C4"
    rows = result.quality["iterations"]
    assert [row["symmetry"] for row in rows] == ["C4", "C4"] and rows[0]["particles"] == len(particles)
    axis = particles.rotation.inv() * result.particles.rotation
    lean = LEAN.inv().apply(axis.apply([0.0, 0.0, 1.0]))[:, :2]
    place = LEAN.inv().apply(particles.rotation.inv().apply(result.particles.position - particles.position) - POINT)
    assert np.degrees(np.linalg.norm(lean.mean(0))) < 1.5 and np.linalg.norm(place[:, :2].mean(0)) < 3.0


def test_nothing_to_be_found_without_directions(lying):
    series, particles = lying
    with pytest.raises(InputError, match="starting directions"):
        refine(series, particles, particle_scene.reference(windmill()), RefineParams(symmetry="find"))
