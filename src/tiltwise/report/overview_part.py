"""The parts of a report about the whole project: what was done, what is not known, with which parameters."""

from typing import Any

import numpy as np

from tiltwise.project.layout import ALL
from tiltwise.report import curves
from tiltwise.report.contents import Contents, Entry
from tiltwise.report.page import Html, join, section, table, tag


def headline(contents: Contents) -> Html:
    """The few numbers that everyone asks for first."""
    refined, finished = contents.last_giving("half_maps", ALL), contents.last("postprocess", ALL)
    quality = (finished or refined).quality if finished or refined else {}
    resolution = quality.get("resolution_fsc_A")
    kinds = refined.species if refined else {}
    held = [contents.load("particles", refined, species=name) for name in kinds or ("",)]
    shown = [
        (len(contents.series), "tilt series"),
        (_used_tilts(contents), "tilt images used"),
        ("–" if None in held else sum(map(len, held)), "particles averaged"),
        (f"{resolution:.1f} Å" if isinstance(resolution, int | float) else "–", "resolution, half maps at FSC 0.143"),
    ]
    return tag(
        "div",
        *[tag("div", tag("b", value), tag("span", name), class_="number") for value, name in shown],
        class_="numbers",
    )


def _used_tilts(contents: Contents) -> str:
    known = [series for name in contents.series if (series := contents.tilt_series(name)) is not None]
    return f"{sum(int(np.sum(s.use)) for s in known)} of {sum(s.number for s in known)}" if known else "–"


def status_part(contents: Contents) -> Html:
    """Steps and series with how each stands, and every error."""
    items = [*contents.series, ALL] if contents.series else []
    rows = [[item, *[_state(contents.get(step, item)) for step, _ in contents.steps]] for item in items]
    failed = [entry for entry in contents.entries if entry.error]
    errors = [tag("p", tag("b", f"{e.step}/{e.item}", class_="failed"), ": ", e.error, class_="note") for e in failed]
    return section("What was done", table(["", *[step for step, _ in contents.steps]], rows), *errors)


def _state(entry: Entry | None) -> Html:
    if entry is None:
        return Html("")
    seconds = entry.record.get("seconds")
    took = f" {seconds:.0f} s" if isinstance(seconds, int | float) and entry.has_result else ""
    return join([tag("span", entry.state, class_=entry.state), tag("span", took, class_="soft")])


def unknown_part(contents: Contents) -> Html:
    """What the data did not say, or nobody asked them."""
    said = [sentence for name in contents.series for sentence in _unknown_of(contents, name)]
    refined, finished = contents.last_giving("half_maps", ALL), contents.last("postprocess", ALL)
    if refined is None:
        said.append("No map was averaged, so nothing is known of the resolution.")
    else:
        if not isinstance((finished or refined).quality.get("resolution_fsc_A"), int | float):
            said.append("The resolution of the map is not determined.")
        said.append(
            "The absolute hand of the map is not determined by these data; a structure of known hand has to decide it."
        )
        said.append("Resolution varies within a map; one number does not say where it is worse.")
    return section("What is not known", tag("ul", *[tag("li", sentence) for sentence in said]))


def _unknown_of(contents: Contents, name: str) -> list[str]:
    entry = contents.last("defocus", name)
    if entry is None:
        return [f"{name}: the defocus was not measured."]
    quality = entry.quality
    if quality.get("determined") is False:
        reason = quality.get("reason") or quality.get("why_not") or "the images show no rings"
        return [f"{name}: the defocus is not determined ({reason}); the maps are not corrected for it."]
    said = []
    lost = int(np.sum(~np.isfinite(curves.numbers(quality, "defocus_A"))))
    if lost:
        said.append(f"{name}: the defocus of {lost} {'tilt' if lost == 1 else 'tilts'} is not determined.")
    series = contents.tilt_series(name)  # a later step may have told the hand
    if quality.get("handedness") not in (1, -1) and getattr(series, "defocus_handedness", None) is None:
        said.append(f"{name}: the handedness of the tilt geometry is not determined.")
    return said


