"""Straightened images of a deforming specimen: how far from its rigid place each sample is to be read.

A plane of the store stands for the specimen points X(p, d) = R_iᵀ [p - shift_i, d] at image positions p and one
depth d. Where the specimen deforms they appear at u_i(X) (ops/deformation.py), so that the sample for p is read at
p + δ_i(p, d), δ_i = u_i(X(p, d)) - p: what was bent is straight in the store, and projecting from it stays as it is.
δ is taken at nodes and is linear between them. Within a level of depth it is that of the level's middle.
"""

from dataclasses import dataclass

import numpy as np

from tiltwise.data.tilt_series import TiltSeries
from tiltwise.ops.deformation import specimen_in_images
from tiltwise.ops.kernels.straight_projection import NODE_STEP
from tiltwise.ops.tomogram.straight_projection import Planes, StraightGeometry, plane_origin

_STEP = 1.0
"""Å either way, for the derivative by depth."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class DeformationReach:
    """What a deformation does at most to the points of a box, in each tilt."""

    moved: np.ndarray
    """(tilt,) |δ|, Å."""
    moved_by_depth: np.ndarray
    """(tilt,) |∂δ/∂depth|."""
    deeper: np.ndarray
    """(tilt,) distance along the beam from the depth of a rigid specimen, Å."""


def deformation_reach(
    tilt_series: TiltSeries, tilts: np.ndarray, rotations: np.ndarray, extent: tuple[float, float, float]
) -> DeformationReach:
    """The reach of the deformation in a box of sides x, y, z in Å.

    rotations (tilt, 3, 3) are those of the rows `tilts`. Looked at in corners, middles of edges and faces, and the
    centre: a specimen bent by quadratic polynomials has its largest derivative in a corner, exactly.
    """
    thirds = np.stack(np.meshgrid(*[[-0.5, 0.0, 0.5]] * 3, indexing="ij"), axis=-1).reshape(-1, 3)
    box, moved, change, deeper = thirds * extent, [], [], []
    for tilt, rotation in zip(tilts, rotations, strict=True):
        along = _STEP * rotation[2]
        points = np.stack([box, box + along, box - along]).reshape(-1, 3)
        place, depth = specimen_in_images(tilt_series, points, [tilt])
        middle, above, below = place[0].reshape(3, -1, 2)
        rigid = box @ rotation[:2].T + tilt_series.geometry.shift[tilt]
        moved.append(np.linalg.norm(middle - rigid, axis=1).max())
        change.append(np.linalg.norm(above - below, axis=1).max() / (2 * _STEP))
        deeper.append(np.abs(depth[0, : len(box)] - box @ rotation[2]).max())
    return DeformationReach(moved=np.array(moved), moved_by_depth=np.array(change), deeper=np.array(deeper))


def plane_displacement(
    tilt_series: TiltSeries,
    row: int,
    layout: tuple[StraightGeometry, Planes],
    plane: int,
    first_row: int,
    shape: tuple[int, int],
) -> np.ndarray:
    """(node, node, 2) δ along x, y, Å, at every NODE_STEP-th column and row of a plane of the store.

    row is that of the plane's tilt in the series; shape are the (columns, rows) of the store to be covered.
    """
    geometry, planes = layout
    tilt = planes.tilt[plane]
    columns, rows = (NODE_STEP * np.arange(-(-(n - 1) // NODE_STEP) + 1) for n in shape)
    nodes = np.stack(np.meshgrid(columns, rows, indexing="ij"), axis=-1).reshape(-1, 2)
    across = (nodes + plane_origin(geometry, planes, plane, first_row)) @ geometry.linear[tilt].T
    depth = np.full(len(nodes), planes.depth[plane])
    point = np.column_stack([across, depth]) @ geometry.rotations[tilt]
    place = specimen_in_images(tilt_series, point, [row])[0][0]
    return (place - across - geometry.shift[tilt]).reshape(len(columns), len(rows), 2)
