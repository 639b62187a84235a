"""Rigid bodies packed without overlap: each is known by points of its surface and by a map of the distance to it.

A new body is tried pose by pose: its surface points are looked up in the distance maps of the bodies whose bounding
spheres it meets. Both are cautious by what their grids may hide, so that the gap asked for is never undercut; bodies
in contact stand about 3 Å farther apart than need be.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.spatial import cKDTree
from scipy.spatial.transform import Rotation

from tiltwise.ops.kernels.packing import place_compiled, register_compiled

_SPACING, _COARSENING = 1.6, 35.0  # Å, of distance maps, and not less than the body's radius over this number
_THIN = 2.5  # Å; of the points in a cube of this side one is kept
_PROBE = 5.0  # Å; a point this near to somewhere that is as far from all points lies on the surface
_CELL = 120.0  # Å, of the grid in which neighbours are found
_FAR = 1e9


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Shape:
    """A rigid body as collisions see it."""

    point: np.ndarray
    """(point, 3) float64 points of its surface, outermost first, Å from its centre."""
    slack: float
    """Å; no point of the body's surface is farther than this from one of `point`."""
    distance: np.ndarray
    """(x, y, z) float32 least distance, Å, of any place in a voxel from the body."""
    corner: np.ndarray
    """(3,) lower corner of the map of distances, Å."""
    spacing: float
    """Of the map of distances, Å."""
    radius: float
    """Greatest distance of a point of the body from its centre, Å."""
    shell: tuple[float, float] = (0.0, 0.0)
    """Radius and half thickness, Å, of a body that is a spherical shell, or a ball if the radius is next to none: it
    needs no map of distances."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Bounds:
    """Where bodies may lie."""

    low: np.ndarray
    """(3,) least coordinates, Å."""
    high: np.ndarray
    """(3,) greatest coordinates, Å."""
    surface: tuple[float, float, float] = (0.0, 0.0, 0.0)
    """Slope along x, slope along y and curvature, 1/Å, of the slab's middle surface."""
    half_thickness: float = _FAR
    """Of the slab, along its normal, Å."""
    film: tuple[float, float, float, float, float] = (1.0, 0.0, _FAR, 0.0, 0.0)
    """Cosine and sine of the film's azimuth, distance of its edge, its lowest and highest height over the surface."""


def shape_of_points(points: np.ndarray, reach: float) -> Shape:
    """The shape of a body made of points (point, 3) Å, whose distance map reaches `reach` Å beyond it."""
    points = np.asarray(points, dtype=float)
    radius = float(np.linalg.norm(points, axis=1).max())
    spacing = max(_SPACING, radius / _COARSENING)
    corner = points.min(axis=0) - reach - spacing
    size = np.ceil((points.max(axis=0) + reach + spacing - corner) / spacing).astype(int) + 1
    axes = [corner[a] + (np.arange(size[a]) + 0.5) * spacing for a in range(3)]
    voxels = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1)
    far = reach + 2 * spacing
    distance = cKDTree(points).query(voxels.reshape(-1, 3), distance_upper_bound=far)[0]
    distance = np.minimum(distance, far).reshape(size)
    open_space = voxels[(distance > _PROBE) & (distance < _PROBE + 2 * spacing)]
    surface = points
    if len(open_space):
        nearest = cKDTree(open_space).query(points, distance_upper_bound=_PROBE + 2 * spacing)[0]
        surface = points[np.isfinite(nearest)]
    kept = _thin(surface)
    slack = float(cKDTree(kept).query(surface)[0].max())
    kept = kept[np.argsort(-np.linalg.norm(kept, axis=1), kind="stable")]
    return Shape(
        point=kept,
        slack=slack,
        distance=(distance - spacing * math.sqrt(3) / 2).astype(np.float32),
        corner=corner,
        spacing=spacing,
        radius=radius,
    )


def shell_shape(radius: float, half_thickness: float) -> Shape:
    """A spherical shell about its centre, to be inserted; bodies may lie within."""
    return Shape(
        point=np.empty((0, 3)),
        slack=0.0,
        distance=np.empty((0, 0, 0), np.float32),
        corner=np.zeros(3),
        spacing=_SPACING,
        radius=radius + half_thickness,
        shell=(radius, half_thickness),
    )


def ball_shape(radius: float) -> Shape:
    """A solid ball about its centre, its surface known by points about 3 Å apart."""
    number = math.ceil(4 * math.pi * radius**2 / _THIN**2)
    height = 1 - 2 * (np.arange(number) + 0.5) / number
    turn = math.pi * (3 - math.sqrt(5)) * np.arange(number)
    across = np.sqrt(1 - height**2)
    return Shape(
        point=radius * np.column_stack([across * np.cos(turn), across * np.sin(turn), height]),
        slack=_THIN,
        distance=np.empty((0, 0, 0), np.float32),
        corner=np.zeros(3),
        spacing=_SPACING,
        radius=radius,
        shell=(1e-6, radius),
    )


