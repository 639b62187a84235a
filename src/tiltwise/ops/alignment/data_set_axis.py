"""One tilt axis for a data set: a property of the microscope at a magnification, so that the median of all series tells
where that of each one is to be looked for.

A series disagrees where the axis found in it alone lies farther from the median than 0.5° and than four standard
deviations of the others (1.4826 times the median of the absolute deviations). Axes are compared modulo 180°: the
half-turn is not the images' to tell. Nothing is decided without three series of the same pixel size, more than half of
which agree.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from tiltwise.data.decisions import Decision

TOLERANCE = 0.5
"""Degrees by which axes of series may differ: 0.5° is 17 Å at 2000 Å from the axis, what patches can still follow."""
_DEVIATIONS = 4.0
_FEWEST = 3
_KEPT = 0.25
"""A median that moves by less than this (degrees) as series come in leaves what it has decided."""
_SAME_PIXEL = 0.01


def between_axes(a: float | np.ndarray, b: float | np.ndarray) -> Any:
    """a - b as angles between lines, degrees in [-90, 90)."""
    return (np.asarray(a) - b + 90.0) % 180.0 - 90.0


def median_axis(axes: np.ndarray) -> float:
    """Median of the directions of lines (axis,), degrees, in the half-turn of the line nearest to all others."""
    distance = np.abs(between_axes(axes[:, None], axes[None, :])).sum(axis=1)
    centre = axes[int(np.argmin(distance))]
    return float(centre + np.median(between_axes(axes, centre)))


def decide_axes(
    found: Mapping[str, Mapping[str, Any] | None], before: Mapping[str, Mapping[str, Any]]
) -> dict[str, Decision]:
    """What the data set decides of the series that disagree with it, or that could not be aligned alone.

    found: the figures of each alignment by series (`tilt_axis_own_deg`, None where there is none, and `pixel_size_A`),
    None in place of one that failed. before: the parameters decided before, by series.
    """
    groups = _alike({name: figures for name, figures in found.items() if figures is not None})
    if len(groups) == 1:  # of which magnification a failed one is, its figures do not say
        groups[0] |= dict.fromkeys(name for name, figures in found.items() if figures is None)
    return {name: one for group in groups for name, one in _decide(group, before).items()}


def _alike(found: Mapping[str, Mapping[str, Any]]) -> list[dict[str, float | None]]:
    """The axis of each series, by groups of the same pixel size: another magnification turns the image."""
    groups: list[tuple[float, dict[str, float | None]]] = []
    for name, figures in found.items():
        pixel = figures["pixel_size_A"]
        group = next((g for size, g in groups if abs(pixel / size - 1) < _SAME_PIXEL), None)
        if group is None:
            group = {}
            groups.append((pixel, group))
        group[name] = figures["tilt_axis_own_deg"]
    return [group for _, group in groups]


def _decide(group: Mapping[str, float | None], before: Mapping[str, Mapping[str, Any]]) -> dict[str, Decision]:
    axes = np.array([own for own in group.values() if own is not None])
    median = _consensus(axes)
    if median is None:
        return {}
    decided = {}
    for name, own in group.items():
        if own is None:
            reason = f"could not be aligned by its own prior; the median tilt axis of the data set is {median:.1f}°"
        elif _disagrees(own, median, axes):
            reason = f"tilt axis {own:.1f}° alone, the median of {len(axes)} series is {median:.1f}°"
        else:
            continue
        decided[name] = _decision(median, before.get(name), reason)
    return decided


def _consensus(axes: np.ndarray) -> float | None:
    """The median axis, if more than half of three series or more agree on it."""
    if len(axes) < _FEWEST:
        return None
    median = median_axis(axes)
    return median if np.mean(np.abs(between_axes(axes, median)) <= TOLERANCE) > 0.5 else None


def _disagrees(own: float, median: float, axes: np.ndarray) -> bool:
    spread = 1.4826 * float(np.median(np.abs(between_axes(axes, median))))
    return abs(between_axes(own, median)) > max(TOLERANCE, _DEVIATIONS * spread)


def _decision(median: float, before: Mapping[str, Any] | None, reason: str) -> Decision:
    """The median to a tenth of a degree; the one decided before where that still holds."""
    old = (before or {}).get("tilt_axis_median")
    value = round(median, 1) if old is None or abs(between_axes(median, old)) > _KEPT else old
    return Decision(params={"tilt_axis_median": value}, reason=reason)
