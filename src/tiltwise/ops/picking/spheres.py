"""Spherical coats in a tomogram (virions, vesicles): found as templates of many radii, fitted, covered with points."""

import math
from dataclasses import dataclass

import numpy as np
import torch
from scipy.spatial.transform import Rotation

from tiltwise.ops.interpolate import centred_points, sample_volume
from tiltwise.ops.peaks import local_maxima
from tiltwise.ops.picking import matching
from tiltwise.ops.picking.template_search import shrink_volume
from tiltwise.ops.picking.tiles import plan_tiles
from tiltwise.ops.rotations import direction_grid

SHELL_THICKNESS = 130.0
"""Å from the inner to the outer face of a coat: membrane and the protein layer under it."""
_SEARCH_VOXEL = 40.0
_RADIUS_STEP = 20.0
_COARSEST = 2000.0
_FINEST = 90.0
"""Å: the band of spacings in which shells are sought; finer ones belong to lattice and noise."""
_POWER_FLOOR = 0.02
_OVERLAP = 0.75
"""Centres nearer than this part of the sum of two radii belong to one sphere: coats do not interpenetrate."""
_REACHES = (80.0, 80.0, 60.0, 60.0, 40.0, 40.0)
"""Å to either side of the surface that each round of the fit looks at."""
_OFFSET_STEP = 10.0
_OFFSETS = np.arange(-80.0, 81.0, _OFFSET_STEP)
_DIRECTION_STEP = 8.0
_SMOOTHING = 12.0
"""Degrees: sd of the weight that neighbouring directions have in each other's profile."""
_SEEN = 0.98
"""Part of the tomogram's extent that images cover in full; they fade out towards their edges."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Spheres:
    """Fitted spheres, best first."""

    centre: np.ndarray
    """(sphere, 3) x, y, z from the tomogram centre, Å."""
    radius: np.ndarray
    """(sphere,) of the middle of the coat, Å."""
    score: np.ndarray
    """(sphere,) of the shell, in standard deviations of the noise; nan where the centre was given."""
    coverage: np.ndarray
    """(sphere,) part of the visible directions in which the coat is denser than what lies beside it."""


def find_shells(
    tomogram: torch.Tensor, voxel_size: float, transfer: matching.TiltTransfer, radii: tuple[float, float], number: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Centres (n, 3) Å, radii (n,) Å and scores (n,) of the best shells, at most `number`, none of them overlapping.

    Each radius is one template of the matched filter in ops.picking.matching, so the missing wedge is in the score, and
    whitening keeps gold and gradients from passing for coats.
    """
    volume, voxel_size = shrink_volume(tomogram, voxel_size, _SEARCH_VOXEL)
    side = min(2 * math.ceil(1.15 * (radii[1] + SHELL_THICKNESS) / voxel_size), *volume.shape)
    box = (side,) * 3
    k = matching.frequency_vectors(box, voxel_size, volume.device).norm(dim=-1)
    band = ((k > 1 / _COARSEST) & (k < 1 / max(_FINEST, 2 * voxel_size))).float()
    power = matching.box_power(volume, side)
    power = power.clamp_min(_POWER_FLOOR * power[band > 0].median())
    passed = matching.box_transfer(transfer, box, voxel_size) * band
    distance = centred_points(box, volume.device).norm(dim=-1).float() * voxel_size
    tried = torch.arange(radii[0], radii[1] + _RADIUS_STEP / 2, _RADIUS_STEP)
    shells = torch.stack([_shell_profile(distance - float(radius)) for radius in tried])
    shells = shells / matching.template_norms(shells, passed**2 / power)[:, None, None, None]
    filtered = matching.filter_by_box_response(volume, passed / power)
    tiling = plan_tiles(tuple(volume.shape), side)
    score, which = matching.correlate_everywhere(filtered, shells.split(tiling.kernels), tiling)
    index, value = local_maxima(score, 3, 20 * number)
    centre = torch.tensor([n // 2 for n in score.shape], device=index.device)
    position = ((index - centre).flip(1) * voxel_size).double().cpu().numpy()
    radius = tried[which[tuple(index.T)].long().cpu()].double().numpy()
    kept = keep_apart(position, radius)[:number]
    return position[kept], radius[kept], value.double().cpu().numpy()[kept]


def keep_apart(centre: np.ndarray, radius: np.ndarray) -> np.ndarray:
    """Indices of the spheres that remain, in the given order, when each drops later ones that overlap it."""
    kept: list[int] = []
    for i in range(len(centre)):
        reach = _OVERLAP * (radius[i] + radius[kept])
        if (np.linalg.norm(centre[kept] - centre[i], axis=1) >= reach).all():
            kept.append(i)
    return np.array(kept, dtype=int)


def fit_sphere(
    tomogram: torch.Tensor, voxel_size: float, start: tuple[np.ndarray, float], tilt_max: float
) -> tuple[np.ndarray, float, float]:
    """Centre (3,), radius and coverage of the coat near start = (centre, radius), Å.

    In each direction whose surface the tilts see and the tomogram holds, the coat is the offset at which the mean over
    its thickness stands highest above its flanks, neighbouring directions helping each other; robust least squares
    moves centre and radius to these offsets, which are sought ever nearer to the surface. The spheres stay within
    their reach of the start, so that a coat cut by the border cannot run away.
    """
    centre, radius = np.array(start[0], dtype=float), float(start[1])
    directions = direction_grid(_DIRECTION_STEP)
    directions = directions[visible_normals(directions, tilt_max)]
    angle = np.arccos(np.clip(directions @ directions.T, -1, 1))
    smooth = np.exp(-((np.degrees(angle) / _SMOOTHING) ** 2) / 2)
    for reach in _REACHES:
        contrast, inside = _radial_contrast(tomogram, voxel_size, centre, radius, directions)
        if inside.sum() < 20:
            return np.array(start[0], dtype=float), float(start[1]), 0.0
        shared = smooth[:, inside] @ contrast[inside] / smooth[:, inside].sum(1, keepdims=True)
        near = np.abs(_OFFSETS) <= reach
        best, height = _OFFSETS[near][shared[:, near].argmax(1)], shared[:, near].max(1)
        design = np.column_stack([directions, np.ones(len(directions))])
        change = _robust_solution(design, best, np.clip(height, 0, None) * inside, prior=reach)
        centre, radius = centre + change[:3], radius + change[3]
    contrast, inside = _radial_contrast(tomogram, voxel_size, centre, radius, directions)
    return centre, radius, float((contrast[inside, len(_OFFSETS) // 2] > 0).mean()) if inside.any() else 0.0


def best_radius(
    tomogram: torch.Tensor, voxel_size: float, centre: np.ndarray, radii: tuple[float, float], tilt_max: float
) -> float:
    """Radius in the range, Å, whose coat about a given centre stands out most, over all visible directions."""
    directions = direction_grid(_DIRECTION_STEP)
    directions = directions[visible_normals(directions, tilt_max)]
    tried = np.arange(radii[0], radii[1] + _RADIUS_STEP / 2, _RADIUS_STEP)
    heights = []
    for radius in tried:
        contrast, inside = _radial_contrast(tomogram, voxel_size, centre, float(radius), directions)
        heights.append(contrast[inside, len(_OFFSETS) // 2].mean() if inside.any() else -np.inf)
    return float(tried[int(np.argmax(heights))])


def visible_normals(normals: np.ndarray, tilt_max: float) -> np.ndarray:
    """(n,) bool: whether a surface of this normal (n, 3) is seen by a tilt about y within ± tilt_max degrees."""
    return np.abs(normals[:, 2]) <= np.abs(normals[:, 0]) * math.tan(math.radians(tilt_max)) + 1e-9


def surface_points(radius: float, spacing: float) -> np.ndarray:
    """(n, 3) unit normals whose points on a sphere of this radius lie about `spacing` from their neighbours."""
    return direction_grid(math.degrees(spacing / radius))


def rotations_to_normals(normals: np.ndarray, rng: np.random.Generator) -> Rotation:
    """Rotations that map z to each normal (n, 3), with a random turn about it."""
    polar = np.arccos(np.clip(normals[:, 2], -1, 1))
    azimuth = np.arctan2(normals[:, 1], normals[:, 0])
    turn = rng.uniform(-np.pi, np.pi, len(normals))
    return Rotation.from_euler("ZYZ", np.column_stack([azimuth, polar, turn]))


def _shell_profile(offset: torch.Tensor) -> torch.Tensor:
    """1 inside the coat, 0 outside, soft over about 30 Å, as a function of the offset from its middle in Å."""
    return torch.sigmoid((SHELL_THICKNESS / 2 - offset.abs()) / 8)


def _radial_contrast(
    tomogram: torch.Tensor, voxel_size: float, centre: np.ndarray, radius: float, directions: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """(direction, offset) mean over the coat's thickness less the mean of its flanks; whether the tomogram holds it."""
    half, flank = SHELL_THICKNESS / 2, int(round(SHELL_THICKNESS / 2 / _OFFSET_STEP))
    reach = _OFFSETS[-1] + 2 * half
    along = np.arange(-reach, reach + _OFFSET_STEP / 2, _OFFSET_STEP)
    points = centre + (radius + along)[None, :, None] * directions[:, None, :]
    values = sample_volume(tomogram, torch.as_tensor(points / voxel_size, device=tomogram.device)).cpu().numpy()
    sums = np.concatenate([np.zeros((len(values), 1)), values.cumsum(1)], axis=1)
    first = np.round((_OFFSETS + reach - half) / _OFFSET_STEP).astype(int)
    width = 2 * flank
    middle = (sums[:, first + width] - sums[:, first]) / width
    below = (sums[:, first] - sums[:, first - flank]) / flank
    above = (sums[:, first + width + flank] - sums[:, first + width]) / flank
    surface = centre + (radius + SHELL_THICKNESS) * directions
    size = np.array(tomogram.shape[::-1]) * voxel_size / 2
    return middle - (below + above) / 2, (np.abs(surface) < _SEEN * size).all(1)


def _robust_solution(design: np.ndarray, target: np.ndarray, weight: np.ndarray, prior: float) -> np.ndarray:
    """Weighted least squares with Tukey's biweight, its scale from the median of the absolute residuals.

    Weights are scaled to mean 1 and a prior of sd `prior` on each unknown counts as one measurement of sd 50 Å in 20.
    """
    solution, weight = np.zeros(design.shape[1]), weight / max(weight.mean(), 1e-12)
    ridge = len(target) / 20 * (50.0 / prior) ** 2 * np.eye(design.shape[1])
    used = weight > 0
    for _ in range(10):
        residual = target - design @ solution
        scale = max(1.4826 * np.median(np.abs(residual[used])), 5.0) if used.any() else 5.0
        w = weight * np.clip(1 - (residual / (4.685 * scale)) ** 2, 0, None) ** 2
        solution = np.linalg.solve(design.T @ (design * w[:, None]) + ridge, design.T @ (w * target))
    return solution
