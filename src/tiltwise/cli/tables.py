"""Tables for people."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import click

from tiltwise.project.state import ItemStatus

if TYPE_CHECKING:  # types only: status must not load what import needs
    from tiltwise.project.importing import ImportedSeries
    from tiltwise.project.particle_exchange import ImportedParticles

_COLOURS = {"done": "green", "outdated": "yellow", "failed": "red", "missing": None}


def show_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Columns as wide as they need to be: the first to the left, numbers to the right."""
    widths = [max(len(row[column]) for row in (header, *rows)) for column in range(len(header))]
    for row in (header, *rows):
        cells = (
            cell.ljust(width) if column == 0 else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        click.echo("  ".join(cells).rstrip())


def show_import(series: Sequence["ImportedSeries"]) -> None:
    """What was read of each series; notes that hold for all are said once."""
    header = ("series", "tilts", "used", "from °", "to °", "axis °", "pixel Å", "image px", "exposure e⁻/Å²")
    show_table(header, [_import_row(one) for one in series])
    shared = [note for note in series[0].notes if len(series) > 1 and all(note in one.notes for one in series)]
    for note in shared:
        click.echo(f"all: {note}")
    for one in series:
        for note in one.notes:
            if note not in shared:
                click.echo(f"{one.name}: {note}")


def show_imported_particles(series: Sequence["ImportedParticles"]) -> None:
    """What was read of the particles of each series."""
    rows = [
        (
            one.name,
            str(one.particles),
            str(one.regions) if one.regions else "not stated",
            f"{one.halves[0]} + {one.halves[1]}" if any(one.halves) else "not stated",
            one.form,
        )
        for one in series
    ]
    show_table(("particles of", "number", "regions", "half sets", "format"), rows)
    for note in dict.fromkeys(note for one in series for note in one.notes):
        click.echo(note)


def _import_row(one: "ImportedSeries") -> tuple[str, ...]:
    axis = "not stated" if one.tilt_axis_angle is None else f"{one.tilt_axis_angle:.1f}"
    return (
        one.name,
        str(one.tilts),
        str(one.used),
        f"{one.tilt_angle_min:.1f}",
        f"{one.tilt_angle_max:.1f}",
        axis,
        f"{one.pixel_size:.4g}",
        f"{one.image_shape[1]} × {one.image_shape[0]}",
        f"{one.exposure:.1f}",
    )


def show_status(rows: Sequence[ItemStatus]) -> None:
    """One line a step with its counts; items that failed with their error."""
    if not rows:
        click.echo("the recipe has no steps")
    for step in dict.fromkeys(row.step for row in rows):
        own = [row for row in rows if row.step == step]
        counts = {state: sum(row.state == state for row in own) for state in _COLOURS}
        said = ", ".join(
            click.style(f"{count} {state}", fg=_COLOURS[state]) for state, count in counts.items() if count
        )
        click.echo(f"{step:<14} {said}")
        for row in own:
            if row.state == "failed":
                click.echo(f"  {row.item}: {row.detail}")


def show_figures(figures: Mapping[str, Any]) -> None:
    """Named figures, one a line; nested ones below their name."""
    plain = {name: value for name, value in figures.items() if not isinstance(value, Mapping | list)}
    if plain:
        show_table(("figure", "value"), [(name, _figure(value)) for name, value in plain.items()])
    for name, value in figures.items():
        if isinstance(value, Mapping):
            click.echo(f"\n{name}")
            show_figures(value)


def _figure(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    return "not determined" if value is None else str(value).lower() if isinstance(value, bool) else str(value)
