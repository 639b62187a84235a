"""What a data set as a whole has decided of single series, kept in the project: parameters that the recipe leaves open.

`data_set.json` holds them by step and series. Taking one out, or the file, takes the decision back until the next run.
"""

import importlib
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from tiltwise.data.decisions import Decision
from tiltwise.data.errors import InputError
from tiltwise.pipeline import Stage
from tiltwise.project.commit import write_file
from tiltwise.project.layout import DATA_SET

Decided = dict[str, dict[str, dict[str, Any]]]
"""Parameters by step and series."""
Decide = Callable[[Mapping[str, Mapping[str, Any] | None], Mapping[str, Mapping[str, Any]]], dict[str, Decision]]


def read_decisions(project: Path) -> Decided:
    """What was decided; nothing where there is no file. InputError where it cannot be read."""
    path = project / DATA_SET
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        return {
            str(step): {str(series): dict(params) for series, params in rows.items()} for step, rows in found.items()
        }
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, AttributeError, TypeError) as error:
        raise InputError(f"{path}: cannot be read ({error}); delete it, and the next run decides anew") from error


def write_decisions(project: Path, step: str, decided: dict[str, dict[str, Any]]) -> Decided:
    """Put what was decided of a step in the place of what was before; gives all that stands."""
    found = read_decisions(project) | {step: decided}
    found = {name: rows for name, rows in found.items() if rows}
    if found:
        write_file(project / DATA_SET, json.dumps(found, indent=2, sort_keys=True) + "\n")
    else:
        (project / DATA_SET).unlink(missing_ok=True)
    return found


def decide_of(stage: Stage) -> Decide | None:
    """The function by which all series decide of single ones, if the stage has one."""
    if not stage.decides:
        return None
    module, name = stage.decides.split(":")
    return getattr(importlib.import_module(module), name)
