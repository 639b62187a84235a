"""The linear algebra of bundle adjustment: predictions, analytic Jacobians, normal equations without the points, gauge.

Eight parameters a tilt, in this order: shift x, shift y (Å), tilt_axis_angle, tilt_angle, x_tilt (radians in here),
magnification, stretch, skew. A point X is predicted at u = magnification · (R S X)_xy + shift with R = Rz(axis)
Ry(tilt) Rx(x_tilt) and the specimen strained in its plane by S = [[1 + stretch, skew], [skew, 1 - stretch]], as the
beam shrinks it: a general affine view when all are free.
"""

from dataclasses import dataclass

import numpy as np

from tiltwise.data.tilt_series import TiltGeometry
from tiltwise.ops.geometry import tilt_rotations

KINDS = ("shift_x", "shift_y", "tilt_axis_angle", "tilt_angle", "x_tilt", "magnification", "stretch", "skew")
NUMBER = len(KINDS)
_NUMBERS_AT_ONCE = 1 << 23
"""Numbers of the coupling between tilts and points held at once: 64 MB."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Observations:
    """Places of specimen points in the images: beads, patches, particles."""

    tilt: np.ndarray
    """(obs,) index of the tilt."""
    point: np.ndarray
    """(obs,) index of the point."""
    position: np.ndarray
    """(obs, 2) x, y from the image centre, Å (any unit of length serves, if shifts and points have the same)."""
    weight: np.ndarray
    """(obs,) inverse variance against the others; 1 is ordinary."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class BundleState:
    """What the adjustment finds."""

    geometry: TiltGeometry
    """Shifts and angles of each tilt."""
    magnification: np.ndarray
    """(tilt,) factor about 1."""
    stretch: np.ndarray
    """(tilt,) strain of the specimen along x, its opposite along y."""
    skew: np.ndarray
    """(tilt,) strain of the specimen along the diagonal of x and y, its opposite along the other."""
    points: np.ndarray
    """(point, 3) Å from the tomogram centre."""

    @staticmethod
    def undistorted(geometry: TiltGeometry, points: np.ndarray) -> "BundleState":
        """Of magnification 1 everywhere."""
        zero = np.zeros(len(geometry.tilt_angle))
        return BundleState(geometry=geometry, magnification=zero + 1, stretch=zero, skew=zero, points=points)


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Linearised:
    """Jacobians of all predictions."""

    tilt_part: np.ndarray
    """(obs, 2, 8) by the parameters of the tilt."""
    point_part: np.ndarray
    """(obs, 2, 3) by the point."""
    tilt: np.ndarray
    """(obs,) index of the tilt."""
    point: np.ndarray
    """(obs,) index of the point."""
    shape: tuple[int, int]
    """Number of tilts and of points."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class NormalEquations:
    """Weighted Jᵀ J in its blocks, and Jᵀ r."""

    tilts: np.ndarray
    """(8 tilt, 8 tilt) prior included."""
    points: np.ndarray
    """(point, 3, 3)."""
    coupling: np.ndarray
    """(obs, 8, 3) block of each observation."""
    tilt_gradient: np.ndarray
    """(8 tilt,) prior included."""
    point_gradient: np.ndarray
    """(point, 3)."""


def rotations_of(geometry: TiltGeometry) -> np.ndarray:
    """(tilt, 3, 3) rotations as a numpy array."""
    return tilt_rotations(geometry).numpy()


def strains(state: BundleState) -> np.ndarray:
    """(tilt, 3, 3) the factors S that stretch and skew the specimen in its plane."""
    zero, one = np.zeros_like(state.skew), np.ones_like(state.skew)
    rows = [[one + state.stretch, state.skew, zero], [state.skew, one - state.stretch, zero], [zero, zero, one]]
    return np.stack([np.stack(row, axis=-1) for row in rows], axis=-2)


def views(state: BundleState) -> np.ndarray:
    """(tilt, 2, 3) M = magnification · R_xy S: u = M X + shift."""
    return state.magnification[:, None, None] * rotations_of(state.geometry)[:, :2] @ strains(state)


def predict(state: BundleState, tilt: np.ndarray, point: np.ndarray) -> np.ndarray:
    """(obs, 2) places of the points (obs,) in the tilts (obs,), Å."""
    return np.einsum("oab,ob->oa", views(state)[tilt], state.points[point]) + state.geometry.shift[tilt]


def linearise(state: BundleState, tilt: np.ndarray, point: np.ndarray) -> Linearised:
    """Derivatives of `predict`: a turn by dα about the axis a moves the rotated point Y by a × Y dα."""
    tilt_part = np.zeros((len(tilt), 2, NUMBER))
    tilt_part[:, 0, 0] = tilt_part[:, 1, 1] = 1
    tilt_part[:, :, 2:] = np.einsum("okab,ob->oak", _view_changes(state)[tilt], state.points[point])
    return Linearised(
        tilt_part=tilt_part,
        point_part=views(state)[tilt],
        tilt=tilt,
        point=point,
        shape=(len(state.skew), len(state.points)),
    )


def move(state: BundleState, tilt_step: np.ndarray, point_step: np.ndarray) -> BundleState:
    """The state moved by steps (tilt, 8) and (point, 3)."""
    geometry, degrees = state.geometry, np.degrees(tilt_step[:, 2:5])
    return BundleState(
        geometry=TiltGeometry(
            tilt_angle=geometry.tilt_angle + degrees[:, 1],
            tilt_axis_angle=geometry.tilt_axis_angle + degrees[:, 0],
            x_tilt=geometry.x_tilt + degrees[:, 2],
            shift=geometry.shift + tilt_step[:, :2],
        ),
        magnification=state.magnification + tilt_step[:, 5],
        stretch=state.stretch + tilt_step[:, 6],
        skew=state.skew + tilt_step[:, 7],
        points=state.points + point_step,
    )


def tilt_parameters(state: BundleState) -> np.ndarray:
    """(tilt, 8) the parameters of each tilt, angles in radians."""
    geometry = state.geometry
    angles = np.radians(np.stack([geometry.tilt_axis_angle, geometry.tilt_angle, geometry.x_tilt], axis=1))
    distortion = np.stack([state.magnification, state.stretch, state.skew], axis=1)
    return np.concatenate([geometry.shift, angles, distortion], axis=1)


def normal_equations(
    jacobian: Linearised, residual: np.ndarray, weight: np.ndarray, prior: np.ndarray, pull: np.ndarray
) -> NormalEquations:
    """Normal equations for residuals (obs, 2) = observed - predicted with weights (obs,).

    prior (8 tilt, 8 tilt) is the precision of the tilts' parameters, pull (8 tilt,) its gradient.
    """
    tilts, points = jacobian.shape
    weighted = weight[:, None, None] * jacobian.tilt_part.transpose(0, 2, 1)
    weighted_point = weight[:, None, None] * jacobian.point_part.transpose(0, 2, 1)
    blocks = _sum_over(jacobian.tilt, weighted @ jacobian.tilt_part, tilts)
    matrix = prior.copy()
    view = matrix.reshape(tilts, NUMBER, tilts, NUMBER)
    view[np.arange(tilts), :, np.arange(tilts), :] += blocks
    return NormalEquations(
        tilts=matrix,
        points=_sum_over(jacobian.point, weighted_point @ jacobian.point_part, points),
        coupling=weighted @ jacobian.point_part,
        tilt_gradient=_sum_over(jacobian.tilt, (weighted @ residual[:, :, None])[:, :, 0], tilts).ravel() + pull,
        point_gradient=_sum_over(jacobian.point, (weighted_point @ residual[:, :, None])[:, :, 0], points),
    )


def eliminate_points(
    jacobian: Linearised, equations: NormalEquations, inverse: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """The Schur complement U - W V⁻¹ Wᵀ (8 tilt, 8 tilt) and its right side, V⁻¹ (point, 3, 3) given."""
    reduced, right = equations.tilts.copy(), equations.tilt_gradient.copy()
    for chosen, block in couplings(jacobian, equations.coupling):
        part = np.einsum("cpa,pab->cpb", block, inverse[chosen])
        reduced -= part.reshape(len(block), -1) @ block.reshape(len(block), -1).T
        right -= part.reshape(len(block), -1) @ equations.point_gradient[chosen].ravel()
    return reduced, right


def couplings(jacobian: Linearised, coupling: np.ndarray):
    """Blocks (8 tilt, part of the points, 3) of W with the slice of their points: bounds the memory."""
    tilts, points = jacobian.shape
    size = max(1, _NUMBERS_AT_ONCE // (3 * NUMBER * tilts))
    order = np.argsort(jacobian.point, kind="stable")
    place = np.searchsorted(jacobian.point[order], np.arange(0, points + size, size))
    for rank, first in enumerate(range(0, points, size)):
        own = order[place[rank] : place[rank + 1]]
        chosen = slice(first, min(first + size, points))
        block = np.zeros((tilts, chosen.stop - first, NUMBER, 3))
        np.add.at(block, (jacobian.tilt[own], jacobian.point[own] - first), coupling[own])
        yield chosen, block.transpose(0, 2, 1, 3).reshape(NUMBER * tilts, -1, 3)


def point_steps(
    jacobian: Linearised, equations: NormalEquations, inverse: np.ndarray, tilt_step: np.ndarray
) -> np.ndarray:
    """(point, 3) the points' part of the solution, once that of the tilts (8 tilt,) is known."""
    moved = tilt_step.reshape(-1, NUMBER)[jacobian.tilt]
    taken = _sum_over(jacobian.point, np.einsum("oab,oa->ob", equations.coupling, moved), jacobian.shape[1])
    return (inverse @ (equations.point_gradient - taken)[:, :, None])[:, :, 0]


