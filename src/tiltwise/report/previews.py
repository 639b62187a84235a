"""preview.png of an item: one small picture that says whether a step went well."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from tiltwise.report import curves
from tiltwise.report.drawing import save_png
from tiltwise.report.page import png_bytes
from tiltwise.report.views import contour_level, shrink, slab, surface, to_gray


def preview(stage: str, outputs: dict[str, Any], quality: dict[str, Any], path: Path) -> None:
    """Draw the preview of an item into a file, from what its stage gave; nothing for a stage without a picture."""
    given = outputs.get("tilt_series")
    series = None if isinstance(given, Mapping) else given
    angle = None if series is None or series.geometry is None else np.asarray(series.geometry.tilt_angle)
    if stage == "align":
        save_png(curves.alignment(quality, angle, None if series is None else series.use), path)
    elif stage == "defocus" and curves.has_spectra(quality):
        save_png(curves.spectra(quality, angle), path)
    elif stage == "pick" and len(curves.numbers(quality, "scores")):
        save_png(curves.scores(curves.numbers(quality, "scores")), path)
    elif "tomogram" in outputs:
        path.write_bytes(png_bytes(_tomogram(outputs["tomogram"])))
    elif "map" in outputs:
        path.write_bytes(png_bytes(_map(np.asarray(outputs["map"].data, np.float32), outputs.get("mask"))))
    elif "half_maps" in outputs:
        path.write_bytes(png_bytes(_averages(outputs["half_maps"])))


def _averages(half_maps: Any) -> np.ndarray:
    """Slices of the average, of several kinds a row each."""
    several = half_maps.values() if isinstance(half_maps, Mapping) else [half_maps]
    rows = [_slices((halves.half1.data + halves.half2.data) / 2) for halves in several]
    width = max(row.shape[1] for row in rows)
    return np.concatenate([_widened(row, width) for row in rows])


def _tomogram(tomogram: Any) -> np.ndarray:
    thickness = max(1, round(40 / tomogram.voxel_size))
    views = [to_gray(shrink(slab(tomogram.data, axis, thickness))[0], dark=True) for axis in "zy"]
    return np.concatenate([_widened(view, max(v.shape[1] for v in views)) for view in views])


def _map(data: np.ndarray, mask: Any) -> np.ndarray:
    inside = np.ones_like(data) if mask is None else np.asarray(mask.data, np.float32)
    level = contour_level(data[inside > 0.5]) if (inside > 0.5).any() else contour_level(data.ravel())
    floor = float(data.min())
    views = [surface(floor + (data - floor) * inside, level, axis) for axis in "zyx"]
    return np.concatenate([np.concatenate(views, axis=1), _slices(data)])


def _slices(data: np.ndarray) -> np.ndarray:
    return np.concatenate([to_gray(slab(data, axis)) for axis in "zyx"], axis=1)


def _widened(view: np.ndarray, width: int) -> np.ndarray:
    return np.pad(view, ((0, 0), (0, width - view.shape[1])), constant_values=255)
