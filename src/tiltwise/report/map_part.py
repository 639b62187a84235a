"""The part of a report about the average: its resolution, its looks, and how its particles are spread."""

from collections.abc import Iterator
from typing import Any

import numpy as np

from tiltwise.project.layout import ALL
from tiltwise.report import curves
from tiltwise.report.contents import Contents, Entry
from tiltwise.report.drawing import as_svg
from tiltwise.report.page import Html, figure, join, section, tag
from tiltwise.report.views import contour_level, picture, slab, surface_picture

_BEFORE = "C1 was refined until the average itself showed {0}, which was imposed from then on."
_NAMES = {"z": "xy", "y": "xz", "x": "yz"}


def map_part(contents: Contents) -> Html:
    """The average map, or that there is none."""
    refined, finished = contents.last_giving("half_maps", ALL), contents.last("postprocess", ALL)
    if refined is None and finished is None:
        return section("The map", tag("p", "No particles have been averaged.", class_="soft"))
    if refined is not None and refined.species:
        return section("The map", *_each_kind(contents, refined))
    return section(
        "The map",
        _pictures(contents, refined, finished),
        _resolution(refined, finished),
        _place_and_direction(contents, finished),
        _refinement(contents, refined),
    )


def _each_kind(contents: Contents, refined: Entry) -> Iterator[Html]:
    """Several kinds of particles: the half maps of each, and every map that was finished."""
    reached = [
        f"{name} {found['resolution_fsc_A']:.1f} Å ({len(contents.load('particles', refined, species=name) or ())})"
        for name, found in refined.species.items()
    ]
    yield tag("p", f"Half maps of each kind at FSC 0.143 (particles): {', '.join(reached)}.")
    yield join([tag("p", note[:1].upper() + note[1:] + ".", class_="note") for note in refined.quality["notes"]])
    for entry in contents.entries:
        if entry.stage == "postprocess" and entry.has_result:
            yield tag("h3", entry.step)
            yield _pictures(contents, None, entry)
            yield _resolution(None, entry)
            yield _place_and_direction(contents, entry)


def _pictures(contents: Contents, refined: Entry | None, finished: Entry | None) -> Html:
    density = contents.load("map", finished)
    mask = contents.load("mask", finished)
    if density is None:
        halves = contents.load("half_maps", refined)
        if halves is None:
            return Html("")
        data, voxel_size = (halves.half1.data + halves.half2.data) / 2, halves.half1.voxel_size
    else:
        data, voxel_size = np.asarray(density.data, np.float32), density.voxel_size
    inside = np.ones(data.shape, np.float32) if mask is None else np.asarray(mask.data, np.float32)
    surfaces = tag("div", *surface_views(data, inside), class_="row")
    slices = tag("div", *[picture(slab(data, axis), voxel_size, width=230) for axis in "zyx"], class_="row")
    names = ", ".join(_NAMES[axis] for axis in "zyx")
    caption = (
        f"Above: the surface within the mask, seen along z, y and x. Below: central slices ({names}), density bright."
    )
    return join([figure(join([surfaces, slices]), caption)])


def surface_views(data: np.ndarray, mask: np.ndarray) -> list[Html]:
    """Shaded surfaces along three axes at the level that best parts the density within the mask."""
    within = data[mask > 0.5]
    if within.size == 0 or float(np.ptp(within)) == 0:
        return []
    level = contour_level(within)
    floor = float(data.min())
    masked = floor + (data - floor) * mask
    return [surface_picture(masked, level, axis) for axis in "zyx"]


def _resolution(refined: Entry | None, finished: Entry | None) -> Html:
    entry = finished or refined
    quality: dict[str, Any] = entry.quality if entry else {}
    parts: list[object] = [tag("h3", "Resolution")]
    value = quality.get("resolution_fsc_A")
    if isinstance(value, int | float):
        masked = ", masked and corrected by phase randomisation," if finished else ""
        sentence = (
            f"The Fourier shell correlation of the two half maps{masked} first falls below 0.143 at {value:.1f} Å"
            f"{_range(quality.get('resolution_range_A'))}."
        )
        parts.append(tag("p", sentence))
    else:
        parts.append(tag("p", "No resolution was determined.", class_="soft"))
    parts += [tag("p", note[:1].upper() + note[1:] + ".", class_="note") for note in quality.get("notes") or []]
    drawings = []
    if len(curves.numbers(quality, "frequency")) or len(curves.numbers(quality, "fsc_frequency")):
        drawings.append(figure(as_svg(curves.fsc(quality)), "Fourier shell correlation of the half maps."))
    if len(curves.numbers(quality, "guinier_inverse_square")) > 2:
        drawings.append(figure(as_svg(curves.guinier(quality)), "Guinier plot of the FSC-weighted amplitudes."))
    return join([*parts, tag("div", *drawings, class_="row")])


def _range(ends: Any) -> str:
    """The 95 % range of a resolution, as the end of a sentence."""
    if not isinstance(ends, list) or len(ends) != 2 or ends[0] is None:
        return ""
    coarse = "no resolution at all" if ends[1] is None else f"{ends[1]:.1f} Å"
    return f"; by the number of independent values in its shells it lies between {ends[0]:.1f} Å and {coarse} (95 %)"


