"""Polishing does no harm: a series of five particles stays, cycles that do not pay are undone, halves share little."""

from dataclasses import replace

import numpy as np
import pytest
from particle_scene import DIAMETER, SIZE, project_blobs, scene, with_noise

from tiltwise.ops.deformation import specimen_in_images
from tiltwise.ops.geometry import tilt_rotations
from tiltwise.ops.polishing.species import Species
from tiltwise.ops.poses.terms import collect_terms
from tiltwise.params.polish import PolishParams
from tiltwise.stages.polish import polish, stage
from tiltwise.stages.polish.setup import ONLY, prepare
from tiltwise.stages.polish.state import aligned_poses, first_state, used_resolution

PARAMS = PolishParams(box_size=32, particle_diameter=DIAMETER, cycles=1)
STILL = PARAMS.model_copy(update={"refine_tilts": False, "refine_deformation": False, "refine_defocus": False})


@pytest.fixture(scope="module")
def made():
    """A series of twelve particles, and one of five; at a defocus of 6 µm, whose rings are told at 8 Å a pixel."""
    found = scene(series=2, noise=0.0)
    few = np.flatnonzero(found.particles.tilt_series == "TS_2")[5:]
    particles = found.particles[np.setdiff1d(np.arange(len(found.particles)), few)]
    particles = replace(particles, half_set=1 + np.arange(len(particles)) % 2)
    rng, series = np.random.default_rng(8), {}
    for name in ("TS_1", "TS_2"):
        own, one = particles.tilt_series == name, found.tilt_series[name]
        fields = {"defocus_u": one.ctf.defocus_u + 30000.0, "defocus_v": one.ctf.defocus_v + 30000.0}
        one = replace(one, ctf=replace(one.ctf, **fields))
        images = project_blobs(one, particles.position[own], particles.rotation[own], found.centres)
        series[name] = replace(one, images=with_noise(images, 0.5, rng))
    return replace(found, tilt_series=series, particles=particles)


@pytest.fixture(scope="module")
def polished(made):
    return polish(made.tilt_series, made.particles, PARAMS)


def apart(found, truth, position):
    """Rms distance (Å) of particles' images from the true ones, a shift of each particle free."""
    difference = specimen_in_images(truth, position)[0] - specimen_in_images(found, position)[0]
    rows = tilt_rotations(truth.geometry).numpy()[:, :2].reshape(-1, 3)
    right = difference.transpose(0, 2, 1).reshape(-1, len(position))
    rest = right - rows @ np.linalg.lstsq(rows, right, rcond=None)[0]
    return float(np.sqrt(2 * (rest**2).mean()))


def fitted_to_noise(made, name):
    """Rms (Å) by which images would move if the shift of each tilt alone were fitted to the noise of its particles: H
    the information of a tilt's shift, 5 Å its prior, H / (H + 1 / 25)² the variance on each axis."""
    setup = prepare(made.tilt_series, made.particles, PARAMS, "cpu")
    kind, state = setup.kinds[ONLY], first_state(setup.kinds[ONLY])[0]
    own = Species.of(
        state.source, state.particles, state.references, weights=state.weights, resolution=used_resolution(kind, state)
    ).within(name)
    terms = collect_terms(own.source, own.particles, own.grids, weights=own.weights, resolution=own.resolution)[name]
    information = np.einsum("ptaa->t", terms.information[..., 3:, 3:]) / 2
    return float(np.sqrt(2 * np.mean(information / (information + 1 / 25) ** 2)))


def test_five_particles_at_the_truth_are_not_harmed(made, polished):
    """Beside a series of twelve: images move by less than shifts fitted to noise would move them; the defoci stay."""
    truth, found = (tilts["TS_2"] for tilts in (made.tilt_series, polished.tilt_series))
    position = made.particles.position[made.particles.tilt_series == "TS_2"]
    assert len(position) == 5
    assert apart(found, truth, position) < fitted_to_noise(made, "TS_2")
    gates = polished.quality["cycles"][1]["gates"]["TS_2"]
    assert gates["defocus"]["blocks"] and gates["common_defocus"]["tried_A"]  # they were asked
    assert np.array_equal(found.ctf.defocus_u, truth.ctf.defocus_u)
    assert np.array_equal(found.ctf.defocus_v, truth.ctf.defocus_v)


def test_every_gate_gives_gain_and_chance(polished):
    record = polished.quality["cycles"][1]
    assert set(record["poses"]) == {ONLY} and len(record["poses"][ONLY]["gain"]) == 2
    for gates in record["gates"].values():
        founds = [*gates["geometry"], gates["defocus"], gates["weights"][ONLY]]
        blocks = [gate for found in founds for gate in found["blocks"].values()]
        assert {len(gate["gain"]) for gate in blocks} == {len(gate["chance"]) for gate in blocks} == {2}
        assert {"scale", "noise"} == set(gates["weights"][ONLY]["blocks"])
        assert gates["common_defocus"]["chance"] > 6  # z² / 2 of twelve trials at least


def test_shared_numbers_are_those_of_kept_cycles():
    """A block fitted twice counts once, with the most; what was undone does not count."""

    def cycle(kept, **determined):
        gates = {"geometry": [{"determined": {"shift": determined["shift"]}}], "weights": {ONLY: {"determined": {}}}}
        gates |= {"defocus": {"determined": {"own": determined["own"]}}}
        gates |= {"common_defocus": {"determined": {"common_defocus": 1.0}}}
        return {"kept": kept, "gates": {"TS_1": gates}}

    records = [{"gates": {}}, cycle(True, shift=30.0, own=5.0), cycle(True, shift=20.0, own=9.0)]
    assert stage.shared_parameters(records) == 30 + 9 + 1
    assert stage.shared_parameters([*records, cycle(False, shift=90.0, own=90.0)]) == 40


