"""Bodies put one by one where none overlaps another, compiled. `ops.packing` says what the arrays hold."""

import math

import numba
import numpy as np


@numba.njit(cache=True)
def _surface_height(slab: np.ndarray, x: float, y: float, z: float) -> float:
    """Distance along the normal, to first order, of a point from the middle surface of the slab."""
    slope_x, slope_y = slab[0] + x * slab[2], slab[1] + y * slab[2]
    middle = slab[0] * x + slab[1] * y + (x * x + y * y) * slab[2] / 2
    return (z - middle) / math.sqrt(1 + slope_x * slope_x + slope_y * slope_y)


@numba.njit(cache=True)
def _in_film(film: np.ndarray, x: float, y: float, height: float) -> bool:
    return film[0] * x + film[1] * y > film[2] and film[3] < height < film[4]


@numba.njit(cache=True)
def _distance(kind: int, point: np.ndarray, field: np.ndarray, table: np.ndarray, dims: np.ndarray) -> float:
    """Distance from a point in a body's frame to the body, by the nearest voxel; far outside its box.

    A row of table is the corner of the map, its spacing, and of a shell radius and half thickness.
    """
    row, extent, start = table[kind], dims[kind], dims[kind, 3]
    if row[4] > 0:
        return abs(math.sqrt(point[0] ** 2 + point[1] ** 2 + point[2] ** 2) - row[4]) - row[5]
    i = int(math.floor((point[0] - row[0]) / row[3]))
    j = int(math.floor((point[1] - row[1]) / row[3]))
    k = int(math.floor((point[2] - row[2]) / row[3]))
    if i < 0 or j < 0 or k < 0 or i >= extent[0] or j >= extent[1] or k >= extent[2]:
        return 1e9
    return field[start + (i * extent[1] + j) * extent[2] + k]


@numba.njit(cache=True)
def _cell_index(value: float, grid: np.ndarray, axis: int, cell: float) -> int:
    """Cell of a coordinate; what lies beyond the grid belongs to its outermost cells."""
    return min(max(int(math.floor((value - grid[0, axis]) / cell)), 0), int(grid[1, axis]) - 1)


@numba.njit(cache=True)
def _cells_touched(centre: np.ndarray, reach: float, grid: np.ndarray, cell: float) -> tuple[np.ndarray, np.ndarray]:
    """First and last cell along each axis that a sphere touches."""
    low, high = np.empty(3, np.int64), np.empty(3, np.int64)
    for a in range(3):
        low[a] = _cell_index(centre[a] - reach, grid, a, cell)
        high[a] = _cell_index(centre[a] + reach, grid, a, cell)
    return low, high


@numba.njit(cache=True)
def _neighbours(
    centre: np.ndarray, reach: float, body: tuple, cells: tuple, seen: np.ndarray, stamp: int, found: np.ndarray
) -> int:
    """Bodies whose bounding sphere comes within `reach` of the centre; their indices in `found`, their number back."""
    place, radius = body[0], body[3]
    head, entries, grid, cell = cells
    number = 0
    low, high = _cells_touched(centre, reach, grid, cell)
    for i in range(low[0], high[0] + 1):
        for j in range(low[1], high[1] + 1):
            for k in range(low[2], high[2] + 1):
                entry = head[i, j, k]
                while entry >= 0:
                    other = entries[entry, 0]
                    entry = entries[entry, 1]
                    if seen[other] == stamp:
                        continue
                    seen[other] = stamp
                    between = 0.0
                    for a in range(3):
                        between += (place[other, a] - centre[a]) ** 2
                    if between < (reach + radius[other]) ** 2 and number < len(found):
                        found[number] = other
                        number += 1
    return number


@numba.njit(cache=True)
def _local(matrix: np.ndarray, x: np.ndarray, out: np.ndarray) -> None:
    """Rᵀ x."""
    for a in range(3):
        out[a] = matrix[0, a] * x[0] + matrix[1, a] * x[1] + matrix[2, a] * x[2]


@numba.njit(cache=True)
def _fits(
    kind: int, centre: np.ndarray, turn: np.ndarray, gap: float, body: tuple, shapes: tuple, near: np.ndarray,
    outside: tuple,
) -> bool:  # fmt: skip
    """Whether a body at a pose keeps the gap from the bodies `near`, and lies in the slab and outside the film."""
    place, turns, kinds, _ = body
    points, bounds, field, table, dims = shapes
    slab, film, half = outside
    x, shifted, local = np.empty(3), np.empty(3), np.empty(3)
    for n in range(len(near)):  # a body that would lie wholly inside the new one
        if table[kinds[near[n]], 4] > 1:  # a shell's centre is not part of it
            continue
        for a in range(3):
            shifted[a] = place[near[n], a] - centre[a]
        _local(turn, shifted, local)
        if _distance(kind, local, field, table, dims) < gap:
            return False
    for p in range(bounds[kind], bounds[kind + 1]):
        for a in range(3):
            x[a] = turn[a, 0] * points[p, 0] + turn[a, 1] * points[p, 1] + turn[a, 2] * points[p, 2] + centre[a]
        height = _surface_height(slab, x[0], x[1], x[2])
        if abs(height) > half or _in_film(film, x[0], x[1], height):
            return False
        for n in range(len(near)):
            other = near[n]
            for a in range(3):
                shifted[a] = x[a] - place[other, a]
            _local(turns[other], shifted, local)
            if _distance(kinds[other], local, field, table, dims) < gap:
                return False
    return True


@numba.njit(cache=True)
def register_compiled(index: int, centre: np.ndarray, reach: float, cells: tuple, used: int) -> int:
    """Enter a body into all cells that its bounding sphere touches; the number of entries used then."""
    head, entries, grid, cell = cells
    low, high = _cells_touched(centre, reach, grid, cell)
    for i in range(low[0], high[0] + 1):
        for j in range(low[1], high[1] + 1):
            for k in range(low[2], high[2] + 1):
                entries[used, 0] = index
                entries[used, 1] = head[i, j, k]
                head[i, j, k] = used
                used += 1
    return used


@numba.njit(cache=True)
def place_compiled(
    kind: int, poses: tuple, wanted: int, gap: float, body: tuple, shapes: tuple, cells: tuple, state: tuple
) -> tuple[int, int, int]:
    """Try poses in their order until `wanted` bodies stand; the first free row of `body`, entries used, poses tried.

    poses = centres (try, 3), turns (try, 3, 3), accepted (try,) bool, written; state = bodies there are, entries used,
    radius of the new body, (slab, film, half thickness).
    """
    centres, turns, accepted = poses
    number, used, radius, outside = state
    seen = np.full(len(body[0]), -1, np.int64)
    found = np.empty(4096, np.int64)
    placed, tried = 0, 0
    while placed < wanted and tried < len(centres):
        centre, turn = centres[tried], turns[tried]
        near = _neighbours(centre, radius + gap, body, cells, seen, tried, found)
        if _fits(kind, centre, turn, gap, body, shapes, found[:near], outside):
            body[0][number] = centre
            body[1][number] = turn
            body[2][number] = kind
            body[3][number] = radius
            used = register_compiled(number, centre, radius, cells, used)
            number += 1
            placed += 1
            accepted[tried] = True
        tried += 1
    return number, used, tried
