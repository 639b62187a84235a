"""Half maps in one frame: what the two references have turned and moved against each other is given back to the poses.

A reference that is made of the particles it aligns may turn and move as a whole, the poses with it, and no image
changes. Each half does so by itself, a little in every round, as the errors of its poses happen to average. Halves that
have drifted apart correlate less than they should, and their sum is blurred: of two series with 50 ribosomes in a half
they came to lie 0.8° and 1.6 Å apart, which cost a tenth of the resolution.

With x' = Q x + d in the reference of half 2 the pose (R, t) reads (R Qᵀ, t - R Qᵀ d) and shows the same images. Q and d
bring map 2 onto map 1 (`ops.maps.superpose`): six numbers for each average, against the thousands of values in which
the maps are compared. Symmetry leaves fewer: only what every operation of the group leaves alone is free, of Cn a turn
about z and a shift along it, of D, T, O, I nothing.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import torch
from scipy.spatial.transform import Rotation

from tiltwise.data.volume import Volume
from tiltwise.ops.fourier import fourier_rescale
from tiltwise.ops.maps.fsc_precision import independent_values
from tiltwise.ops.maps.superpose import RigidMotion, superpose
from tiltwise.ops.particles.chunks import ImageSource, PosedParticles
from tiltwise.ops.particles.half_maps import accumulate_halves, maps_and_fsc
from tiltwise.ops.particles.images import TiltWeights
from tiltwise.ops.particles.references import alignment_radius, masked_reference
from tiltwise.ops.symmetry import symmetry_operations, symmetry_order

_STILL = 0.02
"""Of the finest spacing: a rim that moves less stays in phase to 7°, and FSC within 1 %."""
_WORTH = 10.0
"""Log units that the agreement must gain: six numbers fitted to noise gain 3 ± 1.7."""
_OVERSAMPLED = 4
"""Voxels of the finest spacing on the grid that is superposed: cubic interpolation wants more than two."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class HalfAverages:
    """Averages of both halves in one frame."""

    particles: PosedParticles
    """Those of half 2 as the frame of half 1 has them."""
    maps: dict[int, torch.Tensor]
    """(n, n, n) by half set."""
    fsc: torch.Tensor
    """(shell,) of the maps within the mask."""
    motion: RigidMotion
    """What was taken out: of the reference of half 2, onto that of half 1."""


def average_halves(
    source: ImageSource,
    particles: PosedParticles,
    *,
    weights: Mapping[str, TiltWeights],
    mask: torch.Tensor,
    symmetry: str,
) -> HalfAverages:
    """Average both halves; where their references lie apart, half 2 once more from its poses in the frame of half 1.

    That is kept only if the maps then agree by more than chance (`gained`): of maps that show nothing any motion may
    come out, and noise that was laid on noise would pass for signal.
    """
    sums = accumulate_halves(source, particles, weights=weights, symmetry=symmetry)
    maps, fsc = maps_and_fsc(sums, mask)
    first = HalfAverages(particles=particles, maps=maps, fsc=fsc, motion=RigidMotion.identity())
    motion = motion_between(maps, fsc, mask, source.settings.pixel_size, symmetry)
    if motion is None:
        return first
    moved = in_frame(particles, 2, motion)
    sums[2] = accumulate_halves(source, moved, weights=weights, symmetry=symmetry, halves=(2,))[2]
    maps, fsc = maps_and_fsc(sums, mask)
    if gained(first.fsc, fsc, mask, symmetry) < _WORTH:
        return first
    return HalfAverages(particles=moved, maps=maps, fsc=fsc, motion=motion)


def motion_between(
    maps: Mapping[int, torch.Tensor], fsc: torch.Tensor, mask: torch.Tensor, voxel_size: float, symmetry: str
) -> RigidMotion | None:
    """The motion of map 2 onto map 1 (n, n, n), as far as the symmetry leaves it free, at the spacings in which they
    agree; None where nothing is free, a map is empty, they have nothing in common, or the rim of the mask would move by
    next to nothing."""
    free = free_directions(symmetry)
    if not free.any() or not all(bool(torch.isfinite(m).all()) and float(m.std()) > 0 for m in maps.values()):
        return None
    box = len(mask)
    radius = alignment_radius(fsc)
    side = min(box, 2 * ((_OVERSAMPLED * radius + 1) // 2))
    voxel = voxel_size * box / side
    second, first = (
        Volume(data=fourier_rescale(masked_reference(maps[h], mask), (side,) * 3).cpu().numpy(), voxel_size=voxel)
        for h in (2, 1)
    )
    coarse = fourier_rescale(mask.float(), (side,) * 3).clamp(0, 1).cpu()
    found = superpose(second, first, coarse)
    turn = free @ Rotation.from_matrix(found.rotation).as_rotvec()
    motion = RigidMotion(rotation=Rotation.from_rotvec(turn).as_matrix(), shift=free @ found.shift)
    rim = voxel_size * (3 * float((mask > 0.5).sum()) / (4 * np.pi)) ** (1 / 3)
    moved = np.linalg.norm(turn) * rim + np.linalg.norm(motion.shift)
    return motion if moved > _STILL * voxel_size * box / radius else None


def free_directions(symmetry: str) -> np.ndarray:
    """(3, 3) projection onto the directions that every operation of the symmetry leaves alone: axes about which, and
    along which, a reference may turn and move without being another."""
    turns = symmetry_operations(symmetry)[0].cpu().numpy()
    changed = sum((turn - np.eye(3)).T @ (turn - np.eye(3)) for turn in turns)
    size, axis = np.linalg.eigh(changed)
    kept = axis[:, size < 1e-6]
    return kept @ kept.T


def in_frame(particles: PosedParticles, half: int, motion: RigidMotion) -> PosedParticles:
    """The particles of a half as they are described once their reference has moved by x' = Q x + d."""
    own = torch.as_tensor(particles.half_set == half, device=particles.position.device)
    turn, shift = (torch.as_tensor(a, device=particles.position.device) for a in (motion.rotation, motion.shift))
    rotation = torch.where(own[:, None, None], particles.rotation @ turn.T, particles.rotation)
    position = torch.where(own[:, None], particles.position - rotation @ shift, particles.position)
    return replace(particles, rotation=rotation, position=position)


def gained(before: torch.Tensor, after: torch.Tensor, mask: torch.Tensor, symmetry: str) -> float:
    """Log likelihood of two maps that correlate by `after` (shell,), more than by `before`, over the shells in which
    they agreed before: N independent complex pairs of correlation C have -N log(1 - C²)."""
    values = independent_values(len(mask), mask, symmetry_order(symmetry)).to(after.device)
    shells = slice(1, alignment_radius(before) + 1)
    first, second = (torch.log1p(-(curve.double().clamp(0, 0.9999)[shells] ** 2)) for curve in (before, after))
    return float((values[shells] * (first - second)).sum())