def _place_and_direction(contents: Contents, finished: Entry | None) -> Html:
    """Resolution from place to place and by direction."""
    quality: dict[str, Any] = finished.quality if finished else {}
    drawings = []
    local, mask = contents.load("local_resolution", finished), contents.load("mask", finished)
    low, high = quality.get("local_resolution_5_A"), quality.get("local_resolution_95_A")
    if local is not None and mask is not None and low is not None and high is not None:
        data = [np.asarray(volume.data, np.float32) for volume in (local, mask)]
        width = (low, max(high, low * 1.05))
        caption = (
            f"Local resolution within the mask: {low:.1f} Å at best (5 %), {quality['local_resolution_median_A']:.1f} Å"
            f" in the middle, {high:.1f} Å at worst (95 %)."
        )
        drawings.append(figure(as_svg(curves.local_resolution(*data, local.voxel_size, width)), caption))
    if len(curves.numbers(quality, "directional_resolution_A")) and quality.get("directional_worst_A"):
        caption = (
            f"Resolution by direction, in cones of 20°, seen along z: from {quality['directional_best_A']:.1f} to "
            f"{quality['directional_worst_A']:.1f} Å."
        )
        drawings.append(figure(as_svg(curves.directional_resolution(quality)), caption))
    return join([tag("div", *drawings, class_="row")]) if drawings else Html("")


def _refinement(contents: Contents, refined: Entry | None) -> Html:
    if refined is None:
        return Html("")
    parts: list[object] = [tag("h3", "Refinement")]
    rows = [row for row in refined.quality.get("iterations") or [] if isinstance(row, dict)]
    if rows:
        removed = sum(row.get("duplicates_removed") or 0 for row in rows)
        sentence = f"{len(rows)} iterations; {removed} duplicates removed across both halves."
        if isinstance(unsure := rows[-1].get("ambiguous_poses"), float):
            sentence += (
                f" {100 * unsure:.0f} % of the poses hold less than 0.9 of their posterior: another may be right."
            )
        parts.append(tag("p", sentence))
        parts.append(figure(as_svg(curves.iterations(rows)), "Resolution and changes of pose over the iterations."))
    parts += [tag("p", note[:1].upper() + note[1:] + ".", class_="note") for note in refined.quality.get("notes") or []]
    parts += first_reference(refined.quality.get("first_reference"))
    parts += _symmetry(refined.quality.get("rotational_symmetry"), str(refined.quality.get("symmetry", "C1")))
    exposed = refined.quality.get("exposure_curves")
    if isinstance(exposed, dict) and exposed.get("exposure"):
        caption = (
            "Signal left over the exposure, by the images' agreement with the average of the other half set (points, "
            "with standard errors), the critical-exposure curve, and the published weights; all with the same sum over "
            "the exposures, as a factor common to all belongs to the average."
        )
        parts.append(figure(as_svg(curves.exposures(exposed)), caption))
    particles = contents.load("particles", refined)
    if particles is not None and len(particles):
        directions = particles.rotation.inv().apply([0.0, 0.0, 1.0])
        counts = [int(np.sum(particles.half_set == half)) for half in (1, 2)]
        caption = (
            f"Where the tomogram's z axis, the beam's direction at 0° tilt, lies in the reference: {len(particles)} "
            f"particles, {counts[0]} and {counts[1]} in the halves; 1 is an even spread."
        )
        parts.append(figure(as_svg(curves.orientations(np.atleast_2d(directions))), caption))
    return join(parts)


def first_reference(record: Any) -> list[Html]:
    """How the halves came to their first references, where none was given."""
    if not isinstance(record, dict) or not record.get("halves"):
        return []
    parts = []
    for half in record["halves"]:
        starts, trusted = half["starts"], half["trusted"]
        others = [start["standard_errors_behind"] for i, start in enumerate(starts) if i != trusted]
        behind = ", ".join(f"{value:.1f}" for value in others)
        agree = f"{starts[trusted]['agreement_with_other_half']:.2f}"
        parts.append(f"start {trusted + 1} of {len(starts)} (the others {behind} standard errors behind; {agree})")
    sentence = (
        "No reference was given. Each half trusts, of its own starts, the one that makes the particles it was not made "
        f"of most likely: half 1 {parts[0]}, half 2 {parts[1]}; the last figure is its map's agreement with the map "
        f"that the other half trusts. The first references correlate by {record['correlation_of_halves']:.2f}."
    )
    return [tag("p", sentence)]


def _symmetry(shown: Any, imposed: str = "C1") -> list[Html]:
    """What Cn the map shows, or showed before it was imposed."""
    if not isinstance(shown, dict):
        return []
    order, share = shown["order"], {int(n): value for n, value in shown["share"].items()}
    rest = ", ".join(f"{value:.2f} of C{n}" for n, value in share.items() if n != order)
    first = "No symmetry was imposed." if imposed == "C1" else _BEFORE.format(imposed)
    sentence = (
        f"{first} About an axis {np.hypot(*shown['point_A']):.0f} Å from the middle, leaning by "
        f"{np.hypot(*shown['lean_deg']):.0f}°, C{order} leaves {share[order]:.2f} of what varies about it as it is; by "
        f"chance it would be {1 / order:.2f}. The same part of other orders: {rest}."
    )
    return [tag("p", sentence)]
