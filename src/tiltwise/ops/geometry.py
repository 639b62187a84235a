"""Where a point of the specimen appears in each tilt image, and how deep it lies there (docs/conventions.md)."""

import numpy as np
import torch

from tiltwise.data.tilt_series import TiltGeometry


def rotate_about_x(angle: torch.Tensor) -> torch.Tensor:
    """(..., 3, 3) right-handed active rotation about x by an angle in degrees."""
    c, s, one, zero = _cosine_sine_one_zero(angle)
    return _matrix([[one, zero, zero], [zero, c, -s], [zero, s, c]])


def rotate_about_y(angle: torch.Tensor) -> torch.Tensor:
    """(..., 3, 3) right-handed active rotation about y by an angle in degrees."""
    c, s, one, zero = _cosine_sine_one_zero(angle)
    return _matrix([[c, zero, s], [zero, one, zero], [-s, zero, c]])


def rotate_about_z(angle: torch.Tensor) -> torch.Tensor:
    """(..., 3, 3) right-handed active rotation about z by an angle in degrees."""
    c, s, one, zero = _cosine_sine_one_zero(angle)
    return _matrix([[c, -s, zero], [s, c, zero], [zero, zero, one]])


def tilt_rotations(geometry: TiltGeometry, device: torch.device | str = "cpu") -> torch.Tensor:
    """(tilt, 3, 3) float64 rotations Rz(tilt_axis_angle) · Ry(tilt_angle) · Rx(x_tilt), specimen to image frame."""
    angles = (geometry.tilt_axis_angle, geometry.tilt_angle, geometry.x_tilt)
    axis, tilt, x_tilt = (torch.as_tensor(np.array(a, dtype=float), device=device) for a in angles)
    return rotate_about_z(axis) @ rotate_about_y(tilt) @ rotate_about_x(x_tilt)


def project_points(
    points: torch.Tensor, rotations: torch.Tensor, shift: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Image position and depth of specimen points.

    points (point, 3) Å from the tomogram centre; rotations (tilt, 3, 3); shift (tilt, 2) Å.
    Gives (tilt, point, 2) x, y from the image centre in Å and (tilt, point) depth in Å: the z of the rotated point.
    """
    rotated = torch.einsum("tij,pj->tpi", rotations, points.to(rotations))
    return rotated[..., :2] + shift.to(rotations)[:, None, :], rotated[..., 2]


def defocus_at_depth(defocus: torch.Tensor, handedness: int, depth: torch.Tensor) -> torch.Tensor:
    """defocus(point, i) = defocus_i + h · depth, Å; no other sign anywhere. defocus (tilt,), depth (tilt, ...)."""
    return defocus.reshape(-1, *([1] * (depth.ndim - 1))) + handedness * depth


def plane_depth(normal_image: torch.Tensor, height: float, position: torch.Tensor) -> torch.Tensor:
    """Depth z(u') = (H - m_x u'_x - m_y u'_y) / m_z of the specimen plane n·X = H seen at u', Å.

    normal_image (tilt, 3) is m = R_i n; position (tilt, ..., 2) is image position - image centre - shift, Å.
    """
    m = normal_image.reshape(normal_image.shape[0], *([1] * (position.ndim - 2)), 3)
    return (height - (m[..., :2] * position).sum(-1)) / m[..., 2]


def _cosine_sine_one_zero(angle: torch.Tensor) -> tuple[torch.Tensor, ...]:
    radians = torch.deg2rad(angle)
    return torch.cos(radians), torch.sin(radians), torch.ones_like(radians), torch.zeros_like(radians)


def _matrix(rows: list[list[torch.Tensor]]) -> torch.Tensor:
    return torch.stack([torch.stack(row, dim=-1) for row in rows], dim=-2)
