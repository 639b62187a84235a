"""The part of a report about one tilt series: alignment, defocus, tomogram and picks."""

from typing import Any

import numpy as np

from tiltwise.report import curves
from tiltwise.report.contents import Contents, Entry
from tiltwise.report.drawing import as_svg
from tiltwise.report.frames_part import frames_part
from tiltwise.report.motion_part import motion_part
from tiltwise.report.page import Html, figure, join, table, tag
from tiltwise.report.views import picture, slab


def series_part(contents: Contents, name: str, *, opened: bool) -> Html:
    """Everything known of one series, under its name."""
    series = contents.tilt_series(name)
    parts = [
        _failures(contents, name),
        motion_part(contents.last("motion", name), series),
        _alignment(contents.last("align", name), series),
        _defocus(contents.last("defocus", name), series),
        _tomogram(contents, name),
        frames_part(contents.last("frames", name)),
    ]
    attribute = {"open": "open"} if opened else {}
    return tag("details", tag("summary", name, " ", tag("span", _summary(series), class_="soft")), *parts, **attribute)


def _summary(series: Any) -> str:
    if series is None:
        return "cannot be read"
    used = int(np.sum(series.use))
    rows, columns = series.image_shape
    angles = f"{np.min(series.stage_tilt_angle):+.0f}° to {np.max(series.stage_tilt_angle):+.0f}°"
    return f"{series.number} tilts, {used} used, {angles}, {columns} × {rows} px at {series.pixel_size:g} Å"


def _failures(contents: Contents, name: str) -> Html:
    failed = [entry for entry in contents.entries if entry.item == name and entry.error]
    return join(tag("p", tag("b", entry.step, class_="failed"), ": ", entry.error, class_="note") for entry in failed)


def _angles(series: Any, entry: Entry) -> tuple[np.ndarray | None, np.ndarray | None]:
    if series is None:
        return None, None
    angle = series.geometry.tilt_angle if series.geometry is not None else series.stage_tilt_angle
    return np.asarray(angle), np.asarray(series.use)


def _alignment(entry: Entry | None, series: Any) -> Html:
    title = tag("h3", "Alignment")
    if entry is None:
        return join([title, tag("p", "Not aligned.", class_="soft")])
    quality = entry.quality
    angle, use = _angles(series, entry)
    said = ["Made by another program and taken over at import."] if quality.get("given") else []
    if isinstance(quality.get("tilt_axis_angle_deg"), int | float):
        said.append(f"Tilt axis {quality['tilt_axis_angle_deg']:.2f}° from image y.")
    said += _data_set_axis(quality)
    residual = curves.numbers(quality, "residual_A")
    if np.isfinite(residual).any():
        said.append(f"Median residual {np.nanmedian(residual):.1f} Å.")
    said += _specimen(quality.get("specimen"))
    before, after = quality.get("sharpness_before"), quality.get("sharpness_after")
    if isinstance(before, int | float) and isinstance(after, int | float):
        said.append(f"Sharpness of the reconstruction {before:.3g} before, {after:.3g} after.")
    drawing = as_svg(curves.alignment(quality, angle, use))
    caption = "Where the tomogram's centre lies in each image, and how well each image fits. Crosses: excluded tilts."
    deformed = _deformation(quality.get("deformation"), angle, use)
    return join([title, tag("p", " ".join(said)), figure(drawing, caption), deformed, _excluded(series)])


def _data_set_axis(quality: dict[str, Any]) -> list[str]:
    """How a series whose axis is not that of the data set came to its own; nothing of the others."""
    median, own = quality.get("tilt_axis_median_deg"), quality.get("tilt_axis_own_deg")
    if median is None:
        return []
    alone = "By its own prior it could not be aligned" if own is None else f"By its own prior the axis is {own:.2f}°"
    said = f"{alone}; the median of the data set is {median:.1f}°"
    if own is None:
        return [f"{said}, which was taken."]
    evidence = f"{quality['tilt_axis_own_evidence']:+.1f} standard errors for its own"
    taken = "its own was kept" if quality.get("tilt_axis_from") == "images" else "the median was taken"
    return [f"{said}. The images tell by {evidence}: {taken}."]


def _deformation(figures: Any, angle: np.ndarray | None, use: np.ndarray | None) -> Html:
    """What the tracks said of a deformation; nothing where none was looked for."""
    if not isinstance(figures, dict):
        return Html("")
    after, before = figures["held_out_residual_A"], figures["held_out_residual_without_A"]
    if not figures["kept"]:
        return tag("p", f"No deformation: held-out tracks lie {before:.2f} Å off without one, and no nearer with one.")
    names = {"magnification": "magnification", "sample": "specimen", "warp": "images"}
    kept = ", ".join(names[name] for name in figures["kept"])
    said = f"Deformation kept ({kept}): held-out tracks lie {after:.2f} Å off, {before:.2f} Å without it."
    caption = "How far it moves the middle plane of the specimen in each image, and how in the image where most."
    return join([tag("p", said), figure(as_svg(curves.deformation(figures, angle, use)), caption)])


