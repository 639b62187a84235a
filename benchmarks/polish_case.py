"""Simulated sessions with geometry, CTF and poses spoiled as in practice: polished, and measured against the truth.

The session is that of `tiltwise simulate`: sub-slabs, partial coherence, damage, ice, counting. Each
image is the sum of FRAMES frames that move as a real movie at that tilt did (`measured_tracks.py`) and as nothing has
corrected: the worst that motion correction can leave. The specimen deforms by 20 Å (15 Å in the twin), by 10 Å more in
terms of third order in x, y, z, and each image is warped by 2 Å, correlated over a fifth of the side. What polishing is
given: a tilt axis 0.5° off, tilt angles off by 0.2° and shifts by 10 Å (sd, in length), no deformation, defoci off by
600 Å for the series and 300 Å (sd) for each tilt, poses off by 2° and 3 Å on each axis.

`before` are the poses alone, refined under that, and `true` the poses alone under the true geometry and CTF: what no
block can better. Each further row of LADDER adds a block, and `after` has all.
`shift_rmse_A` is how far the images of particles lie from the true ones, in length, a shift of each particle free;
`angle_rmse_deg` and `axis_error_deg` those of the tilt angles and of the axis, turns within the deformation counted,
what no image tells taken off; `defocus_rmse_A` that of all used tilts. `noise_fsc` is the mean FSC of the half maps,
unmasked, where even the oracle holds nothing: what the shared geometry lets leak. docs/explanation/polish.md has all.

TILTWISE_POLISH_ROWS=before,after leaves rows out; _SEEDS=3 takes so many seeds from _SEED on, and adds their standard
deviations and `oracle_ratio_mean_sd`; _DEVICE=cuda polishes there.
"""

import os
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from averaged_crossings import averaged_crossings
from measured_tracks import SERIES, SHARED, TRACKS, tracks_at
from scipy.interpolate import CubicSpline
from scipy.spatial.transform import Rotation

from tiltwise.data.atoms import Atoms
from tiltwise.data.deformation import Deformation
from tiltwise.data.motion import FrameMotion
from tiltwise.data.particles import Particles
from tiltwise.data.tilt_series import TiltSeries
from tiltwise.ops.alignment.comparison import compare_alignments
from tiltwise.ops.alignment.track_deformation import take_out_rigid
from tiltwise.ops.deformation import middle_exposure, sample_displacement, specimen_in_images
from tiltwise.ops.fsc import fourier_shell_correlation
from tiltwise.ops.geometry import tilt_rotations
from tiltwise.ops.maps.masked_fsc import measure_masked_fsc
from tiltwise.ops.particles.half_sets import assign_half_sets
from tiltwise.ops.poses.comparison import compare_poses
from tiltwise.ops.symmetry import symmetry_order
from tiltwise.params.microscope import MotionParams
from tiltwise.params.polish import PolishParams
from tiltwise.params.session import SessionParams
from tiltwise.project.store import join
from tiltwise.project.threads import keep_freed_memory
from tiltwise.simulate.disturbances import frame_motion_on_tracks
from tiltwise.simulate.image_scene import image_scene
from tiltwise.simulate.scene_session import SceneSeries, prepare_series
from tiltwise.stages.polish import PolishResult, polish
from tiltwise.workflows.map_scores import MapScore, average_as, oracle_score, score_maps
from tiltwise.workflows.simulation import REFERENCE_LOWPASS, Truth, molecule_and_mask, particle_diameter

