"""Movies of full physics: what motion correction leaves of the frames' motion, what the step `frames` does about it.

The particle, fields and physics of polish-300kda (polish_case.py), each tilt a movie of eight frames on the track of a
real movie at that angle, with local motion of 1 Å at the edge; true geometry and CTF. Poses begin 2° and 3 Å off on
each axis and are refined anew on the sums of each row: `plain` sums of frames as they were taken, `plain_placed` the
same after the step `frames`, `corrected` those of the step `motion`, `corrected_placed` after `frames` again. `still`
are sums under the true motion: what no correction can better.

By row: `left_A` and `left_worst_A`, rms on each axis of the motion that the sums still hold, over 5 × 5 places, the
median of the used tilts and the worst; `taken`, what the gates of `frames` let pass, series by series;
`resolution_to_truth_A` and its ratio to the oracle's under the true motion, at true poses, by first crossings and by
averaged curves; `sum_ssnr_ratio` likewise.
TILTWISE_FRAMES_SEED takes another seed, _ROWS=plain,plain_placed leaves rows out (a placed row needs the one before).
"""

import os
import time
from dataclasses import dataclass, replace

import numpy as np
from measured_tracks import SERIES
from polish_300kda import PARTICLES, SIDE, params
from polish_300kda import SERIES as NUMBER
from polish_case import Case, measure, missing, real_motion, small_session, spoil_case, truth_of

from tiltwise.data.deformation import Deformation
from tiltwise.data.motion import FrameMotion, Motion, MovieMotions
from tiltwise.data.tilt_series import TiltSeries
from tiltwise.ops.frames.moved import add_shifts
from tiltwise.ops.motion.model import displacement
from tiltwise.params.frames import FramesParams
from tiltwise.params.motion import MotionParams
from tiltwise.project.threads import keep_freed_memory
from tiltwise.simulate.image_scene import image_frames
from tiltwise.simulate.scene_session import SceneSeries, prepare_series
from tiltwise.stages.frames import frames
from tiltwise.stages.frames.setup import check_movies
from tiltwise.stages.frames.sums import sum_anew
from tiltwise.stages.motion import motion
from tiltwise.stages.polish import PolishResult, polish
from tiltwise.workflows.map_scores import MapScore, oracle_score

