"""The refinement: poses and map recovered from a small scene, halves that do not touch, faults said in one line."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from particle_scene import DIAMETER, PIXEL, reference, scene
from scipy.spatial import cKDTree
from scipy.spatial.transform import Rotation

from tiltwise.data.errors import InputError
from tiltwise.data.tilt_series import TiltGeometry
from tiltwise.ops.fsc import first_crossing
from tiltwise.ops.particles.chunks import CropSettings, ImageSource, initial_weights
from tiltwise.ops.particles.half_maps import accumulate_halves, average_particles, posed_particles
from tiltwise.ops.particles.half_sets import assign_half_sets
from tiltwise.ops.particles.references import half_map_fsc, size_notes, sphere_mask
from tiltwise.ops.poses.alignment import PoseBounds, search_alignment, search_grid
from tiltwise.ops.rotations import geodesic_angle
from tiltwise.params.refine import RefineParams
from tiltwise.stages.refine import refine
from tiltwise.stages.refine.reference import reference_shown
from tiltwise.stages.refine.setup import prepare

BOX = 32
PARAMS = RefineParams(
    box_size=BOX, particle_diameter=DIAMETER, reference_lowpass=50.0, iterations=4, duplicate_distance=60.0
)


@pytest.fixture(scope="module")
def made():
    return scene()


def displaced(particles, seed=3):
    """Picked as a search would: 6 Å and 12° off, one in four turned at random."""
    rng = np.random.default_rng(seed)
    number = len(particles)
    angle = np.where(np.arange(number) % 4 == 0, 170.0, 12.0)
    axis = rng.normal(size=(number, 3))
    turn = Rotation.from_rotvec(angle[:, None] * axis / np.linalg.norm(axis, axis=1)[:, None], degrees=True)
    return replace(
        particles,
        position=particles.position + rng.normal(0, 6, (number, 3)),
        rotation=particles.rotation * turn,
    )


def pose_errors(found, true):
    """Degrees and Å, after the best common rotation of the reference, by which the maps of both may differ."""
    pairs = []
    for name in sorted(set(true.tilt_series.tolist())):
        ours, theirs = np.flatnonzero(found.tilt_series == name), np.flatnonzero(true.tilt_series == name)
        nearest = cKDTree(true.position[theirs]).query(found.position[ours])[1]
        pairs += list(zip(ours, theirs[nearest], strict=True))
    ours, theirs = np.array(pairs).T
    relative = true.rotation[theirs].inv() * found.rotation[ours]
    common = relative[np.argsort(relative.magnitude())[: len(relative) // 2]].mean()
    distance = np.linalg.norm(found.position[ours] - true.position[theirs], axis=1)
    return np.degrees((relative * common.inv()).magnitude()), distance


def lost(name, series):
    """(tilt, 2) Å: one tilt of the second series is farther off than the rest, and than quadratics see."""
    away = np.zeros((series.number, 2))
    away[6] = (32.0, -32.0) if name == "TS_2" else 0.0
    return away


@pytest.fixture(scope="module")
def refined(made):
    shaken = {}
    rng = np.random.default_rng(9)
    for name, series in made.tilt_series.items():
        shift = series.geometry.shift + rng.normal(0, 4, series.geometry.shift.shape) + lost(name, series)
        g = series.geometry
        geometry = TiltGeometry(
            tilt_angle=g.tilt_angle, tilt_axis_angle=g.tilt_axis_angle, x_tilt=g.x_tilt, shift=shift
        )
        shaken[name] = replace(series, geometry=geometry)
    return shaken, refine(shaken, displaced(made.particles), reference(made.centres), PARAMS)


def test_poses_are_recovered(made, refined):
    angle, distance = pose_errors(refined[1].particles, made.particles)
    assert len(refined[1].particles) == len(made.particles)
    assert np.median(angle) < 3.0 and (angle < 10).mean() > 0.9  # the target of the whole pipeline
    assert np.median(distance) < 6.0  # the common movement that shaken tilts allow is not taken off
    spread = refined[1].particles.uncertainty
    medians = [refined[1].quality[key] for key in ("rotation_error_deg", "shift_error_A")]
    assert spread.shape == (len(distance), 2) and np.allclose(np.median(spread, axis=0), medians)


def test_the_map_is_as_good_as_with_true_poses(made, refined):
    halves = replace(made.particles, half_set=assign_half_sets(made.particles, 60.0, 0))
    oracle = average_particles(made.tilt_series, halves, box_size=BOX, particle_diameter=DIAMETER)
    truth = torch.as_tensor(reference(made.centres, sigma=9.0).data)
    mask = sphere_mask(BOX, PIXEL, DIAMETER / 2)
    frequency = torch.arange(BOX // 2 + 1) / (BOX * PIXEL)

    def resolution(maps):
        mean = torch.as_tensor(maps.half1.data + maps.half2.data)
        return first_crossing(frequency, half_map_fsc(mean, truth, mask), 0.5)

    assert resolution(refined[1].half_maps) < 1.1 * resolution(oracle)


def test_shaken_tilts_are_put_right_and_a_lost_one_with_them(made, refined):
    given, result = refined
    searched = [record["tilt_shifts"] for record in result.quality["iterations"] if "tilt_shifts" in record]
    assert "7" in searched[0]["TS_2"]["found_tilts"]
    for name, series in made.tilt_series.items():
        before = given[name].geometry.shift - series.geometry.shift - lost(name, series)
        after = result.tilt_series[name].geometry.shift - series.geometry.shift
        assert spread(after, series) < 0.5 * spread(before, series)


def spread(shift, series):
    """Rms of the shifts less what one movement of all particles explains."""
    g = series.geometry
    turn = Rotation.from_euler("z", g.tilt_axis_angle[:, None], degrees=True)
    turn = turn * Rotation.from_euler("y", g.tilt_angle[:, None], degrees=True)
    plane = turn.as_matrix()[:, :2].reshape(-1, 3)
    rest = shift.ravel() - plane @ np.linalg.lstsq(plane, shift.ravel(), rcond=None)[0]
    return np.sqrt((rest**2).mean())


def test_the_record_says_what_was_done(refined):
    quality = refined[1].quality
    assert 2 <= len(quality["iterations"]) <= PARAMS.iterations
    assert [r["iteration"] for r in quality["iterations"]] == list(range(1, len(quality["iterations"]) + 1))
    assert quality["iterations"][-1]["resolution_fsc_A"] < 30
    for record in quality["iterations"]:
        assert 0 < record["posterior_mass_median"] <= 1 and 0 <= record["ambiguous_poses"] <= 1
    assert len(quality["fsc"]) == len(quality["fsc_frequency"]) == BOX // 2 + 1


def test_a_half_is_made_of_its_own_images_alone(made):
    """Other images of the particles of half 2 leave the sums of half 1 as they are, bit by bit."""
    names = sorted(made.tilt_series)
    halves = np.where(made.particles.tilt_series == names[0], 1, 2)
    posed = posed_particles(replace(made.particles, half_set=halves))
    changed = dict(made.tilt_series)
    other = np.random.default_rng(0).normal(size=changed[names[1]].images.shape).astype(np.float32)
    changed[names[1]] = replace(changed[names[1]], images=other)
    numerators = []
    for series in (made.tilt_series, changed):
        settings = CropSettings(box_size=BOX, pixel_size=PIXEL, particle_radius=DIAMETER / 2, device="cpu")
        source = ImageSource(tilt_series=series, settings=settings, ready={})
        totals = accumulate_halves(source, posed, weights=initial_weights(source, posed))
        numerators.append([totals[half].numerator for half in (1, 2)])
    assert torch.equal(numerators[0][0], numerators[1][0])
    assert not torch.equal(numerators[0][1], numerators[1][1])


def test_a_search_keeps_to_the_cone_and_the_ball_about_the_start(made):
    """Starts 6° off; whatever the poses have become since, here 40° and 12 Å off, they come back, and no farther."""
    posed = posed_particles(replace(made.particles[np.arange(6)], half_set=np.tile([1, 2], 3)))
    off, away = (Rotation.from_rotvec([[a, 0, 0]] * 6, degrees=True).as_matrix() for a in (6.0, 40.0))
    start, present = (replace(posed, rotation=posed.rotation @ torch.as_tensor(m)) for m in (off, away))
    present = replace(present, position=posed.position + torch.tensor([12.0, 0, 0]))
    settings = CropSettings(box_size=BOX, pixel_size=PIXEL, particle_radius=DIAMETER / 2, device="cpu")
    source = ImageSource(tilt_series=made.tilt_series, settings=settings, ready={})
    volume = torch.as_tensor(reference(made.centres).data)
    bounds = PoseBounds(
        position=start.position, radius=torch.full((6,), 10.0).double(), rotation=start.rotation, cone=10.0
    )
    found = search_alignment(
        source,
        present,
        {1: volume, 2: volume},
        weights=initial_weights(source, posed),
        grid=search_grid(50.0, DIAMETER, 10.0, 20.0),
        resolution=40.0,
        bounds=bounds,
    )
    z = found.particles.rotation[:, :, 2] * start.rotation[:, :, 2]
    assert (torch.rad2deg(torch.acos(z.sum(1).clamp(-1, 1))) <= 10.0 + 1e-6).all()
    assert ((found.particles.position - start.position).norm(dim=1) <= 10.0 + 1e-9).all()
    assert geodesic_angle(found.particles.rotation, posed.rotation).median() < 10.0
    assert ((found.mass > 0) & (found.mass <= 1)).all()


def test_duplicates_are_removed_and_counted(made):
    twice = displaced(made.particles)
    close = replace(twice, position=twice.position + [8.0, 0, 0])
    both = replace(
        twice,
        **{
            field: np.concatenate([getattr(twice, field), getattr(close, field)])
            for field in ("tilt_series", "position", "score", "half_set", "region")
        },
        rotation=Rotation.concatenate([twice.rotation, close.rotation]),
    )
    result = refine(made.tilt_series, both, reference(made.centres), PARAMS.model_copy(update={"iterations": 1}))
    assert result.quality["iterations"][0]["duplicates_removed"] == len(made.particles)
    assert len(result.particles) == len(made.particles)


def test_a_mirrored_reference_and_a_wrong_pixel_size_are_noted(made, refined):
    """The average is the data's; at 36 Å this body agrees 0.8 with itself, 0.5 with its mirror image. Particles keep
    their poses and halves: a note, no error."""
    assert refined[1].quality["notes"] == []
    given = reference(made.centres)
    mirrored = replace(given, data=np.ascontiguousarray(given.data[:, :, ::-1]))
    for wrong, words in ((mirrored, "the reference looks mirrored"), (replace(given, voxel_size=8.8), "magnified 0.8")):
        result = refine(made.tilt_series, displaced(made.particles), wrong, PARAMS)
        assert len(result.quality["notes"]) == 1 and words in result.quality["notes"][0]
        assert len(result.particles) >= 20


def test_few_particles_one_series_and_tilts_of_one_side(made):
    few = made.particles[np.arange(3)]
    with pytest.raises(InputError, match="particles: 3 in all, 4 are needed in each half"):
        refine(made.tilt_series, few, reference(made.centres), PARAMS)
    name = sorted(made.tilt_series)[0]
    own = made.particles[made.particles.tilt_series == name]
    one_side = replace(made.tilt_series[name], use=made.tilt_series[name].stage_tilt_angle >= 0)
    result = refine({name: one_side}, own, reference(made.centres), PARAMS.model_copy(update={"iterations": 2}))
    assert len(result.particles) >= 10 and result.quality["resolution_fsc_A"] < 40
    one_series, one_sided = result.quality["notes"]
    assert one_series.startswith(f"all particles come from one tilt series ({name}): both halves share")
    assert one_sided.startswith(f"all used tilts are on one side in {name} (0° to 60°): a wedge of 120° or more")


def test_a_reference_of_another_size_is_noted(made):
    given = reference(made.centres)
    assert size_notes(given, DIAMETER) == ()
    assert "box is 256 Å wide, less than the particle_diameter of 300 Å" in size_notes(given, 300.0)[0]
    assert "but particle_diameter is 60 Å" in size_notes(given, 60.0)[0]
    assert "Å across, but particle_diameter" in size_notes(replace(given, voxel_size=32.0), DIAMETER)[0]


def test_halves_that_agree_nowhere_show_nothing_of_the_reference(made):
    """Their average was once compared with it on a grid of no voxels."""
    setup, given = prepare(made.tilt_series, made.particles, PARAMS, "cpu"), reference(made.centres)
    assert reference_shown(setup, {}, given, float("inf"), PARAMS) == {"notes": []}


def test_faults_of_the_input_are_named(made):
    first = sorted(made.tilt_series)[0]
    unaligned = made.tilt_series | {first: replace(made.tilt_series[first], geometry=None)}
    with pytest.raises(InputError, match=f"{first}: not aligned"):
        refine(unaligned, made.particles, reference(made.centres), PARAMS)
    with pytest.raises(InputError, match="starting directions"):
        refine(made.tilt_series, made.particles, None, PARAMS.model_copy(update={"symmetry": "find"}))
    with pytest.raises(InputError, match="none to refine"):
        refine(made.tilt_series, made.particles[:0], reference(made.centres), PARAMS)
