"""Where in one map another lies: every rotation of a grid, every shift by a Fourier transform, at low resolution.

For a rotation R and a shift t the agreement is c(R, t) = ∫ V(R⁻¹ (x - t)) M(x) dx, M the map within its mask: for one
R the cross-correlation over all t. What `ops.maps.superpose` refines starts here.
"""

import math

import numpy as np
import torch

from tiltwise.data.progress import Progress
from tiltwise.ops.filters import low_pass
from tiltwise.ops.fourier import fourier_rescale
from tiltwise.ops.interpolate import centred_points, sample_volume
from tiltwise.ops.maps.sharpening import whitened
from tiltwise.ops.maps.superpose import RigidMotion
from tiltwise.ops.rotations import rotation_grid
from tiltwise.ops.steady import steady_rfftn

_FINEST = 20.0
"""Spacing compared, Å, for small molecules."""
_PER_RADIUS = 4.0
"""Spacings to a radius at most: large molecules are compared more coarsely, so that the number of rotations, of which
one step moves the rim by one spacing, stays below 5400."""
_VOXELS = 2.2
"""Per spacing compared."""


def search_motions(
    moving: torch.Tensor, fixed: torch.Tensor, voxel_size: float, number: int, progress: Progress
) -> list[RigidMotion]:
    """The best rigid motions of `moving` onto `fixed`, two cubes (n, n, n) of one voxel size (Å); the best first.

    No two share a rotation. Both maps are low-passed to 20 Å (coarser for large molecules and voxels) and whitened,
    each shell by its own amplitude: the shape as a whole would decide otherwise, and it fits many ways.
    """
    side = len(fixed)
    radius = _radius(moving, voxel_size)
    finest = max(_FINEST, 2.2 * voxel_size, radius / _PER_RADIUS)
    small = min(side, 2 * math.ceil(side * voxel_size * _VOXELS / finest / 2))
    shrunk = [fourier_rescale(low_pass(v.float(), finest, voxel_size), (small,) * 3) for v in (moving, fixed)]
    voxel = side * voxel_size / small
    source, target = (whitened(v, voxel, finest) for v in shrunk)
    spectrum = steady_rfftn(target)
    rotations = rotation_grid(min(30.0, math.degrees(finest / radius)), "C1")
    points = centred_points((small,) * 3).float()
    best = torch.empty(len(rotations))
    place = torch.empty(len(rotations), dtype=torch.long)
    for i, rotation in enumerate(rotations):
        turned = sample_volume(source, points @ rotation.float())
        correlation = torch.fft.irfftn(steady_rfftn(turned).conj() * spectrum, s=tuple(target.shape))
        best[i], place[i] = correlation.flatten().max(dim=0)
        if i % 100 == 0:
            progress(i / len(rotations), "looking for the place of the model")
    order = best.argsort(descending=True)[:number]
    return [
        RigidMotion(rotation=rotations[i].double().numpy(), shift=_shift(int(place[i]), small, voxel)) for i in order
    ]


def _radius(volume: torch.Tensor, voxel_size: float) -> float:
    """Å, of the ball whose density would lie as far from the centre, root mean square."""
    density = volume.clamp_min(0).double()
    square = (centred_points(tuple(volume.shape)) ** 2).sum(-1)
    return voxel_size * math.sqrt(5 / 3 * float((density * square).sum() / density.sum()))


def _shift(index: int, side: int, voxel: float) -> np.ndarray:
    """(3,) x, y, z in Å of a flat index of a periodic correlation."""
    zyx = torch.tensor([index // side**2, index // side % side, index % side])
    wrapped = torch.where(zyx >= (side + 1) // 2, zyx - side, zyx)
    return (wrapped.flip(0).double() * voxel).numpy()
