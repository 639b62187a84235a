"""The command of one stage: its options are the fields of its params model, with units and defaults in the help."""

from typing import Any

import click

from tiltwise.cli.options import EXECUTION, json_option, project_argument
from tiltwise.cli.params_options import UNSET, given_values, params_options
from tiltwise.data.errors import InputError
from tiltwise.pipeline import Stage
from tiltwise.project.layout import check_project
from tiltwise.project.recipe import load_recipe, params_class
from tiltwise.project.recipe_text import set_params


def stage_command(stage: Stage) -> click.Command:
    """The command `tiltwise <stage>`: change the step's parameters in the recipe, and run that step."""
    model = params_class(stage)

    def run_stage(project: str, series: tuple[str, ...], step: str | None, as_json: bool, **given: Any) -> int:
        folder = check_project(project)
        name = step or _step_of(stage, folder)
        execution = {key: given.pop(key) for key in ("executor", "workers", "force")}
        changes = given_values(given)
        if changes:
            set_params(folder, name, changes)
            said = ", ".join(f"{key.replace('__', '.')} = {value}" for key, value in given.items() if value is not None)
            click.echo(f"project.toml: step {name}: {said}", err=as_json)
        from tiltwise.cli.running import run_and_show

        return run_and_show(folder, only=series or None, steps=(name, name), as_json=as_json, **execution)

    options: list[click.Parameter] = [
        project_argument(),
        click.Option(["--series"], multiple=True, metavar="NAME", help="Only this tilt series; may be repeated."),
        click.Option(["--step"], metavar="NAME", help="Which step, where the recipe has this stage more than once."),
        *params_options(model),
        *(option() for option in EXECUTION),
        json_option(),
    ]
    text = f"{model.__doc__ or stage.help}\n\nOptions given are written to project.toml; '{UNSET}' takes one back."
    return click.Command(stage.name, callback=run_stage, params=options, help=text, short_help=stage.help)


def _step_of(stage: Stage, folder: Any) -> str:
    names = [step.name for step in load_recipe(folder).steps if step.stage.name == stage.name]
    if not names:
        raise InputError(f"{folder}: the recipe has no step with stage {stage.name!r}")
    if len(names) > 1:
        raise InputError(
            f"{folder}: several steps have stage {stage.name!r}; choose one with --step: {', '.join(names)}"
        )
    return names[0]
