"""Surfaces of membranes: the middle of a segmented sheet, or the smooth surface through clicked points, with normals.

Of a segmentation, voxels of a connected part are moved along the normal (the direction of least spread of the voxels
within a ball) onto the mean of those in a narrow column about it: onto the middle of the sheet. Normals get a common
side along the edges of the minimal spanning tree of neighbours (Hoppe et al. 1992, SIGGRAPH 71), outwards of the
centre for the greater part. Through clicked points goes a thin-plate spline: of the radius over directions where the
points lie all around their centre, else of the height above their plane.
"""

import numpy as np
from scipy import ndimage
from scipy.interpolate import RBFInterpolator
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import breadth_first_order, minimum_spanning_tree
from scipy.spatial import Delaunay, cKDTree

from tiltwise.ops.rotations import direction_grid

_BALL, _COLUMN = 2.0, 2.1
"""Radius of the ball that tells a normal, in parts of the sheet's thickness; of the column along it, in voxels: a wide
one would lie to the inner side of a curved sheet, by its radius² / 4 over that of the curve. It is no distance of
voxels from each other (2 and √5 are), so that rounding does not decide which voxels of a layer are in it."""
_ROUNDS = 4
_NEIGHBOURS = 12
_ALL_AROUND = 0.35
"""Length of the mean of the unit vectors to clicked points below which they lie all around their centre."""


def sheet_parts(mask: np.ndarray) -> list[np.ndarray]:
    """(voxel, 3) indices x, y, z of each connected part (26 neighbours) of a mask (z, y, x), the largest first."""
    labels, number = ndimage.label(np.asarray(mask) > 0, structure=np.ones((3, 3, 3)))
    order = np.argsort(-np.bincount(labels.ravel(), minlength=number + 1)[1:], kind="stable")
    index = np.argwhere(labels)[:, ::-1]
    part = labels[labels > 0]
    return [index[part == which + 1] for which in order]


def sheet_surface(voxels: np.ndarray, spacing: float) -> tuple[np.ndarray, np.ndarray]:
    """Points on the middle of a sheet of voxels (voxel, 3) about `spacing` apart, and their unit normals; in voxels."""
    voxels = np.asarray(voxels, dtype=np.float64)
    radius = _BALL * max(_thickness(voxels), 1.0)
    tree = cKDTree(voxels)
    points = voxels[_thinned(voxels, max(spacing / 3, 1.0))]
    normal = np.zeros_like(points)
    for _ in range(_ROUNDS):
        for i, near in enumerate(tree.query_ball_point(points, radius)):
            normal[i] = _least_spread(voxels[near], points[i], radius)
            along = (voxels[near] - points[i]) @ normal[i]
            aside = np.linalg.norm(voxels[near] - points[i] - along[:, None] * normal[i], axis=1)
            if (aside <= _COLUMN).any():
                points[i] += along[aside <= _COLUMN].mean() * normal[i]
    chosen = _thinned(points, spacing)
    return points[chosen], oriented_normals(points, normal)[chosen]


def clicked_surface(points: np.ndarray, spacing: float) -> tuple[np.ndarray, np.ndarray]:
    """Points about `spacing` apart on the smooth surface through clicked points (point, 3), and their unit normals.

    All around: outward normals of a closed surface, star-shaped about its centre; else a patch that stands over the
    plane through the points, within the hull of their shadow on it, whose normals have an arbitrary side.
    """
    centre = points.mean(0)
    direction = (points - centre) / np.linalg.norm(points - centre, axis=1, keepdims=True)
    if np.linalg.norm(direction.mean(0)) < _ALL_AROUND and np.linalg.svd(direction)[1][2] > 0.2 * len(points) ** 0.5:
        return _closed_surface(points, centre, spacing)
    return _open_surface(points, centre, spacing)


def oriented_normals(points: np.ndarray, normal: np.ndarray) -> np.ndarray:
    """(n, 3) the normals, signs changed so that neighbours agree and most point away from the centre of all points."""
    number = len(points)
    if number == 1:
        return normal
    near = cKDTree(points).query(points, min(_NEIGHBOURS + 1, number))[1][:, 1:]
    first = np.repeat(np.arange(number), near.shape[1])
    second = near.ravel()
    unlike = 1 - np.abs((normal[first] * normal[second]).sum(1)) + 1e-6
    tree = minimum_spanning_tree(coo_matrix((unlike, (first, second)), shape=(number, number)).tocsr())
    result, left = normal.copy(), np.ones(number, dtype=bool)
    while left.any():  # the graph may fall into parts
        order, before = breadth_first_order(tree + tree.T, int(np.flatnonzero(left)[0]), directed=False)
        for i in order[1:]:
            if result[i] @ result[before[i]] < 0:
                result[i] = -result[i]
        if ((points[order] - points.mean(0)) * result[order]).sum() < 0:
            result[order] = -result[order]
        left[order] = False
    return result