def grown(states, part):
    """The state with the area under its FSC grown by a part of it, in the shell where that is least."""
    state = states[ONLY]
    fsc = state.fsc.clone()
    fsc[int(fsc.abs().argmin())] += part * state.worth
    return {ONLY: replace(state, fsc=fsc, score=state.score + 1)}


@pytest.mark.parametrize(("part", "kept"), [(-0.01, False), (0.001, True)])
def test_cycles_that_do_not_pay_are_the_last_and_worse_ones_undone(made, monkeypatch, part, kept):
    """1 % less agreement is undone; 0.1 % more is kept, but less than the 0.2 % for which one goes on."""
    calls = []

    def cycle(setup, states, known, params, progress):
        calls.append(states)
        return grown(states, part), known, {"poses": {}, "gates": {}}

    monkeypatch.setattr(stage, "_cycle", cycle)
    result = polish(made.tilt_series, made.particles, PARAMS.model_copy(update={"cycles": 5}))
    assert len(calls) == 1
    assert [record.get("kept") for record in result.quality["cycles"]] == [None, kept]
    assert np.all(result.particles.score == (1 if kept else 0))
    before = calls[0][ONLY]
    assert np.array_equal(result.half_maps.half1.data, before.maps[1].numpy())
    assert np.array_equal(result.quality["fsc"], (grown(calls[0], part)[ONLY] if kept else before).fsc.numpy())


def test_what_is_known_of_a_series_is_handed_on(made, monkeypatch):
    """From round to round and from cycle to cycle: each fit of geometry and of defocus is given what the last one of
    the same series left, the first one nothing."""
    given, left = {}, {}

    def spied(name, function):
        def called(species, series, *rest):
            given.setdefault((name, series), []).append(rest[-1])
            found = function(species, series, *rest)
            left.setdefault((name, series), []).append(found.so_far)
            return found

        monkeypatch.setattr(stage, name, called)

    spied("refine_geometry", stage.refine_geometry)
    spied("refine_defocus", stage.refine_defocus)
    monkeypatch.setattr(stage, "_growth", lambda *_: 1.01)
    polish(made.tilt_series, made.particles, PARAMS.model_copy(update={"cycles": 2}))
    assert {name for name, _ in given} == {"refine_geometry", "refine_defocus"}
    for key, received in given.items():
        assert len(received) > 1 and received[0] is None
        assert all(after is before for after, before in zip(received[1:], left[key][:-1], strict=True))


def test_poses_that_the_other_half_denies_are_put_back(made, monkeypatch):
    """An alignment that throws all poses off by 20° is less likely under the other half's reference, in both."""
    thrown = []

    def wrong(kind, state):
        found = aligned_poses(kind, state)
        turn = found.particles.rotation.new_tensor(
            [[np.cos(0.35), -np.sin(0.35), 0], [np.sin(0.35), np.cos(0.35), 0], [0, 0, 1]]
        )
        thrown.append(found.particles.rotation @ turn)
        return replace(found, particles=replace(found.particles, rotation=thrown[-1]))

    monkeypatch.setattr(stage, "aligned_poses", wrong)
    result = polish(made.tilt_series, made.particles, STILL)
    gate = result.quality["cycles"][1]["poses"][ONLY]
    assert not gate["accepted"] and max(gate["gain"]) < 0 and thrown
    relative = made.particles.rotation.inv() * result.particles.rotation
    assert np.degrees(relative.magnitude()).max() < 3.0


def test_what_couples_the_halves_is_small(made):
    """Other noise in the images of half 2 (in a series of its own): with the same weights, references and frame the
    poses of half 1 are the same to the bit. Through all that is shared, the gauge of the amplitudes, the filter by the
    FSC, the resolution compared and the frame, they change, by far less than they are known to.
    """
    series = {name: replace(one, name=name) for name, one in made.tilt_series.items()}
    particles = replace(made.particles, half_set=np.where(made.particles.tilt_series == "TS_1", 1, 2))
    noise = np.random.default_rng(9).normal(size=(len(series["TS_2"].images), SIZE, SIZE))
    second = series["TS_2"]
    rms = np.std(second.images)
    other = {**series, "TS_2": replace(second, images=(second.images + 0.3 * rms * noise).astype(np.float32))}
    first = particles.half_set == 1
    found = []
    for tilts in (series, other):
        kind = prepare(tilts, particles, STILL, "cpu").kinds[ONLY]
        state, _ = first_state(kind)
        found.append((kind, state, aligned_poses(kind, state)))
    (kind, state, one), (other_kind, other_state, two) = found
    mixed = replace(other_state, weights={**other_state.weights, "TS_1": state.weights["TS_1"]})
    mixed = replace(mixed, references={1: state.references[1], 2: other_state.references[2]}, fsc=state.fsc)
    same = aligned_poses(other_kind, replace(mixed, particles=state.particles))
    assert np.array_equal(same.particles.rotation[first], one.particles.rotation[first])
    assert np.array_equal(same.particles.position[first], one.particles.position[first])
    moved = (two.particles.position - one.particles.position)[first].square().mean().sqrt()
    error = np.sqrt(np.mean(one.uncertainty[first, 1] ** 2))
    print("half 1 moved", float(moved), "known to", error)
    assert 0 < moved < 0.5 * error