FRAMES = 8
MODELS = {"plain": "none", "corrected": "local"}
"""Of the step `motion`, by row."""
PLACED = "_placed"
ROWS = tuple(os.environ.get("TILTWISE_FRAMES_ROWS", "plain,plain_placed,corrected,corrected_placed").split(","))
_FIGURES = (
    "resolution_to_truth_A",
    "resolution_fsc_A",
    "oracle_ratio",
    "oracle_ratio_averaged",
    "sum_ssnr_ratio",
    "pose_error_median_deg",
)
_PLACES = 5


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Filmed:
    """A series as movies."""

    series: TiltSeries
    """With its movies, and the true geometry, CTF and deformation; its images are empty."""
    moved: FrameMotion
    """The true motion."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Row:
    """Sums of the frames, and what was refined on them."""

    series: dict[str, TiltSeries]
    """By name, with the sums as images."""
    motions: dict[str, MovieMotions]
    """By what the frames were corrected, by series."""
    polished: PolishResult
    """Poses and half maps."""


def run() -> dict:
    if lost := missing():
        return {"skipped": lost}
    keep_freed_memory()
    seed = int(os.environ.get("TILTWISE_FRAMES_SEED", "0"))
    session = small_session("small-300kda", particles=PARTICLES, side=SIDE, pixel_size=2.0, thickness=700.0, seed=seed)
    made = [prepare_series(session, n, frames=False) for n in range(1, NUMBER + 1)]
    filmed = {one.series.name: film(one, SERIES[n % 2], seed) for n, one in enumerate(made)}
    known = truth_of(made, {name: still(one) for name, one in filmed.items()}, "D3")
    case = spoil_case(known, seed)
    oracle = oracle_score(known)
    figures: dict = {}
    rows: dict[str, Row] = {}
    for name in ROWS:
        before = time.process_time()
        if name.endswith(PLACED):
            rows[name], taken = placed(rows[name.removesuffix(PLACED)], case)
        else:
            rows[name], taken = summed(filmed, case, MODELS[name]), {}
        seconds = round(time.process_time() - before, 1)
        found = row_figures(case, rows[name], filmed, oracle)
        figures |= {"oracle_resolution_A": found.pop("oracle_resolution_A")}
        figures |= {f"{name}_{key}": value for key, value in (found | {"cpu_s": seconds} | taken).items()}
    return figures


def film(whole: SceneSeries, real: str, seed: int) -> Filmed:
    """Every tilt as frames that move as a real movie did, under the deformation of the specimen."""
    rng = np.random.default_rng([seed, 78, *whole.seed])
    moved = real_motion(whole.params.motion, whole.series, real, rng, frames=FRAMES)
    disturbed = replace(whole.disturbances, frames=moved)
    bent = Deformation(sample=disturbed.deformation, image=disturbed.warp)
    gain = np.ones(whole.series.image_shape, np.float32)
    movies = tuple(
        image_frames(whole.scene, whole.series, tilt, whole.params, whole.seed, gain=gain, disturbances=disturbed)
        for tilt in range(whole.series.number)
    )
    return Filmed(series=replace(whole.series, movies=movies, deformation=bent), moved=moved)


def true_motion(one: Filmed, tilt: int) -> Motion:
    """The same as motion correction would have it."""
    series, moved = one.series, one.moved
    ny, nx = series.image_shape
    extent = (nx * series.pixel_size, ny * series.pixel_size)
    still = Motion(exposure=moved.exposure[tilt], shift=np.zeros((FRAMES, 2)), coefficient=None, extent=extent)
    return add_shifts(still, moved.coefficient[tilt], moved.scale)


def still(one: Filmed) -> TiltSeries:
    """Sums under the true motion."""
    result = motion(one.series, None, None, MotionParams(model="none", defects=False))
    known = tuple(true_motion(one, tilt) for tilt in range(one.series.number))
    motions = replace(result.motions, motion=known)
    movies, _ = check_movies(result.tilt_series, motions, None)
    return sum_anew(movies, result.tilt_series, motions, lambda *_: None)


def summed(filmed: dict[str, Filmed], case: Case, model: str) -> Row:
    """The sums of the step `motion`, and poses refined on them."""
    found = {n: motion(one.series, None, None, MotionParams(model=model, defects=False)) for n, one in filmed.items()}
    series, motions = ({n: getattr(one, key) for n, one in found.items()} for key in ("tilt_series", "motions"))
    return Row(series=series, motions=motions, polished=poses_refined(series, case))


def placed(before: Row, case: Case) -> tuple[Row, dict]:
    """The sums after the step `frames`, and poses refined on them; what it took."""
    wanted = FramesParams(particle_diameter=case.known.particle_diameter)
    series, motions, taken = {}, {}, {}
    for name, one in before.series.items():
        particles = before.polished.particles
        own = particles[particles.tilt_series == name]
        found = frames(one, own, before.polished.half_maps, before.motions[name], None, wanted)
        series[name], motions[name], taken[name] = found.tilt_series, found.motions, found.quality["taken"]
    return Row(series=series, motions=motions, polished=poses_refined(series, case)), {"taken": taken}


def poses_refined(series: dict[str, TiltSeries], case: Case) -> PolishResult:
    poses_alone = params(case).model_copy(update={"blocks": (), "refine_defocus": False})
    return polish(series, case.particles, poses_alone)


def row_figures(case: Case, row: Row, filmed: dict[str, Filmed], oracle: MapScore) -> dict:
    found = measure(case, row.polished, oracle)
    kept = {key: found[key] for key in ("oracle_resolution_A", *_FIGURES)}
    return kept | motion_left(row, filmed)


def motion_left(row: Row, filmed: dict[str, Filmed]) -> dict[str, float]:
    """Rms on each axis, over frames and places, of the motion of a used tilt that was not taken back, Å: the median of
    the tilts, and the worst of them."""
    rest = []
    for name, one in filmed.items():
        for tilt in np.flatnonzero(row.series[name].use):
            known, found = true_motion(one, tilt), row.motions[name].motion[tilt]
            along = [np.linspace(-0.5, 0.5, _PLACES) * side for side in known.extent]
            grid = np.stack(np.meshgrid(*along), axis=-1).reshape(-1, 2)
            error = displacement(found, grid) - displacement(known, grid)
            rest.append(float(np.sqrt(((error - error.mean(axis=0)) ** 2).mean())))
    return {"left_A": round(float(np.median(rest)), 3), "left_worst_A": round(max(rest), 2)}
