"""Polishing: shaken tilts and poses are put right by the particles; halves, faults and gates."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from particle_scene import DIAMETER, scene
from scipy.spatial.transform import Rotation

from tiltwise.data.errors import InputError
from tiltwise.ops.deformation import specimen_in_images
from tiltwise.ops.geometry import tilt_rotations
from tiltwise.ops.particles.half_sets import assign_half_sets
from tiltwise.params.polish import PolishParams
from tiltwise.stages.polish import polish
from tiltwise.stages.polish.setup import ONLY, block_names, prepare
from tiltwise.stages.polish.state import aligned_poses, as_species, changed, first_state

PARAMS = PolishParams(box_size=32, particle_diameter=DIAMETER, cycles=3)


@pytest.fixture(scope="module")
def made():
    found = scene(noise=0.5)
    return replace(found, particles=replace(found.particles, half_set=assign_half_sets(found.particles, 60.0, 0)))


def shaken(series, rng):
    g = series.geometry
    geometry = replace(
        g,
        shift=g.shift + rng.normal(0, 4, g.shift.shape),
        tilt_axis_angle=g.tilt_axis_angle + 0.3,
    )
    return replace(series, geometry=geometry)


@pytest.fixture(scope="module")
def polished(made):
    rng = np.random.default_rng(2)
    number = len(made.particles)
    start = replace(
        made.particles,
        position=made.particles.position + rng.normal(0, 2, (number, 3)),
        rotation=made.particles.rotation * Rotation.from_rotvec(rng.normal(0, 2, (number, 3)), degrees=True),
    )
    wrong = {name: shaken(series, rng) for name, series in made.tilt_series.items()}
    return wrong, polish(wrong, start, PARAMS)


def apart(found, truth, particles):
    """Rms distance (Å) of the particles' images from the true ones, a shift of each particle free."""
    difference = specimen_in_images(truth, particles)[0] - specimen_in_images(found, particles)[0]
    rows = tilt_rotations(truth.geometry).numpy()[:, :2].reshape(-1, 3)
    right = difference.transpose(0, 2, 1).reshape(-1, len(particles))
    rest = right - rows @ np.linalg.lstsq(rows, right, rcond=None)[0]
    return float(np.sqrt(2 * (rest**2).mean()))


def test_tilts_and_poses_are_put_right(made, polished):
    """Images were 5 Å off; an eighth of a pixel of 8 Å remains, with 12 particles a series."""
    wrong, result = polished
    for name, truth in made.tilt_series.items():
        position = made.particles.position[made.particles.tilt_series == name]
        assert apart(wrong[name], truth, position) > 4
        assert apart(result.tilt_series[name], truth, position) < 1.5
    relative = made.particles.rotation.inv() * result.particles.rotation
    assert np.degrees((relative * relative.mean().inv()).magnitude()).mean() < 2.0
    assert result.quality["resolution_fsc_A"] < result.quality["resolution_before_A"]


def test_a_tilt_that_was_lost_is_found(made):
    """60 Å off, where the particles are 150 Å wide: back to a fifth of a pixel of 8 Å, and the record says so."""
    truth = made.tilt_series["TS_1"]
    shift = truth.geometry.shift.copy()
    shift[6] += (36.0, -48.0)
    wrong = {**made.tilt_series, "TS_1": replace(truth, geometry=replace(truth.geometry, shift=shift))}
    params = PARAMS.model_copy(update={"cycles": 2, "blocks": ("shift",), "refine_defocus": False})
    result = polish(wrong, made.particles, params)
    position = made.particles.position[made.particles.tilt_series == "TS_1"]
    assert apart(wrong["TS_1"], truth, position) > 10
    assert apart(result.tilt_series["TS_1"], truth, position) < 1.5
    gates = result.quality["cycles"][1]["gates"]
    assert set(gates["TS_1"]["found_tilts"]) == {"7"} and not gates["TS_2"]["found_tilts"]