MODELS = Path(os.environ.get("TILTWISE_MODELS", SHARED / "data" / "models"))
AXIS, ANGLE, SHIFT, COMMON_DEFOCUS, DEFOCUS, TURN, MOVE = 0.5, 0.2, 10.0, 600.0, 300.0, 2.0, 3.0
"""Degrees, degrees, Å, Å, Å, degrees, Å."""
FRAMES, LOCAL = 4, 1.0
"""Of each tilt; local motion at the edge of the field while a tilt is taken, Å."""
BEYOND = {"cubic_deformation": 10.0, "warp": 2.0}
"""What a quadratic deformation of the specimen cannot hold, Å."""
TRUE = "true"
LADDER = {
    "before": {"blocks": (), "refine_defocus": False},
    TRUE: {"blocks": (), "refine_defocus": False},
    "shift": {"blocks": ("shift",), "refine_defocus": False},
    "angles": {"blocks": ("shift", "angles", "magnification"), "refine_defocus": False},
    "sample": {"blocks": ("shift", "angles", "magnification", "sample"), "refine_defocus": False},
    "warp": {"refine_defocus": False},
    "after": {},
}
"""Which blocks each run may use: each adds one to those before, that of the angles the magnification as well. TRUE is
given the true geometry and CTF, and refines poses alone: the best that blocks can come to."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Case:
    known: Truth
    """The truth; its series carry the true deformation."""
    series: dict[str, TiltSeries]
    """As polishing is given them."""
    particles: Particles
    """Poses as refinement under the true geometry would leave them, in the order of the truth's."""


def small_session(preset: str, *, particles: int, side: int, pixel_size: float, thickness: float, seed: int):
    """A preset's session on a field of side (px) with so many particles in it, without gold and lumps of ice; its
    specimen deforms to the third order, its images are warped."""
    whole = SessionParams.preset(preset, seed)
    scene, microscope = whole.scene, whole.microscope
    camera = microscope.camera.model_copy(update={"image_size": side, "pixel_size": pixel_size})
    changed = scene.model_copy(
        update={
            "target": scene.target.model_copy(update={"number": particles}),
            "ice": scene.ice.model_copy(update={"thickness": thickness}),
            "gold": scene.gold.model_copy(update={"number": 0}),
            "contamination": scene.contamination.model_copy(update={"number": 0}),
        }
    )
    motion = microscope.motion.model_copy(update={"local": LOCAL, **BEYOND})
    moving = microscope.model_copy(update={"camera": camera, "motion": motion})
    return SessionParams(scene=changed, microscope=moving, seed=seed)


def make_case(session: SessionParams, number: int, model: Atoms | None, symmetry: str) -> Case:
    """Simulate so many series, which move by turns as the real ones did, and spoil them."""
    keep_freed_memory()
    made = [prepare_series(session, n, model=model, frames=False) for n in range(1, number + 1)]
    series = {one.series.name: imaged(one, SERIES[n % 2], session.seed) for n, one in enumerate(made)}
    return spoil_case(truth_of(made, series, symmetry), session.seed)


def truth_of(made: list[SceneSeries], series: dict[str, TiltSeries], symmetry: str) -> Truth:
    """The truth of a session whose series have these images; symmetry: the particle's point group."""
    scatterer = made[0].scene.populations[0].scatterer
    density, mask = molecule_and_mask(scatterer, made[0].series.pixel_size)
    return Truth(
        tilt_series=series,
        particles=join("particles", {one.series.name: targets(one) for one in made}),
        map=density,
        mask=mask,
        particle_diameter=particle_diameter(scatterer),
        reference_lowpass=REFERENCE_LOWPASS,
        symmetry=symmetry,
    )


def imaged(whole: SceneSeries, real: str, seed: int) -> TiltSeries:
    """The series with images that move as those of a real series did, and with the deformation under which they were
    taken."""
    disturbed = whole.disturbances
    frames = real_motion(whole.params.motion, whole.series, real, np.random.default_rng([seed, 78, *whole.seed]))
    disturbed = replace(disturbed, frames=frames)
    bent = Deformation(sample=disturbed.deformation, image=disturbed.warp)
    made = image_scene(whole.scene, whole.series, whole.params, whole.seed, disturbances=disturbed)
    return replace(whole.series, images=np.stack(list(made)), deformation=bent)


def real_motion(
    params: MotionParams, series: TiltSeries, real: str, rng: np.random.Generator, *, frames: int = FRAMES
) -> FrameMotion:
    """Every tilt on the track of the movie of a real series that was taken nearest to its angle."""
    return frame_motion_on_tracks(tracks_at(real, series.stage_tilt_angle), params, series, frames, rng)


