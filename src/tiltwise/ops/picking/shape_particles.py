"""Particles on filaments, tubes and membranes: places with normals or axes as starting poses, regions kept.

A region is one filament, tube or membrane, so that halves never split it. The z axis of the reference lies along the
filament's direction, or along the outward normal: `search_cone` of the refinement is the half-angle about it.
"""

from dataclasses import dataclass

import numpy as np
from scipy.spatial.transform import Rotation

from tiltwise.ops.picking.filaments import along_line, around_line, centre_line
from tiltwise.ops.picking.spheres import rotations_to_normals
from tiltwise.ops.picking.surfaces import clicked_surface, sheet_parts, sheet_surface

LEAST_POINTS = 6
"""Points clicked on a membrane that tell a surface."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Placed:
    """Poses on shapes."""

    position: np.ndarray
    """(particle, 3) Å from the tomogram centre."""
    rotation: Rotation
    """(particle,) z along the axis or normal."""
    region: np.ndarray
    """(particle,) number of the shape."""


def on_filaments(
    points: np.ndarray, shape: np.ndarray, *, rise: float, twist: float | None, rng: np.random.Generator
) -> Placed:
    """Subunits every `rise` Å along the lines through points (point, 3), Å, of each shape (point,)."""
    lines = [(number, centre_line(points[shape == number], rise)) for number in np.unique(shape)]
    return _joined([(number, *along_line(line, twist, rng)) for number, line in lines])


def on_tubes(points: np.ndarray, shape: np.ndarray, *, radius: float, spacing: float) -> Placed:
    """Points `spacing` Å apart on tubes of this radius, Å, about the lines through the points of each shape."""
    lines = [(number, centre_line(points[shape == number], spacing)) for number in np.unique(shape)]
    return _joined([(number, *around_line(line, radius, spacing)) for number, line in lines])


def on_membranes(points: np.ndarray, shape: np.ndarray, *, spacing: float, rng: np.random.Generator) -> Placed:
    """Points `spacing` Å apart on the surfaces through the points of each shape, turned at random about the normal."""
    parts = []
    for number in np.unique(shape):
        position, normal = clicked_surface(points[shape == number], spacing)
        parts.append((number, position, rotations_to_normals(normal, rng)))
    return _joined(parts)


def on_segmentation(mask: np.ndarray, voxel_size: float, *, spacing: float, rng: np.random.Generator) -> Placed:
    """Points `spacing` Å apart on the middle of each connected sheet of a mask (z, y, x); pieces narrower than that in
    all directions are left out."""
    parts = []
    centre = np.array([n // 2 for n in mask.shape[::-1]])
    for voxels in sheet_parts(mask):
        if np.ptp(voxels, axis=0).max() * voxel_size < spacing:
            continue
        position, normal = sheet_surface(voxels, spacing / voxel_size)
        parts.append((len(parts), (position - centre) * voxel_size, rotations_to_normals(normal, rng)))
    return _joined(parts)


def _joined(parts: list[tuple[int, np.ndarray, Rotation]]) -> Placed:
    if not parts:
        return Placed(position=np.zeros((0, 3)), rotation=Rotation.identity(0), region=np.zeros(0, dtype=int))
    return Placed(
        position=np.concatenate([position for _, position, _ in parts]),
        rotation=Rotation.concatenate([rotation for _, _, rotation in parts]),
        region=np.concatenate([np.full(len(position), number) for number, position, _ in parts]),
    )