def _specimen(figures: Any) -> list[str]:
    """Where the alignment found the slab of the specimen; nothing where it did not look."""
    if not isinstance(figures, dict):
        return []
    x, y = figures["incline_deg"]
    done = "made level in the tomogram" if figures["levelled"] else "left as it was"
    thick = f"The specimen is {figures['thickness_A']:.0f} Å thick"
    return [f"{thick} and rises by {x:.1f}° along x and {y:.1f}° along y, {done}."]


def _excluded(series: Any) -> Html:
    if series is None or bool(np.all(series.use)):
        return tag("p", "No tilt is excluded.", class_="soft") if series is not None else Html("")
    rows = [
        (f"{series.stage_tilt_angle[i]:+.1f}°", series.why_not[i] or "no reason given")
        for i in np.flatnonzero(~series.use)
    ]
    return table(("Excluded tilt", "Reason"), rows)


def _defocus(entry: Entry | None, series: Any) -> Html:
    title = tag("h3", "Defocus")
    if entry is None:
        return join([title, tag("p", "Not measured.", class_="soft")])
    quality = entry.quality
    angle, _ = _angles(series, entry)
    parts: list[object] = [title]
    if quality.get("determined") is False:
        reason = quality.get("reason") or quality.get("why_not") or "the images show no rings"
        parts.append(tag("p", tag("b", "Not determined: "), reason, class_="note"))
    else:
        parts.append(tag("p", _defocus_sentence(quality)))
        if np.isfinite(curves.numbers(quality, "defocus_A")).any():
            caption = "Mean defocus of each tilt at the tomogram's centre, bars: standard error."
            parts.append(figure(as_svg(curves.defocus(quality, angle)), caption))
    if curves.has_spectra(quality):
        caption = "Radial power spectra, tilt-corrected and without background, and the fitted rings."
        parts.append(figure(as_svg(curves.spectra(quality, angle)), caption))
    return join(parts)


def _defocus_sentence(quality: dict[str, Any]) -> str:
    value = curves.numbers(quality, "defocus_A")
    said = []
    if np.isfinite(value).any():
        said.append(f"Median defocus {np.nanmedian(value) / 1e4:.2f} µm.")
    astigmatism, direction = quality.get("astigmatism_A"), quality.get("astigmatism_angle_deg")
    if isinstance(astigmatism, int | float) and isinstance(direction, int | float):
        errors = [_error(quality, key) for key in ("astigmatism_error_A", "astigmatism_angle_error_deg")]
        said.append(f"Astigmatism {astigmatism:.0f}{errors[0]} Å along {direction:.0f}{errors[1]}°.")
    if quality.get("astigmatism_drift_A"):
        error = _error(quality, "astigmatism_drift_error_A")
        said.append(f"It drifts: tilts differ from it by {quality['astigmatism_drift_A']:.0f}{error} Å (rms).")
    if isinstance(quality.get("thickness_A"), int | float):
        said.append(f"Thickness of the ice {quality['thickness_A']:.0f}{_error(quality, 'thickness_error_A')} Å.")
    slope, slope_error = quality.get("specimen_slope_deg"), quality.get("specimen_slope_error_deg")
    if slope and slope_error:
        both = " and ".join(
            f"{s:.2f} ± {e:.2f}° along {axis}" for s, e, axis in zip(slope, slope_error, "xy", strict=True)
        )
        said.append(f"Inclination against the alignment {both}.")
    if quality.get("phase_shift_error_deg"):
        said.append(f"Phase shift {quality['phase_shift_deg']:.0f}{_error(quality, 'phase_shift_error_deg')}°.")
    hand, evidence = quality.get("handedness"), quality.get("handedness_evidence")
    if hand in (1, -1):
        shown = f" (difference of log likelihood {evidence:.1f})" if isinstance(evidence, int | float) else ""
        said.append(f"Handedness {hand:+d}{shown}.")
    else:
        said.append("Handedness not determined from the rings alone.")
    return " ".join(said)


def _error(quality: dict[str, Any], key: str) -> str:
    """The standard error recorded under a key, as it is written behind a value; nothing where there is none."""
    value = quality.get(key)
    return f" ± {value:.0f}" if isinstance(value, int | float) else ""


