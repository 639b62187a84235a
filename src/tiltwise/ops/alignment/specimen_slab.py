"""The slab that the specimen fills, found in a reconstruction: height, thickness, inclination; and made level.

With W the density above a threshold, P(s) = mean over x, y of W(x, y, s + a x + b y) is the profile across a slab that
rises by a along x and b along y. Where the slab rises by a₀, b₀ instead, P is its profile blurred by the distribution
of (a - a₀) x + (b - b₀) y; blurring never adds to the sum of squares of P less its mean (Young), so that sum is largest
where the profile is taken along the slab itself.
"""

from dataclasses import dataclass, replace

import numpy as np
import torch
from scipy.optimize import minimize
from scipy.spatial.transform import Rotation

from tiltwise.data.tilt_series import TiltGeometry
from tiltwise.ops.alignment.bundle_system import rotations_of

_TILES = 16
"""Tiles along x and y whose profiles are sheared; within a tile the slab is taken as level."""
STEEPEST, _STEPS = 0.35, 15
"""Largest slope looked for (19°), and steps to either side on the way there."""
EDGE = 0.2
"""Height of the edges on the profile: low, since a layer of gold at a surface may stand well above the molecules."""
_BLOCKS = 4
"""Blocks of tiles along x and y that are left out in turn."""
_CHANCE = 11.8
"""Chi squared of two slopes that chance exceeds as seldom as three standard deviations of one number."""
_SMALLEST = 0.1
"""Quantile of a profile that is taken as its background."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Slab:
    """Where the specimen lies: |z - height - slope·(x, y)| < thickness / 2."""

    slope: np.ndarray
    """(2,) rise of its middle along x and y."""
    height: float
    """z of its middle on the z axis, Å."""
    thickness: float
    """Along z, Å."""

    @property
    def incline(self) -> tuple[float, float]:
        """Degrees by which it rises along x and y."""
        x, y = np.degrees(np.arctan(self.slope))
        return float(x), float(y)


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class TileProfiles:
    """Profiles along z of the tiles of a field."""

    spectrum: np.ndarray
    """(y, x, frequency) rfft of each tile's profile, its background taken off, padded to twice its length."""
    place: tuple[np.ndarray, np.ndarray]
    """x (tile,) and y (tile,) of the middles of the tiles, voxels from the volume's centre."""
    depth: int
    """Voxels along z."""

    def along(self, slopes_x: np.ndarray, slopes_y: np.ndarray) -> np.ndarray:
        """(slope y, slope x, frequency) rfft of P along each pair of slopes."""
        x, y = (self._turns(s, place) for s, place in zip((slopes_x, slopes_y), self.place, strict=True))
        return np.einsum("bjk,ajk->bak", y, np.einsum("aik,jik->ajk", x, self.spectrum))

    def sharpness(self, slopes_x: np.ndarray, slopes_y: np.ndarray) -> np.ndarray:
        """(slope y, slope x) sum of squares of P less its mean."""
        return (np.abs(self.along(slopes_x, slopes_y)[..., 1:]) ** 2).sum(-1)

    def _turns(self, slopes: np.ndarray, place: np.ndarray) -> np.ndarray:
        k = np.fft.rfftfreq(2 * self.depth)
        return np.exp(2j * np.pi * k * (np.asarray(slopes)[:, None] * place)[:, :, None])


