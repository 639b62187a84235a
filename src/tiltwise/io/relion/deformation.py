"""The deformation of a series in its tilts.star: two tables of control values, beside the table of tilts."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from tiltwise.data.deformation import Deformation, ImageWarp, SampleDeformation
from tiltwise.data.errors import InputError
from tiltwise.io.star import Block, integers, numbers, single_number

_SAMPLE, _WARP = "sample_deformation", "image_warp"
_SCALE, _MAGNIFICATION, _KNOT = "tiltwiseDeformationScale", "tiltwiseMagnification", "tiltwiseKnotExposure"
_EXTENT = ("tiltwiseWarpExtentX", "tiltwiseWarpExtentY")
_PLACE = ("tiltwiseTilt", "tiltwiseControlRow", "tiltwiseControlColumn")
_MOVE = ("tiltwiseXAngst", "tiltwiseYAngst", "tiltwiseZAngst")
_MONOMIALS = (10, 20)  # for each knot: of a quadratic, of a cubic deformation


def deformation_columns(
    deformation: Deformation | None,
) -> tuple[dict[str, float], dict[str, np.ndarray], dict[str, dict]]:
    """What a deformation adds to the block of the series, to that of the tilts, and as blocks of its own."""
    series: dict[str, float] = {}
    tilts: dict[str, np.ndarray] = {}
    blocks: dict[str, dict] = {}
    sample, warp = (None, None) if deformation is None else (deformation.sample, deformation.image)
    if sample is not None:
        series[_SCALE] = float(sample.scale)
        tilts[_MAGNIFICATION] = sample.magnification.astype(np.float64)
        blocks[_SAMPLE] = {_KNOT: np.repeat(sample.exposure.astype(np.float64), sample.coefficient.shape[1])}
        blocks[_SAMPLE] |= dict(zip(_MOVE, sample.coefficient.astype(np.float64).reshape(-1, 3).T, strict=True))
    if warp is not None:
        series |= dict(zip(_EXTENT, map(float, warp.extent), strict=True))
        place = np.indices(warp.coefficient.shape[:3]).reshape(3, -1) + 1
        blocks[_WARP] = dict(zip(_PLACE, place, strict=True))
        blocks[_WARP] |= dict(zip(_MOVE, warp.coefficient.astype(np.float64).reshape(-1, 2).T, strict=False))
    return series, tilts, blocks


def read_deformation(blocks: Mapping[str, Block], series: Block, tilts: Block, path: Path) -> Deformation | None:
    """The deformation; None where the file has none. InputError for one that is incomplete."""
    sample = warp = None
    if _SAMPLE in blocks:
        table = blocks[_SAMPLE]
        rows, knots = _columns(table, _MOVE, path), numbers(table, _KNOT, path)
        own = next((n for n in _MONOMIALS if len(rows) == n * len(np.unique(knots)) > 0), None)
        if own is None:
            raise InputError(f"{path}: data_{_SAMPLE} has {len(rows)} rows, which is not 10, nor 20, for each knot")
        sample = SampleDeformation(
            exposure=knots[::own],
            coefficient=rows.reshape(-1, own, 3),
            scale=single_number(series, _SCALE, path),
            magnification=numbers(tilts, _MAGNIFICATION, path),
        )
    if _WARP in blocks:
        place = np.stack([integers(blocks[_WARP], column, path) for column in _PLACE])
        shape = tuple(place.max(axis=1)) if place.size else (0, 0, 0)
        rows = _columns(blocks[_WARP], _MOVE[:2], path)
        if len(rows) != np.prod(shape) or not np.array_equal(place, np.indices(shape).reshape(3, -1) + 1):
            raise InputError(f"{path}: data_{_WARP} does not list every tilt, row and column of its values once")
        extent = tuple(single_number(series, column, path) for column in _EXTENT)
        warp = ImageWarp(coefficient=rows.reshape(*shape, 2), extent=extent)
    return None if sample is None and warp is None else Deformation(sample=sample, image=warp)


def _columns(table: Block, columns: tuple[str, ...], path: Path) -> np.ndarray:
    return np.stack([numbers(table, column, path) for column in columns], axis=1)
