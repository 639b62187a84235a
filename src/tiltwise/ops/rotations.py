"""Rotations: grids over SO(3), exponential and logarithm, distances. Angles in degrees.

A rotation maps reference vectors to tomogram vectors (x, y, z, right-handed, active). A point group acts on the
reference: R and R · g describe the same particle (ops/symmetry.py).
"""

import math

import numpy as np
import torch
from scipy.spatial import cKDTree
from scipy.spatial.transform import Rotation

from tiltwise.ops.symmetry import symmetry_rotations


def rotation_vector_to_matrix(vector: torch.Tensor) -> torch.Tensor:
    """(..., 3, 3) matrices of rotation vectors (..., 3): axis times angle in degrees. Smooth gradient, also at zero."""
    v = torch.deg2rad(vector)
    square = (v * v).sum(-1)[..., None, None]
    small = square < 1e-4
    safe = torch.where(small, torch.ones_like(square), square)
    angle = safe.sqrt()
    sine = torch.where(small, 1 - square / 6 * (1 - square / 20), torch.sin(angle) / angle)
    versine = torch.where(small, 0.5 - square / 24 * (1 - square / 30), (1 - torch.cos(angle)) / safe)
    zero = torch.zeros_like(v[..., 0])
    x, y, z = v.unbind(-1)
    k = torch.stack([zero, -z, y, z, zero, -x, -y, x, zero], dim=-1).reshape(*v.shape, 3)
    return torch.eye(3).to(v) + sine * k + versine * (k @ k)


def matrix_to_rotation_vector(matrix: torch.Tensor) -> torch.Tensor:
    """(..., 3) rotation vectors in degrees, of length 0 to 180, of matrices (..., 3, 3). Smooth gradient below 180."""
    q = _quaternion(matrix)
    scalar, vector = q[..., :1], q[..., 1:]
    square = (vector * vector).sum(-1, keepdim=True)
    small = square < 1e-8
    sine = torch.where(small, torch.ones_like(square), square).sqrt()
    ratio = torch.where(small, 2 / scalar.clamp_min(0.5) * (1 - square / 3), 2 * torch.atan2(sine, scalar) / sine)
    return torch.rad2deg(ratio * vector)


def geodesic_angle(first: torch.Tensor, second: torch.Tensor, symmetry: str = "C1") -> torch.Tensor:
    """(...) angle in degrees of the rotation between matrices (..., 3, 3): the smallest over first · g, g in the group.

    Computed as 2 asin(|A - B| / √8), which is exact near 0, where the arc cosine of the trace loses half of the digits.
    """
    group = symmetry_rotations(symmetry, first.device).to(first)
    distance = torch.stack([(first @ g - second).square().sum((-2, -1)) for g in group]).amin(0).sqrt()
    return torch.rad2deg(2 * torch.asin((distance / math.sqrt(8)).clamp_max(1.0)))


def held_in_cone(rotation: torch.Tensor, cone: torch.Tensor) -> torch.Tensor:
    """(n, 3, 3) rotations turned by the least angle that brings their z axis, R z, into a cone each.

    cone (n, 4): unit vector x, y, z of its axis, and the cosine of its half-angle. Those inside stay as they are, bit
    by bit. The turn is about R z x axis, by what the angle between them exceeds the half-angle.
    """
    z, axis = rotation[:, :, 2], cone[:, :3]
    across = torch.linalg.cross(z, axis)
    sine = across.norm(dim=1, keepdim=True)
    turn = torch.where(sine > 1e-9, across / sine.clamp_min(1e-9), rotation[:, :, 0])  # opposite: any turn will do
    angle = torch.atan2(sine[:, 0], (z * axis).sum(1))
    excess = torch.rad2deg(angle - torch.acos(cone[:, 3].clamp(-1, 1)))
    outside = (excess > 0)[:, None, None]
    return torch.where(outside, rotation_vector_to_matrix(turn * excess[:, None]) @ rotation, rotation)


def rotation_grid(step: float, symmetry: str = "C1", device: torch.device | str = "cpu") -> torch.Tensor:
    """(n, 3, 3) float64 rotations from reference to tomogram that cover SO(3): none is farther than 0.83 step from one.

    Directions times turns about them (the Hopf fibration; Yershova et al. 2010): near-hexagonal rings on the sphere of
    Rᵀ z, the tomogram's z axis seen from the reference, each with equal turns about that axis, staggered by half a turn
    step from one direction to the next. About 8 π² / step³ rotations, evenly spread, divided by the order of the group:
    a group turns Rᵀ z only, so its fundamental domain is a region of the sphere. The turns vary fastest.
    """
    directions = _asymmetric_directions(step, symmetry)
    turns = math.ceil(360 / step)
    polar = np.degrees(np.arccos(directions[:, 2].clip(-1, 1)))
    azimuth = np.degrees(np.arctan2(directions[:, 1], directions[:, 0]))
    stagger = 0.5 * (np.arange(len(directions)) % 2)
    psi = (np.arange(turns)[None] + stagger[:, None]) * (360 / turns)
    angles = np.stack(np.broadcast_arrays(azimuth[:, None], polar[:, None], psi), axis=-1).reshape(-1, 3)
    return torch.as_tensor(Rotation.from_euler("ZYZ", angles, degrees=True).inv().as_matrix(), device=device)


