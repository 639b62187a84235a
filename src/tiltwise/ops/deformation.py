"""Where a point of a deforming specimen appears in each tilt image: the model of data/deformation.py."""

import numpy as np
from scipy.interpolate import CubicSpline

from tiltwise.data.deformation import Deformation, ImageWarp, SampleDeformation
from tiltwise.data.tilt_series import TiltSeries
from tiltwise.ops.geometry import tilt_rotations
from tiltwise.ops.motion.model import bspline_basis

QUADRATIC, CUBIC = 10, 20
"""Monomials of x, y, z up to the second and up to the third order."""


def sample_monomials(position: np.ndarray, scale: float, number: int = QUADRATIC) -> np.ndarray:
    """(point, number) the first monomials, in the order of data/deformation.py, of positions (point, 3) in Å over scale
    (Å): QUADRATIC or CUBIC of them."""
    x, y, z = (np.asarray(position, dtype=float) / scale).T
    values = [np.ones_like(x), x, y, z, x * x, y * y, z * z, x * y, x * z, y * z]
    if number == CUBIC:
        values += [x**3, y**3, z**3, x * x * y, x * x * z, x * y * y, y * y * z, x * z * z, y * z * z, x * y * z]
    return np.stack(values, axis=-1)


def sample_displacement(deformation: SampleDeformation, position: np.ndarray, exposure: float) -> np.ndarray:
    """(point, 3) Å by which specimen points at `position` (point, 3) Å have moved after an exposure in e⁻/Å².

    Beyond the first and the last knot the shape stays as it is there.
    """
    within = np.clip(exposure, deformation.exposure[0], deformation.exposure[-1])
    coefficient = CubicSpline(deformation.exposure, deformation.coefficient)(within)
    return sample_monomials(position, deformation.scale, len(coefficient)) @ coefficient


def warp_basis(position: np.ndarray, extent: tuple[float, float], controls: tuple[int, int]) -> np.ndarray:
    """(point, y · x) B-splines of so many control values along y, x at positions (point, 2) x, y in Å from the centre.

    Each row sums to 1, so that equal control values are a shift; controls as `bspline_basis` asks.
    """
    x, y = np.asarray(position, dtype=float).T
    over_y = bspline_basis(y / extent[1] + 0.5, controls[0])
    over_x = bspline_basis(x / extent[0] + 0.5, controls[1])
    return np.einsum("py,px->pyx", over_y, over_x).reshape(len(x), controls[0] * controls[1])


def warp_displacement(warp: ImageWarp, tilt: int, position: np.ndarray) -> np.ndarray:
    """(point, 2) w_i(r) in Å along image x, y at positions r (point, 2) x, y in Å from the image centre."""
    own = warp.coefficient[tilt]
    return warp_basis(position, warp.extent, own.shape[:2]) @ own.reshape(-1, 2)


def middle_exposure(tilt_series: TiltSeries) -> np.ndarray:
    """(tilt,) exposure up to the middle of each tilt, e⁻/Å²: when the specimen has the shape that the image shows."""
    return tilt_series.pre_exposure + tilt_series.exposure / 2


def specimen_in_images(
    tilt_series: TiltSeries, position: np.ndarray, tilts: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Where specimen points (point, 3), Å from the tomogram centre, appear in the tilts (all, or the rows given).

    Gives (tilt, point, 2) x, y from the image centre and (tilt, point) depth, Å: of a rigid specimen where the series
    has no deformation. The series must be aligned.
    """
    tilts = np.arange(tilt_series.number) if tilts is None else np.asarray(tilts)
    rotations = tilt_rotations(tilt_series.geometry).numpy()[tilts]
    shift, deformation = tilt_series.geometry.shift[tilts], tilt_series.deformation or Deformation()
    position = np.asarray(position, dtype=float)
    moved = np.broadcast_to(position, (len(tilts), *position.shape))
    if deformation.sample is not None:
        exposure = middle_exposure(tilt_series)[tilts]
        moved = position + np.stack([sample_displacement(deformation.sample, position, float(n)) for n in exposure])
    rotated = moved @ rotations.transpose(0, 2, 1)
    place = rotated[..., :2] + shift[:, None]
    if deformation.sample is not None:
        place = place * deformation.sample.magnification[tilts, None, None]
    if deformation.image is not None:
        place = place + np.stack(
            [warp_displacement(deformation.image, t, r) for t, r in zip(tilts, place, strict=True)]
        )
    return place, rotated[..., 2]
