"""A perfect project has no error and the oracle's resolution; errors put in come out as figures."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from tiltwise.data.particles import Particles
from tiltwise.data.tilt_series import TiltSeries
from tiltwise.ops.particles.half_maps import average_particles
from tiltwise.project import store
from tiltwise.project.create import new_project
from tiltwise.project.graph import items_of
from tiltwise.project.importing import import_tilt_series
from tiltwise.project.records import write_record
from tiltwise.project.state import ProjectState
from tiltwise.workflows import evaluate as module
from tiltwise.workflows.evaluate import evaluate
from tiltwise.workflows.map_scores import better_score, oracle_maps, score_maps


def _write_results(project, results: dict[str, object]) -> None:
    """Put results into the items of a project as a run would: values by step, and for steps of one series by name."""
    for number, step in enumerate(ProjectState(project).recipe.steps):
        if step.name not in results:
            continue
        for item in items_of(ProjectState(project).recipe, number, ProjectState(project).series):
            values, quality = results[step.name](item.name)
            folder = project / step.name / item.name
            folder.mkdir(parents=True)
            for kind, value in values.items():
                store.save(kind, value, folder, project)
            fingerprint = ProjectState(project).fingerprint(item)
            record = {"state": "done", "fingerprint": fingerprint, "outputs": {}, "quality": quality, "seconds": 1.0}
            write_record(folder, record)


def _project(tmp_path, recording, *, series, picks: Particles, refined: Particles | None = None, halves=None, fsc=None):
    project = new_project(tmp_path / "project", reference=recording.reference)
    import_tilt_series(project, recording.stacks)

    def named(path_name: str) -> TiltSeries:
        return series[path_name]

    results = {
        "align": lambda name: ({"tilt_series": replace(named(name), ctf=None, defocus_handedness=None)}, {}),
        "defocus": lambda name: ({"tilt_series": named(name)}, {}),
        "reconstruct": lambda name: ({}, {}),
        "pick": lambda name: ({"particles": picks[picks.tilt_series == name]}, {}),
    }
    if refined is not None:
        results["refine"] = lambda name: ({"particles": refined, "half_maps": halves, "tilt_series": series}, {})
        results["postprocess"] = lambda name: ({}, {"resolution_fsc_A": fsc})
    _write_results(project, results)
    return project


@pytest.fixture
def truth_folder(simulation):
    return simulation[0].reference.parent.parent / "truth"


def test_perfect_project(tmp_path, simulation, truth_folder):
    recording, truth = simulation
    refined = replace(truth.particles, half_set=1 + np.arange(len(truth.particles)) % 2)
    halves = average_particles(
        truth.tilt_series,
        refined,
        box_size=truth.map.data.shape[0],
        particle_diameter=truth.particle_diameter,
    )
    project = _project(
        tmp_path,
        recording,
        series=truth.tilt_series,
        picks=truth.particles,
        refined=refined,
        halves=halves,
        fsc=20.0,
    )
    figures = evaluate(project, truth_folder)
    for key in (
        "shift_rmse_A",
        "align_shift_rmse_A",
        "tilt_axis_error_deg",
        "defocus_rmse_A",
        "pose_error_median_deg",
        "pose_shift_median_A",
    ):
        assert figures[key] == pytest.approx(0, abs=1e-3), key
    assert figures["handedness_correct"] is True and figures["mirrored"] is False
    assert figures["pick_precision"] == figures["pick_recall"] == 1
    assert figures["oracle_ratio"] == pytest.approx(1, abs=1e-3)
    assert figures["oracle_ratio_particles_used"] == pytest.approx(1, abs=1e-3)
    assert figures["sum_ssnr_ratio"] == pytest.approx(1, abs=1e-3)
    assert figures["weighting"]["reached"] == figures["weighting"]["oracle"]  # the same maps are compared
    assert figures["resolution_to_truth_A"] < 25  # true poses make a map
    assert figures["resolution_fsc_A"] == 20.0 and figures["reference_lowpass_A"] == 40.0
    assert set(figures["series"]) == {"TS_01", "TS_02"}


def test_errors_put_in_come_out(tmp_path, simulation, truth_folder):
    recording, truth = simulation
    rng = np.random.default_rng(0)
    series = {name: _disturbed(one, rng) for name, one in truth.tilt_series.items()}
    far = truth.particles.position + [0.0, 0.0, 500.0]
    lost = np.arange(len(truth.particles)) % 4 == 0  # every fourth pick is elsewhere, every fourth particle is missed
    picks = replace(truth.particles, position=np.where(lost[:, None], far, truth.particles.position))
    project = _project(tmp_path, recording, series=series, picks=picks)
    figures = evaluate(project, truth_folder)
    assert figures["tilt_axis_error_deg"] == pytest.approx(0.7, abs=1e-6)
    assert figures["defocus_rmse_A"] == pytest.approx(250.0, rel=1e-3)
    assert figures["shift_rmse_A"] == pytest.approx(5.0, rel=0.25)  # noise; the gauge takes three degrees of freedom
    assert figures["handedness_correct"] is False and figures["mirrored"] is False
    assert figures["pick_precision"] == pytest.approx(0.75) and figures["pick_recall"] == pytest.approx(0.75)
    assert figures["oracle_ratio"] is None and figures["resolution_fsc_A"] is None


def _disturbed(series: TiltSeries, rng: np.random.Generator) -> TiltSeries:
    """Axis off by 0.7°, shifts by 5 Å rms, defocus by 250 Å, the other hand in TS_02; origin and depth as they were."""
    noise = rng.normal(size=series.geometry.shift.shape)
    noise *= 5.0 / np.sqrt((noise**2).sum(axis=1).mean())
    geometry = replace(
        series.geometry,
        tilt_axis_angle=series.geometry.tilt_axis_angle + 0.7,
        shift=series.geometry.shift + noise - noise.mean(axis=0),
    )
    sign = np.where(np.arange(series.number) % 2, 250.0, -250.0)
    ctf = replace(series.ctf, defocus_u=series.ctf.defocus_u + sign, defocus_v=series.ctf.defocus_v + sign)
    hand = series.defocus_handedness * (-1 if series.name == "TS_02" else 1)
    return replace(series, geometry=geometry, ctf=ctf, defocus_handedness=hand)


def test_poses_are_compared_in_the_true_frames(simulation):
    """Poses in an alignment's own frames, of a reference turned and moved, with 4° and 3 Å of error."""
    _, truth = simulation
    n, rng = len(truth.particles), np.random.default_rng(1)
    frames = {
        name: module.RigidMotion(
            rotation=Rotation.from_rotvec([0, 2.0 * sign, 1.0], degrees=True).as_matrix(),
            shift=np.array([10.0, -20.0, 15.0]) * sign,
        )
        for name, sign in (("TS_01", 1), ("TS_02", -1))
    }
    q = Rotation.from_rotvec([5, -8, 3], degrees=True)
    axis = rng.normal(size=(n, 3))
    axis /= np.linalg.norm(axis, axis=1, keepdims=True)
    rotation = truth.particles.rotation * q.inv() * Rotation.from_rotvec(4 * axis, degrees=True)
    position = truth.particles.position + 3 * axis
    for name, frame in frames.items():
        own = truth.particles.tilt_series == name
        position[own] = position[own] @ frame.rotation.T + frame.shift
    turned = np.stack(
        [frames[s].rotation @ r for s, r in zip(truth.particles.tilt_series, rotation.as_matrix(), strict=True)]
    )
    refined = replace(truth.particles, position=position, rotation=Rotation.from_matrix(turned))
    theirs, errors = module.pose_errors(refined, frames, truth)
    assert sorted(theirs.tolist()) == list(range(n))
    assert np.median(errors.angle) == pytest.approx(4.0, abs=1.0)  # of 24 particles the frame takes its share
    assert np.median(errors.shift) == pytest.approx(3.0, abs=0.8)


def test_the_better_weighting_counts(simulation):
    _, truth = simulation
    right = oracle_maps(truth)["measured"]
    noise = replace(right.half1, data=np.random.default_rng(0).normal(size=right.half1.data.shape).astype(np.float32))
    scored = better_score({"measured": replace(right, half1=noise, half2=noise), "expected": right}, truth)
    assert scored.weighting == "expected"
    assert scored.resolution == better_score({"expected": right}, truth).resolution


def test_without_half_maps_nothing_is_made_up():
    assert set(score_maps(None, None, SimpleNamespace(), None).values()) == {None}
