"""The motion field: cubic B-splines over image x, y and over the frames, linear in what is fitted.

d_f(r) = shift_f + Σ_tyx c_tyx B_t(s_f) B_y(r_y) B_x(r_x) is the displacement of the content: what lies at r in the sum
of the frames lies at r + d_f(r) in frame f. s_f is the exposure at mid-frame as a fraction of the whole.
"""

import numpy as np

from tiltwise.data.motion import Motion

SMOOTH_SPACE, SMOOTH_TIME = 0.6, 0.5
LEAST_CONTROLS = 4
"""A cubic B-spline needs four control values."""


def bspline_basis(position: np.ndarray, controls: int) -> np.ndarray:
    """(point, control) values of the uniform cubic B-splines at positions 0 to 1; each row sums to 1.

    The position is clamped to 0 … 1. `controls` is 1 (a constant) or at least 4.
    """
    position = np.clip(np.asarray(position, dtype=float), 0, 1)
    if controls == 1:
        return np.ones((len(position), 1))
    if controls < LEAST_CONTROLS:
        raise ValueError(f"a cubic spline has 1 or at least {LEAST_CONTROLS} control values, not {controls}")
    intervals = controls - 3
    place = position * intervals
    first = np.minimum(place.astype(int), intervals - 1)
    basis = np.zeros((len(position), controls))
    rows = np.arange(len(position))
    for number, weight in enumerate(bspline_weights(place - first)):
        basis[rows, first + number] = weight
    return basis


def bspline_weights(t: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """The four pieces of the cubic B-spline at the fraction t, 0 to 1, of an interval."""
    u = 1 - t
    return u**3 / 6, (3 * t**3 - 6 * t**2 + 4) / 6, (3 * u**3 - 6 * u**2 + 4) / 6, t**3 / 6


def frame_times(exposure: np.ndarray) -> np.ndarray:
    """(frame,) exposure at the middle of each frame as a fraction of the whole; evenly spaced if none is known."""
    exposure = np.asarray(exposure, dtype=float)
    if exposure.sum() <= 0:
        exposure = np.ones_like(exposure)
    return (np.cumsum(exposure) - exposure / 2) / exposure.sum()


def whole_basis(frames: int) -> np.ndarray:
    """(frame, frame - 1) orthonormal courses of zero mean (cosines): what the frames can tell of a common motion."""
    time = (np.arange(frames) + 0.5) / frames
    return np.cos(np.pi * time[:, None] * np.arange(1, frames)) * np.sqrt(2 / frames)


def field_basis(
    time: np.ndarray, position: np.ndarray, extent: tuple[float, float], controls: tuple[int, int, int]
) -> np.ndarray:
    """(point, frame, t · y · x) values of the local basis at image positions (point, 2) x, y in Å from the centre."""
    x, y = np.asarray(position, dtype=float).T
    bt = bspline_basis(time, controls[0])
    by = bspline_basis(y / extent[1] + 0.5, controls[1])
    bx = bspline_basis(x / extent[0] + 0.5, controls[2])
    return np.einsum("ft,py,px->pftyx", bt, by, bx).reshape(len(x), len(bt), -1)


def smooth_factor(extent: tuple[float, float], controls: tuple[int, int, int]) -> np.ndarray:
    """(t · y · x, t · y · x) L: control values L · c with independent c of variance 1 vary smoothly.

    Their covariance L Lᵀ falls over the image as a Gaussian of standard deviation SMOOTH_SPACE of its longer side, and
    over the exposure as an exponential of SMOOTH_TIME of the whole, as a path does that may turn at any time.
    """
    nt, ny, nx = controls
    longest = max(extent)
    places = (_control_positions(ny) * extent[1] / longest, _control_positions(nx) * extent[0] / longest)
    factor = np.linalg.cholesky(_nugget(np.exp(-_distances(_control_positions(nt)) / SMOOTH_TIME)))
    for place in places:
        over = np.exp(-(_distances(place) ** 2) / (2 * SMOOTH_SPACE**2))
        factor = np.kron(factor, np.linalg.cholesky(_nugget(over)))
    return factor


def _control_positions(controls: int) -> np.ndarray:
    """Where a control value has the most effect, as a fraction of the range."""
    return (np.arange(controls) - 1) / max(controls - 3, 1)


def _distances(place: np.ndarray) -> np.ndarray:
    return np.abs(place[:, None] - place[None, :])


def _nugget(covariance: np.ndarray) -> np.ndarray:
    return covariance + 1e-3 * np.eye(len(covariance))


def displacement(motion: Motion, position: np.ndarray) -> np.ndarray:
    """(frame, point, 2) Å at image positions (point, 2) x, y in Å from the image centre."""
    position = np.asarray(position, dtype=float)
    moved = np.repeat(motion.shift[:, None], len(position), axis=1)
    if motion.coefficient is None:
        return moved
    basis = field_basis(frame_times(motion.exposure), position, motion.extent, motion.coefficient.shape[:3])
    return moved + np.einsum("pfj,jc->fpc", basis, motion.coefficient.reshape(-1, 2))


def grid_displacement(motion: Motion, frame: int, y: np.ndarray, x: np.ndarray) -> np.ndarray:
    """(y, x, 2) Å in one frame at the nodes of a grid of positions y, x in Å from the image centre."""
    field = np.broadcast_to(motion.shift[frame], (len(y), len(x), 2))
    if motion.coefficient is None:
        return field
    nt, ny, nx, _ = motion.coefficient.shape
    bt = bspline_basis(frame_times(motion.exposure)[frame : frame + 1], nt)[0]
    by = bspline_basis(np.asarray(y) / motion.extent[1] + 0.5, ny)
    bx = bspline_basis(np.asarray(x) / motion.extent[0] + 0.5, nx)
    return field + np.einsum("t,jy,ix,tyxc->jic", bt, by, bx, motion.coefficient, optimize=True)


def centred(motion_shift: np.ndarray, coefficient: np.ndarray | None, time: np.ndarray):
    """Shift and control values with zero mean over the frames at every position, and the local part free of what moves
    the whole image: the gauge in which motions are kept and compared."""
    if coefficient is None:
        return motion_shift - motion_shift.mean(axis=0), None
    nt = coefficient.shape[0]
    common = np.einsum("t,tyxc->yxc", bspline_basis(time, nt).mean(axis=0), coefficient)
    local = coefficient - common  # the time basis sums to 1, so this lowers every frame by the mean
    whole = local.mean(axis=(1, 2))
    shift = motion_shift + bspline_basis(time, nt) @ whole
    return shift - shift.mean(axis=0), local - whole[:, None, None]