def cone_rotation_grid(
    half_angle: float, step: float, symmetry: str = "C1", device: torch.device | str = "cpu"
) -> torch.Tensor:
    """(n, 3, 3) float64 rotations δ whose z axis stays within half_angle of z, with every turn about it.

    R · δ searches around the direction in which R puts the reference's z axis. For Cn the turn ends at 360 / n; of
    other groups, of which only the rotations about z keep the cone, the order of that axis counts.
    """
    order = int((symmetry_rotations(symmetry)[:, 2, 2] > 1 - 1e-9).sum())
    directions = direction_grid(step) if half_angle > 0.5 * step else np.array([[0.0, 0.0, 1.0]])
    rim = min(half_angle + 0.5 * step, 180.0)
    directions = directions[directions[:, 2] >= math.cos(math.radians(rim)) - 1e-12]
    polar = np.minimum(np.degrees(np.arccos(directions[:, 2].clip(-1, 1))), half_angle)
    azimuth = np.degrees(np.arctan2(directions[:, 1], directions[:, 0]))
    turns = math.ceil(360 / order / step)
    psi = (np.arange(turns)[None] + 0.5 * (np.arange(len(polar)) % 2)[:, None]) * (360 / order / turns)
    turn = psi - azimuth[:, None]  # at polar angle 0 the turn about z is psi itself
    angles = np.stack(np.broadcast_arrays(azimuth[:, None], polar[:, None], turn), axis=-1).reshape(-1, 3)
    return torch.as_tensor(Rotation.from_euler("ZYZ", angles, degrees=True).as_matrix(), device=device)


def direction_grid(step: float, order: int = 1) -> np.ndarray:
    """(n, 3) float64 unit vectors on rings of equal polar angle, near-hexagonal: evenly spread, about 4 π / step².

    Each ring starts at azimuth 0 or half its spacing and holds a multiple of `order` points, so that the whole has an
    order-fold axis on z and two-fold axes across it.
    """
    rings = max(2, math.ceil(180 / (step * _RING_ASPECT)))
    result = []
    for i in range(rings):
        polar = math.pi * (i + 0.5) / rings
        number = order * math.ceil(max(3, 360 * math.sin(polar) * _RING_ASPECT / step) / order)
        azimuth = 2 * np.pi * (np.arange(number) + 0.5 * (i % 2)) / number
        z = np.full(number, math.cos(polar))
        result.append(np.stack([math.sin(polar) * np.cos(azimuth), math.sin(polar) * np.sin(azimuth), z], axis=-1))
    return np.concatenate(result)


_RING_ASPECT = 0.93  # sqrt(sqrt(3) / 2): rows of a hexagonal lattice are sqrt(3) / 2 of its spacing apart
_BCC_SIDE = 1.45  # in steps; a body-centred cubic lattice of side a covers within sqrt(5) / 4 a
_BCC_MARGIN = 0.5  # in steps


def _asymmetric_directions(step: float, symmetry: str) -> np.ndarray:
    """Directions of which the group's images cover the sphere.

    Cn, Dn: a sector, and its upper half, of a grid that has the symmetry. T, O, I: the directions that are nearest to
    any point of the group's Dirichlet cell about a direction without symmetry.
    """
    group = symmetry_rotations(symmetry).numpy()
    kind, order = symmetry.strip().upper()[0], symmetry.strip()[1:]
    if kind == "H":
        kind, order = "C", "1"
    if kind in "CD":
        directions = direction_grid(step, int(order))
        azimuth = np.arctan2(directions[:, 1], directions[:, 0]) % (2 * np.pi)
        upper = directions[:, 2] > (-1e-9 if kind == "D" else -2)
        return directions[(azimuth < 2 * np.pi / int(order) - 1e-9) & upper]
    directions, fine = direction_grid(step), direction_grid(step / 6)
    centre = np.array([0.53, 0.29, 0.79])
    images = np.einsum("gij,j->gi", group, centre)
    inside = fine @ images.T <= (fine @ centre)[:, None] + 1e-9
    nearest = cKDTree(directions).query(fine[inside.all(1)])[1]
    return directions[np.unique(nearest)]


def _quaternion(matrix: torch.Tensor) -> torch.Tensor:
    """(..., 4) unit quaternions w, x, y, z with w >= 0, from the best conditioned of the four rows of 4 q qᵀ."""
    m = [[matrix[..., i, j] for j in range(3)] for i in range(3)]
    a, b, c = m[2][1] - m[1][2], m[0][2] - m[2][0], m[1][0] - m[0][1]
    d, e, f = m[1][0] + m[0][1], m[0][2] + m[2][0], m[2][1] + m[1][2]
    x, y, z = m[0][0], m[1][1], m[2][2]
    rows = [[1 + x + y + z, a, b, c], [a, 1 + x - y - z, d, e], [b, d, 1 - x + y - z, f], [c, e, f, 1 - x - y + z]]
    table = torch.stack([torch.stack(row, dim=-1) for row in rows], dim=-2)
    best = torch.diagonal(table, dim1=-2, dim2=-1).argmax(-1)
    row = torch.gather(table, -2, best[..., None, None].expand(*best.shape, 1, 4)).squeeze(-2)
    q = row / row.norm(dim=-1, keepdim=True)
    return torch.where(q[..., :1] < 0, -q, q)
