"""The curves of a report, from the numbers that the stages recorded."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from tiltwise.report.drawing import BLUE, GRAY, GREEN, ORANGE, RED, drawn, new_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Quality = dict[str, Any]


def numbers(quality: Quality, key: str) -> np.ndarray:
    """(n,) a recorded list as floats, nan for what was null; empty where there is none."""
    values = quality.get(key)
    if not isinstance(values, list) or any(isinstance(value, list | dict | str) for value in values):
        return np.zeros(0)
    return np.array([np.nan if value is None else float(value) for value in values])


@drawn
def alignment(quality: Quality, tilt_angle: np.ndarray | None, use: np.ndarray | None) -> "Figure":
    """Shifts, residuals and correlation over the tilt angle (over the image number where angles are not known)."""
    shown = [
        ("shift (Å)", ("shift_x_A", "shift_y_A")),
        ("residual (Å)", ("residual_A",)),
        ("correlation", ("correlation",)),
    ]
    shown = [(label, keys) for label, keys in shown if any(len(numbers(quality, key)) for key in keys)]
    drawing, axes = new_figure(9.0, 2.5, columns=max(1, len(shown)))
    for axis, (label, keys) in zip(axes, shown, strict=False):
        for key, color in zip(keys, (BLUE, ORANGE), strict=False):
            values = numbers(quality, key)
            name = {"shift_x_A": "x", "shift_y_A": "y"}.get(key)
            _by_tilt(axis, values, tilt_angle, use, color, name)
        axis.set_ylabel(label)
        if len(keys) > 1:
            axis.legend()
    return drawing


@drawn
def deformation(figures: Quality, tilt_angle: np.ndarray | None, use: np.ndarray | None) -> "Figure":
    """How far the deformation moves what the images show, over the tilts; and its arrows in the tilt where most."""
    drawing, (curve, field) = new_figure(7.0, 2.8, columns=2)
    _by_tilt(curve, numbers(figures, "moved_A"), tilt_angle, use, BLUE, None)
    curve.set_ylabel("moved, rms (Å)")
    x, y, dx, dy = np.array(figures["arrows_A"], dtype=float).T
    longest = float(np.hypot(dx, dy).max())
    spacing = float(np.ptp(x)) / max(np.sqrt(len(x)) - 1, 1)
    factor = spacing / max(longest, 1e-9)
    field.quiver(x / 10, y / 10, dx, dy, angles="xy", scale_units="xy", scale=10 / factor, width=0.005, color=ORANGE)
    field.set_aspect("equal")
    field.set_xlabel("x (nm)")
    field.set_ylabel("y (nm)")
    field.set_title(f"longest arrow {longest:.1f} Å")
    return drawing


def _by_tilt(
    axis: "Axes",
    values: np.ndarray,
    tilt_angle: np.ndarray | None,
    use: np.ndarray | None,
    color: str,
    name: str | None,
) -> None:
    known = tilt_angle is not None and len(tilt_angle) == len(values)
    place = np.asarray(tilt_angle) if known else np.arange(len(values))
    used = np.asarray(use, bool) if use is not None and len(use) == len(values) else np.ones(len(values), bool)
    order = np.argsort(place)
    kept = order[used[order]]
    axis.plot(place[kept], values[kept], "o-", color=color, label=name)
    if (~used).any():
        axis.plot(place[~used], values[~used], "x", color=RED)
    axis.set_xlabel("tilt angle (°)" if known else "image")


@drawn
def defocus(quality: Quality, tilt_angle: np.ndarray | None) -> "Figure":
    """Defocus of each tilt with its standard error, and the spacing to which the rings fit."""
    value, error = numbers(quality, "defocus_A"), numbers(quality, "defocus_error_A")
    fit = numbers(quality, "fit_resolution_A")
    drawing, axes = new_figure(9.0, 2.6, columns=2)
    known = tilt_angle is not None and len(tilt_angle) == len(value)
    place = np.asarray(tilt_angle) if known else np.arange(len(value))
    bars = error if len(error) == len(value) else None
    axes[0].errorbar(place, value, yerr=bars, fmt="o", color=BLUE, ecolor=GRAY, elinewidth=0.9)
    axes[0].set_ylabel("defocus (Å)")
    if len(fit) == len(value):
        axes[1].plot(place, fit, "o", color=GREEN)
    axes[1].set_ylabel("rings fitted to (Å)")
    for axis in axes:
        axis.set_xlabel("tilt angle (°)" if known else "image")
    return drawing


def has_spectra(quality: Quality) -> bool:
    """Whether spectra were recorded with their fit."""
    return all(_rows(quality.get(key)) for key in ("spectrum_observed", "spectrum_fitted")) and bool(
        quality.get("spectrum_frequency")
    )


@drawn
def spectra(quality: Quality, tilt_angle: np.ndarray | None) -> "Figure":
    """Observed and fitted radial spectra of six tilts from one end of the series to the other."""
    observed, fitted = _rows(quality.get("spectrum_observed")), _rows(quality.get("spectrum_fitted"))
    frequency = _rows(quality.get("spectrum_frequency")) or [quality["spectrum_frequency"]]
    rows = np.array(quality.get("spectrum_tilt") or range(len(observed)), dtype=int)
    named = tilt_angle is not None and len(rows) == len(observed) and max(rows, default=0) < len(tilt_angle)
    order = np.argsort(np.asarray(tilt_angle)[rows]) if named else np.arange(len(observed))
    seen = [i for i in order if len(observed[i]) and len(fitted[i])]
    chosen = [seen[round(i)] for i in np.linspace(0, len(seen) - 1, min(6, len(seen)))]
    drawing, axes = new_figure(9.0, 3.9, columns=3, rows=2)
    for axis, tilt in zip(axes, chosen, strict=False):
        k = _floats(frequency[tilt if len(frequency) > 1 else 0])
        for row, color, width, name in ((observed, GRAY, 0.9, "observed"), (fitted, ORANGE, 1.3, "fitted")):
            values = _floats(row[tilt])
            axis.plot(k[: len(values)], values[: len(k)], color=color, linewidth=width, label=name)
        axis.set_title(f"{tilt_angle[rows[tilt]]:+.0f}°" if named else f"image {tilt + 1}")
        axis.set_yticks([])
        axis.set_xlabel("spatial frequency (1/Å)")
    for axis in axes[len(chosen) :]:
        axis.set_axis_off()
    drawing.legend(*axes[0].get_legend_handles_labels(), loc="outside upper right", ncols=2)
    return drawing


def _rows(values: object) -> list[list[Any]]:
    nested = isinstance(values, list) and bool(values) and all(isinstance(row, list | None) for row in values)
    return [row or [] for row in values] if nested else []


def _floats(values: Sequence[Any]) -> np.ndarray:
    return np.array([np.nan if value is None else float(value) for value in values])


@drawn
def fsc(quality: Quality) -> "Figure":
    """Fourier shell correlations over spatial frequency, with the 0.143 line and the resolution."""
    frequency = numbers(quality, "frequency" if "frequency" in quality else "fsc_frequency")
    drawing, (axis,) = new_figure(6.0, 3.4)
    curves = [
        ("fsc_unmasked", "unmasked", GRAY, "-"),
        ("fsc_masked", "masked", ORANGE, "-"),
        ("fsc_randomised", "phases randomised", RED, ":"),
        ("fsc_corrected", "masked, corrected", BLUE, "-"),
        ("fsc", "half maps", BLUE, "-"),
    ]
    for key, name, color, line in curves:
        values = numbers(quality, key)
        if len(values) and len(values) == len(frequency):
            axis.plot(frequency, values, line, color=color, label=name, linewidth=1.9 if color == BLUE else 1.2)
    axis.axhline(0.143, color=GRAY, linewidth=0.8, linestyle="--")
    axis.axhline(0, color=GRAY, linewidth=0.5)
    resolution = quality.get("resolution_fsc_A")
    if isinstance(resolution, int | float) and resolution > 0:
        axis.plot([1 / resolution], [0.143], "o", color=BLUE)
        axis.annotate(f"{resolution:.1f} Å", (1 / resolution, 0.143), (5, 6), textcoords="offset points")
    axis.set_ylim(-0.15, 1.03)
    axis.set_xlim(0, float(frequency[-1]) if len(frequency) else None)
    spacing_ticks(axis, frequency)
    axis.set_ylabel("Fourier shell correlation")
    axis.legend()
    return drawing


def spacing_ticks(axis: "Axes", frequency: np.ndarray) -> None:
    """Ticks at equal frequencies, named by their spacings in Å."""
    top = float(frequency[-1]) if len(frequency) else 0.1
    ticks = np.linspace(0, top, 6)[1:]
    axis.set_xticks(ticks, [f"1/{1 / tick:.3g}" for tick in ticks])
    axis.set_xlabel("spatial frequency (1/Å)")


@drawn
def iterations(rows: list[Quality]) -> "Figure":
    """Resolution and changes of pose over the iterations of a refinement."""
    drawing, axes = new_figure(9.0, 2.5, columns=3)
    number = [row.get("iteration", i + 1) for i, row in enumerate(rows)]
    panels = [
        ("resolution_fsc_A", "resolution, FSC 0.143 (Å)", BLUE),
        ("rotation_change_deg", "median turn of a particle (°)", ORANGE),
        ("shift_change_A", "median move of a particle (Å)", GREEN),
    ]
    for axis, (key, label, color) in zip(axes, panels, strict=True):
        values = np.array([row[key] if isinstance(row.get(key), int | float) else np.nan for row in rows], dtype=float)
        axis.plot(number, values, "o-", color=color)
        axis.set_xlabel("iteration")
        axis.set_title(label)
        axis.set_xticks(number)
        if np.isfinite(values).any():
            axis.set_ylim(bottom=0)
    return drawing


@drawn
def guinier(quality: Quality) -> "Figure":
    """Logarithm of the amplitudes over 1/d², with the fitted slope."""
    x, y = numbers(quality, "guinier_inverse_square"), numbers(quality, "guinier_log_amplitude")
    drawing, (axis,) = new_figure(4.2, 2.8)
    axis.plot(x, y, "o", color=BLUE)
    b = quality.get("b_factor_fitted_A2")
    if isinstance(b, int | float) and len(x):
        axis.plot(x, y.mean() + b / 4 * (x - x.mean()), color=ORANGE)
        axis.set_title(f"B = {b:.0f} Å²")
    axis.set_xlabel("1/d² (1/Å²)")
    axis.set_ylabel("ln amplitude")
    return drawing


@drawn
def orientations(directions: np.ndarray) -> "Figure":
    """Where the tomogram's z axis lies in the reference, over the sphere, against an even spread."""
    edges_height, edges_azimuth = np.linspace(-1, 1, 37), np.linspace(-np.pi, np.pi, 73)
    relative = _density_on_sphere(directions, edges_height, edges_azimuth)
    drawing, (axis,) = new_figure(5.4, 2.9)
    position = axis.get_subplotspec()
    axis.remove()
    sphere = drawing.add_subplot(position, projection="mollweide")
    scale = {"cmap": "viridis", "vmin": 0, "vmax": max(2, relative.max()), "rasterized": True}
    image = sphere.pcolormesh(edges_azimuth, np.arcsin(edges_height), relative, **scale)
    sphere.set_xticklabels([])
    sphere.set_yticklabels([])
    sphere.grid(False)
    drawing.colorbar(image, ax=sphere, shrink=0.7, label="particles / uniform")
    return drawing


