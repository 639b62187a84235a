"""Every stage of a project measured against the truth of the simulation that its images came from."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from scipy.spatial.transform import Rotation

from tiltwise.data.maps import HalfMaps
from tiltwise.data.particles import Particles
from tiltwise.data.tilt_series import TiltSeries
from tiltwise.ops.alignment.comparison import compare_alignments
from tiltwise.ops.geometry import tilt_rotations
from tiltwise.ops.maps.superpose import RigidMotion
from tiltwise.ops.poses.comparison import PoseErrors, compare_poses, match_points, tomogram_motion
from tiltwise.project import store
from tiltwise.project.layout import check_project
from tiltwise.project.records import read_record
from tiltwise.project.relion_files import newest
from tiltwise.project.state import ProjectState
from tiltwise.workflows.map_scores import average_as, score_maps
from tiltwise.workflows.simulation import Truth, read_truth

Figures = dict[str, Any]


def evaluate(project: Path, truth: Path) -> Figures:
    """The figures of a project against the truth folder that `write_simulation` wrote beside its data.

    What no image can tell (docs/conventions.md, gauge) is taken out first. Keys carry units; a stage that has not run
    leaves its keys at None. Under `series` stand the figures of each tilt series. The oracle and its ratio are those of
    methods.md section 9. InputError where project or truth cannot be read, or the project holds none of the series.
    """
    state, known = ProjectState(check_project(project)), read_truth(truth)
    first = _series_given_by(state, "align", known)
    aligned = _series_of(state, "geometry", known)
    fitted = _series_of(state, "ctf", known)
    motions = {name: series_motion(series, known.tilt_series[name]) for name, series in aligned.items()}
    series = {name: _series_figures(name, aligned, fitted, motions, known) for name in known.tilt_series}
    for name, one in first.items():
        series[name]["align_shift_rmse_A"] = compare_alignments(one, known.tilt_series[name]).shift_rms
    figures = _over_series(series)
    figures |= _pick_figures(_particles_of(state, "pick"), motions, known, series)
    polished = _particles_of(state, "polish")
    refined = polished if polished is not None else _particles_of(state, "refine")
    used, errors = pose_errors(refined, motions, known) if refined is not None else (None, None)
    figures |= _pose_figures(errors)
    figures["resolution_fsc_A"] = _quality(state, "postprocess", "resolution_fsc_A")
    reached = _averages(_half_maps_of(state), refined, {**aligned, **fitted}, known)
    figures |= score_maps(reached, used, known, errors and errors.reference_motion.inverse())
    figures["reference_lowpass_A"] = known.reference_lowpass
    figures["seconds"] = _seconds(state)
    return {**figures, "series": series}


def series_motion(estimated: TiltSeries, truth: TiltSeries) -> RigidMotion:
    """The motion from the true tomogram frame to the one in which the alignment put it."""
    return tomogram_motion(estimated.geometry, truth.geometry, estimated.use & truth.use)


def pose_errors(
    refined: Particles, motions: Mapping[str, RigidMotion], known: Truth
) -> tuple[np.ndarray, PoseErrors | None]:
    """Indices of the true particles that have a refined one within half a radius, and the errors of these."""
    ours, theirs = match_particles(refined, motions, known)
    if not len(ours):
        return theirs, None
    placed, true = to_true_frame(refined, motions)[ours], known.particles[theirs]
    return theirs, compare_poses(placed.position, placed.rotation, true.position, true.rotation)


def match_particles(
    particles: Particles, motions: Mapping[str, RigidMotion], known: Truth
) -> tuple[np.ndarray, np.ndarray]:
    """Indices of one-to-one pairs of particles and true particles, within half a particle radius, series by series."""
    placed, pairs = to_true_frame(particles, motions), []
    for name in motions:
        ours, theirs = (np.flatnonzero(p.tilt_series == name) for p in (placed, known.particles))
        first, second = match_points(
            placed.position[ours], known.particles.position[theirs], known.particle_diameter / 4
        )
        pairs.append(np.stack([ours[first], theirs[second]]))
    joined = np.concatenate(pairs, axis=1) if pairs else np.empty((2, 0), dtype=int)
    return joined[0], joined[1]


def to_true_frame(particles: Particles, motions: Mapping[str, RigidMotion]) -> Particles:
    """The particles of the series that have a motion, in the true tomogram frames; those of others are left as they
    are."""
    position, rotation = particles.position.copy(), particles.rotation.as_matrix()
    for name, motion in motions.items():
        own, back = particles.tilt_series == name, motion.inverse()
        position[own] = position[own] @ back.rotation.T + back.shift
        rotation[own] = back.rotation @ rotation[own]
    return Particles(
        tilt_series=particles.tilt_series,
        position=position,
        rotation=Rotation.from_matrix(rotation) if len(position) else particles.rotation,
        score=particles.score,
        half_set=particles.half_set,
        region=particles.region,
    )


def _series_of(state: ProjectState, field: str, known: Truth) -> dict[str, TiltSeries]:
    """The newest state of every series of the truth in which a field is known."""
    found = {}
    for name in known.tilt_series:
        folder = newest(state, "tilt_series", name)
        if folder is not None:
            series = store.load("tilt_series", folder, state.project, series=name)
            if getattr(series, field) is not None:
                found[name] = series
    return found


def _series_given_by(state: ProjectState, stage: str, known: Truth) -> dict[str, TiltSeries]:
    """The series of the truth as the last step of a stage left them, before any later one changed them."""
    for step in reversed(state.recipe.steps):
        if step.stage.name == stage:
            folders = {name: state.project / step.name / name for name in known.tilt_series}
            return {n: store.load("tilt_series", f, state.project, series=n) for n, f in folders.items() if _done(f)}
    return {}


def _series_figures(
    name: str,
    aligned: Mapping[str, TiltSeries],
    fitted: Mapping[str, TiltSeries],
    motions: Mapping[str, RigidMotion],
    known: Truth,
) -> Figures:
    """Alignment and defocus of one series; keys of stages that have not run are absent."""
    truth, figures = known.tilt_series[name], {}
    if name in aligned:
        comparison = compare_alignments(aligned[name], truth)
        figures |= {
            "shift_rmse_A": comparison.shift_rms,
            "tilt_axis_error_deg": comparison.axis_error,
            "tilt_offset_deg": comparison.tilt_offset,
            "tilts_used": int(comparison.compared.sum()),
        }
    if name in aligned and name in fitted:
        figures |= _defocus_figures(fitted[name], truth, motions[name])
        figures["handedness"] = fitted[name].defocus_handedness
        figures["handedness_correct"] = fitted[name].defocus_handedness == truth.defocus_handedness
        turned = abs(figures["tilt_axis_error_deg"]) > 90
        figures["mirrored"] = bool(turned and fitted[name].defocus_handedness == -truth.defocus_handedness)
    return figures


def _defocus_figures(fitted: TiltSeries, truth: TiltSeries, motion: RigidMotion) -> Figures:
    """Error of (u + v) / 2 at depth 0. Depth 0 is that of the tomogram's origin, which the alignment has chosen: seen
    from the truth, that origin lies at -Aᵀ b, and so at a depth of its own in each tilt."""
    use = fitted.use & truth.use
    origin = motion.inverse().shift
    depth = tilt_rotations(truth.geometry).numpy()[:, 2] @ origin
    expected = truth.ctf.mean_defocus + truth.defocus_handedness * depth
    error = (fitted.ctf.mean_defocus - expected)[use]
    return {"defocus_rmse_A": float(np.sqrt(np.mean(error**2))), "defocus_bias_A": float(np.mean(error))}


def _over_series(series: Mapping[str, Figures]) -> Figures:
    """Over all series: rms of shift and defocus, the worst axis; handedness is right only if every one is."""

    def values(key: str) -> list:
        return [figures[key] for figures in series.values() if key in figures]

    def rms(key: str) -> float | None:
        return float(np.sqrt(np.mean(np.square(values(key))))) if values(key) else None

    hands = values("handedness_correct")
    complete = len(hands) == len(series)
    return {
        "shift_rmse_A": rms("shift_rmse_A"),
        "align_shift_rmse_A": rms("align_shift_rmse_A"),
        "tilt_axis_error_deg": max(values("tilt_axis_error_deg"), default=None),
        "defocus_rmse_A": rms("defocus_rmse_A"),
        "handedness_correct": all(hands) if complete else False if hands else None,
        "mirrored": any(values("mirrored")) if hands else None,
    }


def _particles_of(state: ProjectState, stage: str) -> Particles | None:
    """The particles that the last step of a stage gave, of all series; None if there are none."""
    for step in reversed(state.recipe.steps):
        if step.stage.name != stage:
            continue
        folders = [item for item in sorted((state.project / step.name).glob("*")) if (item / store.PARTICLES).is_file()]
        parts = {item.name: store.load("particles", item, state.project) for item in folders if _done(item)}
        return store.join("particles", parts) if parts else None
    return None


def _pick_figures(
    picks: Particles | None, motions: Mapping[str, RigidMotion], known: Truth, series: dict[str, Figures]
) -> Figures:
    if picks is None:
        return {"pick_precision": None, "pick_recall": None, "pick_error_median_A": None}
    ours, theirs = match_particles(picks, motions, known)
    placed = to_true_frame(picks, motions)
    distance = np.linalg.norm(placed.position[ours] - known.particles.position[theirs], axis=1)
    for name in series:
        count = int((known.particles.tilt_series[theirs] == name).sum())
        series[name]["pick_precision"] = count / max(1, int((picks.tilt_series == name).sum()))
        series[name]["pick_recall"] = count / max(1, int((known.particles.tilt_series == name).sum()))
    return {
        "pick_precision": len(ours) / max(1, len(picks)),
        "pick_recall": len(ours) / max(1, len(known.particles)),
        "pick_error_median_A": float(np.median(distance)) if len(distance) else None,
    }


def _pose_figures(errors: PoseErrors | None) -> Figures:
    if errors is None:
        return {"pose_error_median_deg": None, "pose_shift_median_A": None, "particles_refined": None}
    return {
        "pose_error_median_deg": float(np.median(errors.angle)),
        "pose_shift_median_A": float(np.median(errors.shift)),
        "particles_refined": len(errors.angle),
        "pose_outliers": float(np.mean(errors.angle > 15)),
    }


def _half_maps_of(state: ProjectState) -> HalfMaps | None:
    folder = newest(state, "half_maps", next(iter(state.series), ""))
    return None if folder is None else store.load("half_maps", folder, state.project)


def _averages(
    reached: HalfMaps | None, refined: Particles | None, tilt_series: Mapping[str, TiltSeries], known: Truth
) -> dict[str, HalfMaps] | None:
    """What the project reached, and the same particles averaged with the weights that the tilt angles let expect."""
    if reached is None:
        return None
    own = {name for name in tilt_series if refined is not None and name in refined.tilt_series}
    if not own:
        return {"measured": reached}
    particles = refined[np.flatnonzero(np.isin(refined.tilt_series, sorted(own)))]
    return {"measured": reached, "expected": average_as(tilt_series, particles, known, "expected")}


def _quality(state: ProjectState, stage: str, key: str) -> Any:
    for step in reversed(state.recipe.steps):
        if step.stage.name == stage:
            records = (read_record(item) for item in sorted((state.project / step.name).glob("*")))
            found = [record["quality"].get(key) for record in records if record and record.get("state") == "done"]
            return found[0] if found else None
    return None


def _seconds(state: ProjectState) -> float:
    """Time of all items that are done, one after the other, s."""
    records = [state.record(item) for item in state.items()]
    return round(sum(record.get("seconds", 0.0) for record in records if record and record["state"] == "done"), 1)


def _done(folder: Path) -> bool:
    record = read_record(folder)
    return bool(record) and record.get("state") == "done"
