"""Patches followed over the tilts without markers: projection matching, place by place (see Zheng et al. 2022).

A patch is the specimen about a point X of the middle plane of the slab. In tilt i it should appear at
u = (R_i X)_xy + shift_i; image and reprojection, both faded out around u, are matched, and if the image is moved
against the reprojection by d the patch is seen at u + d. What each tilt is compared with is foretold by all the others
(`ops.alignment.reprojection`), so that no track hangs on one image, and none sees its own noise.
"""

import numpy as np
import torch

from tiltwise.data.tilt_series import TiltGeometry
from tiltwise.ops.alignment.bundle_system import Observations, rotations_of
from tiltwise.ops.alignment.projection_matching import Level, foretell
from tiltwise.ops.alignment.track_alignment import Tracks, keep_followed
from tiltwise.ops.correlation import Match, cosine_taper, match_images

_WIDTH = 800.0
"""Least width of a patch, Å: some 700 resolved elements at 30 Å, enough to be recognised among shifts of three."""
_MOST = 7
"""Most patches along each side."""
_SURE = 5.0
"""Standard deviations of the match's information, under no resemblance, that a patch must stand above."""
_IN_VIEW = 0.6
"""Part of the tilts in which a patch must be recognised."""
_HEAVIEST = 4.0
"""Largest weight against the median: what is matched so well still errs by what patches do not model."""


def patch_width(side: float) -> float:
    """Width (Å) of the patches into which images of this side (Å) are cut: at least two along a side, without gaps."""
    return side / int(np.clip(side / _WIDTH, 2, _MOST))


def place_patches(side: float, width: float, axis: float) -> np.ndarray:
    """(patch, 3) specimen points in the plane z = 0, Å, that tile the untilted image of an axis angle (degrees).

    Rows run to and fro, so that patches of even and of odd number alternate like the fields of a chessboard.
    """
    number = max(1, round(side / width))
    along = (np.arange(number) - (number - 1) / 2) * width
    rows = [[(x, y) for x in (along if row % 2 == 0 else along[::-1])] for row, y in enumerate(along)]
    x, y = np.array(rows).reshape(-1, 2).T
    c, s = np.cos(np.radians(axis)), np.sin(np.radians(axis))
    return np.stack([c * x + s * y, c * y - s * x, np.zeros_like(x)], axis=1)


def track_patches(level: Level, geometry: TiltGeometry, limit: float) -> Tracks:
    """Follow patches through all tilts of a level in this geometry; none is moved by more than limit (Å)."""
    side, pixel_size = len(level.frames.window), level.frames.pixel_size
    width = patch_width(side * pixel_size)
    points = place_patches(side * pixel_size, width, float(np.median(geometry.tilt_axis_angle)))
    place = points @ rotations_of(geometry)[:, :2].transpose(0, 2, 1) + geometry.shift[:, None]
    box = 2 * round(width / pixel_size / 2)
    fade = cosine_taper((box, box), 0.5, level.frames.window.device)
    rows = []
    for i, reference in enumerate(foretell(level, geometry)):
        for p, (x, y) in enumerate(place[i]):
            match = _match_patch(level, i, reference, (x, y), fade, limit)
            if match is not None:
                rows.append((i, p, x + match.shift[0], y + match.shift[1], match.deviation))
    table = np.array(rows).reshape(-1, 5)
    precision = 1 / table[:, 4] ** 2
    observations = Observations(
        tilt=table[:, 0].astype(int),
        point=table[:, 1].astype(int),
        position=table[:, 2:4],
        weight=np.minimum(precision / np.median(precision), _HEAVIEST) if len(table) else precision,
    )
    return keep_followed(Tracks(observations=observations, points=points), _IN_VIEW * len(level.tilt_angle))


def _match_patch(
    level: Level, i: int, reference: torch.Tensor, place: tuple[float, float], fade: torch.Tensor, limit: float
) -> Match | None:
    """How image i lies against its reference about a place (x, y Å from the centre); None where that is not seen."""
    side, box, pixel_size = len(level.frames.window), len(fade), level.frames.pixel_size
    corner = np.round(np.array(place) / pixel_size).astype(int) + side // 2 - box // 2
    inside = np.clip(corner, 0, side - box)
    if np.abs(inside - corner).max() > box // 4:
        return None
    x, y = (slice(c, c + box) for c in inside)
    weight = fade * level.frames.window[y, x]
    match = match_images(level.frames.data[i, y, x] * weight, reference[y, x] * weight, pixel_size, level.band, limit)
    return match if match.correlation > _SURE * _chance(weight, pixel_size, level.band) else None


def _chance(weight: torch.Tensor, pixel_size: float, band: tuple[float, float]) -> float:
    """Standard deviation of the correlation of two unrelated images faded by weight (y, x), each sample counted alike.

    1 / sqrt(2 N), N the independent complex samples of a half plane within the band: π A (1/b² - 1/a²) / 2 for an area
    A, which is (sum w²)² / sum w⁴ for faded images.
    """
    area = float(weight.square().sum() ** 2 / weight.pow(4).sum()) * pixel_size**2
    samples = np.pi * area * (1 / band[1] ** 2 - 1 / band[0] ** 2) / 2
    return float(1 / np.sqrt(2 * samples))
