"""The recipe as text: written complete, with every default, unit and sentence; changed in place, so that a user's own
comments stay."""

import re
import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import tomlkit
from pydantic.fields import FieldInfo
from tomlkit.items import InlineTable, Table

from tiltwise.data.errors import InputError
from tiltwise.data.units import Unit
from tiltwise.params.base import Params
from tiltwise.project.commit import write_file
from tiltwise.project.layout import RECIPE
from tiltwise.project.recipe import Recipe, Step, check_params, load_recipe, parse_recipe

_HEADER = (
    "What this project does, in order. Change a value and run again: only what depends on it is done again.",
    "A line that starts with '# name =' is a parameter that is not set: it is derived, as its sentence says.",
)


def unit_of(field: FieldInfo) -> str:
    """The unit of a parameter, '' if it has none."""
    units = [entry.symbol for entry in _metadata(field) if isinstance(entry, Unit)]
    return units[0] if units else ""


def _metadata(field: FieldInfo) -> list[Any]:
    """The annotations of a field, also those inside `Annotated[...] | None`."""
    inside = [
        entry for part in getattr(field.annotation, "__args__", ()) for entry in getattr(part, "__metadata__", ())
    ]
    return [*field.metadata, *inside]


def write_recipe(recipe: Recipe) -> str:
    """The text of project.toml."""
    document = tomlkit.document()
    for line in _HEADER:
        document.add(tomlkit.comment(line))
    document.add(tomlkit.nl())
    document.add("inputs", _params_table(recipe.inputs))
    document.add("run", _params_table(recipe.run))
    steps = tomlkit.aot()
    for step in recipe.steps:
        table = tomlkit.table()
        table.add("name", step.name)
        table.add("stage", step.stage.name)
        table.value.item("stage").comment(step.stage.help)
        if step.inputs:
            table.add("inputs", _inputs_table(step))
        table.add("params", _params_table(step.params))
        steps.append(table)
    document.add("step", steps)
    return tomlkit.dumps(document)


def _inputs_table(step: Step) -> Table:
    """What a step takes from elsewhere than it would by itself."""
    table = tomlkit.table()
    for kind, value in step.inputs.items():
        table.add(kind, value if isinstance(value, str) else _inline(value))
    table.add(tomlkit.nl())
    return table


def _inline(values: Mapping[str, Any]) -> InlineTable:
    table = tomlkit.inline_table()
    table.update({key: value for key, value in values.items() if value is not None})
    return table


def write_params(params: Params, header: str) -> str:
    """The text of a file that holds one params model, complete, below a line of comment."""
    document = tomlkit.document()
    document.add(tomlkit.comment(header))
    document.add(tomlkit.nl())
    for name, item in _params_table(params).value.body:
        document.add(name, item) if name is not None else document.add(item)
    return tomlkit.dumps(document)


def _params_table(params: Params) -> Table:
    table = tomlkit.table()
    fields = type(params).model_fields
    groups = [name for name in fields if isinstance(getattr(params, name), Params)]
    for name in (name for name in fields if name not in groups):
        value, sentence = getattr(params, name), describe(fields[name])
        if value is None:
            table.add(tomlkit.comment(f"{name} ={' ' * max(1, 26 - len(name))}# {sentence}"))
        else:
            table.add(name, tomlkit.item(_plain(value)))
            item = table.value.item(name)
            item.comment(sentence)
            item.trivia.comment_ws = " " * max(2, 28 - len(name) - len(item.as_string()))
    for name in groups:
        table.add(name, _params_table(getattr(params, name)))
    table.add(tomlkit.nl())
    return table


def describe(field: FieldInfo) -> str:
    """Unit and sentence of a parameter, in one line."""
    unit = unit_of(field)
    return f"[{unit}] {field.description}" if unit else str(field.description or "")


def _plain(value: Any) -> Any:
    """A value as TOML has it: groups of a list as inline tables."""
    if not isinstance(value, list | tuple):
        return value
    rows = [entry.model_dump(exclude_none=True) if isinstance(entry, Params) else entry for entry in value]
    array = tomlkit.array()
    array.extend(_inline(row) if isinstance(row, Mapping) else row for row in rows)
    return array


