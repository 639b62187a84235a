"""Centre lines of filaments through clicked points, and the places of subunits on and around them.

The line is the cubic spline through the points over their chord length (not-a-knot; the parabola or straight line
through three or two). Its frames (x, y, tangent) are carried along without turning about the tangent: a step turns the
frame by the smallest rotation that takes one tangent into the next (Bishop 1975, Am. Math. Mon. 82, 246).
"""

from dataclasses import dataclass

import numpy as np
from scipy.interpolate import CubicSpline, make_interp_spline
from scipy.spatial.transform import Rotation

_FINE = 40
"""Steps of the fine line for each spacing."""
_FEWEST_STEPS, _MOST_STEPS = 400, 200_000


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class CentreLine:
    """A line at equal steps of its length."""

    position: np.ndarray
    """(step, 3) Å."""
    frame: np.ndarray
    """(step, 3, 3) columns x, y and the tangent, from the first clicked point to the last."""
    step: float
    """Å of length between steps."""

    @property
    def length(self) -> float:
        """Å."""
        return self.step * (len(self.position) - 1)


def centre_line(points: np.ndarray, step: float) -> CentreLine:
    """The line through (point, 3) points, Å, two or more and no two after another alike, at steps of `step` Å or so.

    The last step ends on the last point, so steps are as near to `step` as whole numbers of them allow.
    """
    chord = np.concatenate([[0], np.linalg.norm(np.diff(points, axis=0), axis=1).cumsum()])
    curve = CubicSpline(chord, points) if len(points) > 3 else make_interp_spline(chord, points, k=len(points) - 1)
    number = int(np.clip(_FINE * chord[-1] / step, _FEWEST_STEPS, _MOST_STEPS))
    fine = np.linspace(0, chord[-1], number + 1)
    speed = np.linalg.norm(curve.derivative()(fine), axis=1)
    # Simpson's rule over each fine step: the spline's speed is smooth between the points
    middle = np.linalg.norm(curve.derivative()((fine[1:] + fine[:-1]) / 2), axis=1)
    length = np.concatenate([[0], ((speed[1:] + 4 * middle + speed[:-1]) / 6 * np.diff(fine)).cumsum()])
    steps = max(1, int(round(length[-1] / step)))
    parameter = np.interp(np.linspace(0, length[-1], steps + 1), length, fine)
    tangent = curve.derivative()(parameter)
    tangent /= np.linalg.norm(tangent, axis=1, keepdims=True)
    return CentreLine(position=curve(parameter), frame=_carried_frames(tangent), step=length[-1] / steps)


def along_line(line: CentreLine, twist: float | None, rng: np.random.Generator) -> tuple[np.ndarray, Rotation]:
    """Subunits at each step of the line: positions and rotations, z along the tangent.

    Each is turned about z by `twist` degrees from the one before, right-handed about the direction of the filament, the
    first at random; all at random if twist is None.
    """
    number = len(line.position)
    turn = rng.uniform(0, 360, number) if twist is None else rng.uniform(0, 360) + twist * np.arange(number)
    return line.position, Rotation.from_matrix(line.frame) * Rotation.from_euler("z", turn[:, None], degrees=True)


def around_line(line: CentreLine, radius: float, spacing: float) -> tuple[np.ndarray, Rotation]:
    """Points on the surface of a tube about the line, `spacing` Å apart along and around: positions and rotations.

    z is the outward normal, x the direction of the filament, so that its polarity is in the turn about the normal.
    Every second ring stands half a spacing further.
    """
    around = max(3, int(round(2 * np.pi * radius / spacing)))
    angle = 2 * np.pi * np.arange(around) / around
    rings = np.arange(len(line.position))
    phase = angle[None] + np.pi / around * (rings % 2)[:, None]
    x, y, tangent = (line.frame[:, None, :, axis] for axis in range(3))
    normal = np.cos(phase)[..., None] * x + np.sin(phase)[..., None] * y
    along = np.broadcast_to(tangent, normal.shape)
    matrix = np.stack([along, np.cross(normal, along), normal], axis=-1)
    position = line.position[:, None] + radius * normal
    return position.reshape(-1, 3), Rotation.from_matrix(matrix.reshape(-1, 3, 3))


def _carried_frames(tangent: np.ndarray) -> np.ndarray:
    """(step, 3, 3) frames with these tangents (step, 3) as last column."""
    first = np.eye(3)[np.abs(tangent[0]).argmin()]
    x = first - (first @ tangent[0]) * tangent[0]
    frames = np.empty((len(tangent), 3, 3))
    for i, along in enumerate(tangent):
        if i:
            axis = np.cross(tangent[i - 1], along)
            sine, cosine = np.linalg.norm(axis), tangent[i - 1] @ along
            if sine > 0:
                x = Rotation.from_rotvec(axis / sine * np.arctan2(sine, cosine)).apply(x)
            x = x - (x @ along) * along
        x = x / np.linalg.norm(x)
        frames[i] = np.stack([x, np.cross(along, x), along], axis=-1)
    return frames