_METHODS = {
    "align": (
        "Tilt images were aligned without markers by cosine-stretched cross-correlation and projection matching, and "
        "by bundle adjustment of patches of the specimen or of gold beads where that placed held-out ones better."
    ),
    "defocus": "Contrast transfer was fitted to the power spectra of the whole series with the aligned geometry.",
    "reconstruct": "Tomograms were reconstructed by weighted back projection.",
    "pick": "Particles were found in the tomograms.",
    "polish": (
        "Tilt geometry, deformation, defocus and poses were refined on the particles against the raw tilt images; "
        "every change raised the likelihood of the half set that had no part in it."
    ),
    "frames": (
        "Shifts and weights of movie frames were refined on the particles and the frames summed anew, where the half "
        "set that had no part in it gained."
    ),
    "refine": "Particles were aligned against the tilt images and averaged in two halves, independent throughout.",
    "classify": (
        "Particles were sorted into classes by expectation-maximisation on the tilt images, none of them compared with "
        "a reference that it is part of."
    ),
    "postprocess": (
        "The resolution was measured between the half maps in a soft mask, corrected by phase randomisation (Chen et "
        "al. 2013), at 0.143. The map was weighted by its FSC and, where a B-factor is given, sharpened (Rosenthal & "
        "Henderson 2003)."
    ),
}


def methods_part(contents: Contents) -> Html:
    """A few sentences, and every parameter, version and seed."""
    done = [
        (step, stage)
        for step, stage in contents.steps
        if any(e.step == step and e.has_result for e in contents.entries)
    ]
    text = " ".join(_method(contents, step, stage) for step, stage in done)
    shown = [
        tag("details", tag("summary", step), _parameters(contents, step), _runs(contents, step))
        for step, _ in contents.steps
    ]
    return section("Methods and parameters", tag("p", text or "Nothing has been run yet."), *shown)


def _method(contents: Contents, step: str, stage: str) -> str:
    """What a step did, in a sentence; where it took over what the import gave, that instead, or for which series."""
    made = [entry for entry in contents.entries if entry.step == step and entry.has_result]
    given = [entry.item for entry in made if entry.quality.get("given")]
    own = _METHODS.get(stage, "") if len(given) < len(made) else ""
    which = "" if len(given) == len(made) else f" of {', '.join(given)}"
    what = "The particles" if stage == "pick" else "The alignment"
    verb = "were" if stage == "pick" else "was"
    taken = f"{what}{which} {verb} made by another program and taken over at import." if given else ""
    return " ".join(sentence for sentence in (own, taken) if sentence)


def _parameters(contents: Contents, step: str) -> Html:
    records = [entry.record for entry in contents.entries if entry.step == step and entry.record]
    params: dict[str, Any] = next((record["params"] for record in records if record.get("params")), {})
    rows = [(name, "from the data" if value is None else str(value)) for name, value in params.items()]
    return table(("Parameter", "Value"), rows) if rows else tag("p", "Not run.", class_="soft")


def _runs(contents: Contents, step: str) -> Html:
    rows = []
    for entry in contents.entries:
        record = entry.record
        if entry.step != step or not record:
            continue
        packages = ", ".join(f"{name} {version}" for name, version in (record.get("packages") or {}).items())
        rows.append(
            (
                entry.item,
                record.get("started", ""),
                _number(record.get("seconds"), "{:.1f} s"),
                _number(record.get("peak_memory_GB"), "{:.2f} GB"),
                f"{record.get('device', '')}, {record.get('threads', '?')} threads",
                "–" if record.get("seed") is None else record["seed"],
                f"tiltwise {record.get('tiltwise', '')}, {packages}",
                tag("code", str(record.get("fingerprint", ""))[:12]),
            )
        )
    header = ("Item", "Started", "Took", "Memory", "Ran on", "Seed", "Versions", "Fingerprint")
    return table(header, rows) if rows else Html("")


def _number(value: object, form: str) -> str:
    return form.format(value) if isinstance(value, int | float) else "–"
