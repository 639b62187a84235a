"""The part of a report about polishing: what each cycle brought, and what every gate said."""

from collections.abc import Iterator
from typing import Any

from tiltwise.project.layout import ALL
from tiltwise.report.contents import Contents, Entry
from tiltwise.report.page import Html, join, section, table, tag

_NAMES = {
    "shift": "shifts of the tilts",
    "angles": "axis and tilt angles",
    "magnification": "magnification",
    "sample": "deformation of the specimen",
    "warp": "warp of the images",
    "own": "defocus of each tilt",
    "motion": "paths of single particles",
    "astigmatism": "astigmatism",
}


def polish_part(contents: Contents) -> Html:
    """Cycles and gates; nothing where nothing was polished."""
    entry = contents.last("polish", ALL)
    return Html("") if entry is None else section("Polishing", _cycles(entry), _gates(entry), _shared(entry))


def _cycles(entry: Entry) -> Html:
    rows = [
        (
            " · ".join(str(part) for part in (record["cycle"] or "as given", name) if part),
            f"{found['resolution_fsc_A']:.2f} Å",
            _number(found.get("rotation_change_deg"), "°"),
            _number(found.get("shift_change_A"), " Å"),
            "" if record.get("kept", True) else "undone: the half maps agree less",
        )
        for record in entry.quality.get("cycles") or []
        for name, found in (record.get("species") or {"": record}).items()
    ]
    return table(("Cycle", "Half maps at FSC 0.143", "Particles turned by", "moved by", ""), rows)


def _gates(entry: Entry) -> Html:
    rows = list(_gate_rows(entry.quality))
    text = (
        "Each block of parameters was fitted on the particles of one half set, and judged by the log likelihood that "
        "the other half's images gain by it, both ways. Paths of single particles were fitted on one half of the tilts "
        "and judged by the other. Blocks that do not gain in both are left as they were."
    )
    head = ("Cycle", "Tilt series", "Block", "Half 1 gains", "Half 2 gains", "")
    return join([tag("p", text), tag("details", tag("summary", "Every gate"), table(head, rows))])


def _gate_rows(quality: dict[str, Any]) -> Iterator[tuple]:
    for record in quality.get("cycles") or []:
        for name, gates in (record.get("gates") or {}).items():
            shared = gates.get("common_defocus")
            if shared:
                text = f"defocus of the series, {shared['change_A']:+.0f} Å"
                yield (
                    record["cycle"],
                    name,
                    text,
                    f"{shared['gain']:+.1f}",
                    "both",
                    "taken" if shared["change_A"] else "",
                )
            paths = (gates.get("motion") or {}).values()
            for found in [*gates.get("geometry", []), gates.get("defocus") or {}, *paths]:
                for block, gate in (found.get("blocks") or {}).items():
                    first, second = gate["gain"]
                    taken = gate["accepted"] and found.get("accepted")
                    refused = "fitted, but refused by the images" if gate["accepted"] else ""
                    yield (
                        record["cycle"],
                        name,
                        _NAMES.get(block, block),
                        f"{first:+.1f}",
                        f"{second:+.1f}",
                        "taken" if taken else refused,
                    )


def _shared(entry: Entry) -> Html:
    part = entry.quality.get("shared_parameters_per_observation")
    if not isinstance(part, int | float):
        return Html("")
    text = (
        f"The halves share the geometry, as they share the images: {entry.quality['shared_parameters']:.0f} numbers "
        f"that the images determine, {part:.1g} for each independent number in them. So much correlation of the "
        "halves' noise they can cause at most, beside a threshold of 0.143."
    )
    return tag("p", text, class_="soft")


def _number(value: Any, unit: str) -> str:
    return f"{value:.2f}{unit}" if isinstance(value, int | float) else ""
