"""Where maps lie in one another at low resolution: the search of poses, with a map in the place of a particle.

With the spectrum F of the fixed map and V_r of the moving one turned by r, both whitened shell by shell so that the
shape as a whole does not decide, Re<F exp(2 pi i k·t), V_r> / |F| |V_r| is their correlation in the pose (r, t). The
grid is that of a search of particles; about its best pose two finer ones follow, each with a third of the steps.
"""

import torch

from tiltwise.ops.maps.sharpening import whitened
from tiltwise.ops.maps.superpose import RigidMotion
from tiltwise.ops.poses.alignment import SearchGrid
from tiltwise.ops.poses.posterior import turned_spectra
from tiltwise.ops.poses.search import shift_grid, shift_phases
from tiltwise.ops.rotations import rotation_vector_to_matrix

_FINER = 3  # times, each round
_ROUNDS = 2
_BLOCK = 2048  # rotations held at once


def find_map(
    moving: torch.Tensor, fixed: torch.Tensor, voxel_size: float, grid: SearchGrid
) -> tuple[RigidMotion, float]:
    """The rigid motion of `moving` onto `fixed`, two cubes (n, n, n) within their mask, and their correlation there.

    Compared down to the grid's resolution, over the grid's rotations and shifts and finer ones about the best.
    """
    voxels = ball(len(fixed), voxel_size, grid.resolution)
    source, target = (whitened(v.cpu(), voxel_size, grid.resolution) for v in (moving, fixed))
    data = turned_spectra(target, torch.eye(3, dtype=torch.float64)[None], voxels)[0]
    period = len(fixed) * voxel_size

    def best(rotations: torch.Tensor, shifts: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, float]:
        shifted = torch.view_as_real(data * shift_phases(voxels, shifts / period)).reshape(len(shifts), -1)
        found = []
        for part in rotations.split(_BLOCK):
            turned = turned_spectra(source, part, voxels)
            norm = turned.abs().square().sum(1).sqrt() * data.abs().square().sum().sqrt()
            found.append(shifted @ torch.view_as_real(turned).reshape(len(part), -1).T / norm.clamp_min(1e-30))
        table = torch.cat(found, dim=1)
        place = int(table.argmax())
        return rotations[place % len(rotations)], shifts[place // len(rotations)], float(table.max())

    rotation, shift, value = best(grid.rotations, grid.shifts)
    for turns, shifts in finer_grids(grid):
        rotation, shift, value = best(rotation @ turns, shift + shifts)
    return RigidMotion(rotation=rotation.numpy(), shift=shift.numpy()), value


def finer_grids(grid: SearchGrid) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Turns (n, 3, 3) and shifts (m, 3), Å, about a pose of the grid: as far as its next neighbours, in finer steps."""
    result, turn, step = [], grid.angular_step, 0.35 * grid.resolution
    for _ in range(_ROUNDS):
        vectors = shift_grid(turn, turn / _FINER)
        result.append((rotation_vector_to_matrix(vectors), shift_grid(step, step / _FINER)))
        turn, step = turn / _FINER, step / _FINER
    return result


def ball(side: int, voxel_size: float, resolution: float) -> torch.Tensor:
    """(voxel, 3) float32 frequencies x, y, z of one half space with 0 < |k| <= the band's, in 1 / (n · voxel size)."""
    limit = min(int(side * voxel_size / resolution), (side - 1) // 2)
    axis = torch.arange(-limit, limit + 1, dtype=torch.float32)
    z, y, x = torch.meshgrid(axis, axis, axis, indexing="ij")
    points = torch.stack([x, y, z], dim=-1).reshape(-1, 3)
    upper = (x > 0) | ((x == 0) & ((y > 0) | ((y == 0) & (z > 0))))
    return points[upper.reshape(-1) & (points.norm(dim=1) <= limit)]
