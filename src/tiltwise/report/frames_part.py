"""The panel of a report about the frames of one series, refined on its particles."""

from typing import Any

import numpy as np

from tiltwise.report.contents import Entry
from tiltwise.report.curves import numbers
from tiltwise.report.page import Html, join, table, tag

_NAMES = {
    "shift": "shifts of the frames",
    "field": "shifts that vary over the image",
    "critical": "weights of the critical-exposure curve",
    "measured": "weights as measured",
}


def frames_part(entry: Entry | None) -> Html:
    """What the gates said of the motion and the weights of frames; nothing where no frames were refined."""
    if entry is None:
        return Html("")
    quality = entry.quality
    return join([tag("h3", "Frames"), tag("p", " ".join(_said(quality))), _gates(quality)])


def _said(quality: dict[str, Any]) -> list[str]:
    said = [f"{note[:1].upper()}{note[1:]}." for note in quality.get("notes") or []]
    moved, error = numbers(quality, "moved_rms_A"), numbers(quality, "shift_error_A")
    if np.isfinite(moved).any():
        said.append(f"In the median tilt frames were moved by {np.nanmedian(moved):.2f} Å (rms),")
        said.append(f"each known to {np.nanmedian(error):.2f} Å along either axis.")
    b_factors = [course for course in quality.get("frame_b_factor_A2") or [] if course]
    if b_factors:
        first, last = (np.median([course[end] for course in b_factors]) for end in (0, -1))
        said.append(
            f"B factors beside the mean of a tilt: {first:+.0f} Å² in the first frame, {last:+.0f} in the last."
        )
    if not quality.get("taken"):
        said.append("Nothing was taken: the images are those from before.")
    return said


def _gates(quality: dict[str, Any]) -> Html:
    rows = [
        (
            _NAMES.get(block, block),
            *(f"{gain:+.1f}" for gain in gate["gain"]),
            " / ".join(f"{chance:.1f}" for chance in gate["chance"]),
            "taken" if block in (quality.get("taken") or ()) else "",
        )
        for block, gate in (quality.get("gates") or {}).items()
    ]
    text = (
        "Fitted on the particles of one half set, judged by the log likelihood that the other half's images gain by "
        "it, both ways, which must be more than chance gives."
    )
    if not rows:
        return Html("")
    return join([tag("p", text), table(("Block", "Half 1 gains", "Half 2 gains", "By chance", ""), rows)])