def _tomogram(contents: Contents, name: str) -> Html:
    title = tag("h3", "Tomogram")
    entry = contents.last("reconstruct", name)
    tomogram = contents.load("tomogram", entry)
    if tomogram is None:
        return join([title, tag("p", "Not reconstructed.", class_="soft")])
    pick = contents.last("pick", name)
    particles = contents.load("particles", pick, name)
    views = tomogram_views(tomogram, None if particles is None else np.asarray(particles.position), _spheres(pick))
    picked = "" if particles is None else f" {len(particles)} particles were picked; those near the slice are marked."
    caption = f"Central slices, density dark; voxels of {tomogram.voxel_size:.2f} Å.{picked}"
    notes = [tag("p", note[:1].upper() + note[1:] + ".", class_="note") for note in entry.quality.get("notes") or []]
    made = tag("p", " ".join(tomogram_sentences(entry.quality)))
    parts = [title, tag("div", *views, class_="row"), tag("p", caption, class_="soft"), made, *notes, _picked(pick)]
    return join(parts)


def tomogram_sentences(quality: dict[str, Any]) -> list[str]:
    """How a tomogram was made, and what its beads show of the missing wedge, as far as the record says."""
    said = []
    if quality.get("ctf_correction"):
        said.append(f"From {quality['tilts']} tilts; CTF correction: {quality['ctf_correction']}.")
    if quality.get("deformation_A"):
        said.append(f"The specimen's deformation, of up to {quality['deformation_A']:.1f} Å, is undone.")
    if quality.get("halves"):
        said.append(f"Half tomograms are of odd and even {quality['halves']}.")
    if quality.get("beads_erased"):
        said.append(f"{quality['beads_erased']} beads were erased.")
    shape = quality.get("bead_shape")
    if shape:
        first, last, low, high = *shape["tilt_range_deg"], shape["lowest_angle_deg"], shape["highest_angle_deg"]
        said += [
            f"{shape['beads']} beads are {shape['elongation']:.2f} times as long along the beam as across;",
            f"the closed form for tilts of {first:.0f}° to {last:.0f}° is {shape['elongation_expected']:.2f}.",
            f"Their transform reaches from {low:.0f}° to {high:.0f}°: {shape['missing_wedge']:.0%} of it are missing,",
            f"of the tilts {shape['missing_wedge_expected']:.0%}.",
        ]
    return said


def _spheres(pick: Entry | None) -> np.ndarray:
    spheres = (pick.quality.get("spheres") if pick else None) or []
    rows = [[s.get(key) for key in ("x_A", "y_A", "z_A", "radius_A")] for s in spheres if isinstance(s, dict)]
    return np.array([row for row in rows if None not in row], dtype=float).reshape(-1, 4)


def tomogram_views(tomogram: Any, position: np.ndarray | None, spheres: np.ndarray) -> list[Html]:
    """Central xy and xz slices, a few voxels thick, with the particles within 100 Å and the spheres that they cut."""
    size, shape = tomogram.voxel_size, tomogram.data.shape
    thickness = max(1, round(40 / size))
    points = np.zeros((0, 3)) if position is None else position.reshape(-1, 3)
    views = []
    for axis, (a, b, depth) in {"z": (0, 1, 2), "y": (0, 2, 1)}.items():
        near = points[np.abs(points[:, depth]) < 100]
        marks = np.column_stack([near[:, a], near[:, b], np.full(len(near), 0.012 * max(shape) * size)])
        cut = spheres[np.abs(spheres[:, depth]) < spheres[:, 3]]
        rings = np.column_stack([cut[:, a], cut[:, b], np.sqrt(cut[:, 3] ** 2 - cut[:, depth] ** 2)])
        views.append(
            picture(slab(tomogram.data, axis, thickness), size, circles=np.concatenate([marks, rings]), dark=True)
        )
    return views


def _picked(pick: Entry | None) -> Html:
    """What there is to say of the picks: how sure they are, what was left out and why, what is amiss, and scores."""
    if pick is None:
        return Html("")
    said = " ".join(picking_sentences(pick.quality))
    notes = [tag("p", note[:1].upper() + note[1:] + ".", class_="note") for note in pick.quality.get("notes") or []]
    return join([tag("p", said) if said else Html(""), *notes, _scores(pick)])


def picking_sentences(quality: dict[str, Any]) -> list[str]:
    """How sure the picks of a template are, and how much of the tomogram was left out, as far as the record says."""
    rates, said = curves.numbers(quality, "false_discovery"), []
    if np.isfinite(rates).any():
        sure = int((rates <= 0.01).sum())
        said.append(f"{sure} of {len(rates)} picks would still be called at a false discovery rate of 1 %.")
    parts, places = quality.get("excluded_part"), quality.get("excluded")
    if parts and places:
        each = ", ".join(
            f"{reason} {parts[reason]:.1%} of the tomogram and {places[reason]} places" for reason in parts
        )
        said.append(f"Left out of the search: {each}.")
    return said


def _scores(pick: Entry | None) -> Html:
    values = curves.numbers(pick.quality, "scores") if pick else np.zeros(0)
    if not np.isfinite(values).any():
        return Html("")
    return figure(as_svg(curves.scores(values)), "Scores of the picked particles.")
