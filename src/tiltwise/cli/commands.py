"""The commands of a project: new, import, run, status, report, evaluate; and the demo."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from tiltwise.cli.options import EXECUTION, json_option, project_argument, with_params
from tiltwise.data.errors import InputError


@click.command()
@click.option("--recipe", default="template", show_default=True, help="Starting recipe: template, spheres or movies.")
@click.option("--reference", metavar="FILE", help="Density map (MRC) to search with and to start the refinement from.")
@click.option("--centres", metavar="FILE", help="Sphere centres clicked in your own tomograms.")
@click.option("--gain", metavar="FILE", help="Gain reference of the camera, for movies.")
def new(project: str, recipe: str, **files: str | None) -> None:
    """Make a project folder with a starting recipe."""
    from tiltwise.project.create import new_project

    given = {name: file and Path(file) for name, file in files.items()}
    folder = new_project(Path(project), recipe=recipe, **given)
    click.echo(f"{folder / 'project.toml'} holds every step and parameter; next: tiltwise import {project} FILES")


@click.command("import")
@click.argument("paths", nargs=-1, required=True, metavar="PATHS...")
@click.option("--pixel-size-A", "pixel_size", type=float, metavar="Å", help="Pixel size of the images.")
@click.option("--tilt-axis-angle-deg", "tilt_axis_angle", type=float, metavar="°", help="Tilt axis, from image y.")
@click.option("--voltage-kV", "voltage", type=float, metavar="kV", help="Acceleration voltage.")
@click.option("--spherical-aberration-mm", "spherical_aberration", type=float, metavar="mm", help="Cs.")
@click.option("--amplitude-contrast", type=float, metavar="FRACTION", help="Fraction of amplitude contrast.")
@click.option("--exposure-e-A2", "exposure", type=float, metavar="e⁻/Å²", help="Exposure of each image.")
@click.option("--images", metavar="FOLDER", help="Where the separate images of an .mdoc lie, if not beside it.")
def import_(project: str, paths: tuple[str, ...], as_json: bool, **overrides: Any) -> None:
    """Read tilt series into a project.

    PATHS are stacks with an .mdoc or a .rawtlt beside them, .mdoc files with separate images, or folders of these. The
    images stay where they are. Options go before what the files say.
    """
    from tiltwise.cli.tables import show_import
    from tiltwise.project.importing import import_tilt_series

    series = import_tilt_series(Path(project), [Path(path) for path in paths], **overrides)
    if as_json:
        for one in series:
            click.echo(json.dumps(asdict(one), ensure_ascii=False))
    else:
        show_import(series)


@click.command()
@click.option(
    "--only",
    multiple=True,
    metavar="SERIES",
    help="Only this tilt series; may be repeated. Steps that take all are left out.",
)
@click.option("--from", "first", metavar="STEP", help="First step.")
@click.option("--to", "last", metavar="STEP", help="Last step.")
@click.option("--dry-run", is_flag=True, help="Say what would be done, and do nothing.")
def run(project: str, only: tuple[str, ...], first: str | None, last: str | None, dry_run: bool, **rest: Any) -> int:
    """Run what is not done yet, or no longer up to date."""
    from tiltwise.cli.running import run_and_show, show_plan

    if dry_run:
        return show_plan(Path(project), only or None, (first, last), rest["force"], rest["as_json"])
    return run_and_show(Path(project), only=only or None, steps=(first, last), **rest)


@click.command()
def status(project: str, as_json: bool) -> None:
    """Say what is done, outdated, failed or missing."""
    from tiltwise.cli.tables import show_status
    from tiltwise.project.state import project_status

    rows = project_status(Path(project))
    if as_json:
        for row in rows:
            click.echo(json.dumps(asdict(row), ensure_ascii=False))
    else:
        show_status(rows)


@click.command()
@click.option("--output", metavar="FILE", help="Where to write it; PROJECT/report.html if not given.")
def report(project: str, output: str | None) -> None:
    """Write one HTML file with figures of every stage."""
    from tiltwise.project.layout import check_project
    from tiltwise.report.write import write_report

    folder = check_project(Path(project))
    click.echo(write_report(folder, Path(output) if output else folder / "report.html"))


@click.command()
@click.option("--truth", required=True, metavar="FOLDER", help="The truth that a simulation wrote.")
def evaluate(project: str, truth: str, as_json: bool) -> None:
    """Measure every stage of a project against a simulation's truth."""
    from tiltwise.cli.tables import show_figures
    from tiltwise.project.layout import check_project
    from tiltwise.project.records import to_json

    folder = check_project(Path(project))
    if not Path(truth).is_dir():
        raise InputError(f"{truth}: no such folder")
    from tiltwise.workflows.evaluate import evaluate as evaluate_project

    figures = evaluate_project(folder, Path(truth))
    click.echo(json.dumps(to_json(figures), ensure_ascii=False)) if as_json else show_figures(figures)


@click.command()
@click.option("--output", default="demo", show_default=True, metavar="FOLDER", help="Where everything is written.")
@click.option("--seed", type=int, default=0, show_default=True, help="Seed of the specimen and of the microscope.")
@click.option("--model", metavar="FILE", help="Atomic model (PDB or mmCIF) to image instead of the procedural one.")
def demo(output: str, seed: int, model: str | None, as_json: bool) -> int:
    """Simulate tilt series with known truth, process them as a user would, and score the result."""
    from tiltwise.cli.running import demo_and_show

    if model and not Path(model).is_file():
        raise InputError(f"{model}: no such file")
    return demo_and_show(Path(output), seed=seed, model=Path(model) if model else None, as_json=as_json)


COMMANDS: tuple[click.Command, ...] = (
    with_params(project_argument())(new),
    with_params(project_argument(), json_option())(import_),
    with_params(project_argument(), *(option() for option in EXECUTION), json_option())(run),
    with_params(project_argument(), json_option())(status),
    with_params(project_argument())(report),
    with_params(project_argument(), json_option())(evaluate),
    with_params(json_option())(demo),
)
"""The commands in the order of their use."""
