"""The part of a report about polishing: what each cycle brought, and what every gate said."""

import math
from collections.abc import Iterator
from typing import Any

from tiltwise.project.layout import ALL
from tiltwise.report.contents import Contents, Entry
from tiltwise.report.page import Html, join, section, table, tag

_NAMES = {
    "again": "all of these so far, fitted again",
    "shift": "shifts of the tilts",
    "angles": "axis and tilt angles",
    "magnification": "magnification",
    "sample": "deformation of the specimen",
    "warp": "warp of the images",
    "own": "defocus of each tilt",
    "motion": "paths of single particles",
    "astigmatism": "astigmatism",
    "scale": "amplitude of each tilt",
    "exposure": "curve of the exposures",
    "noise": "noise of each tilt",
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
        "Tilts that are lost are searched for first: where one half set puts one, the other must gain. "
        "Each block of parameters was fitted on the particles of one half set, and judged by the log likelihood that "
        "the other half's images gain by it, both ways, which must be more than chance gives; what is fitted again "
        "must gain over what the same half had given before. Poses are fitted on the "
        "reference of their own half and judged by that of the other; paths of single particles were fitted on one "
        "half of the tilts and judged by the other; the defocus of a series is judged by what both halves explain "
        "together. What does not gain is left as it was."
    )
    head = ("Cycle", "Tilt series", "Particles", "Block", "Half 1 gains", "Half 2 gains", "By chance", "")
    return join([tag("p", text), tag("details", tag("summary", "Every gate"), table(head, rows))])


def _gate_rows(quality: dict[str, Any]) -> Iterator[tuple]:
    for record in quality.get("cycles") or []:
        cycle = record["cycle"] or "as given"
        for kind, gate in (record.get("poses") or {}).items():
            yield _row(cycle, "all", kind, "poses", gate, taken=gate["accepted"])
        for name, gates in (record.get("gates") or {}).items():
            for tilt, found in (gates.get("found_tilts") or {}).items():
                start = "what it was given" if found["as_given"] else "where it stood"
                text = f"tilt {tilt}, found {math.hypot(*found['moved_A']):.0f} Å from {start}"
                yield _row(cycle, name, "", text, found, taken=True)
            for kind, found in _founds(gates, list(record.get("species") or ())):
                yield from _block_rows(cycle, name, kind, found)
            if shared := gates.get("common_defocus"):
                text = f"defocus of the series, {shared['change_A']:+.0f} Å"
                gate = {"gain": [shared["gain"], "both"], "chance": [shared["chance"]]}
                yield _row(cycle, name, "", text, gate, taken=bool(shared["change_A"]))


def _founds(gates: dict[str, Any], kinds: list[str]) -> Iterator[tuple[str, dict]]:
    """What was found of a series, with the kinds of particles by which."""
    for found in gates.get("geometry", []):
        yield ", ".join(kinds[number] for number in found.get("species", ()) if number < len(kinds)), found
    yield "", gates.get("defocus") or {}
    for group in ("motion", "weights"):
        yield from (gates.get(group) or {}).items()


def _block_rows(cycle: Any, name: str, kind: str, found: dict) -> Iterator[tuple]:
    """A row for each block, and one for what the images said to all that was fitted, where they were asked."""
    for block, gate in (found.get("blocks") or {}).items():
        taken = gate["accepted"] and bool(found.get("accepted"))
        refused = "fitted, but refused by the images" if gate["accepted"] else ""
        yield _row(cycle, name, kind, _NAMES.get(block, block), gate, taken=taken, refused=refused)
    if any(found.get("held_out_gain") or ()):
        gate = {"gain": found["held_out_gain"], "chance": [0.0]}
        yield _row(cycle, name, kind, "together, on images cut anew", gate, taken=found["accepted"])


def _row(cycle: Any, name: str, kind: str, text: str, gate: dict, *, taken: bool, refused: str = "") -> tuple:
    first, second = (f"{gain:+.1f}" if isinstance(gain, int | float) else gain for gain in gate["gain"])
    chance = " / ".join(f"{value:.1f}" for value in dict.fromkeys(gate.get("chance") or ()))
    return (cycle, name, kind, text, first, second, chance, "taken" if taken else refused)


def _shared(entry: Entry) -> Html:
    part = entry.quality.get("shared_parameters_per_observation")
    if not isinstance(part, int | float):
        return Html("")
    text = (
        f"The halves share the geometry, the defoci and the weights of the tilts, as they share the images: "
        f"{entry.quality['shared_parameters']:.0f} numbers that the images determine, {part:.1g} for each independent "
        "number in them. The correlation of the halves' noise that they cause is about as large as that, where all "
        "numbers count alike, beside a threshold of 0.143; it is an estimate, no bound."
    )
    return tag("p", text, class_="soft")


def _number(value: Any, unit: str) -> str:
    return f"{value:.2f}{unit}" if isinstance(value, int | float) else ""
