"""Images straightened to the tomogram: resampled once, so that its y axis runs along their rows; then projected fast.

With L = voxel_size · (R_i)_xy (Å per voxel) the images are read on the grid M = [g, L e_y], g along L e_x: in (column,
row) a voxel lies at M^-1 L (x, y, z) = (a x + b z, y + s z), for any rotation R_i, x-tilt and axis included. Back
projection then interpolates across the tilt axis only (and along it where s is not 0), linearly.
"""

import math
from dataclasses import dataclass

import numpy as np
import torch

from tiltwise.ops.kernels import straight_projection as kernels

Table = tuple[np.ndarray, ...]
"""What the kernels need of a geometry and its planes, from `kernel_table`."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class StraightGeometry:
    """Where voxels (x, y, z index) lie in straightened images, for `number` tilts."""

    volume_shape: tuple[int, int, int]
    """(z, y, x) voxels."""
    rotations: np.ndarray
    """(tilt, 3, 3) specimen to image frame."""
    linear: np.ndarray
    """(tilt, 2, 2) M: Å in the image for a step of one column, one row."""
    shift: np.ndarray
    """(tilt, 2) position of the tomogram centre in the image, from its centre, Å."""
    column: np.ndarray
    """(tilt, 3) column = c0 x + c1 z + c2."""
    row: np.ndarray
    """(tilt, 2) row = y + r0 z + r1, r1 includes the margin."""
    level: np.ndarray
    """(tilt, 4) level of depth = floor(l0 x + l1 y + l2 z + l3)."""
    depth: tuple[np.ndarray, ...]
    """For each tilt the depths of its levels, Å."""
    columns: np.ndarray
    """(tilt,) columns of each straightened image."""
    margin: int
    """Rows before and after those of the tomogram, met where the y axis is inclined."""

    @property
    def number(self) -> int:
        return len(self.shift)


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Planes:
    """Which columns of which tilt and level a store of samples holds, one after the other."""

    tilt: np.ndarray
    """(plane,) row of the tilt."""
    depth: np.ndarray
    """(plane,) Å."""
    first: np.ndarray
    """(plane,) first column of the straightened image that is kept."""
    start: np.ndarray
    """(plane + 1,) where its columns begin in the store."""
    of_tilt: np.ndarray
    """(tilt, 2) first plane and number of planes."""


def straighten(
    rotations: torch.Tensor,
    shift: np.ndarray,
    voxel_size: float,
    volume_shape: tuple[int, int, int],
    depth_step: float | np.ndarray = math.inf,
    columns_per_voxel: int = 1,
) -> StraightGeometry:
    """rotations (tilt, 3, 3) specimen to image frame, shift (tilt, 2) Å; a level spans at most depth_step Å, of all
    tilts or (tilt,)."""
    turn = rotations.detach().double().cpu().numpy()
    scaled = turn[:, :2] * voxel_size
    across = scaled[:, :, 0] / np.maximum(np.linalg.norm(scaled[:, :, 0], axis=1, keepdims=True), 1e-12)
    flat = np.linalg.norm(scaled[:, :, 0], axis=1) < 1e-9 * voxel_size
    across[flat] = np.stack([scaled[flat, 1, 1], -scaled[flat, 0, 1]], 1) / voxel_size  # normal to the y axis
    linear = np.stack([across * voxel_size / columns_per_voxel, scaled[:, :, 1]], axis=2)
    step = np.linalg.solve(linear, scaled)  # (tilt, 2, 3): column, row for a step in x, y, z
    size = np.array(volume_shape[::-1], dtype=float)
    centre = np.array([n // 2 for n in volume_shape[::-1]], dtype=float)
    reach = np.abs(step[:, 0, [0, 2]]) @ (size[[0, 2]] / 2)
    columns = 2 * np.ceil(reach).astype(int) + 4
    column = np.stack([step[:, 0, 0], step[:, 0, 2], columns // 2 - step[:, 0, [0, 2]] @ centre[[0, 2]]], axis=1)
    slope = np.where(np.abs(step[:, 1, 2]) * size[2] < 1e-6, 0.0, step[:, 1, 2])
    margin = math.ceil(np.abs(slope).max() * size[2] / 2) + 1 if slope.any() else 0
    level, depth = _levels(turn[:, 2] * voxel_size, size, centre, depth_step)
    return StraightGeometry(
        volume_shape=tuple(volume_shape),
        rotations=turn,
        linear=linear,
        shift=np.asarray(shift, dtype=float),
        column=column,
        row=np.stack([slope, margin - slope * centre[2]], axis=1),
        level=level,
        depth=depth,
        columns=columns,
        margin=margin,
    )


def _levels(
    normal: np.ndarray, size: np.ndarray, centre: np.ndarray, step: float | np.ndarray
) -> tuple[np.ndarray, tuple[np.ndarray, ...]]:
    """Levels of equal width, at most step, that span the depths of the volume; normal (tilt, 3) Å of depth a voxel."""
    reach = np.abs(normal) @ (size / 2)
    counts = np.maximum(1, np.ceil(2 * reach / step)).astype(int)
    width = 2 * reach / counts
    level = np.concatenate([normal, (reach - normal @ centre)[:, None]], axis=1) / width[:, None]
    depth = tuple(-r + w * (np.arange(n) + 0.5) for r, w, n in zip(reach, width, counts, strict=True))
    return level, depth


def lay_out_planes(geometry: StraightGeometry) -> Planes:
    """One plane for each tilt and level of depth, each with the columns that voxels of its depths meet."""
    tilt, depth, first, count = [], [], [], []
    for t, depths in enumerate(geometry.depth):
        for d in range(len(depths)):
            low, high = (0, geometry.columns[t] - 1) if len(depths) == 1 else _columns_of_level(geometry, t, d)
            tilt.append(t)
            depth.append(depths[d])
            first.append(low)
            count.append(high - low + 1)
    numbers = np.array([len(d) for d in geometry.depth])
    return Planes(
        tilt=np.array(tilt),
        depth=np.array(depth),
        first=np.array(first),
        start=np.concatenate([[0], np.cumsum(count)]),
        of_tilt=np.stack([np.cumsum(numbers) - numbers, numbers], axis=1),
    )


def _columns_of_level(geometry: StraightGeometry, tilt: int, level: int) -> tuple[int, int]:
    """First and last column that voxels of a level meet: the corners of its slab within the volume, and two spare."""
    nz, ny, nx = geometry.volume_shape
    (ax, ay, az, a0), (cx, cz, c0) = geometry.level[tilt], geometry.column[tilt]
    spare = abs(ay) * ny  # the y of a voxel may move it to a neighbouring level
    middle = a0 + ay * (ny // 2)
    corners = []
    for height in (level - spare, level + 1 + spare):
        for z in (0, nz - 1):
            corners.append((float(np.clip((height - middle - az * z) / ax, 0, nx - 1)) if ax else nx - 1.0, z))
        for x in (0, nx - 1):
            corners.append((x, float(np.clip((height - middle - ax * x) / az, 0, nz - 1)) if az else nz - 1.0))
    inside = [(x, z) for x in (0, nx - 1) for z in (0, nz - 1)]
    corners += [(x, z) for x, z in inside if level - spare <= ax * x + az * z + middle <= level + 1 + spare]
    if not ax or not az:
        corners += inside
    reached = [cx * x + cz * z + c0 for x, z in corners]
    last = int(geometry.columns[tilt]) - 1
    return int(np.clip(math.floor(min(reached)) - 2, 0, last)), int(np.clip(math.ceil(max(reached)) + 2, 0, last))


def stored_rows(geometry: StraightGeometry, rows: int) -> int:
    """Rows of the store for so many rows of tomogram: whole blocks and margins, and no power of two between columns."""
    blocks = -(-rows // kernels.BLOCK) * kernels.BLOCK + 2 * geometry.margin + 2
    return -(-blocks // 32) * 32 + 16


def plane_affine(
    geometry: StraightGeometry, planes: Planes, plane: int, first_row: int, grid: tuple[tuple, tuple]
) -> np.ndarray:
    """(2, 3) x, y of a sampled image for (column, row) of a plane of the store, whose first row is first_row.

    grid = (x, y sample size in Å), (x, y sample of the image centre).
    """
    tilt = planes.tilt[plane]
    spacing, centre = (np.array(values, dtype=float) for values in grid)
    matrix = geometry.linear[tilt] / spacing[:, None]
    offset = geometry.linear[tilt] @ plane_origin(geometry, planes, plane, first_row) + geometry.shift[tilt]
    return np.concatenate([matrix, (offset / spacing + centre)[:, None]], axis=1)


def plane_origin(geometry: StraightGeometry, planes: Planes, plane: int, first_row: int) -> np.ndarray:
    """(2,) column and row, counted from the tomogram centre, of the first sample of a plane in the store."""
    column = planes.first[plane] - geometry.columns[planes.tilt[plane]] // 2
    return np.array([column, first_row - geometry.margin - geometry.volume_shape[1] // 2])


def kernel_table(geometry: StraightGeometry, planes: Planes) -> Table:
    """What the kernels need of the geometry, as plain arrays."""
    origin = (planes.start[:-1] - planes.first).astype(np.int64)
    return (
        geometry.column,
        geometry.row,
        geometry.level,
        planes.of_tilt.astype(np.int64),
        origin,
        geometry.columns.astype(np.int64),
    )


def gather(
    samples: torch.Tensor,
    tilts: np.ndarray,
    table: Table,
    volume: torch.Tensor,
    start: tuple[int, int],
) -> None:
    """Add to volume (z, y, x) float32, whose first voxel is z, y = start of the tomogram, what the tilts show there.

    samples (column, row): the store, whose first row belongs to y = start[1]; table from `kernel_table`.
    """
    if volume.device.type == "cpu":
        kernels.gather(samples.numpy(), np.asarray(tilts, np.int64), table, volume.numpy(), start)
    else:
        gather_plain(samples, tilts, table, volume, start)


def scatter(
    volume: torch.Tensor,
    tilts: np.ndarray,
    table: Table,
    samples: torch.Tensor,
    start: tuple[int, int],
) -> None:
    """Adjoint of `gather` where every tilt has one level: add the voxels to the columns and rows they meet."""
    if volume.device.type == "cpu":
        groups = min(torch.get_num_threads(), len(tilts))
        kernels.scatter(volume.numpy(), np.asarray(tilts, np.int64), table, samples.numpy(), start, groups)
    else:
        scatter_plain(volume, tilts, table, samples, start)


def gather_plain(
    samples: torch.Tensor,
    tilts: np.ndarray,
    table: Table,
    volume: torch.Tensor,
    start: tuple[int, int],
) -> None:
    """Plain twin of kernels.gather, on any device."""
    for t in tilts:
        for z in range(volume.shape[0]):
            index, weight, inside = _meet(
                table, t, z + start[0], volume.shape[1:], start[1], volume.device, levels=True
            )
            for (column, row), w in zip(index, weight, strict=True):
                volume[z] += samples[column, row] * (w * inside)


def scatter_plain(
    volume: torch.Tensor,
    tilts: np.ndarray,
    table: Table,
    samples: torch.Tensor,
    start: tuple[int, int],
) -> None:
    """Plain twin of kernels.scatter, on any device."""
    for t in tilts:
        for z in range(volume.shape[0]):
            places = _meet(table, t, z + start[0], volume.shape[1:], start[1], volume.device, levels=False)
            for (column, row), w in zip(places[0], places[1], strict=True):
                column, row = torch.broadcast_tensors(column, row)
                flat = (column * samples.shape[1] + row).reshape(-1)
                samples.view(-1).index_add_(0, flat, (volume[z] * (w * places[2])).reshape(-1))


def _meet(
    table: Table,
    t: int,
    z: int,
    shape: torch.Size,
    y_start: int,
    device: torch.device,
    *,
    levels: bool,
) -> tuple[list, list, torch.Tensor]:
    """Four (column, row) places of the store, their weights, and which x are inside, for a slice (y, x) at z."""
    column, row, level, planes, origin, columns = table
    x = torch.arange(shape[1], device=device, dtype=torch.float64)
    y = torch.arange(shape[0], device=device)
    position = column[t, 0] * x + column[t, 1] * z + column[t, 2]
    inside = (position >= kernels.EDGE) & (position <= columns[t] - 1 - kernels.EDGE)
    j = torch.where(inside, position, 0).floor()
    f = torch.where(inside, position - j, 0).float()
    shift = row[t, 0] * z + row[t, 1]
    g, base = shift - math.floor(shift), y[:, None] + math.floor(shift)
    plane = torch.full((*shape,), int(planes[t, 0]), device=device)
    if levels:
        block = y_start + y // kernels.BLOCK * kernels.BLOCK + kernels.BLOCK // 2
        height = level[t, 0] * x + level[t, 1] * block[:, None].double() + level[t, 2] * z + level[t, 3]
        plane = plane + height.floor().long().clamp(0, int(planes[t, 1]) - 1)
    places = torch.as_tensor(origin, device=device)[plane] + j.long()
    places = torch.where(inside, places, 0)
    index, weight = [(places, base), (places + 1, base)], [(1 - f) * (1 - g), f * (1 - g)]
    if row[t, 0] != 0:
        index += [(places, base + 1), (places + 1, base + 1)]
        weight += [(1 - f) * g, f * g]
    return index, weight, inside.float()


def resample(
    coefficients: torch.Tensor, affine: np.ndarray, out: torch.Tensor, displacement: np.ndarray | None = None
) -> None:
    """Fill out (column, row) with cubic B-spline values of coefficients (y, x) at affine (column, row, 1).

    displacement (node, node, 2), in samples along x, y at every NODE_STEP-th column and row, is added to the place,
    linear between the nodes; None is none.
    """
    if out.device.type != "cpu":
        resample_plain(coefficients, affine, out, displacement)
    elif displacement is None:
        kernels.resample(coefficients.numpy(), affine, out.numpy())
    else:
        kernels.resample_displaced(coefficients.numpy(), affine, displacement, out.numpy())


def resample_plain(
    coefficients: torch.Tensor, affine: np.ndarray, out: torch.Tensor, displacement: np.ndarray | None = None
) -> None:
    """Plain twin of kernels.resample and kernels.resample_displaced, on any device."""
    p = torch.arange(out.shape[0], device=out.device, dtype=torch.float64)[:, None]
    q = torch.arange(out.shape[1], device=out.device, dtype=torch.float64)
    x, y = (row[0] * p + row[1] * q + row[2] for row in affine.tolist())
    if displacement is not None:
        moved = _between_nodes(torch.as_tensor(displacement, device=out.device), p[:, 0], q)
        x, y = x + moved[..., 0], y + moved[..., 1]
    height, width = coefficients.shape
    inside = (x >= 1) & (y >= 1) & (x <= width - 3) & (y <= height - 3)
    x, y = torch.where(inside, x, 1), torch.where(inside, y, 1)
    jx, jy = x.floor(), y.floor()
    weights_x, weights_y = _cubic_weights((x - jx).float()), _cubic_weights((y - jy).float())
    out.zero_()
    for i, wy in enumerate(weights_y):
        for j, wx in enumerate(weights_x):
            out += wy * wx * coefficients[jy.long() + i - 1, jx.long() + j - 1]
    out *= inside


def _between_nodes(nodes: torch.Tensor, p: torch.Tensor, q: torch.Tensor) -> torch.Tensor:
    """(column, row, 2) values of nodes (node, node, 2), linear between them, at columns p and rows q."""
    for axis, place in enumerate((p, q)):
        first = (place / kernels.NODE_STEP).long().clamp(max=max(nodes.shape[axis] - 2, 0))
        f = (place / kernels.NODE_STEP - first).reshape([-1 if a == axis else 1 for a in range(3)])
        last = (first + 1).clamp(max=nodes.shape[axis] - 1)
        nodes = (1 - f) * nodes.index_select(axis, first) + f * nodes.index_select(axis, last)
    return nodes


def spline_prefilter(shape: tuple[int, int], device: torch.device | str = "cpu") -> torch.Tensor:
    """(y, x // 2 + 1) 1 / (2/3 + 1/3 cos 2πk) along both axes: from the transform of samples to spline coefficients."""
    y, x = torch.fft.fftfreq(shape[0], device=device), torch.fft.rfftfreq(shape[1], device=device)
    along = [1 / (2 / 3 + torch.cos(2 * math.pi * k) / 3) for k in (y, x)]
    return along[0][:, None] * along[1]


def _cubic_weights(f: torch.Tensor) -> tuple[torch.Tensor, ...]:
    a, d = (1 - f) ** 3 / 6, f**3 / 6
    b = 2 / 3 - f * f * (1 - f / 2)
    return a, b, 1 - a - b - d, d
