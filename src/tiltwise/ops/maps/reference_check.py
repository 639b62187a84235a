"""Whether a given reference is what the average of the data became: its hand, its scale.

The average is made of the images alone once the poses have settled; the reference only began them. A reference of the
wrong hand, or of another pixel size, is thus seen beside it: its mirror image, or the reference magnified, agrees with
the average better than the reference itself does. Agreement is the correlation within the mask of both maps, low-passed
and whitened shell by shell, so that the shape as a whole, which is nearly its own mirror image, does not decide.
"""

import math
from dataclasses import dataclass

import numpy as np
import torch

from tiltwise.data.progress import no_progress
from tiltwise.data.volume import Volume
from tiltwise.ops.filters import low_pass
from tiltwise.ops.fourier import fourier_rescale
from tiltwise.ops.interpolate import centred_points, sample_volume
from tiltwise.ops.maps.global_superpose import search_motions
from tiltwise.ops.maps.sharpening import whitened
from tiltwise.ops.maps.superpose import RigidMotion, move_map, superpose
from tiltwise.ops.steady import steady_sum

_SCALES = np.round(np.arange(0.85, 1.1501, 0.01), 2)
_CLEARLY = 0.1
"""By how much a correlation must be higher to count: what the mirror image of a globular map may gain by chance."""
_WRONG_SCALE = 0.03
_CANDIDATES = 12
_VOXELS = 2.6
"""Per spacing compared: both maps are first cut to that."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class ReferenceCheck:
    """How a reference agrees with the average of the data."""

    as_given: float
    """Correlation, best rigid motion."""
    mirrored: float
    """The same of its mirror image."""
    scale: float
    """Magnification of the reference that agrees best with the average."""
    scaled: float
    """Correlation at that magnification, where the poses have put it."""

    @property
    def looks_mirrored(self) -> bool:
        """Whether the mirror image agrees clearly better."""
        return self.mirrored > self.as_given + _CLEARLY

    @property
    def notes(self) -> tuple[str, ...]:
        """What is wrong, a line each."""
        found = []
        if self.looks_mirrored:
            found.append(
                f"the reference looks mirrored: its mirror image agrees with the average better ({self.mirrored:.2f}) "
                f"than it does itself ({self.as_given:.2f}); the average has the hand of the tilt geometry"
            )
        elif abs(self.scale - 1) >= _WRONG_SCALE and self.scaled > self.as_given + _CLEARLY:
            found.append(
                f"the reference agrees best with the average when magnified {self.scale:.2f} times: check the pixel "
                "size of the images and the voxel size of the reference"
            )
        return tuple(found)


def check_reference(
    reference: torch.Tensor, average: torch.Tensor, mask: torch.Tensor, *, voxel_size: float, resolution: float
) -> ReferenceCheck:
    """Compare a reference with the average that began with it, cubes (n, n, n) on one grid, down to `resolution`, Å."""
    side = min(len(average), 2 * math.ceil(len(average) * voxel_size * _VOXELS / resolution / 2))
    voxel_size = len(average) * voxel_size / side
    reference, average, mask = (fourier_rescale(one.float(), (side,) * 3) for one in (reference, average, mask))
    target = whitened(average * mask, voxel_size, resolution)
    turned = [_best_agreement(one, average, target, mask, voxel_size, resolution) for one in _both_hands(reference)]
    points = centred_points(tuple(reference.shape))
    magnified = [
        _correlation(
            whitened(sample_volume(reference, points / s, method="cubic") * mask, voxel_size, resolution), target
        )
        for s in _SCALES
    ]
    best = int(np.argmax(magnified))
    return ReferenceCheck(
        as_given=turned[0], mirrored=turned[1], scale=float(_SCALES[best]), scaled=float(magnified[best])
    )


def _both_hands(volume: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The volume and its mirror image in x about the centre n // 2."""
    mirrored = volume.flip(2)
    return volume, torch.roll(mirrored, 1, dims=2) if volume.shape[2] % 2 == 0 else mirrored


def _best_agreement(
    moving: torch.Tensor,
    average: torch.Tensor,
    target: torch.Tensor,
    mask: torch.Tensor,
    voxel_size: float,
    resolution: float,
) -> float:
    """Correlation with the average after the best rigid motion, from where it is and from a search."""
    smooth = low_pass(average * mask, resolution, voxel_size)
    starts = [RigidMotion.identity(), *search_motions(moving, smooth, voxel_size, _CANDIDATES, no_progress)]
    fixed, given = (Volume(data=v.numpy(), voxel_size=voxel_size) for v in (smooth, moving))

    def agreement(motion: RigidMotion) -> float:
        return _correlation(whitened(move_map(given, motion, fixed) * mask, voxel_size, resolution), target)

    return max(agreement(superpose(given, fixed, mask, start)) for start in starts)


def _correlation(first: torch.Tensor, second: torch.Tensor) -> float:
    a, b = first.double(), second.double()
    norm = (steady_sum(a.square()) * steady_sum(b.square())).sqrt()
    return float(steady_sum(a * b) / norm.clamp_min(1e-30))