def tile_profiles(density: torch.Tensor) -> TileProfiles:
    """Profiles of the mean density (z, y, x) of each tile of the field."""
    depth, height, width = density.shape
    means = torch.nn.functional.adaptive_avg_pool2d(density, (_TILES, _TILES)).cpu().double().numpy()
    profiles = means - np.quantile(means, _SMALLEST, axis=0)
    y, x = ((np.arange(_TILES) + 0.5) * n / _TILES - 0.5 - n // 2 for n in (height, width))
    return TileProfiles(spectrum=np.fft.rfft(profiles.transpose(1, 2, 0), 2 * depth), place=(x, y), depth=depth)


def find_slab(density: torch.Tensor, voxel_size: float, thickest: float) -> Slab:
    """The slab in a density (z, y, x) of this voxel size (Å); its edges are where the profile is a fifth of its top.

    Edges are looked for up to thickest / 2 (Å) from z = 0: what lies further out few tilts see, with much noise.

    Its slope is that which sharpens the profile; none, where it is within three standard deviations of none: what is
    sparse has a slope by chance.
    """
    tiles = tile_profiles(density)
    slope = _sharpest_slope(tiles)
    if slope @ np.linalg.solve(_slope_covariance(tiles), slope) < _CHANCE:
        slope = np.zeros(2)
    profile = np.fft.irfft(tiles.along(slope[:1], slope[1:])[0, 0], 2 * tiles.depth)[: tiles.depth]
    first = max(0, tiles.depth // 2 - round(thickest / 2 / voxel_size))
    low, high = (first + place for place in _edges(profile[first : tiles.depth - first]))
    return Slab(
        slope=slope, height=((low + high) / 2 - tiles.depth // 2) * voxel_size, thickness=(high - low) * voxel_size
    )


def level_slab(geometry: TiltGeometry, slab: Slab) -> TiltGeometry:
    """The geometry of the same images with the slab's middle at z = 0 and its normal along z.

    With G = Ry(δ) Rx(α), which turns z into the normal n = (sin δ cos α, -sin α, cos δ cos α), a point X of the old
    frame is G X' + c, c the middle of the slab on the z axis: R_i X + t_i = (R_i G) X' + (t_i + R_i c).
    """
    old = rotations_of(geometry)
    shift = geometry.shift + old[:, :2, 2] * slab.height
    if not slab.slope.any():
        return replace(geometry, shift=shift)
    normal = np.array([-slab.slope[0], -slab.slope[1], 1.0])
    normal /= np.linalg.norm(normal)
    alpha, delta = -np.degrees(np.arcsin(normal[1])), np.degrees(np.arctan2(normal[0], normal[2]))
    turn = Rotation.from_euler("YX", [delta, alpha], degrees=True)
    axis, tilt, x_tilt = (Rotation.from_matrix(old) * turn).as_euler("ZYX", degrees=True).T
    return TiltGeometry(
        tilt_angle=tilt,
        tilt_axis_angle=geometry.tilt_axis_angle + (axis - geometry.tilt_axis_angle + 180) % 360 - 180,
        x_tilt=x_tilt,
        shift=shift,
    )


def _sharpest_slope(tiles: TileProfiles) -> np.ndarray:
    """(2,) slope of the sharpest profile: the best of a grid, then uphill."""
    steps = np.linspace(-STEEPEST, STEEPEST, 2 * _STEPS + 1)
    row, column = np.unravel_index(int(tiles.sharpness(steps, steps).argmax()), (len(steps), len(steps)))
    best = np.array([steps[column], steps[row]])
    scale = _sharpness(tiles, best) or 1.0
    options = {"xatol": 1e-4, "fatol": 1e-9, "initial_simplex": best + 0.01 * np.array([[0, 0], [1, 0], [0, 1]])}
    return minimize(lambda slope: -_sharpness(tiles, slope) / scale, best, method="Nelder-Mead", options=options).x


def _slope_covariance(tiles: TileProfiles) -> np.ndarray:
    """(2, 2) covariance of the sharpest slope: delete-one jackknife over blocks of tiles."""
    block = np.arange(_TILES) * _BLOCKS // _TILES
    of_tile = np.add.outer(_BLOCKS * block, block)[:, :, None]
    number = _BLOCKS**2
    slopes = [_sharpest_slope(replace(tiles, spectrum=tiles.spectrum * (of_tile != b))) for b in range(number)]
    return (number - 1) * np.cov(slopes, rowvar=False, bias=True) + 1e-12 * np.eye(2)


def _sharpness(tiles: TileProfiles, slope: np.ndarray) -> float:
    return float(tiles.sharpness(slope[:1], slope[1:])[0, 0])


def _edges(profile: np.ndarray) -> tuple[float, float]:
    """Places (voxels, from the first) where a profile (z,) first and last crosses EDGE of its height."""
    level = profile.min() + EDGE * (profile.max() - profile.min())
    inside = np.flatnonzero(profile > level)
    first, last = int(inside[0]), int(inside[-1])
    low = first - (profile[first] - level) / (profile[first] - profile[first - 1]) if first > 0 else -0.5
    end = len(profile) - 1
    high = last + (profile[last] - level) / (profile[last] - profile[last + 1]) if last < end else end + 0.5
    return float(low), float(high)
