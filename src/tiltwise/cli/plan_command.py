"""`tiltwise plan`: its options are the fields of the plan's parameters; several plans are shown side by side."""

import itertools
import json
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from tiltwise.cli.options import json_option
from tiltwise.cli.params_options import given_values, params_options, typed_value
from tiltwise.cli.tables import show_table
from tiltwise.data.errors import InputError
from tiltwise.params.base import Params
from tiltwise.params.plan import PlanParams
from tiltwise.project.recipe import check_params
from tiltwise.project.recipe_text import flatten, merge

if TYPE_CHECKING:  # help must not load what predicts
    from tiltwise.plan import Plan

_MOST = 12  # plans side by side
_HELP = """What a tilt scheme costs and yields, before the session.

PLANS are TOML files as --output writes them, none for the defaults; options go before what they say. Several files, or
--compare KEY=A,B,..., are shown side by side.

\b
tiltwise plan --scheme dose_symmetric --tilt-step 2 --thickness 2000
tiltwise plan --compare scheme=unidirectional,bidirectional,dose_symmetric
tiltwise plan --molecular-weight 465e3 --diameter 130 --symmetry O --resolution 4 --pixel-size 1.35 --output session
"""
_ROWS = (  # label, key, format
    ("tilts", "tilts", "{:.0f}"),
    ("total exposure, e⁻/Å²", "total_exposure_e_A2", "{:.1f}"),
    ("optimum at the target, integrated, e⁻/Å²", "optimum_exposure_integrated_e_A2", "{:.1f}"),
    ("optimum at the target, terminal, e⁻/Å²", "optimum_exposure_terminal_e_A2", "{:.1f}"),
    ("resolution of {particles} particles, Å", "resolution_A", "{:.1f}"),
    ("  with 3 × as many, Å", "resolution_band_fine_A", "{:.1f}"),
    ("  with 1/3 of them, Å", "resolution_band_coarse_A", "{:.1f}"),
    ("particles for {resolution:g} Å", "particles_needed", "{:.0f}"),
    ("  band, from", "particles_needed_least", "{:.0f}"),
    ("  band, to", "particles_needed_most", "{:.0f}"),
    ("tilt series for them", "series_needed", "{:.0f}"),
    ("minutes a series", "series_minutes", "{:.1f}"),
    ("hours at the microscope", "hours_needed", "{:.1f}"),
    ("best number of tilts", "best_number_of_tilts", "{:.0f}"),
    ("tilts that sample fully (Crowther)", "crowther_number_of_tilts", "{:.0f}"),
    ("sampled by this step: particle to, Å", "crowther_particle_A", "{:.1f}"),
    ("sampled by this step: slab to, Å", "crowther_slab_A", "{:.0f}"),
    ("missing wedge, part of Fourier space", "missing_wedge_fraction", "{:.3f}"),
    ("elongation along the beam", "elongation", "{:.2f}"),
    ("SNR of a particle, first image at 10 Å/px", "image_snr_first_tilt", "{:.3f}"),
    ("SNR of a particle, last image", "image_snr_last_tilt", "{:.3f}"),
    ("longest path, mean free paths", "longest_path_mean_free_paths", "{:.2f}"),
    ("defocus spread, Å", "defocus_spread_A", "{:.0f}"),
    ("  that fills every CTF zero there, Å", "defocus_spread_filling_zeros_A", "{:.0f}"),
    ("delocalisation at the target, Å", "delocalisation_A", "{:.0f}"),
)


def plan_command() -> click.Command:
    """The command with one option for each parameter, groups flattened."""
    options = [
        click.Argument(["files"], nargs=-1, metavar="[PLANS...]"),
        click.Option(
            ["--compare"], multiple=True, metavar="KEY=A,B,...", help="Side by side: one plan for each value."
        ),
        click.Option(
            ["--output"], metavar="FOLDER", help="Write tables, settings, mock .mdoc, JSON and the page here."
        ),
        click.Option(["--verify"], is_flag=True, help="Also simulate the plan, average, and compare (minutes)."),
        *params_options(PlanParams, short=True),
        json_option(),
    ]
    return click.Command("plan", callback=_run, params=options, help=_HELP, short_help=_HELP.splitlines()[0])


def _run(
    files: tuple[str, ...], compare: tuple[str, ...], output: str | None, verify: bool, as_json: bool, **given: Any
) -> None:
    params = _variants(files, compare, given_values(given))
    from tiltwise.plan import make_plan
    from tiltwise.plan.summary import figures, resolution_table, summarise

    plans = {name: make_plan(one) for name, one in params.items()}
    if as_json:
        for name, plan in plans.items():
            click.echo(json.dumps({"plan": name, **summarise(plan)}, ensure_ascii=False))
    else:
        _show({name: figures(plan) for name, plan in plans.items()}, plans)
        if len(plans) == 1:
            _show_numbers(resolution_table(next(iter(plans.values()))))
    if output:
        _write(Path(output), plans, quiet=as_json)
    if verify:
        for name, one in params.items():
            _verify(name if len(params) > 1 else "", one, as_json)