def targets(whole: SceneSeries) -> Particles:
    """The particles of a field."""
    target = whole.scene.populations[0]
    count = len(target.position)
    return Particles(
        tilt_series=np.full(count, whole.series.name),
        position=target.position,
        rotation=target.rotation,
        score=np.ones(count),
        half_set=np.zeros(count, dtype=int),
        region=np.full(count, -1),
    )


def spoil_case(known: Truth, seed: int) -> Case:
    """A truth, and what is left of it as alignment, CTF fit and refinement would leave it."""
    known = replace(known, particles=replace(known.particles, half_set=assign_half_sets(known.particles, 1.0, 0)))
    rng = np.random.default_rng([seed, 77])
    spoiled = {name: spoil(one, rng) for name, one in known.tilt_series.items()}
    count = (len(known.particles), 3)
    posed = replace(
        known.particles,
        position=known.particles.position + rng.normal(0, MOVE, count),
        rotation=known.particles.rotation * Rotation.from_rotvec(rng.normal(0, TURN, count), degrees=True),
    )
    return Case(known=known, series=spoiled, particles=posed)


def where_they_appear(case: Case) -> Particles:
    """As polishing is given them, which knows of no deformation: a specimen's point is held for where it is on average
    over the tilts, which is where a rigid alignment shows it, up to 30 Å from where it began."""
    position = case.particles.position.copy()
    for name, truth in case.known.tilt_series.items():
        own = np.flatnonzero(case.known.particles.tilt_series == name)
        there, sample = case.known.particles.position[own], truth.deformation and truth.deformation.sample
        if sample is not None:
            exposures = middle_exposure(truth)[truth.use]
            position[own] += np.mean([sample_displacement(sample, there, float(e)) for e in exposures], axis=0)
    return replace(case.particles, position=position)


def spoil(truth: TiltSeries, rng: np.random.Generator) -> TiltSeries:
    """A series as alignment and CTF fit would leave it."""
    g, ctf, number = truth.geometry, truth.ctf, truth.number
    change = rng.choice([-1, 1]) * COMMON_DEFOCUS + rng.normal(0, DEFOCUS, number)
    geometry = replace(
        g,
        tilt_axis_angle=g.tilt_axis_angle + rng.choice([-1, 1]) * AXIS,
        tilt_angle=g.tilt_angle + rng.normal(0, ANGLE, number),
        shift=g.shift + rng.normal(0, SHIFT / np.sqrt(2), (number, 2)),
    )
    fitted = replace(ctf, defocus_u=ctf.defocus_u + change, defocus_v=ctf.defocus_v + change)
    return replace(truth, geometry=geometry, ctf=fitted, deformation=None)


def setting(name: str, default: int) -> int:
    """A whole number from the environment: TILTWISE_POLISH_name."""
    return int(os.environ.get(f"TILTWISE_POLISH_{name}", default))


def chosen_rows() -> tuple[str, ...]:
    """The rows of the ladder that are asked for by TILTWISE_POLISH_ROWS; all if it is not set."""
    return tuple(os.environ.get("TILTWISE_POLISH_ROWS", ",".join(LADDER)).split(","))


def seeds() -> range:
    """Those asked for: TILTWISE_POLISH_SEEDS of them from TILTWISE_POLISH_SEED on."""
    first = setting("SEED", 0)
    return range(first, first + setting("SEEDS", 1))


def missing(*needed: Path) -> str:
    """Why nothing can be simulated: the first file that is not there. Empty where all are."""
    lost = [path for path in (*needed, TRACKS) if not path.exists()]
    return f"no {lost[0]}; TILTWISE_SHARED and TILTWISE_MODELS name the folders" if lost else ""


def climb_all(make: Callable[[int], Case], params: Callable[[Case], PolishParams], lost: str) -> dict:
    """Figures of every seed, of several their mean and standard deviation; lost: why there is nothing to climb.

    Of figures by row, `gains`, these are taken likewise; `seeds` has those of each seed in full.
    """
    if lost:
        return {"skipped": lost}
    found = []
    for seed in seeds():
        case = make(seed)
        found.append(climb(case, params(case), chosen_rows()))
    device = {"device": device_name()}
    if len(found) == 1:
        return found[0] | device
    ratios = {f"{key}_mean_sd": mean_and_sd(found, key) for key in ("oracle_ratio", "oracle_ratio_averaged")}
    return spread(found) | device | ratios | {"seeds": found}


