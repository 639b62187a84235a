"""Warp's grids: values at nodes over the image or the volume and the tilts or the exposure, and what lies between.

A cubic grid (WarpLib/CubicGrid.cs, on einspline) goes through its values as a natural cubic spline along x, y (parts of
the image, from its lower left corner) and z (the row over the last row); its nodes stand from margin to 1 - margin. A
volume grid (WarpLib/LinearGrid4D.cs) is linear between its values, along x, y, z (parts of the volume) and exposure.
"""

from dataclasses import dataclass

import numpy as np
from scipy.interpolate import CubicSpline

from tiltwise.data.deformation import ImageWarp
from tiltwise.ops.motion.model import bspline_basis

NODES = (2, 3, 5, 9, 17, 33)
"""Along each side of a movement grid that is written, the first that is exact enough, or the last."""
_BETWEEN = 4
"""Places between two nodes of the last grid at which the error is looked at."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class WarpGrid:
    """Values at the nodes of a grid, in Å for movements and volume warps."""

    values: np.ndarray
    """(w, z, y, x): exposure of a volume grid, 1 elsewhere; the row of a movement grid along z."""
    margin: tuple[float, float, float] = (0.0, 0.0, 0.0)
    """Along x, y, z: where the first node stands; the last is as far from the other end."""

    @property
    def is_even(self) -> bool:
        """Whether the values of each row or exposure are the same everywhere."""
        axes = (1, 2, 3) if len(self.values) > 1 else (2, 3)
        return bool((np.ptp(self.values, axis=axes) == 0).all())


NO_GRID = WarpGrid(values=np.zeros((1, 1, 1, 1)))


def grid_rows(grid: WarpGrid, rows: int) -> np.ndarray:
    """(row, y, x) values of a movement grid in each of so many rows."""
    at = np.arange(rows) / max(rows - 1, 1)
    matrix = _natural_spline(grid.values.shape[1], grid.margin[2], at)
    return np.einsum("rz,zyx->ryx", matrix, grid.values[0])


def grid_at(values: np.ndarray, grid: WarpGrid, place: np.ndarray) -> np.ndarray:
    """(point,) values (y, x) of one row of a grid between its nodes, at places (point, 2) x, y in parts of the image;
    beyond it as at its edge."""
    x, y = np.clip(place, 0, 1).T
    over_y = _natural_spline(values.shape[0], grid.margin[1], y)
    over_x = _natural_spline(values.shape[1], grid.margin[0], x)
    return np.einsum("py,yx,px->p", over_y, values, over_x, optimize=True)


def exposure_means(grid: WarpGrid, dose: np.ndarray) -> np.ndarray:
    """(row,) mean over the volume of a volume grid, at the exposure of each row."""
    means = grid.values.mean(axis=(1, 2, 3))
    span = float(np.ptp(dose))
    part = (dose - dose.min()) / span if span > 0 else np.zeros(len(dose))
    return np.interp(part * (len(means) - 1), np.arange(len(means)), means)


def warp_to_grids(
    warp: ImageWarp | None, magnification: np.ndarray, extent: tuple[float, float], exactness: float
) -> tuple[WarpGrid, WarpGrid, float]:
    """Movement grids along x and y with which Warp moves a place r of each row, Å from the image centre, to
    m r + w(m r), and the largest error, Å; extent (x, y) of the image in Å.

    The fewest nodes that err by no more than exactness (Å) are taken, or the most that are tried.
    """
    fine = np.linspace(0, 1, _BETWEEN * (NODES[-1] - 1) + 1)
    truth = _movement(warp, magnification, extent, fine)
    for nodes in NODES:
        at = np.linspace(0, 1, nodes)
        values = _movement(warp, magnification, extent, at)
        matrix = _natural_spline(nodes, 0.0, fine)
        found = np.einsum("ya,tabc,xb->tyxc", matrix, values, matrix, optimize=True)
        error = float(np.linalg.norm(found - truth, axis=-1).max())
        if error <= exactness:
            break
    grids = [WarpGrid(values=values[None, ..., axis]) for axis in range(2)]
    return grids[0], grids[1], error


def _movement(
    warp: ImageWarp | None, magnification: np.ndarray, extent: tuple[float, float], at: np.ndarray
) -> np.ndarray:
    """(row, y, x, 2) r - (m r + w(m r)) at parts (y or x,) of the sides: Warp takes movements off."""
    along = [(at - 0.5) * side for side in extent]
    place = np.stack(np.meshgrid(*along), axis=-1)
    moved = np.empty((len(magnification), *place.shape))
    for row, m in enumerate(magnification):
        moved[row] = (1 - m) * place
        if warp is not None:
            over = [bspline_basis(m * a / e + 0.5, n) for a, e, n in _sides(along, warp, row)]
            moved[row] -= np.einsum("xa,yb,bac->yxc", *over, warp.coefficient[row], optimize=True)
    return moved


def _sides(along: list[np.ndarray], warp: ImageWarp, row: int):
    """For x and y: places, extent of the warp, number of control values."""
    return zip(along, warp.extent, warp.coefficient[row].shape[1::-1], strict=True)


def _natural_spline(nodes: int, margin: float, at: np.ndarray) -> np.ndarray:
    """(place, node) weights of the nodes' values at parts of a side."""
    if nodes == 1:
        return np.ones((len(at), 1))
    return CubicSpline(np.linspace(margin, 1 - margin, nodes), np.eye(nodes), bc_type="natural")(at)