def gauge_directions(state: BundleState, held: np.ndarray, prior: np.ndarray) -> np.ndarray:
    """(8 tilt, k) orthonormal changes of the tilts' parameters that points can take up without any change of images.

    Of the twelve affine changes of the specimen (translations; linear maps: turns, scale, strains) those combinations
    count that touch no held parameter (held (8 tilt,) is True there) and no prior (8 tilt, 8 tilt). A change of X by
    A X + d is undone by the shift -M d and by that change of the other six parameters which changes M by -M A.
    """
    view, number = views(state), len(state.skew)
    directions = np.zeros((number, NUMBER, 12))
    directions[:, :2, :3] = -view
    changes = _view_changes(state).reshape(number, 6, 6).transpose(0, 2, 1)
    basis = np.eye(9).reshape(9, 3, 3)
    directions[:, 2:, 3:] = np.linalg.solve(changes, -np.einsum("tab,kbc->tack", view, basis).reshape(number, 6, 9))
    directions = directions.reshape(NUMBER * number, 12)
    spread = np.diag(prior).max(initial=0.0) or 1.0
    forbidden = np.concatenate([directions[held], prior @ directions / spread])
    _, size, vectors = np.linalg.svd(forbidden / np.linalg.norm(directions, axis=0), full_matrices=False)
    free = vectors[size < 1e-9]
    return np.linalg.qr(directions / np.linalg.norm(directions, axis=0) @ free.T)[0]