def spread(found: list[dict]) -> dict:
    """Of numbers in every one of several tables: mean, and standard deviation under the name with _sd; tables in them
    likewise."""
    figures: dict = {}
    for key, value in found[0].items():
        values = [one[key] for one in found]
        if isinstance(value, dict):
            figures[key] = spread(values)
        elif all(isinstance(v, int | float) and not isinstance(v, bool) for v in values):
            figures |= {key: float(np.mean(values)), f"{key}_sd": float(np.std(values, ddof=1))}
        elif isinstance(value, bool):
            figures[key] = all(values)
    return figures


def mean_and_sd(found: list[dict], key: str) -> float:
    """Mean + standard deviation: what the target is set for."""
    values = [one[key] for one in found]
    return float(np.mean(values) + np.std(values, ddof=1))


def device() -> str:
    """Where polishing runs: TILTWISE_POLISH_DEVICE, or cpu."""
    return os.environ.get("TILTWISE_POLISH_DEVICE", "cpu")


def device_name() -> str:
    """The same, for people."""
    return torch.cuda.get_device_name(device()) if device().startswith("cuda") else device()


def climb(case: Case, params: PolishParams, rows: tuple[str, ...]) -> dict:
    """Figures of every run of the ladder, and of the last one in full."""
    keep_freed_memory()
    figures: dict = {"gains": {}}
    oracle = oracle_score(case.known)
    for row in rows:
        cpu, wall = time.process_time(), time.perf_counter()
        series = case.known.tilt_series if row == TRUE else case.series
        particles = case.particles if row == TRUE else where_they_appear(case)
        result = polish(series, particles, params.model_copy(update=LADDER[row]), device=device())
        taken = {"polish_cpu_s": time.process_time() - cpu, "polish_wall_s": time.perf_counter() - wall}
        found = measure(case, result, oracle) | {key: round(seconds, 1) for key, seconds in taken.items()}
        found["ms_per_particle_tilt_cycle"] = 1000 * taken["polish_cpu_s"] / (images(case) * max(found["cycles"], 1))
        figures["gains"][row] = {key: found[key] for key in _GAINED}
        if row == rows[0]:
            figures |= {f"{key}_before": found[key] for key in _BOTH_ENDS}
    return figures | found | {f"{key}_after": found[key] for key in _BOTH_ENDS}


def images(case: Case) -> int:
    """Images of particles: each in every used tilt of its series."""
    return sum(int(case.series[name].use.sum()) for name in case.particles.tilt_series.tolist())


_ERRORS = ("shift_rmse_A", "angle_rmse_deg", "axis_error_deg", "defocus_rmse_A", "pose_error_median_deg")
_BOTH_ENDS = ("oracle_ratio", "oracle_ratio_averaged", "resolution_to_truth_A", "resolution_fsc_A", *_ERRORS)
_GAINED = (*_BOTH_ENDS, "sum_ssnr_ratio", "cycles", "polish_cpu_s", "ms_per_particle_tilt_cycle")


