"""Alignment of tilt images without markers: each is matched to what all the others foretell of it.

Coarse: from the lowest tilt outwards, each image against its aligned neighbours, stretched as a flat specimen looks at
its tilt (Guckenberger 1982). Then, again and again, each image against the reprojection of a reconstruction without
it (`ops.alignment.reprojection`). One axis angle holds for the series: the one at which images and
reprojections say most of each other.
"""

from dataclasses import dataclass, replace

import numpy as np
import torch

from tiltwise.data.tilt_series import TiltGeometry
from tiltwise.ops.alignment.image_cleaning import Frames, whiten
from tiltwise.ops.alignment.reprojection import VolumeGrid, reproject_others
from tiltwise.ops.alignment.specimen_slab import EDGE
from tiltwise.ops.correlation import Match, match_images
from tiltwise.ops.geometry import tilt_rotations
from tiltwise.ops.projection import back_project, ramp_filter

_COARSEST = 800.0
"""Spacing (Å) above which nothing is used: thickness gradients, and the edges of ice and carbon."""
_THRESHOLD = 1.5
"""Soft threshold of the reconstruction in its standard deviations; 1 to 2.5 differ by a tenth of the shift error."""
_NEIGHBOURS = 4
"""Aligned images that foretell the next one in the coarse alignment."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Level:
    """Everything that stays the same while images are matched at one resolution."""

    frames: Frames
    """Whitened images, density positive."""
    tilt_angle: np.ndarray
    """(tilt,) degrees."""
    band: tuple[float, float]
    """Spacings used, from and to, Å."""
    grid: VolumeGrid
    """Grid of the reconstruction."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Alignment:
    """A state of the alignment, with the figures of the round that led to it."""

    axis: float
    """Tilt axis angle, degrees."""
    shift: np.ndarray
    """(tilt, 2) Å."""
    step: np.ndarray
    """(tilt,) length of the last change of shift, Å."""
    correlation: np.ndarray
    """(tilt,) correlation of each image with its reprojection, at the new shift."""
    correlation_before: np.ndarray
    """(tilt,) the same at the old shift."""
    information: float
    """What images and reprojections say of each other, nats."""


def prepare_level(frames: Frames, tilt_angle: np.ndarray, resolution: float, thickness: float) -> Level:
    """Whitened images and volume grid for matching to this resolution (Å) in a slab of this thickness (Å)."""
    white = whiten(frames, (_COARSEST / 1.3, resolution))
    side, depth = len(white.window), max(2, round(thickness / white.pixel_size))
    grid = VolumeGrid(shape=(depth, side, side), voxel_size=white.pixel_size)
    return Level(frames=white, tilt_angle=tilt_angle, band=(_COARSEST, resolution), grid=grid)


def align_neighbours(level: Level, axis: float) -> np.ndarray:
    """(tilt, 2) first shifts, Å: from the lowest tilt outwards, each image against its stretched aligned neighbours."""
    angles, number = level.tilt_angle, len(level.tilt_angle)
    shift = np.zeros((number, 2))
    flat = tilt_rotations(_geometry(level, axis, shift))[:, :2, :2]
    order = np.argsort(np.abs(angles), kind="stable")
    limit = 0.25 * len(level.frames.window) * level.frames.pixel_size
    for rank, i in enumerate(order[1:], start=1):
        done = order[:rank]
        near = done[np.argsort(np.abs(angles[done] - angles[i]), kind="stable")[:_NEIGHBOURS]]
        start = shift[near[0]]
        views = torch.zeros_like(level.frames.window)
        for j in near:
            affine = flat[j] @ torch.linalg.inv(flat[i])
            shifts = torch.as_tensor(shift[j]), torch.as_tensor(start)
            views += _view_flat(level.frames.data[j], level.frames.pixel_size, affine, shifts)
        match = _match(level, i, views, limit)
        shift[i] = start + match.shift
    return shift


def match_projections(level: Level, axis: float, shift: np.ndarray, limit: float) -> Alignment:
    """One round: every image against the reprojection of the others; new shifts at most limit (Å) from the old."""
    matches = match_geometry(level, _geometry(level, axis, shift), limit)
    step = np.array([match.shift for match in matches])
    return Alignment(
        axis=axis,
        shift=shift + step,
        step=np.linalg.norm(step, axis=1),
        correlation=np.array([match.correlation for match in matches]),
        correlation_before=np.array([match.correlation_unmoved for match in matches]),
        information=float(sum(match.information for match in matches)),
    )


def match_geometry(level: Level, geometry: TiltGeometry, limit: float) -> list[Match]:
    """How each image lies against the reprojection of the others in this geometry, at most limit (Å) away."""
    return [_match(level, i, reference, limit) for i, reference in enumerate(foretell(level, geometry))]


def foretell(level: Level, geometry: TiltGeometry) -> torch.Tensor:
    """(tilt, y, x) what each image should look like, from the reconstruction of all the others in this geometry."""
    shift, pixel_size = torch.as_tensor(geometry.shift), level.frames.pixel_size
    filtered = _filtered(level, geometry)
    return reproject_others(filtered, tilt_rotations(geometry), shift, pixel_size, level.grid, _THRESHOLD)