def _view_changes(state: BundleState) -> np.ndarray:
    """(tilt, 6, 2, 3) derivatives of M by the parameters after the shifts; a turn about a gives m (a x R)_xy S."""
    geometry, rotation = state.geometry, rotations_of(state.geometry)
    axis, tilt = np.radians(geometry.tilt_axis_angle), np.radians(geometry.tilt_angle)
    zero, one = np.zeros_like(axis), np.ones_like(axis)
    c, s = np.cos(axis), np.sin(axis)
    axes = [[zero, zero, one], [-s, c, zero], [c * np.cos(tilt), s * np.cos(tilt), -np.sin(tilt)]]
    turned = [np.cross(np.stack(a, axis=1)[:, None], rotation.transpose(0, 2, 1)).transpose(0, 2, 1) for a in axes]
    factor, strain = state.magnification[:, None, None], strains(state)
    turns = [factor * turn[:, :2] @ strain for turn in turned]
    kinds = [np.diag([1.0, -1.0, 0.0]), np.array([[0.0, 1, 0], [1, 0, 0], [0, 0, 0]])]
    return np.stack([*turns, rotation[:, :2] @ strain, *(factor * rotation[:, :2] @ kind for kind in kinds)], axis=1)


def _sum_over(index: np.ndarray, values: np.ndarray, number: int) -> np.ndarray:
    """(number, ...) sums of the values (obs, ...) with each index (obs,)."""
    total = np.zeros((number, *values.shape[1:]))
    np.add.at(total, index, values)
    return total
