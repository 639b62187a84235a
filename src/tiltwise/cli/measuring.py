"""Measurements of a finished project as the user sees them."""

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from functools import partial
from math import isinf
from pathlib import Path
from typing import TypeVar

import click

from tiltwise.cli.running import make_listener
from tiltwise.cli.tables import show_figures, show_table
from tiltwise.project.events import Event
from tiltwise.project.records import to_json
from tiltwise.project.threads import count_cores, keep_freed_memory

T = TypeVar("T")


def bfactor_and_show(folder: Path, *, seed: int, as_json: bool) -> int:
    """Average subsets of the particles, show how it goes, and print what they show; the exit code."""
    from tiltwise.workflows.particle_number import measure_particle_number

    found, files = _shown(
        "bfactor", as_json, lambda progress: measure_particle_number(folder, seed=seed, progress=progress)
    )
    if as_json:
        click.echo(json.dumps(to_json(asdict(found)), ensure_ascii=False))
        return 0
    rows = [(str(one.particles), "none" if isinf(one.resolution) else f"{one.resolution:.2f}") for one in found.subsets]
    show_table(("particles", "resolution Å"), rows)
    if found.b_factor is not None:
        click.echo(f"\nB-factor {found.b_factor:.0f} ± {found.b_factor_error:.0f} Å²")
    _say_notes_and_files([found.note], files)
    return 0


def export_relion_shown(
    folder: Path, output: Path, stacks: tuple[int | None, int], only: Sequence[str] | None, kind: str
) -> list[Path]:
    """Write RELION's optimisation set, with stacks of (box, binning) px where a box is given; the star files. kind:
    which of several kinds of particles."""
    from tiltwise.workflows.particle_stacks import export_relion

    box_size, binning = stacks
    work = partial(export_relion, folder, output, box_size=box_size, binning=binning, only=only, kind=kind)
    files, note = _shown("export", False, lambda progress: work(progress=progress))
    if note:
        click.echo(note)
    return files


def model_fsc_and_show(folder: Path, model: Path, *, as_json: bool) -> int:
    """Measure a model against the map, show how it goes, and print the figures; the exit code."""
    from tiltwise.workflows.model_fit import fit_model

    found, files = _shown("model-fsc", as_json, partial(fit_model, folder, model))
    figures = asdict(found)
    if as_json:
        click.echo(json.dumps(to_json(figures), ensure_ascii=False))
        return 0
    show_figures({name: value for name, value in figures.items() if not isinstance(value, tuple)})
    _say_notes_and_files(list(found.notes), files)
    return 0


def _say_notes_and_files(notes: list[str], files: list[Path]) -> None:
    for note in notes:
        if note:
            click.echo(f"note: {note}")
    click.echo(", ".join(str(file) for file in files))


def _shown(name: str, as_json: bool, work: Callable[..., T]) -> T:
    """Do work(progress=...), shown as one item of a step of this name."""
    keep_freed_memory()
    context, listener = make_listener(as_json)
    with context:
        listener(Event(kind="run_started", total={name: 1}, workers=1, threads=count_cores()))
        listener(Event(kind="item_started", step=name, item="all"))
        started = time.perf_counter()

        def progress(fraction: float, message: str) -> None:
            listener(Event(kind="item_progress", step=name, item="all", fraction=fraction, message=message))

        result = work(progress=progress)
        listener(Event(kind="item_done", step=name, item="all", seconds=time.perf_counter() - started))
    return result
