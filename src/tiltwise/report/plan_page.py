"""The page of a plan: one HTML file with sliders, which computes for itself and asks nobody for anything."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tiltwise.params.plan import PlanParams
from tiltwise.report.page import Html, document, join, section, table, tag

_POLICY = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; img-src data:"
_SCHEMES = {
    "dose_symmetric": "dose-symmetric",
    "bidirectional": "bidirectional",
    "unidirectional": "unidirectional",
    "continuous": "continuous",
}
_NUMBERS = (
    ("resolution", "expected resolution"),
    ("band", "with 3 × and 1/3 of the particles"),
    ("needed", "particles for the target"),
    ("hours", "tilt series / time for them"),
    ("each", "exposure of an image"),
    ("noise", "noise, first to last image, 10 Å pixels"),
    ("best", "best number"),
    ("sampled", "a particle is sampled to"),
)
_PLOTS = (
    ("fan", "What is sampled: each image is a slice of Fourier space; pale slices are damaged at the target."),
    ("spot", "How many tilts: sampling grows, alignment falls; dashed, this plan."),
    ("damage", "What exposure and ice leave of each image."),
    ("noise", "Noise of each image in 10 Å pixels, from the electrons that arrive."),
    ("fsc", "Agreement of half maps; shaded, 3 × and 1/3 of the particles; dashed, 0.143."),
    ("number", "Resolution against particles; dashed, the target."),
)


def write_plan_page(path: Path, model: Mapping[str, Any], summary: Mapping[str, Any], params: PlanParams) -> Path:
    """Write the page from the tables of plan/page_model.py and the numbers of plan/summary.py; gives where it is."""
    body = join(
        [
            tag("h1", "A plan of tilt series"),
            tag("p", _lead(params), class_="soft"),
            _knobs(summary["figures"], params),
            tag("div", *[_number(key, label) for key, label in _NUMBERS], class_="numbers"),
            tag("div", *[_plot(key, label) for key, label in _PLOTS], class_="plots"),
            tag("noscript", "The sliders and drawings need JavaScript; the tables below do not."),
            _as_planned(summary),
            _table_of_tilts(summary),
            _assumptions(summary, params),
            tag("script", Html(_safe_json(model)), type="application/json", id="model"),
            *[tag("script", Html(_source(name))) for name in ("plan_model.js", "plan_page.js")],
        ]
    )
    path = Path(path)
    policy = tag("meta", http_equiv="Content-Security-Policy", content=_POLICY)
    path.write_text(
        document("A plan · tiltwise", body, policy, tag("style", Html(_source("plan_page.css")))), encoding="utf-8"
    )
    return path


def _lead(params: PlanParams) -> str:
    target = params.target
    return (
        f"{target.molecular_weight / 1e6:.3g} MDa, {target.diameter:g} Å, {target.symmetry}; {params.voltage:g} kV, "
        f"{params.pixel_size:g} Å a pixel. Drag to see what changes; everything is computed in this page."
    )


def _knobs(figures: Mapping[str, Any], params: PlanParams) -> Html:
    half = (params.tilting.tilt_max - params.tilting.tilt_min) / 2
    centre = (params.tilting.tilt_max + params.tilting.tilt_min) / 2
    widest = min(params.session.holder_limit - abs(centre), 84 - abs(centre - params.slab.pretilt))
    thickest = max(5000, params.slab.thickness)
    thinnest = max(params.target.diameter, 2 * params.slab.damage_layer + 1)
    options = [tag("option", label, value=name) for name, label in _SCHEMES.items()]
    return tag(
        "div",
        _slider("tilts", "number of tilts", 11, max(181, figures["tilts"]), 2),
        _slider("exposure", "total exposure", 10, max(300, figures["total_exposure_e_A2"]), "any"),
        _slider("thickness", "thickness of the ice", thinnest, thickest, "any"),
        _slider("range", "range, to both sides", min(20, half), max(half, widest), 1),
        _slider("particles", "particles", 1, 7, 0.01),
        _slider("target", "resolution wanted", 2 * params.pixel_size, max(40, params.target.resolution), "any"),
        tag("label", "scheme", tag("select", *options, id="in-scheme")),
        tag("label", "as planned", tag("button", "back to the plan", id="reset", type="button")),
        class_="knobs",
    )


def _slider(name: str, label: str, low: float, high: float, step: object) -> Html:
    entry = Html(
        f'<input type="range" id="in-{name}" min="{low:g}" max="{high:g}" step="{step}" aria-label="{label}"/>'
    )
    return tag("label", label, tag("output", "", id=f"val-{name}"), entry)


def _number(key: str, label: str) -> Html:
    return tag("div", tag("b", "", id=f"out-{key}"), tag("span", label), class_="number")


def _plot(key: str, caption: str) -> Html:
    return tag("figure", Html(f'<svg id="{key}" role="img" aria-label="{caption}"></svg>'), tag("figcaption", caption))


def _as_planned(summary: Mapping[str, Any]) -> Html:
    rows = [
        (row["particles"], row["series"], *(_said(row[key], 1) for key in ("resolution_A", "fine_A", "coarse_A")))
        for row in summary["resolution_by_particles"]
    ]
    header = ("particles", "tilt series", "resolution (Å)", "with 3 × as many (Å)", "with 1/3 (Å)")
    notes = [tag("p", warning, class_="note") for warning in summary["warnings"]]
    return section("As planned", tag("p", f"Exposure: {summary['exposure_reason']}."), *notes, table(header, rows))


def _table_of_tilts(summary: Mapping[str, Any]) -> Html:
    shown = (
        ("tilt_angle_deg", "tilt (°)", 1),
        ("exposure_e_A2", "exposure (e⁻/Å²)", 2),
        ("pre_exposure_e_A2", "before it (e⁻/Å²)", 1),
        ("path_A", "path (Å)", 0),
        ("transmission", "electrons through", 2),
        ("amplitude_left", "amplitude left at the target", 3),
        ("information_share", "share of the information", 3),
        ("image_snr", "SNR of a particle", 3),
    )
    rows = [(row["order"] + 1, *(_said(row[key], digits) for key, _, digits in shown)) for row in summary["tilts"]]
    return section("Tilts in their order", table(("image", *(label for _, label, _ in shown)), rows))


def _assumptions(summary: Mapping[str, Any], params: PlanParams) -> Html:
    said = [(key.replace("_", " "), _text(value)) for key, value in summary["assumptions"].items()]
    for group, values in params.model_dump().items():
        entries = values if isinstance(values, dict) else {"": values}
        said += [(f"{group}.{name}".rstrip("."), _text(value)) for name, value in entries.items()]
    return section("What is assumed", table(("assumption", "value"), said))


def _said(value: float | None, digits: int) -> str:
    return "not reached" if value is None else f"{value:.{digits}f}"


def _text(value: object) -> str:
    return "from the data" if value is None else f"{value:g}" if isinstance(value, float) else str(value)


def _safe_json(value: Mapping[str, Any]) -> str:
    """JSON that cannot end the element it stands in."""
    return json.dumps(value, ensure_ascii=False, allow_nan=False).replace("<", "\\u003c")


def _source(name: str) -> str:
    return Path(__file__).with_name(name).read_text(encoding="utf-8")
