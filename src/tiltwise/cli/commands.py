"""The commands of a project, from check and new to export and report; the demo; the simulator and the plan."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from tiltwise.cli.options import (
    EXECUTION,
    GRID,
    IMPORTING,
    PARTICLES,
    given_grid,
    json_option,
    project_argument,
    with_params,
)
from tiltwise.cli.plan_command import plan_command
from tiltwise.data.errors import InputError


@click.command()
@click.option(
    "--recipe",
    default="template",
    show_default=True,
    metavar="NAME|FILE",
    help="Starting recipe: template, spheres, movies, classes, polished, that of a public deposit (empiar-10164, "
    "empiar-10304, empiar-10491), or a file like project.toml.",
)
@click.option(
    "--set",
    "changes",
    multiple=True,
    metavar="STEP.KEY=VALUE",
    help="Set a parameter of the recipe, as refine.symmetry=C6; may be repeated.",
)
@click.option("--reference", metavar="FILE", help="Density map (MRC) to search with and to start the refinement from.")
@click.option("--centres", metavar="FILE", help="Sphere centres clicked in your own tomograms.")
@click.option(
    "--shapes",
    metavar="FILE",
    help="Points on filaments or membranes, or their segmentation; {series} for each series.",
)
@click.option("--gain", metavar="FILE", help="Gain reference of the camera, for movies.")
@click.option("--defects", metavar="FILE", help="Defective pixels of the camera: an image, or a list of rectangles.")
@click.option("--focus", metavar="FILE", help="Mask (MRC) of the region in which classes may differ.")
def new(project: str, recipe: str, changes: tuple[str, ...], **files: str | None) -> None:
    """Make a project folder with a starting recipe."""
    from tiltwise.project.create import new_project
    from tiltwise.project.recipe_text import parse_changes

    given = {name: file and Path(file) for name, file in files.items()}
    folder = new_project(Path(project), recipe=recipe, params=parse_changes(changes), **given)
    click.echo(f"{folder / 'project.toml'} holds every step and parameter; next: tiltwise import {project} FILES")


@click.command("import")
@click.argument("paths", nargs=-1, metavar="PATHS...")
def import_(project: str, paths: tuple[str, ...], alignment: str | None, as_json: bool, **overrides: Any) -> int:
    """Read tilt series, or particles, into a project.

    PATHS are stacks with an .mdoc or a .rawtlt beside them, .mdoc files with separate images, or folders of these. The
    images stay where they are. Options go before what the files say. A series that comes with its alignment (of IMOD,
    AreTomo, Warp, RELION or the CryoET portal) is not aligned again: the step align takes over what is given. With
    --particles the step pick takes over the particles of that file; no PATHS are needed for series that are there.
    A series at fault is left out with the reason, and the exit code is 3.
    """
    from tiltwise.cli.running import FAILURES
    from tiltwise.cli.tables import show_import, show_imported_particles
    from tiltwise.project.importing import import_tilt_series

    particles = {option().name: overrides.pop(option().name) for option in PARTICLES}
    if not paths and particles["particles"] is None:
        raise InputError("nothing to import: name stacks, .mdoc files or folders of these, or --particles FILE")
    files = [Path(path) for path in paths]
    found = Path(alignment) if alignment else None
    faults: list[str] = []
    told = {"alignment": found, "on_fault": faults.append}
    series = import_tilt_series(Path(project), files, **told, **overrides) if files else []
    if faults and not series:
        for fault in faults[:-1]:
            click.echo(f"left out: {fault}", err=True)
        raise InputError(faults[-1])
    placed = _import_particles(Path(project), **particles) if particles["particles"] is not None else []
    if as_json:
        for one in (*series, *placed):
            click.echo(json.dumps(asdict(one), ensure_ascii=False))
        for fault in faults:
            click.echo(json.dumps({"left_out": fault}, ensure_ascii=False))
        return FAILURES if faults else 0
    if series:
        show_import(series)
    if placed:
        show_imported_particles(placed)
    for fault in faults:
        click.echo(f"left out: {fault}", err=True)
    return FAILURES if faults else 0


def _import_particles(
    project: Path,
    particles: str,
    particle_format: str | None,
    particle_tomograms: str | None,
    particle_voxel_size: float | None,
    particle_tomogram_size: str | None,
) -> list[Any]:
    from tiltwise.project.particle_exchange import import_particles

    tomograms = Path(particle_tomograms) if particle_tomograms else None
    grid = given_grid(particle_voxel_size, particle_tomogram_size)
    return import_particles(project, Path(particles), form=particle_format, tomograms=tomograms, grid=grid)


@click.command()
@click.argument("folder", metavar="FOLDER")
def check(folder: str, as_json: bool) -> int:
    """Say what a folder from the microscope holds, what is missing and what would be assumed.

    Reads metadata and headers only, and changes nothing. Exit code 3 if import would refuse a series.
    """
    from tiltwise.cli.check_table import show_session
    from tiltwise.io.session_folder import read_session

    return show_session(*read_session(Path(folder)), as_json=as_json)


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
@click.option("--watch", metavar="FOLDER", help="Import and run series as they are finished in this folder.")
@click.option(
    "--settle-s", "settle", type=float, metavar="s", help="Unchanged for so long, a series is finished [300]."
)
@click.option("--timeout-s", "timeout", type=float, metavar="s", help="Without change for so long, the watch ends.")
def run(project: str, only: tuple[str, ...], first: str | None, last: str | None, dry_run: bool, **rest: Any) -> int:
    """Run what is not done yet, or no longer up to date.

    With --watch, series are taken from FOLDER as the microscope finishes them; the options of import then apply. Steps
    that take all series run when the watch ends.
    """
    from tiltwise.cli.running import run_and_show, show_plan, watch_and_show

    names = ("settle", "timeout", *(option().name for option in IMPORTING))
    watching = {name: value for name in names if (value := rest.pop(name)) is not None}
    watched = rest.pop("watch")
    if watched:
        if only or dry_run or rest["force"]:
            raise InputError("--watch goes with none of --only, --dry-run and --force")
        return watch_and_show(Path(project), Path(watched), watching, steps=(first, last), **rest)
    if watching:
        given = ", ".join(name.replace("_", " ") for name in watching)
        raise InputError(f"{given}: is for series that --watch imports; for those here, give it to tiltwise import")
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
@click.option("--format", "form", metavar="FORMAT", help="Of the alignment: imod, aretomo, warp, relion or portal.")
@click.option(
    "--particles", metavar="FORMAT", help="Particles: relion, warp, m, dynamo, stopgap, em, copick or peet (with .mod)."
)
@click.option("--m-source", metavar="FILE", help="M's .source, which names its tilt series (--particles m).")
@click.option("--box", type=click.IntRange(min=8), metavar="px", help="Side of the 2D stacks (--particles relion).")
@click.option("--binning", type=click.IntRange(1, 16), default=1, show_default=True, help="Binning of the 2D stacks.")
@click.option("--output", required=True, metavar="FOLDER", help="Where to write the files.")
@click.option("--only", multiple=True, metavar="SERIES", help="Only this tilt series; may be repeated.")
@click.option("--kind", default="", metavar="NAME", help="Of several kinds of particles, this one.")
def export(
    project: str, form: str | None, particles: str | None, output: str, only: tuple[str, ...], **rest: Any
) -> int:
    """Write the alignment, or the particles, as files of another program.

    Lists of particles count on the tomograms of the project; --particle-voxel-size-A and --particle-tomogram-size name
    another, and M's on the volume of its source. RELION's particles are an optimisation set, with 2D stacks of --box
    pixels if that is given.
    """
    from tiltwise.cli.exporting import export_and_show

    if (form is None) == (particles is None):
        raise InputError("export writes either the alignment (--format) or the particles (--particles)")
    return export_and_show(
        Path(project),
        Path(output),
        alignment=form,
        particles=particles,
        stacks=(rest["box"], rest["binning"]),
        only=only or None,
        kind=rest["kind"],
        counted_on=(given_grid(rest["particle_voxel_size"], rest["particle_tomogram_size"]), rest["m_source"]),
    )


@click.command()
def history(project: str) -> None:
    """Print how a project came to be, as a script that makes it again."""
    from tiltwise.project.history import history_script

    click.echo(history_script(Path(project)), nl=False)


@click.command()
@click.option("--folder", default=".", metavar="FOLDER", help="Where projects are to lie, for its disk space.")
def doctor(folder: str, as_json: bool) -> int:
    """Say what this machine offers and what is missing. Exit code 3 if something needed is missing."""
    from tiltwise.cli.tables import show_table
    from tiltwise.project.machine import examine_machine

    findings = examine_machine(Path(folder))
    if as_json:
        for one in findings:
            click.echo(json.dumps(asdict(one), ensure_ascii=False))
    else:
        show_table(("looked at", "", "found"), [(one.what, one.verdict, one.found) for one in findings])
        for one in findings:
            if one.advice:
                click.echo(f"{one.what}: {one.advice}")
    return 3 if any(one.verdict == "missing" for one in findings) else 0


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
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Seed of the random subsets.")
def bfactor(project: str, seed: int, as_json: bool) -> int:
    """Plot the resolution against the number of particles, with the B-factor.

    Random halves, quarters and so on of the refined particles are averaged at their poses. Writes bfactor.json and
    bfactor.png into the project.
    """
    from tiltwise.cli.measuring import bfactor_and_show

    return bfactor_and_show(Path(project), seed=seed, as_json=as_json)


@click.command("model-fsc")
@click.argument("model", metavar="MODEL")
def model_fsc(project: str, model: str, as_json: bool) -> int:
    """Measure an atomic model (PDB or mmCIF) against the map of a project.

    The model is fitted as one rigid body, from its place in the file, else wherever it fits best; its mirror image too,
    to tell the hand. Writes model-fsc.json and model-fsc.png into the project.
    """
    from tiltwise.cli.measuring import model_fsc_and_show

    return model_fsc_and_show(Path(project), Path(model), as_json=as_json)


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


@click.command()
@click.argument("output", metavar="OUTPUT")
@click.option("--preset", metavar="NAME", help="ribosome-70s, hiv-lattice, apoferritin, small-300kda or crowded-cell.")
@click.option("--params", metavar="FILE", help="TOML with [scene...] and [microscope...] values to change.")
@click.option("--model", metavar="FILE", help="Atomic model (PDB or mmCIF) of the target, not the procedural one.")
@click.option("--series", type=click.IntRange(1, 999), default=1, show_default=True, help="Number of tilt series.")
@click.option("--movies", type=click.Choice(["tif", "mrc"]), help="Also write frames, with motion, and the gain.")
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Seed of everything random.")
@click.option("--pixel-size", type=float, metavar="Å", help="Pixel size of the images.")
@click.option("--image-size", type=int, metavar="px", help="Side of the square images.")
@click.option("--particles", type=int, metavar="N", help="Copies of the target in the untilted field.")
@click.option("--thickness", type=float, metavar="Å", help="Thickness of the ice.")
@click.option("--tilt-max", type=float, metavar="°", help="Largest tilt angle, to both sides.")
@click.option("--tilt-step", type=float, metavar="°", help="Step of the tilt angle.")
@click.option("--exposure", type=float, metavar="e⁻/Å²", help="Exposure of each tilt image.")
@click.option("--frames", type=int, metavar="N", help="Frames of each tilt's movie.")
@click.option("--workers", type=click.IntRange(min=1), help="Tilts imaged at once; the bits do not depend on it.")
def simulate(
    output: str, preset: str | None, params: str | None, model: str | None, seed: int, as_json: bool, **rest: Any
) -> int:
    """Simulate a microscope session with known truth.

    OUTPUT becomes a folder: OUTPUT/data is what a microscope leaves (stacks or movies, .mdoc, .rawtlt, gain),
    OUTPUT/truth all that it does not know. It appears whole at the end, or not at all.
    """
    from tiltwise.cli.running import simulate_and_show

    if model and not Path(model).is_file():
        raise InputError(f"{model}: no such file")
    running = {name: rest.pop(name) for name in ("series", "movies", "workers")}
    session = {"preset": preset, "params": params and Path(params), "seed": seed, "values": rest}
    return simulate_and_show(
        Path(output), as_json=as_json, session=session, model=Path(model) if model else None, **running
    )


COMMANDS: tuple[click.Command, ...] = (
    with_params(project_argument())(new),
    with_params(json_option())(check),
    with_params(project_argument(), *(o() for o in (*IMPORTING, *PARTICLES)), json_option())(import_),
    with_params(project_argument(), *(o() for o in EXECUTION), *(o() for o in IMPORTING), json_option())(run),
    with_params(project_argument(), json_option())(status),
    with_params(project_argument())(report),
    with_params(project_argument(), *(o() for o in GRID))(export),
    with_params(project_argument())(history),
    with_params(json_option())(doctor),
    with_params(project_argument(), json_option())(evaluate),
    with_params(project_argument(), json_option())(bfactor),
    with_params(project_argument(), json_option())(model_fsc),
    with_params(json_option())(demo),
    plan_command(),
    with_params(json_option())(simulate),
)
"""The commands in the order of their use."""
