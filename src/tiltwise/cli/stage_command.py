"""The command of one stage: its options are the fields of its params model, with units and defaults in the help."""

import tomllib
import types
import typing
from typing import Any

import click
from pydantic.fields import FieldInfo

from tiltwise.cli.options import EXECUTION, json_option, project_argument
from tiltwise.data.errors import InputError
from tiltwise.params.base import Params
from tiltwise.pipeline import Stage
from tiltwise.project.layout import check_project
from tiltwise.project.recipe import load_recipe, params_class
from tiltwise.project.recipe_text import set_params, unit_of

_UNSET = "unset"


def stage_command(stage: Stage) -> click.Command:
    """The command `tiltwise <stage>`: change the step's parameters in the recipe, and run that step."""
    model = params_class(stage)

    def run_stage(project: str, series: tuple[str, ...], step: str | None, as_json: bool, **given: Any) -> int:
        folder = check_project(project)
        name = step or _step_of(stage, folder)
        execution = {key: given.pop(key) for key in ("executor", "workers", "force")}
        changes = _changes(model, given)
        if changes:
            set_params(folder, name, changes)
            said = ", ".join(
                f"{key} = {'unset' if value is None else value}" for key, value in given.items() if value is not None
            )
            click.echo(f"project.toml: step {name}: {said}", err=as_json)
        from tiltwise.cli.running import run_and_show

        return run_and_show(folder, only=series or None, steps=(name, name), as_json=as_json, **execution)

    options: list[click.Parameter] = [
        project_argument(),
        click.Option(["--series"], multiple=True, metavar="NAME", help="Only this tilt series; may be repeated."),
        click.Option(["--step"], metavar="NAME", help="Which step, where the recipe has this stage more than once."),
        *_params_options(model),
        *(option() for option in EXECUTION),
        json_option(),
    ]
    text = f"{model.__doc__ or stage.help}\n\nOptions given are written to project.toml; '{_UNSET}' takes one back."
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


def _params_options(model: type[Params], above: tuple[str, ...] = ()) -> list[click.Option]:
    options: list[click.Option] = []
    for name, field in model.model_fields.items():
        path = (*above, name)
        if isinstance(field.annotation, type) and issubclass(field.annotation, Params):
            options += _params_options(field.annotation, path)
        else:
            options.append(_option(path, field))
    return options


def _option(path: tuple[str, ...], field: FieldInfo) -> click.Option:
    flag = "--" + "-".join(path).replace("_", "-")
    variable = "__".join(path)
    default = field.get_default(call_default_factory=True)
    text = f"{field.description}  [default: {'not set' if default is None else default}]"
    if field.annotation is bool:
        return click.Option([f"{flag}/--no-{flag[2:]}", variable], default=None, help=text)
    choices = typing.get_args(field.annotation) if typing.get_origin(field.annotation) is typing.Literal else ()
    kind = click.Choice([str(choice) for choice in choices]) if choices else str
    return click.Option([flag, variable], type=kind, metavar=None if choices else _metavar(field), help=text)


def _metavar(field: FieldInfo) -> str:
    """The unit of a number, else the type."""
    annotation = field.annotation
    if isinstance(annotation, types.UnionType) or typing.get_origin(annotation) is typing.Union:
        annotation = next(part for part in typing.get_args(annotation) if part is not type(None))
    if typing.get_origin(annotation) is typing.Annotated:
        annotation = typing.get_args(annotation)[0]
    return unit_of(field) or {float: "NUMBER", int: "INTEGER", str: "TEXT"}.get(annotation, "VALUE")


def _changes(model: type[Params], given: dict[str, Any]) -> dict[str, Any]:
    """The given options as nested values; what they mean is left to the model to check."""
    changes: dict[str, Any] = {}
    for variable, text in given.items():
        if text is None:
            continue
        *groups, name = variable.split("__")
        table = changes
        for group in groups:
            table = table.setdefault(group, {})
        table[name] = _value(text)
    return changes


def _value(text: Any) -> Any:
    """An option's text as the recipe would hold it."""
    if not isinstance(text, str):
        return text
    if text.lower() == _UNSET:
        return None
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text
