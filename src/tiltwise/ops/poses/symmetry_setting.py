"""The rigid motion that brings a map, found without symmetry, into the standard setting of a point group.

With the map's centre moved to c and then turned by R, the part of its power that the group leaves is

    share(R, c) = sum |mean over g of F_c(Rᵀ gᵀ k)|² / sum |F_c(k)|²,

F_c the spectrum, whitened shell by shell: 1 for a map that has the symmetry there, 1 / (order of the group) on average
for one that has nothing of it. R is looked for over the rotations that the group does not make equal, c from the centre
of mass, which in a symmetric body lies on every axis; then both in finer steps, in turn. Along what the group leaves
where it is (the axis of Cn) c stays at the centre of mass.
"""

import torch

from tiltwise.ops.interpolate import centred_points
from tiltwise.ops.maps.sharpening import whitened
from tiltwise.ops.maps.superpose import RigidMotion
from tiltwise.ops.poses.alignment import search_grid
from tiltwise.ops.poses.map_search import ball, finer_grids
from tiltwise.ops.poses.posterior import turned_spectra
from tiltwise.ops.rotations import rotation_grid
from tiltwise.ops.symmetry import symmetry_rotations

_BLOCK = 2048  # spectra held at once
_TURNS = 2  # of turning and moving, each step


def standard_setting(
    volume: torch.Tensor, voxel_size: float, symmetry: str, *, resolution: float, diameter: float
) -> tuple[RigidMotion, float]:
    """The motion x -> R (x - c) of a masked map (n, n, n), compared down to resolution (Å), and the share there."""
    group = symmetry_rotations(symmetry)
    voxels = ball(len(volume), voxel_size, resolution)
    map_ = whitened(volume, voxel_size, resolution)
    middle = centre_of_mass(volume, voxel_size)
    grid = search_grid(resolution, diameter, 180.0, 0.0)
    turns = rotation_grid(grid.angular_step, symmetry).transpose(1, 2)
    centre = middle
    rotation = turns[int(_shares(map_, voxels, turns, centre[None] / voxel_size, group).argmax())]
    for finer, shifts in finer_grids(grid):
        for _ in range(_TURNS):
            centres = centre + shifts
            found = _shares(map_, voxels, rotation[None], centres / voxel_size, group)
            centre = centres[int(found.argmax())]
            near = finer @ rotation
            found = _shares(map_, voxels, near, centre[None] / voxel_size, group)
            rotation = near[int(found.argmax())]
    free = rotation.T @ group.mean(0) @ rotation  # projects onto what the group leaves where it is
    centre = centre - free @ (centre - middle)
    share = float(_shares(map_, voxels, rotation[None], centre[None] / voxel_size, group)[0])
    return RigidMotion(rotation=rotation.numpy(), shift=-(rotation @ centre).numpy()), share


def centre_of_mass(volume: torch.Tensor, voxel_size: float) -> torch.Tensor:
    """(3,) float64 x, y, z, Å, of the density above 0."""
    density = volume.clamp_min(0).double()
    points = centred_points(tuple(volume.shape), volume.device)
    return (density[..., None] * points).sum((0, 1, 2)) / density.sum().clamp_min(1e-30) * voxel_size


def _shares(
    volume: torch.Tensor, voxels: torch.Tensor, rotations: torch.Tensor, centres: torch.Tensor, group: torch.Tensor
) -> torch.Tensor:
    """(rotation or centre,) share for rotations (n, 3, 3) and centres (m, 3) in voxels; n or m is 1."""
    number, period = len(rotations) * len(centres), len(volume)
    turns = (group[None] @ rotations[:, None]).reshape(-1, 3, 3)  # read at Rᵀ gᵀ k
    result = torch.zeros(number, dtype=torch.float64)
    block = max(1, _BLOCK // len(group))
    for first in range(0, len(rotations), block):
        part = turns[first * len(group) : (first + block) * len(group)]
        values = turned_spectra(volume, part, voxels).reshape(-1, len(group), len(voxels))
        places = torch.einsum("vc,rgcd->rgvd", voxels.double(), part.reshape(-1, len(group), 3, 3))
        for m, centre in enumerate(centres):
            angle = 2 * torch.pi / period * (places @ centre)
            moved = values * torch.polar(torch.ones_like(angle), angle).to(values.dtype)
            power = moved.abs().square().sum(2).mean(1)
            share = moved.mean(1).abs().square().sum(1) / power.clamp_min(1e-30)
            if len(centres) == 1:
                result[first : first + block] = share.double()
            else:
                result[m] = float(share[0])
    return result
