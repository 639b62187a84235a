"""Options that are the fields of a params model, with units and defaults in the help, and what was given by them."""

import tomllib
import types
import typing
from typing import Any

import click
from pydantic.fields import FieldInfo

from tiltwise.params.base import Params
from tiltwise.project.recipe_text import unit_of

UNSET = "unset"
"""The text that takes a value back."""


def params_options(model: type[Params], above: tuple[str, ...] = (), *, short: bool = False) -> list[click.Option]:
    """One option a field: --group-field, or --field alone if `short`; a unit in the name stands behind the option."""
    options: list[click.Option] = []
    for name, field in model.model_fields.items():
        path = (*above, name)
        if isinstance(field.annotation, type) and issubclass(field.annotation, Params):
            options += params_options(field.annotation, path, short=short)
        else:
            options.append(_option(path, field, short))
    return options


def _option(path: tuple[str, ...], field: FieldInfo, short: bool) -> click.Option:
    names = path[-1:] if short else path
    flag = "--" + "-".join(names).removesuffix(f"_{unit_of(field)}").replace("_", "-")
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


def given_values(given: dict[str, Any]) -> dict[str, Any]:
    """The given options as nested values; what they mean is left to the model to check."""
    changes: dict[str, Any] = {}
    for variable, text in given.items():
        if text is None:
            continue
        *groups, name = variable.split("__")
        table = changes
        for group in groups:
            table = table.setdefault(group, {})
        table[name] = typed_value(text)
    return changes


def typed_value(text: Any) -> Any:
    """An option's text as the recipe would hold it."""
    if not isinstance(text, str):
        return text
    if text.lower() == UNSET:
        return None
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text
