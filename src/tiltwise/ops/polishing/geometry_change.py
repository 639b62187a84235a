"""A tilt series under changed parameters of the blocks of `ops.polishing.geometry_blocks`: what a fit does to it."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from tiltwise.data.deformation import Deformation, ImageWarp, SampleDeformation
from tiltwise.data.tilt_series import TiltSeries
from tiltwise.ops.deformation import CUBIC, QUADRATIC
from tiltwise.ops.polishing.geometry_blocks import (
    ANGLE,
    CONTROLS,
    KNOTS,
    MAGNIFICATION,
    SHIFT,
    Block,
    Seen,
    angle_block,
    magnification_block,
    sample_block,
    sample_walk,
    shift_block,
    warp_block,
    warp_modes,
)


def geometry_blocks(tilt_series: TiltSeries, seen: Seen, names: Sequence[str], monomials: int = CUBIC) -> list[Block]:
    """The blocks of these names; deformations on the knots and control values that the series has, else on new ones;
    that of the specimen with so many monomials, QUADRATIC or CUBIC."""
    sample, warp = _sample(tilt_series), _warp(tilt_series)
    makers = {
        "shift": lambda: shift_block(seen),
        "angles": lambda: angle_block(seen),
        "magnification": lambda: magnification_block(seen),
        "sample": lambda: sample_block(seen, sample.exposure, sample.scale, monomials),
        "warp": lambda: warp_block(seen, warp.extent, warp.coefficient.shape[1:3]),
    }
    return [makers[name]() for name in names]


def change_geometry(tilt_series: TiltSeries, seen: Seen, blocks: Sequence[Block], change: np.ndarray) -> TiltSeries:
    """The series with a change (parameter,), in units of the blocks, of its used tilts; what is 0 is not touched.
    Raises ValueError for a change of another length."""
    if len(change) != (number := sum(block.number for block in blocks)):
        raise ValueError(f"{len(change)} numbers for blocks of {number}")
    first = 0
    for block in blocks:
        own = change[first : first + block.number]
        first += block.number
        if own.any():
            tilt_series = _CHANGES[block.name](tilt_series, seen, own)
    return tilt_series


def _shift(tilt_series: TiltSeries, seen: Seen, change: np.ndarray) -> TiltSeries:
    shift = tilt_series.geometry.shift.astype(float)
    shift[tilt_series.use] += SHIFT * change.reshape(-1, 2)
    return replace(tilt_series, geometry=replace(tilt_series.geometry, shift=shift))


def _angles(tilt_series: TiltSeries, seen: Seen, change: np.ndarray) -> TiltSeries:
    geometry = tilt_series.geometry
    axis, angle = geometry.tilt_axis_angle.astype(float), geometry.tilt_angle.astype(float)
    axis[tilt_series.use] += ANGLE * change[0::2]
    angle[tilt_series.use] += ANGLE * change[1::2]
    return replace(tilt_series, geometry=replace(geometry, tilt_axis_angle=axis, tilt_angle=angle))


def _magnification(tilt_series: TiltSeries, seen: Seen, change: np.ndarray) -> TiltSeries:
    sample = _sample(tilt_series)
    magnification = sample.magnification.astype(float)
    magnification[tilt_series.use] *= 1 + MAGNIFICATION * change
    return _with(tilt_series, sample=replace(sample, magnification=magnification))


def _sample_change(tilt_series: TiltSeries, seen: Seen, change: np.ndarray) -> TiltSeries:
    sample = _sample(tilt_series)
    walk = sample_walk(sample.exposure, seen.exposure)
    added = np.einsum("mdj,kj->kmd", change.reshape(-1, 3, walk.shape[1]), walk)
    last = added.shape[1] + 1
    missing = max(0, last - sample.coefficient.shape[1])
    coefficient = np.pad(sample.coefficient.astype(float), ((0, 0), (0, missing), (0, 0)))
    coefficient[:, 1:last] += added
    return _with(tilt_series, sample=replace(sample, coefficient=coefficient))


def _warp_change(tilt_series: TiltSeries, seen: Seen, change: np.ndarray) -> TiltSeries:
    warp = _warp(tilt_series)
    modes = warp_modes(warp.extent, warp.coefficient.shape[1:3])
    added = np.einsum("cm,tdm->tcd", modes, change.reshape(-1, 2, modes.shape[1]))
    coefficient = warp.coefficient.astype(float)
    coefficient[tilt_series.use] += added.reshape(-1, *coefficient.shape[1:])
    return _with(tilt_series, image=replace(warp, coefficient=coefficient))


_CHANGES = {
    "shift": _shift,
    "angles": _angles,
    "magnification": _magnification,
    "sample": _sample_change,
    "warp": _warp_change,
}


def _with(tilt_series: TiltSeries, **parts) -> TiltSeries:
    return replace(tilt_series, deformation=replace(tilt_series.deformation or Deformation(), **parts))


def _sample(tilt_series: TiltSeries) -> SampleDeformation:
    """That of the series, or none on knots over its exposure."""
    known = tilt_series.deformation and tilt_series.deformation.sample
    if known is not None:
        return known
    end = float((tilt_series.pre_exposure + tilt_series.exposure).max())
    return SampleDeformation(
        exposure=np.linspace(0, end, KNOTS),
        coefficient=np.zeros((KNOTS, QUADRATIC, 3)),
        scale=max(tilt_series.image_shape) * tilt_series.pixel_size / 2,
        magnification=np.ones(tilt_series.number),
    )


def _warp(tilt_series: TiltSeries) -> ImageWarp:
    """That of the series, or none on new control values."""
    known = tilt_series.deformation and tilt_series.deformation.image
    if known is not None:
        return known
    height, width = tilt_series.image_shape
    return ImageWarp(
        coefficient=np.zeros((tilt_series.number, *CONTROLS, 2)),
        extent=(width * tilt_series.pixel_size, height * tilt_series.pixel_size),
    )