def test_every_gate_says_its_figures(polished):
    cycles = polished[1].quality["cycles"]
    assert [record["cycle"] for record in cycles] == list(range(len(cycles)))
    gates = cycles[1]["gates"]["TS_1"]
    assert gates["geometry"][0]["blocks"]["shift"]["accepted"]
    assert gates["defocus"]["blocks"] == {}  # at 25 Å there are no rings to fit
    assert 0 < polished[1].quality["shared_parameters_per_observation"] < 0.01


def test_the_halves_are_those_given(made, polished):
    assert np.array_equal(polished[1].particles.half_set, made.particles.half_set)


def test_every_pose_has_its_uncertainty(polished):
    found, quality = polished[1].particles.uncertainty, polished[1].quality
    assert np.allclose(np.median(found, axis=0), [quality["rotation_error_deg"], quality["shift_error_A"]])


def test_nothing_is_changed_where_nothing_is_asked_for(made):
    still = PARAMS.model_copy(update={"refine_tilts": False, "refine_deformation": False, "refine_defocus": False})
    result = polish(made.tilt_series, made.particles, still)
    assert all(result.tilt_series[name] is series for name, series in made.tilt_series.items())


def test_blocks_are_those_that_the_switches_and_the_list_leave():
    whole = PARAMS.model_copy(update={"blocks": ("warp", "shift")})
    assert block_names(PARAMS) == ("shift", "angles", "magnification", "sample", "warp")
    assert block_names(whole) == ("shift", "warp")  # from the fewest to the most numbers, whatever the list's order
    assert block_names(whole.model_copy(update={"refine_tilts": False})) == ("warp",)
    assert block_names(whole.model_copy(update={"refine_deformation": False})) == ("shift",)


def test_what_the_geometry_moves_does_not_count_against_search_shift(made):
    """The specimen 40 Å elsewhere, the tilts' shifts following, so that no image changes: particles that may go 16 Å by
    themselves refine to the same places in the specimen."""
    rng, far = np.random.default_rng(4), np.array([24.0, 0.0, -32.0])
    off = replace(made.particles, position=made.particles.position + rng.normal(0, 2, made.particles.position.shape))
    kind = prepare(made.tilt_series, off, PARAMS, "cpu").kinds[ONLY]
    state, _ = first_state(kind)
    stay = replace(aligned_poses(kind, state), particles=state.particles)
    elsewhere = {}
    for name, series in made.tilt_series.items():
        g = series.geometry
        shift = g.shift + (tilt_rotations(g).numpy() @ far)[:, :2]
        elsewhere[name] = replace(series, geometry=replace(g, shift=shift))
    moved = replace(state.particles, position=state.particles.position - torch.as_tensor(far))
    here = as_species(kind, state, stay)
    away = torch.as_tensor(-far).expand_as(here.carried)
    there = replace(here, source=here.source.with_series(elsewhere), particles=moved, carried=away)
    plain, gauged = (
        aligned_poses(kind, changed(kind, state, stay, species)[0]).particles.position.numpy()
        for species in (here, there)
    )
    assert np.linalg.norm(plain - off.position, axis=1).mean() > 1.0
    assert np.abs(gauged + far - plain).max() < 0.1  # defoci change by what the depth does, 40 Å at most


def test_a_series_of_one_half_keeps_its_geometry_and_says_why(made):
    """Each series in a half of its own, tilts shaken: nothing of either can be judged."""
    rng = np.random.default_rng(2)
    wrong = {name: shaken(series, rng) for name, series in made.tilt_series.items()}
    half = np.where(made.particles.tilt_series == "TS_1", 1, 2)
    result = polish(wrong, replace(made.particles, half_set=half), PARAMS.model_copy(update={"cycles": 1}))
    for name, series in wrong.items():
        assert np.array_equal(result.tilt_series[name].geometry.shift, series.geometry.shift)
    assert [note.split(":")[0] for note in result.quality["notes"]] == ["TS_1", "TS_2"]
    assert all("one half set" in note for note in result.quality["notes"])


def test_faults_are_one_line(made):
    with pytest.raises(InputError, match="run refine before polish"):
        polish(made.tilt_series, replace(made.particles, half_set=0 * made.particles.half_set), PARAMS)
    with pytest.raises(InputError, match="4 are needed in each"):
        polish(made.tilt_series, made.particles[np.arange(5)], PARAMS)
