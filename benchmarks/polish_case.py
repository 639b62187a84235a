"""Simulated sessions with geometry, CTF and poses spoiled as in practice: polished, and measured against the truth.

The session is that of `tiltwise simulate` (sub-slabs, partial coherence, damage at the exposure of each image, ice,
counting, a specimen that deforms). What polishing is given: a tilt axis 0.5° off, tilt angles off by 0.2° and shifts by
10 Å (sd, in length), no deformation, defoci off by 600 Å for the series and 300 Å (sd) for each tilt, poses off by 2°
and 3 Å on each axis.

`before` are the poses alone, refined under that; each further row adds a block. `shift_rmse_A` is how far the images of
particles lie from the true ones, in length, a shift of each particle free; `defocus_rmse_A` that of all used tilts.
`noise_fsc` is the mean FSC of the half maps, unmasked, where even the oracle holds nothing: what the shared geometry
lets leak.
"""

import os
import tempfile
import time
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from scipy.spatial.transform import Rotation

from tiltwise.data.atoms import Atoms
from tiltwise.data.particles import Particles
from tiltwise.data.tilt_series import TiltSeries
from tiltwise.ops.deformation import specimen_in_images
from tiltwise.ops.fsc import fourier_shell_correlation
from tiltwise.ops.geometry import tilt_rotations
from tiltwise.ops.maps.masked_fsc import measure_masked_fsc
from tiltwise.ops.particles.half_sets import assign_half_sets
from tiltwise.ops.poses.comparison import compare_poses
from tiltwise.params.polish import PolishParams
from tiltwise.params.session import SessionParams
from tiltwise.project.threads import keep_freed_memory
from tiltwise.stages.polish import PolishResult, polish
from tiltwise.workflows.map_scores import MapScore, average_as, oracle_score, score_maps
from tiltwise.workflows.scene_simulation import write_session
from tiltwise.workflows.simulation import Truth, read_truth

MODELS = Path(os.environ.get("TILTWISE_MODELS", Path(__file__).parents[2] / "shared" / "data" / "models"))
AXIS, ANGLE, SHIFT, COMMON_DEFOCUS, DEFOCUS, TURN, MOVE = 0.5, 0.2, 10.0, 600.0, 300.0, 2.0, 3.0
"""Degrees, degrees, Å, Å, Å, degrees, Å."""
LADDER = {
    "before": {"refine_tilts": False, "refine_deformation": False, "refine_defocus": False},
    "tilts": {"refine_deformation": False, "refine_defocus": False},
    "deformation": {"refine_defocus": False},
    "after": {},
}
"""Which blocks each run may use."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Case:
    known: Truth
    """The truth; its series carry the true deformation."""
    series: dict[str, TiltSeries]
    """As polishing is given them."""
    particles: Particles
    """As polishing is given them, in the order of the truth's."""
    symmetry: str
    """Point group."""


def small_session(preset: str, *, particles: int, side: int, pixel_size: float, thickness: float, seed: int):
    """A preset's session on a field of side (px) with so many particles in it, without gold and lumps of ice."""
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
    return SessionParams(scene=changed, microscope=microscope.model_copy(update={"camera": camera}), seed=seed)


def make_case(session: SessionParams, number: int, model: Atoms | None, symmetry: str) -> Case:
    """Simulate so many series, and spoil them."""
    keep_freed_memory()
    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder) / "session"
        write_session(output, session, series=number, model=model, workers=1)
        known = in_memory(read_truth(output / "truth"))
    return spoil_case(known, symmetry, session.seed)


def spoil_case(known: Truth, symmetry: str, seed: int) -> Case:
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
    return Case(known=known, series=spoiled, particles=posed, symmetry=symmetry)


def in_memory(known: Truth) -> Truth:
    """The truth with its images read, so that the files can go."""
    series = {n: replace(s, images=np.array(s.images)) for n, s in known.tilt_series.items()}
    maps = {m: replace(getattr(known, m), data=np.array(getattr(known, m).data)) for m in ("map", "mask")}
    return replace(known, tilt_series=series, **maps)


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


def climb(case: Case, params: PolishParams, rows: tuple[str, ...]) -> dict:
    """Figures of every run of the ladder, and of the last one in full."""
    keep_freed_memory()
    figures: dict = {"gains": {}}
    oracle = oracle_score(case.known)
    for row in rows:
        began = time.process_time()
        result = polish(case.series, case.particles, params.model_copy(update=LADDER[row]))
        taken = round(time.process_time() - began, 1)
        found = measure(case, result, oracle) | {"polish_cpu_s": taken}
        figures["gains"][row] = {key: found[key] for key in _GAINED}
        if row == rows[0]:
            figures |= {f"{key}_before": found[key] for key in _BOTH_ENDS}
    return figures | found | {f"{key}_after": found[key] for key in _BOTH_ENDS}


_GAINED = ("oracle_ratio", "resolution_to_truth_A", "shift_rmse_A", "defocus_rmse_A", "polish_cpu_s")
_BOTH_ENDS = ("oracle_ratio", "resolution_to_truth_A", "shift_rmse_A", "defocus_rmse_A", "pose_error_median_deg")


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
    curves = measure_masked_fsc(maps[0], maps[1], mask, known.map.voxel_size, seed=0)
    keys = ("resolution_to_truth_A", "oracle_resolution_A", "oracle_ratio", "oracle_valid", "sum_ssnr_ratio")
    return {
        **{key: scores[key] for key in keys},
        "resolution_fsc_A": curves.resolution,
        "noise_fsc": noise_correlation(maps, np.array(scores["fsc_oracle"])),
        "shift_rmse_A": motion,
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


def defocus_error(case: Case, result: PolishResult) -> float:
    """Rms error of the mean defocus over used tilts, Å."""
    rest = [
        (result.tilt_series[name].ctf.mean_defocus - truth.ctf.mean_defocus)[truth.use]
        for name, truth in case.known.tilt_series.items()
    ]
    return float(np.sqrt(np.mean(np.concatenate(rest) ** 2)))
