"""Paths of single particles from the quadratics of their images alone: what is left of them, and what chance takes.

60 particles in 41 tilts of ± 60°, dose-symmetric, or from one side to the other; each image tells its shift to 2 Å on
either axis, and a turn as well as a body of 100 Å radius does. Paths are Brownian, of several widths; `left_A` is the
rms of what is left of them (their own rms where the gate refuses), the mean of five trials. `taken_by_chance` counts
trials out of 100 each with 5 particles of such images, 5 of images that tell 7 Å, and 30, nothing moving.
"""

import numpy as np
from scipy.spatial.transform import Rotation

from tiltwise.data.optics import Optics
from tiltwise.data.tilt_series import TiltGeometry, TiltSeries
from tiltwise.ops.particles.trajectories import MODES, mode_deviations, trajectory_basis
from tiltwise.ops.polishing.geometry_blocks import see_particles
from tiltwise.ops.polishing.trajectory_refinement import MOTION, deal_tilts, motion_terms, path_length, try_widths
from tiltwise.ops.poses.terms import PoseTerms

WIDTHS = (0.3, 0.6, 1.0, 2.0, 4.0)
"""Å, of the first mode."""
TILTS, TRIALS, CHANCES = 41, 5, 100
CHANCE_CASES = ((5, 2.0), (5, 7.0), (30, 2.0))
"""Particles, and Å to which an image tells its shift."""


def run() -> dict:
    angle = np.linspace(-60, 60, TILTS)
    series = {"dose_symmetric": tilts(angle, np.abs(angle)), "from_one_side": tilts(angle, angle)}
    chance = [
        sum(measure(series["dose_symmetric"], [seed, 2], 0.0, *case)["taken"] for seed in range(CHANCES))
        for case in CHANCE_CASES
    ]
    return {name: [row(one, width) for width in WIDTHS] for name, one in series.items()} | {"taken_by_chance": chance}


def row(series: TiltSeries, width: float) -> dict:
    """The means of some trials with paths of one width."""
    found = [measure(series, [seed, 1], width, 60, 2.0) for seed in range(TRIALS)]
    means = {key: round(float(np.mean([one[key] for one in found])), 2) for key in ("paths_A", "left_A")}
    return means | {"taken": sum(one["taken"] for one in found)}


def measure(series: TiltSeries, seed: list[int], width: float, number: int, error: float) -> dict:
    """One trial: paths of this width, images that tell shifts to `error`, Å."""
    rng = np.random.default_rng(seed)
    position = rng.uniform(-1, 1, (number, 3)) * (1500, 1500, 300)
    paths = rng.normal(size=(number, MODES, 3)) * mode_deviations(1.0)[:, None] * width
    basis = trajectory_basis(series)
    terms = still_terms(rng, position, error)
    seen = see_particles(series, terms)
    moved = np.einsum("tj,pjd,tcd->ptc", basis, paths, seen.rotations[:, :2])
    terms.gradient[..., 3:] += moved / error**2
    part, present = deal_tilts(series), np.zeros((number, 3 * MODES))
    gate = try_widths({k: motion_terms(seen, terms, basis, part == k) for k in (1, 2)}, present)
    whole = motion_terms(seen, terms, basis, np.ones(TILTS, bool))
    found = whole.fit(present, gate.width * MOTION) if gate.accepted else present
    truth = paths.reshape(number, -1)
    return {
        "paths_A": path_length(truth, basis),
        "left_A": path_length(found - truth, basis),
        "taken": gate.accepted,
    }


def still_terms(rng: np.random.Generator, position: np.ndarray, error: float) -> PoseTerms:
    """Of particles at their true poses, with noise: a turn moves a body's edge, 100 Å away, as a shift does."""
    number = len(position)
    diagonal = np.array([1e4, 1e4, 1e4, 1, 1]) / error**2
    return PoseTerms(
        index=np.arange(number),
        position=position,
        rotation=Rotation.random(number, random_state=int(rng.integers(1000))).as_matrix(),
        half_set=1 + np.arange(number) % 2,
        likelihood=np.zeros((number, TILTS)),
        gradient=rng.normal(size=(number, TILTS, 5)) * np.sqrt(diagonal),
        information=np.broadcast_to(np.diag(diagonal), (number, TILTS, 5, 5)).copy(),
    )


def tilts(angle: np.ndarray, late: np.ndarray) -> TiltSeries:
    """Tilts of these angles, taken in the order in which `late` rises, 3 e⁻/Å² each, of a field of 4000 Å."""
    same, order = np.ones(TILTS), np.argsort(np.argsort(late, kind="stable"))
    return TiltSeries(
        name="made",
        images=np.zeros((TILTS, 400, 400), np.float32),
        image_names=("",) * TILTS,
        pixel_size=10.0,
        optics=Optics(),
        stage_tilt_angle=angle,
        nominal_tilt_axis_angle=85.0,
        exposure=3.0 * same,
        pre_exposure=3.0 * order,
        acquisition_order=order,
        use=same.astype(bool),
        why_not=("",) * TILTS,
        geometry=TiltGeometry(
            tilt_angle=angle, tilt_axis_angle=85.0 * same, x_tilt=0 * same, shift=np.zeros((TILTS, 2))
        ),
    )
