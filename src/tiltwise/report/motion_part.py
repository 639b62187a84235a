"""The panel of a report about the motion of the movies of one series."""

from typing import TYPE_CHECKING, Any

import numpy as np

from tiltwise.report.contents import Entry
from tiltwise.report.curves import numbers
from tiltwise.report.drawing import BLUE, GRAY, GREEN, ORANGE, as_svg, drawn, new_figure
from tiltwise.report.page import Html, figure, join, tag

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def motion_part(entry: Entry | None, series: Any) -> Html:
    """How the frames moved, how the gain reference lay, and what the held-out frames said; nothing without movies."""
    if entry is None:
        return Html("")
    quality = entry.quality
    kept = [kind for kind in quality.get("kept") or [] if kind is not None]
    counts = ", ".join(f"{kind} for {kept.count(kind)}" for kind in ("local", "whole", "none") if kind in kept)
    said = [f"Gain reference: {quality.get('gain_reference', 'not stated')}.", f"Motion kept, by tilts: {counts}."]
    path, local = numbers(quality, "path"), numbers(quality, "local_rms_A")
    if np.isfinite(path).any():
        said.append(f"The median tilt moves along a path of {np.nanmedian(path):.1f} Å.")
    if np.isfinite(local).any():
        said.append(f"Its parts differ by {np.nanmedian(local):.1f} Å rms.")
    angle = None if series is None else np.asarray(series.stage_tilt_angle)
    caption = (
        "Tracks of whole frames, each from its first; path and local motion of each tilt; how much less the held-out "
        "frames differ once the motion is taken back (above zero: better)."
    )
    drawing = as_svg(_curves(quality, angle))
    return join([tag("h3", "Motion"), tag("p", " ".join(said)), figure(drawing, caption)])


@drawn
def _curves(quality: dict[str, Any], angle: np.ndarray | None) -> "Figure":
    drawing, (tracks, lengths, gate) = new_figure(9.0, 2.6, columns=3)
    for track in quality.get("track_A") or []:
        if track is not None:
            x, y = np.array(track, dtype=float).T
            tracks.plot(x, y, "-", color=BLUE, linewidth=0.7, alpha=0.6)
            tracks.plot(x[-1:], y[-1:], "o", color=BLUE, markersize=2)
    tracks.set_aspect("equal", adjustable="datalim")
    tracks.set_xlabel("x (Å)")
    tracks.set_ylabel("y (Å)")
    for axis, keys, label in (
        (lengths, {"path": BLUE, "local_rms_A": ORANGE}, "motion (Å)"),
        (gate, {"gain_whole": BLUE, "gain_local": GREEN}, "held-out gain"),
    ):
        for key, color in keys.items():
            values = numbers(quality, key)
            place = np.arange(len(values)) if angle is None or len(angle) != len(values) else angle
            order = np.argsort(place)
            name = {"path": "path", "local_rms_A": "local, rms", "gain_whole": "whole", "gain_local": "local"}[key]
            axis.plot(place[order], values[order], "o-", color=color, label=name)
        axis.set_xlabel("image" if angle is None else "tilt angle (°)")
        axis.set_ylabel(label)
        axis.legend()
    gate.axhline(0, color=GRAY, linewidth=0.7)
    return drawing