@drawn
def directional_resolution(quality: Quality) -> "Figure":
    """Resolution by direction, on the half sphere seen along z (equal areas); the rim is the xy plane."""
    directions = np.array(quality["directions"], dtype=float)
    spacing = numbers(quality, "directional_resolution_A")
    drawing, (axis,) = new_figure(3.6, 2.9)
    radius = np.sqrt(1 - directions[:, 2])
    turn = np.arctan2(directions[:, 1], directions[:, 0])
    image = axis.scatter(radius * np.cos(turn), radius * np.sin(turn), c=spacing, cmap="viridis_r", s=60)
    axis.set_aspect("equal")
    axis.set_axis_off()
    drawing.colorbar(image, ax=axis, shrink=0.8, label="Å")
    return drawing


@drawn
def local_resolution(spacing: np.ndarray, mask: np.ndarray, voxel_size: float, width: tuple[float, float]) -> "Figure":
    """Central slices across z, y and x of the local resolution (z, y, x) within the mask, and its histogram.

    width = the spacings, Å, at which the colours end.
    """
    drawing, axes = new_figure(9.0, 2.6, columns=4)
    middle = [n // 2 for n in spacing.shape]
    for axis, (across, name) in zip(axes, enumerate(("xy", "xz", "yz")), strict=False):
        plane, inside = (np.take(v, middle[across], axis=across) for v in (spacing, mask))
        side = np.array(plane.shape)[::-1] * voxel_size
        shown = np.ma.masked_where(inside < 0.5, plane)
        image = axis.imshow(
            shown, origin="lower", cmap="viridis_r", vmin=width[0], vmax=width[1], extent=(0, side[0], 0, side[1])
        )
        axis.set_title(name)
        axis.set_axis_off()
    drawing.colorbar(image, ax=axes[2], shrink=0.8, label="Å")
    values = spacing[mask >= 0.5]
    axes[3].hist(values, bins=40, color=BLUE, weights=np.full(len(values), 100 / max(1, len(values))))
    axes[3].set_xlabel("local resolution (Å)")
    axes[3].set_ylabel("% of the mask")
    return drawing


def _density_on_sphere(directions: np.ndarray, edges_height: np.ndarray, edges_azimuth: np.ndarray) -> np.ndarray:
    """(height, azimuth) number of directions per solid angle over that of an even spread, in cells of equal area.

    Smoothed by a von Mises-Fisher kernel whose width, 0.5 n^(-1/6) radians, follows the number of directions.
    """
    azimuth = np.arctan2(directions[:, 1], directions[:, 0])
    cells = (edges_height, edges_azimuth)
    count = np.histogram2d(directions[:, 2].clip(-1, 1), azimuth, bins=cells)[0]
    height, turn = np.meshgrid(*[(edges[1:] + edges[:-1]) / 2 for edges in cells], indexing="ij")
    across = np.sqrt(1 - height**2)
    centres = np.stack([across * np.cos(turn), across * np.sin(turn), height], axis=-1).reshape(-1, 3)
    sharpness = 4 * max(1, len(directions)) ** (1 / 3)
    kernel = np.exp(sharpness * (centres @ centres.T - 1))
    kernel /= kernel.sum(axis=1, keepdims=True)
    return (kernel @ count.ravel() * count.size / max(1, len(directions))).reshape(count.shape)


@drawn
def scores(values: np.ndarray) -> "Figure":
    """Histogram of the scores of particles."""
    drawing, (axis,) = new_figure(4.2, 2.4)
    known = values[np.isfinite(values)]
    axis.hist(known, bins=int(np.clip(np.sqrt(len(known)), 8, 60)), color=BLUE)
    axis.set_xlabel("score")
    axis.set_ylabel("particles")
    return drawing


@drawn
def exposures(record: Quality) -> "Figure":
    """Amplitude left over the exposure at four spacings: measured with its error, critical curve, published formula."""
    spacing, exposure = record["spacing_A"], np.array(record["exposure"], dtype=float)
    drawing, axes = new_figure(9.0, 2.6, columns=max(1, len(spacing)))
    tables = {name: np.array(record[name], dtype=float) for name in ("measured", "error", "critical", "published")}
    for number, (axis, width) in enumerate(zip(axes, spacing, strict=True)):
        measured, error, critical, published = (table[:, number] for table in tables.values())
        axis.errorbar(exposure, measured, yerr=measured * error, fmt="o", color=BLUE, ecolor=GRAY, label="measured")
        axis.plot(exposure, critical, color=ORANGE, label="critical exposure")
        axis.plot(exposure, published, color=GREEN, linestyle="--", label="published formula")
        axis.set_title(f"{width:.3g} Å")
        axis.set_ylim(0, 1.25 * max(float(np.nanmax(measured)), float(critical.max())))
        axis.set_xlabel("exposure (e⁻/Å²)")
    axes[0].set_ylabel("amplitude left")
    drawing.legend(*axes[0].get_legend_handles_labels(), loc="outside upper right", ncols=3)
    return drawing