def _thin(points: np.ndarray) -> np.ndarray:
    """Of the points in each cube of side _THIN the one nearest to their mean."""
    _, cell = np.unique(np.floor(points / _THIN).astype(int), axis=0, return_inverse=True)
    cell = cell.ravel()
    mean = np.stack([np.bincount(cell, p) for p in points.T], axis=-1) / np.bincount(cell)[:, None]
    order = np.lexsort((np.linalg.norm(points - mean[cell], axis=1), cell))
    return points[order[np.unique(cell[order], return_index=True)[1]]]


class Packing:
    """Bodies that stand already; it only ever grows."""

    def __init__(self, bounds: Bounds) -> None:
        self._shapes: list[Shape] = []
        self._packed: tuple | None = None
        self._bounds = bounds
        origin = bounds.low - 1.0
        cells = np.ceil((bounds.high + 1.0 - origin) / _CELL).astype(int)
        self._head = np.full(tuple(cells), -1, np.int64)
        self._grid = np.stack([origin, cells.astype(float)])
        self._entries, self._used = np.empty((0, 2), np.int64), 0
        self._body = (np.empty((0, 3)), np.empty((0, 3, 3)), np.empty(0, np.int64), np.empty(0))
        self._number = 0

    def __len__(self) -> int:
        return self._number

    def add_kind(self, shape: Shape) -> int:
        """The number by which bodies of this shape are placed from now on."""
        self._shapes.append(shape)
        self._packed = None
        return len(self._shapes) - 1

    def insert(self, kind: int, centre: np.ndarray, rotation: Rotation) -> None:
        """Add bodies (n, 3) Å at given poses, wherever they lie."""
        self._grow(kind, len(centre))
        turns = rotation.as_matrix().reshape(-1, 3, 3)
        for place, turn in zip(np.asarray(centre, dtype=float), turns, strict=True):
            row, radius = self._number, self._shapes[kind].radius
            self._body[0][row], self._body[1][row], self._body[2][row], self._body[3][row] = place, turn, kind, radius
            self._used = register_compiled(row, place, radius, self._cells(), self._used)
            self._number += 1

    def place(
        self, kind: int, centre: np.ndarray, rotation: Rotation, gap: float, wanted: int, margin: float = 0.0
    ) -> np.ndarray:
        """(try,) bool: which of the poses, tried in their order until `wanted` stand, were free.

        Free is a pose at which the body keeps `gap` Å from every other body and lies in the slab, `margin` Å below
        its surfaces, and outside the film.
        """
        slack = self._shapes[kind].slack
        self._packed = self._packed or _flatten(self._shapes)
        self._grow(kind, min(wanted, len(centre)))
        accepted = np.zeros(len(centre), dtype=bool)
        poses = (np.asarray(centre, dtype=float), rotation.as_matrix().reshape(-1, 3, 3), accepted)
        half = self._bounds.half_thickness - margin - slack
        outside = (np.array(self._bounds.surface), np.array(self._bounds.film), half)
        state = (self._number, self._used, self._shapes[kind].radius, outside)
        self._number, self._used, _ = place_compiled(
            kind, poses, wanted, gap + slack, self._body, self._packed, self._cells(), state
        )
        return accepted

    def _cells(self) -> tuple[np.ndarray, np.ndarray, np.ndarray, float]:
        return self._head, self._entries, self._grid, _CELL

    def _grow(self, kind: int, number: int) -> None:
        """Make room for so many more bodies of a kind."""
        rows = self._number + number
        if rows > len(self._body[0]):
            more = max(rows, 2 * len(self._body[0])) - len(self._body[0])
            self._body = tuple(np.concatenate([a, np.empty((more, *a.shape[1:]), a.dtype)]) for a in self._body)
        touched = (math.ceil(2 * self._shapes[kind].radius / _CELL) + 1) ** 3
        entries = self._used + number * touched
        if entries > len(self._entries):
            more = max(entries, 2 * len(self._entries)) - len(self._entries)
            self._entries = np.concatenate([self._entries, np.empty((more, 2), np.int64)])


def _flatten(shapes: Sequence[Shape]) -> tuple:
    """All shapes in arrays of one type each, as the compiled code takes them."""
    starts = np.cumsum([0, *(s.distance.size for s in shapes)])
    return (
        np.concatenate([s.point for s in shapes]),
        np.cumsum([0, *(len(s.point) for s in shapes)]),
        np.concatenate([s.distance.ravel() for s in shapes]),
        np.array([(*s.corner, s.spacing, *s.shell) for s in shapes]),
        np.array([(*s.distance.shape, start) for s, start in zip(shapes, starts, strict=False)], dtype=np.int64),
    )
