"""What is settled before the first image is transformed: tilts, voxels, depths, and what is amiss with the input."""

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch

from tiltwise.data.errors import StageError
from tiltwise.data.tilt_series import TiltSeries
from tiltwise.ops.ctf import electron_wavelength
from tiltwise.ops.geometry import tilt_rotations
from tiltwise.ops.tomogram.image_spectra import SpectrumGrid, spectrum_grid
from tiltwise.ops.tomogram.straight_deformation import DeformationReach, deformation_reach
from tiltwise.ops.tomogram.straight_projection import Planes, StraightGeometry, lay_out_planes, straighten
from tiltwise.params.reconstruct import ReconstructParams

_LEAST_VOXEL = 10.0
"""Å; the default voxel is the smallest multiple of the pixel not below it."""
_UNKNOWN_SPECIMEN = 3000.0
"""Å; extent along z where nobody measured the specimen: thicker than what is imaged well."""
_BELOW_THE_EDGE, _MARGIN, _THINNEST = 1.25, 200.0, 1000.0
"""The extent is a quarter more than the measured slab, and 200 Å (a particle) on either side, Å. The slab's edge is
where its profile is a fifth of its top: spheres of diameter D cut at a height z cover D² / 4 - z², a fifth of that at
z = 0 for z = 0.45 D, so that D is 1.12 times what is measured; the capsids of TS_03 span 930 Å, and 850 Å are found."""
_FEW_TILTS = 10
"""Fewer tilts than this leave gaps wider than 10° in the usual range: the tomogram is mostly streaks."""
_COLUMNS_PER_VOXEL = 2
"""Samples a voxel across the tilt axis for back projection: one blurs, more take memory and gain little."""
_MISPLACED = 0.1
"""Voxels by which the depth of a level may misplace the voxels at its ends, where the specimen deforms."""
_LOOKED_AT = 16
"""Every so many pixels along each axis are read to tell whether an image is constant."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Setup:
    tilt_series: TiltSeries
    """As given."""
    params: ReconstructParams
    """As given."""
    tilts: np.ndarray
    """(tilt,) rows of the tilt series that are used."""
    voxel_size: float
    """Å."""
    shape: tuple[int, int, int]
    """(z, y, x) voxels."""
    grid: SpectrumGrid
    """Of the images."""
    geometry: StraightGeometry
    """Where voxels lie in the straightened images, and the depths these are made for."""
    planes: Planes
    """Of the store of straightened images."""
    displaced: float
    """Largest distance from where a rigid specimen would appear, Å; 0 without a deformation."""
    deeper: float
    """Largest distance along the beam from the depth that a rigid specimen would have, Å; 0 without a deformation."""
    halves: Literal["frames", "tilts"] | None
    """Of what the two half tomograms are made, where asked for: odd and even frames, or every other tilt."""
    correct: bool
    """Whether the contrast transfer is known and to be corrected."""
    correction: str
    """What is done about it, for the record."""
    notes: tuple[str, ...]
    """What a user should know of the input, one line each."""

    @property
    def parts(self) -> int:
        """Stores of straightened images: one of the images, or two of their frames."""
        return 2 if self.halves == "frames" else 1


def set_up(tilt_series: TiltSeries, params: ReconstructParams) -> Setup:
    """Raises StageError in one line where no tomogram can be made."""
    if tilt_series.geometry is None:
        raise StageError(f"{tilt_series.name}: not aligned yet; run align first")
    if params.erase_beads and tilt_series.beads is None:
        raise StageError(f"{tilt_series.name}: erase_beads is set, but the alignment followed no gold beads; unset it")
    tilts, notes = _usable_tilts(tilt_series)
    notes += _doubts(tilt_series, tilts, params)
    voxel_size = params.voxel_size or default_voxel_size(tilt_series.pixel_size)
    shape = tomogram_shape(tilt_series, tomogram_thickness(tilt_series, params), voxel_size)
    correct = params.ctf_correction != "none" and tilt_series.ctf is not None
    by_depth = correct and tilt_series.defocus_handedness is not None
    rotations = tilt_rotations(tilt_series.geometry)[torch.as_tensor(tilts)]
    depth_step = voxel_size**2 / electron_wavelength(tilt_series.optics.voltage) if by_depth else math.inf
    displaced = deeper = 0.0
    if tilt_series.deformation is not None:
        extent = tuple(n * voxel_size for n in reversed(shape))
        reach = deformation_reach(tilt_series, tilts, rotations.numpy(), extent)
        displaced, deeper = float(reach.moved.max()), float(reach.deeper.max())
        notes += _too_deep(deeper, depth_step)
        depth_step = _narrowed(depth_step, reach, voxel_size)
    geometry = straighten(
        rotations,
        tilt_series.geometry.shift[tilts],
        voxel_size,
        shape,
        depth_step,
        _COLUMNS_PER_VOXEL if params.method == "wbp" else 1,
    )
    where = "by depth" if by_depth else "at depth 0: handedness not determined"
    return Setup(
        tilt_series=tilt_series,
        params=params,
        tilts=tilts,
        voxel_size=voxel_size,
        shape=shape,
        grid=spectrum_grid(tilt_series.image_shape, tilt_series.pixel_size, voxel_size),
        geometry=geometry,
        planes=lay_out_planes(geometry),
        displaced=displaced,
        deeper=deeper,
        halves=("tilts" if tilt_series.half_images is None else "frames") if params.half_tomograms else None,
        correct=correct,
        correction=f"{params.ctf_correction} {where}" if correct else "none",
        notes=tuple(notes),
    )


def _narrowed(step: float, reach: DeformationReach, voxel_size: float) -> np.ndarray:
    """(tilt,) width of a level where the specimen deforms, Å: narrower by what lies deeper, on either side, than the
    rigid specimen, so that the CTF's rule holds, down to half the width; and as _MISPLACED says."""
    by_ctf = np.maximum(step - 2 * reach.deeper, step / 2)
    return np.minimum(by_ctf, 2 * _MISPLACED * voxel_size / np.maximum(reach.moved_by_depth, 1e-12))