def dense_part(level: Level, geometry: TiltGeometry) -> torch.Tensor:
    """(z, y, x) max(V - threshold · sd, 0) of the reconstruction V of all images: what stands above the noise."""
    grid, shift = level.grid, torch.as_tensor(geometry.shift)
    filtered, rotations = _filtered(level, geometry), tilt_rotations(geometry)
    volume = back_project(filtered, rotations, shift, level.frames.pixel_size, grid.shape, grid.voxel_size)
    return (volume - _THRESHOLD * volume.std()).clamp_min(0)


def search_axis(level: Level, start: Alignment, offsets: np.ndarray, limit: float) -> Alignment:
    """The best of the axes start.axis + offsets (degrees), between them by a parabola, with shifts for it."""
    tried = [match_projections(level, start.axis + offset, start.shift, limit) for offset in offsets]
    information = np.array([alignment.information for alignment in tried])
    best = start.axis + parabola_maximum(offsets, information)
    nearest = tried[int(np.argmin([abs(alignment.axis - best) for alignment in tried]))]
    return match_projections(level, best, nearest.shift, limit)


def find_specimen(level: Level, alignment: Alignment) -> tuple[float, float]:
    """Centre along z and thickness of the specimen slab, Å: where the density above the threshold is not background.

    The profile along z of max(V - threshold · sd, 0), less its lowest value, is above a fifth of its largest value.
    """
    profile = dense_part(level, _geometry(level, alignment.axis, alignment.shift)).mean((1, 2)).cpu().numpy()
    profile = np.convolve(profile, np.ones(3) / 3, mode="same")[1:-1]
    inside = np.flatnonzero(profile - profile.min() > EDGE * (profile.max() - profile.min())) + 1
    centre = (inside[0] + inside[-1]) / 2 - level.grid.shape[0] // 2
    return float(centre * level.grid.voxel_size), float((inside[-1] - inside[0] + 1) * level.grid.voxel_size)


def move_origin(alignment: Alignment, tilt_angle: np.ndarray, depth: float) -> Alignment:
    """The same alignment with the origin at this depth (Å) and no common translation in x and y left in the shifts."""
    number = len(tilt_angle)
    axis, none = np.full(number, alignment.axis), np.zeros(number)
    shift = alignment.shift
    geometry = TiltGeometry(tilt_angle=tilt_angle, tilt_axis_angle=axis, x_tilt=none, shift=shift)
    rotation = tilt_rotations(geometry).numpy()[:, :2]
    shift = shift + rotation[:, :, 2] * depth
    common = np.linalg.lstsq(rotation[:, :, :2].reshape(-1, 2), shift.reshape(-1), rcond=None)[0]
    return replace(alignment, shift=shift - rotation[:, :, :2] @ common)


def parabola_maximum(x: np.ndarray, y: np.ndarray) -> float:
    """Where y(x) is largest: of a parabola through the five samples about the largest, never outside of them."""
    peak = int(np.argmax(y))
    part = slice(max(0, min(peak - 2, len(x) - 5)), max(0, min(peak - 2, len(x) - 5)) + 5)
    if len(x[part]) < 3:
        return float(x[peak])
    a, b, _ = np.polyfit(x[part], y[part], 2)
    return float(np.clip(-b / (2 * a), x[part].min(), x[part].max())) if a < 0 else float(x[peak])


def _match(level: Level, i: int, reference: torch.Tensor, limit: float) -> Match:
    window = level.frames.window
    return match_images(level.frames.data[i] * window, reference * window, level.frames.pixel_size, level.band, limit)


def _filtered(level: Level, geometry: TiltGeometry) -> torch.Tensor:
    thickness = level.grid.shape[0] * level.grid.voxel_size
    angles = geometry.tilt_angle, geometry.tilt_axis_angle
    return ramp_filter(level.frames.data, *angles, level.frames.pixel_size, thickness)


def _geometry(level: Level, axis: float, shift: np.ndarray) -> TiltGeometry:
    number = len(level.tilt_angle)
    return TiltGeometry(
        tilt_angle=level.tilt_angle, tilt_axis_angle=np.full(number, axis), x_tilt=np.zeros(number), shift=shift
    )


def _view_flat(
    image: torch.Tensor, pixel_size: float, affine: torch.Tensor, shifts: tuple[torch.Tensor, torch.Tensor]
) -> torch.Tensor:
    """A flat specimen's image (n, n) at tilt j as it looks at tilt i: what it shows at u is at A (u - t_i) + t_j.

    affine (2, 2) is A = B_j B_i^-1, B the upper left part of the rotation; shifts are t_j and t_i, Å. Bicubic. In the
    grid's units u = g n / 2 - o pixels, o = n // 2 - (n - 1) / 2: g goes to A g + 2 (t_j + o - A (t_i + o)) / n.
    """
    number = image.shape[-1]
    offset = number // 2 - (number - 1) / 2
    there, here = (shift / pixel_size + offset for shift in shifts)
    theta = torch.cat([affine, 2 * (there - affine @ here)[:, None] / number], dim=1)
    grid = torch.nn.functional.affine_grid(theta[None].to(image), [1, 1, number, number], align_corners=False)
    view = torch.nn.functional.grid_sample(
        image[None, None], grid, mode="bicubic", padding_mode="zeros", align_corners=False
    )
    return view[0, 0]