def _thickness(voxels: np.ndarray) -> float:
    """Of a sheet, voxels: of t layers the nearest voxel outside is (t + 2) / 4 away in the mean."""
    low = voxels.min(0).astype(int) - 1
    block = np.zeros(voxels.max(0).astype(int) - low + 2, dtype=bool)
    block[tuple((voxels.astype(int) - low).T)] = True
    return 4 * float(ndimage.distance_transform_edt(block)[block].mean()) - 2


def _least_spread(near: np.ndarray, point: np.ndarray, radius: float) -> np.ndarray:
    """Direction of least spread of voxels about a point, those near the ball's edge counting little."""
    weight = np.clip(1 - ((near - point) ** 2).sum(1) / radius**2, 0, None) ** 2
    offset = near - (weight[:, None] * near).sum(0) / weight.sum()
    return np.linalg.eigh((weight[:, None] * offset).T @ offset)[1][:, 0]


def _thinned(points: np.ndarray, spacing: float) -> np.ndarray:
    """Indices of points of which no two are nearer than `spacing`, taken in their order."""
    tree, free, kept = cKDTree(points), np.ones(len(points), dtype=bool), []
    for i in range(len(points)):
        if free[i]:
            kept.append(i)
            free[tree.query_ball_point(points[i], spacing * (1 - 1e-9))] = False
    return np.array(kept, dtype=int)


def _closed_surface(points: np.ndarray, centre: np.ndarray, spacing: float) -> tuple[np.ndarray, np.ndarray]:
    offset = points - centre
    distance = np.linalg.norm(offset, axis=1)
    radius = RBFInterpolator(offset / distance[:, None], distance, kernel="thin_plate_spline")
    dense = direction_grid(np.degrees(spacing / 4 / distance.mean()))
    surface = radius(dense)[:, None] * dense
    # r(u) u has the normal u - grad r / r, the gradient being along the sphere of directions
    slope = _slopes(lambda u: radius(u / np.linalg.norm(u, axis=1, keepdims=True)), dense)
    slope -= (slope * dense).sum(1, keepdims=True) * dense
    normal = dense - slope / radius(dense)[:, None]
    chosen = _thinned(surface, spacing)
    normal = normal[chosen] / np.linalg.norm(normal[chosen], axis=1, keepdims=True)
    return surface[chosen] + centre, normal


def _open_surface(points: np.ndarray, centre: np.ndarray, spacing: float) -> tuple[np.ndarray, np.ndarray]:
    axes = np.linalg.svd(points - centre, full_matrices=True)[2].T  # columns: two in the plane, its normal
    flat = (points - centre) @ axes
    height = RBFInterpolator(flat[:, :2], flat[:, 2], kernel="thin_plate_spline", degree=1)
    low, high = flat[:, :2].min(0), flat[:, :2].max(0)
    grid = [np.arange(a, b + spacing / 8, spacing / 4) for a, b in zip(low, high, strict=True)]
    inside = np.stack(np.meshgrid(*grid, indexing="ij"), -1).reshape(-1, 2)
    inside = inside[_in_hull(inside, flat[:, :2])]
    surface = np.column_stack([inside, height(inside)])
    slope = _slopes(height, inside)
    normal = np.column_stack([-slope, np.ones(len(inside))])
    chosen = _thinned(surface, spacing)
    normal = normal[chosen] / np.linalg.norm(normal[chosen], axis=1, keepdims=True)
    return surface[chosen] @ axes.T + centre, normal @ axes.T


def _slopes(function, places: np.ndarray) -> np.ndarray:
    """(n, d) central differences of a function of (n, d) places."""
    step = 1e-4 * max(np.ptp(places), 1e-12)
    columns = [
        (function(places + step * axis) - function(places - step * axis)) / (2 * step)
        for axis in np.eye(places.shape[1])
    ]
    return np.stack(columns, axis=-1)


def _in_hull(places: np.ndarray, corners: np.ndarray) -> np.ndarray:
    """(n,) bool: whether places (n, 2) lie in the convex hull of the corners."""
    return Delaunay(corners).find_simplex(places) >= 0