def set_params(project: Path, step: str, changes: dict[str, Any]) -> Recipe:
    """Change parameters of a step in project.toml (None: not set). InputError leaves the file as it was."""
    recipe = load_recipe(project)
    number = recipe.step_number(step)
    path = Path(project) / RECIPE
    current = recipe.steps[number].params
    merged = merge(current.model_dump(exclude_unset=True), changes)
    check_params(type(current), merged, f"{path}: step {step!r}")
    text = path.read_text(encoding="utf-8")
    for key, value in flatten(changes).items():
        text = _set_value(text, number, key, value)
    changed = parse_recipe(tomlkit.parse(text).unwrap(), str(path))
    write_file(path, text)
    return changed


def parse_changes(changes: Iterable[str]) -> dict[str, dict[str, Any]]:
    """Parameters by step from texts like 'refine.symmetry=C6'; a value is one of TOML, or else a word."""
    found: dict[str, Any] = {}
    for change in changes:
        path, equals, text = change.partition("=")
        keys = path.strip().split(".")
        if not equals or len(keys) < 2 or not all(keys):
            raise InputError(f"{change!r}: a parameter is set as STEP.KEY=VALUE, as in refine.symmetry=C6")
        value: Any = _value(text.strip())
        for key in reversed(keys):
            value = {key: value}
        found = merge(found, value)
    return found


def _value(text: str) -> Any:
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text


def merge(old: dict[str, Any], new: dict[str, Any]) -> dict[str, Any]:
    """The old values with the new ones over them, group by group."""
    merged = dict(old)
    for key, value in new.items():
        merged[key] = merge(old.get(key) or {}, value) if isinstance(value, dict) else value
    return merged


def flatten(values: dict[str, Any], above: tuple[str, ...] = ()) -> dict[tuple[str, ...], Any]:
    """The values by their whole path of keys."""
    flat: dict[tuple[str, ...], Any] = {}
    for key, value in values.items():
        flat |= flatten(value, (*above, key)) if isinstance(value, dict) else {(*above, key): value}
    return flat


def _set_value(text: str, number: int, key: tuple[str, ...], value: Any) -> str:
    """Set one value of the step with this number: in its own line, commented or not, or as a new one."""
    document = tomlkit.parse(text)
    table = document["step"][number].setdefault("params", tomlkit.table())
    for part in key[:-1]:
        table = table.setdefault(part, tomlkit.table())
    name = key[-1]
    line = _line_of(text, number, name, commented=name not in table)
    if line is not None:
        return _replace_line(text, line, name, value)
    if value is None:
        table.pop(name, None)
    else:
        table[name] = _plain(value)
    return tomlkit.dumps(document)


def _line_of(text: str, number: int, name: str, *, commented: bool) -> int | None:
    """The number of the line `name = ...`, or `# name = ...`, within the step of this number; None if it has none."""
    lines = text.splitlines()
    heads = [index for index, line in enumerate(lines) if re.match(r"\s*\[\[\s*step\s*\]\]", line)]
    if number >= len(heads):
        return None
    end = heads[number + 1] if number + 1 < len(heads) else len(lines)
    value = r"#|$" if commented else r"[^\[{'\"#]*(\"[^\"\\]*\")?\s*(#|$)"
    pattern = re.compile(rf"\s*{'#' if commented else ''}\s*{re.escape(name)}\s*=\s*({value})")
    return next((index for index in range(heads[number], end) if pattern.match(lines[index])), None)


def _replace_line(text: str, line: int, name: str, value: Any) -> str:
    """The text with `name = value`, or `# name =` for None, in this line; the comment at its end stays."""
    lines = text.splitlines(keepends=True)
    comment = re.search(r"=[^#]*(#.*)", lines[line])
    start = f"# {name} =" if value is None else f"{name} = {tomlkit.item(_plain(value)).as_string()}"
    lines[line] = f"{start:<29}  {comment.group(1)}".rstrip() + "\n" if comment else start + "\n"
    return "".join(lines)