def _variants(files: tuple[str, ...], compare: tuple[str, ...], given: dict[str, Any]) -> dict[str, PlanParams]:
    """The plans asked for, by the names under which they are shown."""
    read = {Path(file).stem: _read(file) for file in files} or {"plan": {}}
    if len(files) > len(read):
        raise InputError("two plans have the same file name: rename one")
    alternatives = [_alternatives(text) for text in compare]
    found: dict[str, PlanParams] = {}
    for (stem, values), *chosen in itertools.product(read.items(), *alternatives):
        merged = merge(values, given)
        for _, change in chosen:
            merged = merge(merged, change)
        said = [stem] if len(read) > 1 or not chosen else []
        name = ", ".join([*said, *(label for label, _ in chosen)])
        found[name] = check_params(PlanParams, merged, name if files else "plan")
    if len(found) > _MOST:
        raise InputError(f"{len(found)} plans side by side are too many; at most {_MOST}")
    return found


def _read(file: str) -> dict[str, Any]:
    try:
        return tomllib.loads(Path(file).read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"{file}: cannot be read ({error.strerror or error})") from None
    except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise InputError(f"{file}: not TOML ({error})") from None


def _alternatives(text: str) -> list[tuple[str, dict[str, Any]]]:
    """What `--compare key=a,b` means: a label and the nested change for each value."""
    key, _, values = text.partition("=")
    paths = {path[-1]: path for path in field_paths(PlanParams)}
    path = paths.get(key.strip().split(".")[-1].replace("-", "_"))
    if path is None or not values.strip():
        raise InputError(
            f"--compare {text!r}: give a parameter and values, such as scheme=unidirectional,dose_symmetric"
        )
    found = []
    for value in values.split(","):
        change: Any = typed_value(value.strip())
        for part in reversed(path):
            change = {part: change}
        found.append((value.strip(), change))
    return found


def field_paths(model: type[Params], above: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    """The path of every field of a model, groups before their fields."""
    paths: list[tuple[str, ...]] = []
    for name, field in model.model_fields.items():
        group = isinstance(field.annotation, type) and issubclass(field.annotation, Params)
        paths += field_paths(field.annotation, (*above, name)) if group else [(*above, name)]
    return paths


def _show(figures: dict[str, dict[str, float]], plans: dict[str, "Plan"]) -> None:
    """Plans as columns, then what each has to be warned of."""
    first = next(iter(plans.values())).params.target
    alike = all(
        (plan.params.target.particles, plan.params.target.resolution) == (first.particles, first.resolution)
        for plan in plans.values()
    )
    words = {"particles": first.particles, "resolution": first.resolution}
    rows = []
    for label, key, form in _ROWS:
        said = label.format(**words) if alike or "{" not in label else label.split(" {")[0]
        rows.append((said, *(_cell(values[key], form) for values in figures.values())))
    show_table(("", *figures), rows)
    click.echo("")
    for name, plan in plans.items():
        lead = f"{name}: " if len(plans) > 1 else ""
        click.echo(f"{lead}exposure: {plan.exposure_reason}")
        for warning in plan.warnings:
            click.echo(f"{lead}note: {warning}")
    click.echo("predictions hold to a factor of 3 in the number of particles, for well-behaved specimens")
    differing = differing_fields([plan.params for plan in plans.values()])
    if len(plans) > 1 and differing:
        click.echo(f"these plans differ in: {', '.join(differing)}")


def _show_numbers(rows: list[dict[str, float]]) -> None:
    """What other numbers of particles would give."""
    click.echo("")
    header = ("particles", "series", "resolution Å", "with 3 ×", "with 1/3")
    keys = ("resolution_A", "fine_A", "coarse_A")
    show_table(
        header,
        [(str(row["particles"]), str(row["series"]), *(_cell(row[key], "{:.1f}") for key in keys)) for row in rows],
    )


def differing_fields(params: list[PlanParams]) -> list[str]:
    """The parameters in which plans differ."""
    flat = [flatten(one.model_dump()) for one in params]
    return [".".join(path) for path in flat[0] if len({repr(one.get(path)) for one in flat}) > 1]


def _cell(value: float, form: str) -> str:
    return "not reached" if value in (float("inf"), float("-inf")) else form.format(value)


def _write(output: Path, plans: dict[str, "Plan"], *, quiet: bool) -> None:
    from tiltwise.workflows.plan_files import write_plan

    for name, plan in plans.items():
        folder = output if len(plans) == 1 else output / "".join(c if c.isalnum() or c in "-_." else "_" for c in name)
        written = write_plan(folder, plan)
        click.echo(f"{folder}: {', '.join(path.name for path in written)}", err=quiet)


def _verify(name: str, params: PlanParams, as_json: bool) -> None:
    """Simulate, average and measure; particle numbers are fixed, so that minutes are enough."""
    from tiltwise.workflows.verify_plan import verify_plan

    rows = verify_plan(params, progress=lambda _, text: click.echo(f"{name or 'verify'}: {text}", err=True))
    if as_json:
        for row in rows:
            click.echo(json.dumps({"verified": name, **row}, ensure_ascii=False))
        return
    header = ("particles", "predicted Å", "half maps Å", "to truth Å", "factor in N", "by the truth")
    keys = ("predicted_A", "measured_half_maps_A", "measured_truth_A", "factor_in_N", "factor_in_N_truth")
    click.echo(
        f"\n{name + ': ' if name else ''}against the simulator (factor in N below 1: the model promises too much)"
    )
    show_table(header, [(str(row["particles"]), *(f"{row[key]:.2f}" for key in keys)) for row in rows])
