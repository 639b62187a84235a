"""The bundle adjuster on two real bead problems that IMOD solved (BBa, BBb): its residuals and its 3D beads.

Free: shift, axis and magnification of each tilt, tilt angle of each tilt within 1° (sd) of IMOD's, 3D beads; and, as
IMOD's solution has it too (its transforms are no rotations), a strain of the specimen in its plane that changes little
from tilt to tilt. A constant strain is gauge: beads are compared as they lie in the first view. Figures named `plain`
are without strain. IMOD ties parameters in groups of tilts, so ours are more; their number is said. The start knows the
observations, IMOD's tilt angles and one axis (that of its transforms, rounded to 1°): no shift, no bead.
"""

from dataclasses import replace
from pathlib import Path

import numpy as np
from scipy.spatial.transform import Rotation

from tiltwise.data.tilt_series import TiltGeometry
from tiltwise.io.imod import read_tlt, read_xf
from tiltwise.ops.alignment.bundle_adjustment import BundleFit, Freedom, Freedoms, adjust, triangulate
from tiltwise.ops.alignment.bundle_system import BundleState, Observations, strains

SHARED = Path(__file__).parents[3] / "shared" / "data" / "alignment_text" / "imod_bb"
NAMES = ("BBa", "BBb")
STRAIN = Freedom(deviation=0.01, step=0.0005)
PLAIN = Freedoms(tilt_angle=Freedom(deviation=1.0), magnification=Freedom())
STRAINED = replace(PLAIN, stretch=STRAIN, skew=STRAIN)


def run() -> dict:
    if not SHARED.is_dir():
        return {"skipped": f"{SHARED} is not here"}
    figures: dict = {}
    for name in NAMES:
        for key, value in measure(SHARED, name).items():
            figures.setdefault(key, {})[name] = value
    return figures


def measure(folder: Path, name: str) -> dict:
    """Figures of one problem; lengths in its own pixels."""
    table = read_resid(folder / f"{name}.resid")
    observations, theirs = observations_of(table), np.linalg.norm(table[:, 3:], axis=1).mean()
    angles, axis = read_tlt(folder / f"{name}.tlt"), axis_of(folder / f"{name}.xf")
    beads = read_xyz(folder / f"{name}fid.xyz")
    figures: dict = {"imod_residual_px": round(float(theirs), 4), "observed_numbers": 2 * len(table)}
    for suffix, freedoms in (("", STRAINED), ("_plain", PLAIN)):
        fit = solve(observations, angles, axis, freedoms)
        ours, held_out = (np.linalg.norm(r, axis=1).mean() for r in (fit.residual, fit.held_out_residual))
        first_view = fit.state.points @ strains(fit.state)[0].T
        figures |= {
            f"residual_ratio{suffix}": round(float(ours / theirs), 4),
            f"held_out_residual_px{suffix}": round(float(held_out), 4),
            f"beads_rms_px{suffix}": round(similarity_rms(first_view, beads), 4),
            f"parameters{suffix}": fit.parameters,
            f"converged{suffix}": fit.converged,
        }
    return figures


def solve(observations: Observations, tilt_angle: np.ndarray, axis: float, freedoms: Freedoms) -> BundleFit:
    """First shifts and beads by turns with the angles as given, then the whole adjustment."""
    number = len(tilt_angle)
    geometry = TiltGeometry(
        tilt_angle=tilt_angle,
        tilt_axis_angle=np.full(number, axis),
        x_tilt=np.zeros(number),
        shift=np.zeros((number, 2)),
    )
    start = triangulate(observations, BundleState.undistorted(geometry, np.zeros((0, 3))))
    rough = adjust(observations, start, Freedoms(tilt_axis_angle=Freedom(deviation=0.0)))
    return adjust(observations, rough.state, freedoms)


def read_resid(path: Path) -> np.ndarray:
    """(obs, 5): x, y (px), view from 0, residual x, y (px)."""
    lines = path.read_text().splitlines()[1:]
    return np.array([[float(word) for word in line.split()] for line in lines if line.strip()])


def read_xyz(path: Path) -> np.ndarray:
    """(bead, 3) px."""
    return np.array([[float(word) for word in line.split()[1:4]] for line in path.read_text().splitlines()])


def observations_of(table: np.ndarray) -> Observations:
    """Positions from the mean of all; a new bead begins where the view does not rise."""
    view = table[:, 2].astype(int)
    point = np.concatenate([[0], np.cumsum(np.diff(view) <= 0)])
    return Observations(
        tilt=view, point=point, position=table[:, :2] - table[:, :2].mean(0), weight=np.ones(len(table))
    )


def axis_of(path: Path) -> float:
    """Median axis of IMOD's transforms, rounded to a degree: as well as a microscope states it."""
    matrix = read_xf(path)[:, :, :2]
    turn = np.arctan2(matrix[:, 0, 1] - matrix[:, 1, 0], matrix[:, 0, 0] + matrix[:, 1, 1])
    return float(np.round(np.degrees(np.median(turn))))


def similarity_rms(points: np.ndarray, other: np.ndarray) -> float:
    """Rms 3D distance after the best rotation, translation and scale of the points onto the other ones, no mirror."""
    a, b = points - points.mean(0), other - other.mean(0)
    turned = Rotation.align_vectors(b, a)[0].apply(a)
    scale = float((turned * b).sum() / (turned**2).sum())
    return float(np.sqrt(((scale * turned - b) ** 2).sum(1).mean()))