def measure(case: Case, result: PolishResult, oracle: MapScore) -> dict:
    """A polished case against the truth."""
    known = case.known
    motion = common_motion(case, result)
    errors = compare_poses(
        result.particles.position, result.particles.rotation, known.particles.position, known.particles.rotation
    )
    measured = average_as(result.tilt_series, result.particles, known, "measured")
    expected = average_as(result.tilt_series, result.particles, known, "expected")
    reached = {"measured": measured, "expected": expected}
    used = np.arange(len(known.particles))
    scores = score_maps(reached, used, known, errors.reference_motion.inverse(), oracle)
    maps = [torch.as_tensor(np.array(v.data)) for v in (measured.half1, measured.half2)]
    mask = torch.as_tensor(np.array(known.mask.data, dtype=np.float32))
    order = symmetry_order(known.symmetry)
    curves = measure_masked_fsc(maps[0], maps[1], mask, known.map.voxel_size, seed=0, order=order)
    keys = ("resolution_to_truth_A", "oracle_resolution_A", "oracle_ratio", "oracle_valid", "sum_ssnr_ratio")
    return {
        **{key: scores[key] for key in keys},
        **averaged_crossings(known, scores),
        "resolution_fsc_A": curves.resolution,
        "noise_fsc": noise_correlation(maps, np.array(scores["fsc_oracle"])),
        "shift_rmse_A": motion,
        **turn_errors(case, result),
        "defocus_rmse_A": defocus_error(case, result),
        "pose_error_median_deg": float(np.median(errors.angle)),
        "cycles": len(result.quality["cycles"]) - 1,
        "particles": len(result.particles),
    }


def noise_correlation(maps: list[torch.Tensor], oracle: np.ndarray) -> float | None:
    """Mean FSC of the half maps, unmasked, over the shells where even the oracle holds nothing: 0 if nothing leaks;
    None where it holds something in all."""
    empty = np.flatnonzero(np.abs(oracle) < 0.05)
    shells = np.arange(empty[0], len(oracle) - 1) if len(empty) else np.array([], int)
    fsc = fourier_shell_correlation(*maps).numpy()
    return float(fsc[shells].mean()) if len(shells) else None


def common_motion(case: Case, result: PolishResult) -> float:
    """Rms distance (Å, in length) of the particles' images from the true ones, a shift of each particle free."""
    square, count = 0.0, 0
    for name, truth in case.known.tilt_series.items():
        place = case.known.particles.position[case.known.particles.tilt_series == name]
        used = np.flatnonzero(truth.use)
        ours, theirs = (specimen_in_images(s, place, used)[0] for s in (result.tilt_series[name], truth))
        rows = tilt_rotations(truth.geometry).numpy()[used][:, :2].reshape(-1, 3)
        right = (theirs - ours).transpose(0, 2, 1).reshape(-1, len(place))
        rest = right - rows @ np.linalg.lstsq(rows, right, rcond=None)[0]
        square, count = square + float((rest**2).sum()), count + rest.size // 2
    return float(np.sqrt(square / count))


def turn_errors(case: Case, result: PolishResult) -> dict[str, float]:
    """`angle_rmse_deg`: rms over all used tilts of the tilt angles' error, the mean of a series off; `axis_error_deg`:
    |median| of the axis' error, mean over the series.

    Turns that the deformation holds count as the tilts' own, less their mean, which is where the particles are.
    """
    square, axis = [], []
    for name, truth in case.known.tilt_series.items():
        ours, theirs = (take_out_rigid(about_mean(series)) for series in (result.tilt_series[name], truth))
        found = compare_alignments(ours, theirs)
        difference = (ours.geometry.tilt_angle - theirs.geometry.tilt_angle)[found.compared]
        square.append((difference - difference.mean()) ** 2)
        axis.append(found.axis_error)
    return {
        "angle_rmse_deg": float(np.sqrt(np.concatenate(square).mean())),
        "axis_error_deg": float(np.mean(axis)),
    }


def about_mean(series: TiltSeries) -> TiltSeries:
    """The series with its specimen's deformation about its mean over the used tilts."""
    sample = series.deformation and series.deformation.sample
    if sample is None:
        return series
    mean = CubicSpline(sample.exposure, sample.coefficient)(middle_exposure(series)[series.use]).mean(axis=0)
    still = replace(sample, coefficient=sample.coefficient - mean)
    return replace(series, deformation=replace(series.deformation, sample=still))


def defocus_error(case: Case, result: PolishResult) -> float:
    """Rms error of the mean defocus over used tilts, Å."""
    rest = [
        (result.tilt_series[name].ctf.mean_defocus - truth.ctf.mean_defocus)[truth.use]
        for name, truth in case.known.tilt_series.items()
    ]
    return float(np.sqrt(np.mean(np.concatenate(rest) ** 2)))
