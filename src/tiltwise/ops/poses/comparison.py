"""How far poses lie from true ones, once what no image can tell is taken out.

Two frames are free: that of each tomogram (a rigid motion, part of the alignment's gauge) and that of the reference
(one rigid motion for all particles). With x' = A x + b in the tomogram and x_ref' = Q x_ref + d in the reference, a
true pose (R, t) reads R' = A R Qᵀ, t' = A (t - R Qᵀ d) + b.
"""

from dataclasses import dataclass

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment
from scipy.spatial.distance import cdist
from scipy.spatial.transform import Rotation

from tiltwise.data.tilt_series import TiltGeometry
from tiltwise.ops.geometry import tilt_rotations
from tiltwise.ops.maps.superpose import RigidMotion
from tiltwise.ops.rotations import geodesic_angle
from tiltwise.ops.symmetry import symmetry_rotations

_ROUNDS = 10


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class PoseErrors:
    angle: np.ndarray
    """(particle,) geodesic angle to the true rotation, degrees."""
    shift: np.ndarray
    """(particle,) distance to the true position, Å."""
    reference_motion: RigidMotion
    """From the true reference's frame to that of the estimated poses."""


def tomogram_motion(estimated: TiltGeometry, truth: TiltGeometry, use: np.ndarray) -> RigidMotion:
    """The rigid motion x' = A x + b from the true tomogram frame to the estimated one, from the alignments alone.

    A is the rotation nearest to the mean of R'_iᵀ R_i; b is the least-squares solution of (R'_i b)_xy = s_i - s'_i.
    use (tilt,) bool names the tilts that decide.
    """
    ours, theirs = (tilt_rotations(g).numpy()[use] for g in (estimated, truth))
    rotation = _nearest_rotation((ours.transpose(0, 2, 1) @ theirs).sum(axis=0))
    difference = (truth.shift - estimated.shift)[use].reshape(-1)
    shift = np.linalg.lstsq(ours[:, :2].reshape(-1, 3), difference, rcond=None)[0]
    return RigidMotion(rotation=rotation, shift=shift)


def match_points(first: np.ndarray, second: np.ndarray, distance: float) -> tuple[np.ndarray, np.ndarray]:
    """Indices of one-to-one pairs of points (n, 3) and (m, 3) within a distance: as many and as close as can be."""
    if not len(first) or not len(second):
        return np.empty(0, dtype=int), np.empty(0, dtype=int)
    cost = cdist(first, second)
    penalty = 1e3 * distance  # of a pair too far: any pair within is worth more
    rows, columns = linear_sum_assignment(np.where(cost <= distance, cost, penalty))
    near = cost[rows, columns] <= distance
    return rows[near], columns[near]


def compare_poses(
    position: np.ndarray, rotation: Rotation, true_position: np.ndarray, true_rotation: Rotation, symmetry: str = "C1"
) -> PoseErrors:
    """Errors of poses (particle, 3) and rotations in the true tomogram frame, after the best motion of the reference.

    The motion is a mean over the particles that follow it: the rotation Qᵀ nearest to the mean of Rᵀ R' and the mean of
    the position differences in the reference's frame, each weighted down for particles that lie far off (Cauchy).
    """
    truth, given = true_rotation.as_matrix(), rotation.as_matrix()
    relative = truth.transpose(0, 2, 1) @ given
    back = _robust_rotation(relative)  # Qᵀ
    angle = geodesic_angle(torch.as_tensor(given), torch.as_tensor(truth @ back), symmetry).numpy()
    offset = np.einsum("pji,pj->pi", truth, true_position - position)  # Qᵀ d
    centre = _robust_mean(offset, angle)
    motion = RigidMotion(rotation=back.T, shift=back.T @ centre)
    return PoseErrors(angle=angle, shift=np.linalg.norm(offset - centre, axis=1), reference_motion=motion)


def nearest_equivalent(rotation: Rotation, true_rotation: Rotation, symmetry: str) -> Rotation:
    """Of the rotations R · g that a point group cannot tell apart, for every particle the one nearest to the true."""
    group = symmetry_rotations(symmetry).numpy()
    given = np.einsum("pij,gjk->pgik", rotation.as_matrix(), group)
    distance = np.square(given - true_rotation.as_matrix()[:, None]).sum(axis=(2, 3))
    return Rotation.from_matrix(given[np.arange(len(given)), distance.argmin(axis=1)])


def _robust_rotation(matrices: np.ndarray) -> np.ndarray:
    """Of all the matrices start from that with the smallest median angle to the others; then weighted means."""
    pairs = torch.as_tensor(matrices)
    spread = [float(geodesic_angle(pairs, m.expand_as(pairs)).median()) for m in pairs[:200]]
    mean = matrices[int(np.argmin(spread))]
    for _ in range(_ROUNDS):
        angle = geodesic_angle(pairs, torch.as_tensor(mean).expand_as(pairs)).numpy()
        weight = 1 / (1 + (angle / max(float(np.median(angle)), 1e-6)) ** 2)
        mean = _nearest_rotation((weight[:, None, None] * matrices).sum(axis=0))
    return mean


def _robust_mean(vectors: np.ndarray, angle: np.ndarray) -> np.ndarray:
    mean = np.median(vectors[angle <= np.median(angle)], axis=0)
    for _ in range(_ROUNDS):
        distance = np.linalg.norm(vectors - mean, axis=1)
        weight = 1 / (1 + (distance / max(float(np.median(distance)), 1e-6)) ** 2)
        mean = (weight[:, None] * vectors).sum(axis=0) / weight.sum()
    return mean


def _nearest_rotation(matrix: np.ndarray) -> np.ndarray:
    u, _, vt = np.linalg.svd(matrix)
    return u @ np.diag([1.0, 1.0, np.sign(np.linalg.det(u @ vt))]) @ vt
