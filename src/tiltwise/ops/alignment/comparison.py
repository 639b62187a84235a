"""How far two alignments of one tilt series differ, once everything that no image can tell is taken out.

Global tilt offset, constant x-tilt and the 3D origin do not change the images (docs/conventions.md, gauge): a specimen
moved by d appears in tilt i moved by (R_i d)_xy: shifts that differ by that are the same alignment.
"""

from dataclasses import dataclass, replace

import numpy as np
import torch

from tiltwise.data.tilt_series import TiltGeometry, TiltSeries
from tiltwise.ops.geometry import tilt_rotations
from tiltwise.ops.moments import kurtosis
from tiltwise.ops.projection import back_project, ramp_filter


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class AlignmentComparison:
    shift_difference: np.ndarray
    """(tilt, 2) x, y, Å, gauge removed."""
    axis_difference: np.ndarray
    """(tilt,) tilt axis, estimated less other, degrees in -180 to 180."""
    tilt_offset: float
    """Common difference of the tilt angles, degrees: gauge, not error."""
    compared: np.ndarray
    """(tilt,) bool, the tilts that both alignments use."""

    @property
    def shift_rms(self) -> float:
        """Root mean square of the length of the 2D shift difference over the compared tilts, Å."""
        return float(np.sqrt((self.shift_difference[self.compared] ** 2).sum(1).mean()))

    @property
    def axis_error(self) -> float:
        """|median| over the compared tilts of the axis difference, degrees modulo 360."""
        return float(abs(np.median(self.axis_difference[self.compared])))


def remove_gauge(estimated: TiltGeometry, truth: TiltGeometry, use: np.ndarray | None = None) -> TiltGeometry:
    """The estimated geometry brought into the gauge of the other one by tilt offset, x-tilt offset and 3D translation.

    use (tilt,) bool names the tilts that decide; all tilts if None. The offsets are medians; the translation d is the
    least-squares solution of shift_truth_i - shift_estimated_i = (R_i d)_xy with the rotations of the other geometry.
    """
    use = np.ones(len(truth.tilt_angle), bool) if use is None else np.asarray(use, bool)
    move = _fit_translation(truth.shift - estimated.shift, truth, use)
    return replace(
        estimated,
        tilt_angle=estimated.tilt_angle - np.median((estimated.tilt_angle - truth.tilt_angle)[use]),
        x_tilt=estimated.x_tilt - np.median((estimated.x_tilt - truth.x_tilt)[use]),
        shift=estimated.shift + move,
    )


def compare_alignments(estimated: TiltSeries, other: TiltSeries) -> AlignmentComparison:
    """Differences of two alignments of the same images over the tilts that both use; both need a geometry."""
    if estimated.geometry is None or other.geometry is None:
        raise ValueError("both tilt series need a geometry to be compared")
    if estimated.number != other.number:
        raise ValueError(f"{estimated.number} tilts cannot be compared with {other.number}")
    compared = np.asarray(estimated.use, bool) & np.asarray(other.use, bool)
    levelled = remove_gauge(estimated.geometry, other.geometry, compared)
    axis = estimated.geometry.tilt_axis_angle - other.geometry.tilt_axis_angle
    return AlignmentComparison(
        shift_difference=levelled.shift - other.geometry.shift,
        axis_difference=(axis + 180.0) % 360.0 - 180.0,
        tilt_offset=float(np.median((estimated.geometry.tilt_angle - other.geometry.tilt_angle)[compared])),
        compared=compared,
    )


def kurtosis_ratio(
    estimated: TiltSeries, other: TiltSeries, shape: tuple[int, int, int] = (120, 540, 540), voxel_size: float = 10.0
) -> float:
    """Kurtosis of the reconstruction with the estimated alignment over that with the other, above 1 if it is sharper.

    Beads are points only where the images are aligned, and points make heavy tails. Both volumes, shape (z, y, x) with
    voxels of voxel_size (Å), are plain ramp-filtered back projections of the same images: those that both series use,
    the estimated geometry brought into the gauge of the other.
    """
    comparison = compare_alignments(estimated, other)
    used = np.flatnonzero(comparison.compared)
    levelled = remove_gauge(estimated.geometry, other.geometry, comparison.compared)
    images = torch.stack([_standardised(estimated.images[i]) for i in used])
    values = []
    for geometry in (levelled, other.geometry):
        part = TiltGeometry(**{name: getattr(geometry, name)[used] for name in TiltGeometry.__slots__})
        filtered = ramp_filter(images, part.tilt_angle, part.tilt_axis_angle, estimated.pixel_size)
        shift = torch.as_tensor(part.shift)
        volume = back_project(filtered, tilt_rotations(part), shift, estimated.pixel_size, shape, voxel_size)
        values.append(kurtosis(volume))
    return values[0] / values[1]


def _fit_translation(difference: np.ndarray, geometry: TiltGeometry, use: np.ndarray) -> np.ndarray:
    """(tilt, 2) the part of shift differences that one translation of the specimen explains, Å."""
    design = tilt_rotations(geometry)[:, :2, :].numpy()
    translation = np.linalg.lstsq(design[use].reshape(-1, 3), difference[use].reshape(-1), rcond=None)[0]
    return design @ translation


def _standardised(image: np.ndarray) -> torch.Tensor:
    """Image (y, x) of zero mean and unit variance, density positive."""
    values = -torch.as_tensor(np.array(image, dtype=np.float32))
    return (values - values.mean()) / values.std().clamp_min(1e-30)
