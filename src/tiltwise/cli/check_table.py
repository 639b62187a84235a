"""What `tiltwise check` prints."""

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import click
import numpy as np

from tiltwise.cli.tables import show_table
from tiltwise.io.session_findings import SeriesFindings

FAULTY = 3
_COLOURS = {"fault": "red", "missing": "yellow", "warning": "yellow", "assumed": None, "matches": "green"}


def show_session(series: Sequence[SeriesFindings], notes: Sequence[str], as_json: bool) -> int:
    """One row for each series, then what was found of it; exit code 3 if import would refuse one."""
    if as_json:
        for one in series:
            click.echo(json.dumps(_plain(asdict(one)), ensure_ascii=False))
        for note in notes:
            click.echo(json.dumps({"note": note}, ensure_ascii=False))
    else:
        _show(series, notes)
    return FAULTY if any(one.faults for one in series) else 0


def _show(series: Sequence[SeriesFindings], notes: Sequence[str]) -> None:
    header = (
        "series",
        "images",
        "kind",
        "from °",
        "to °",
        "step °",
        "axis °",
        "order",
        "e⁻/Å²",
        "total",
        "pixel Å",
        "gain",
        "import",
    )
    if series:
        show_table(header, [_row(one) for one in series])
    for one in series:
        click.echo(f"\n{one.name} ({one.source.name})")
        said = {
            "fault": one.faults,
            "missing": one.missing,
            "warning": one.warnings,
            "assumed": one.assumed,
            "matches": one.matches,
        }
        for kind, lines in said.items():
            for line in lines:
                click.echo(f"  {click.style(f'{kind:<8}', fg=_COLOURS[kind])} {line}")
    for note in notes:
        click.echo(f"note: {note}")


def _row(one: SeriesFindings) -> tuple[str, ...]:
    angles = one.tilt_angle
    return (
        one.name,
        f"{one.found} of {one.images}",
        one.kind,
        _number(float(angles.min()) if len(angles) else None, ".1f"),
        _number(float(angles.max()) if len(angles) else None, ".1f"),
        _number(one.tilt_step, ".2g"),
        _number(one.tilt_axis_angle, ".1f"),
        one.scheme or "?",
        _number(one.exposure, ".2f"),
        _number(one.total_exposure, ".0f"),
        _number(one.pixel_size, ".4g"),
        one.gain or ("?" if one.kind == "movies" else "-"),
        "refused" if one.faults else "after motion correction" if one.kind == "movies" else "ready",
    )


def _number(value: float | None, form: str) -> str:
    return "?" if value is None else format(value, form)


def _plain(value: object) -> object:
    if isinstance(value, dict):
        return {key: _plain(entry) for key, entry in value.items()}
    if isinstance(value, np.ndarray):
        return value.tolist()
    return str(value) if isinstance(value, Path) else value