def _too_deep(deeper: float, step: float) -> list[str]:
    """A line where levels cannot be narrowed enough: what is off in depth by step / 2 is off in chi by π / 8."""
    if deeper <= step / 4:
        return []
    worst = 180 / 8 * (step / 4 + deeper) / (step / 2)
    return [
        f"the specimen deforms by up to {deeper:.0f} Å along the beam: chi of the CTF correction, which takes the depth"
        f" of a rigid one, is right to {worst:.0f}° at the voxel's Nyquist frequency"
    ]


def default_voxel_size(pixel_size: float) -> float:
    """The smallest multiple of the pixel size not below 10 Å."""
    return pixel_size * max(1, math.ceil(_LEAST_VOXEL / pixel_size - 1e-6))


def tomogram_thickness(tilt_series: TiltSeries, params: ReconstructParams) -> float:
    """Extent along z, Å: as asked for, or just enough for the specimen that was measured."""
    if params.thickness is not None:
        return params.thickness
    if tilt_series.specimen_thickness is None:
        return _UNKNOWN_SPECIMEN
    return max(_THINNEST, _BELOW_THE_EDGE * tilt_series.specimen_thickness + 2 * _MARGIN)


def tomogram_shape(tilt_series: TiltSeries, thickness: float, voxel_size: float) -> tuple[int, int, int]:
    """(z, y, x) voxels that cover the untilted image; x and y swap where the tilt axis is nearer to image x."""
    height, width = (n * tilt_series.pixel_size for n in tilt_series.image_shape)
    axis = np.deg2rad(np.median(tilt_series.geometry.tilt_axis_angle))
    if abs(np.sin(axis)) > abs(np.cos(axis)):
        height, width = width, height
    return tuple(max(1, round(extent / voxel_size)) for extent in (thickness, height, width))


def _usable_tilts(tilt_series: TiltSeries) -> tuple[np.ndarray, list[str]]:
    """Rows in use whose images hold something, and a line on each that does not."""
    used = np.flatnonzero(tilt_series.use)
    if len(used) < 2:
        raise StageError(f"{tilt_series.name}: {len(used)} tilts are in use; a tomogram needs at least 2")
    empty = np.array([_is_constant(tilt_series.images[i]) for i in used])
    if (~empty).sum() < 2:
        raise StageError(f"{tilt_series.name}: {empty.sum()} of {len(used)} images are constant; look at the stack")
    return used[~empty], [f"tilt {i + 1}: the image is constant and was left out" for i in used[empty]]


def _is_constant(image: np.ndarray) -> bool:
    some = np.asarray(image[::_LOOKED_AT, ::_LOOKED_AT], dtype=np.float32)
    some = some[np.isfinite(some)]
    return some.size == 0 or float(some.min()) == float(some.max())


def _doubts(tilt_series: TiltSeries, tilts: np.ndarray, params: ReconstructParams) -> list[str]:
    """What can be worked with but is likely a mistake; StageError for a pixel size that cannot be."""
    doubts = []
    if tilt_series.pixel_size == 1.0:
        width = max(tilt_series.image_shape)
        line = "the pixel size is exactly 1 Å, which headers say when it was never set"
        thickness = tomogram_thickness(tilt_series, params)
        if width < thickness:
            raise StageError(
                f"{tilt_series.name}: {line}: images {width} Å wide of a specimen {thickness:g} Å thick; set it"
            )
        doubts.append(line)
    if len(tilts) < _FEW_TILTS:
        doubts.append(f"{len(tilts)} tilts only: expect streaks along each of them")
    return doubts
