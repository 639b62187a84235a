"""A new project: a folder with a starting recipe, complete with defaults and what each parameter means."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tiltwise import pipeline
from tiltwise.data.errors import InputError
from tiltwise.project.commit import write_file
from tiltwise.project.layout import RECIPE, SERIES, relative_path
from tiltwise.project.recipe import Inputs, Recipe, Step, check_params, params_class
from tiltwise.project.recipe_text import write_recipe

_LINE = ("align", "defocus", "reconstruct", "pick", "refine", "postprocess")

STARTS: dict[str, dict[str, dict[str, Any]]] = {
    "template": {name: {} for name in _LINE},
    "movies": {name: {} for name in ("motion", *_LINE)},
    "classes": {name: {} for name in (*_LINE[:-1], "classify", *_LINE[-1:])},
    "polished": {name: {} for name in (*_LINE[:-1], "polish", *_LINE[-1:])},
    "spheres": {
        **{name: {} for name in _LINE},
        "pick": {"method": "spheres", "surface_spacing": 65.0},
        "refine": {
            "particle_diameter": 240.0,
            "symmetry": "C6",
            "search_cone": 15.0,
            "search_shift": 45.0,
            "duplicate_distance": 50.0,
        },
    },
}
"""Starting recipes: their steps, and the parameters that differ from the defaults."""


def new_project(
    folder: Path,
    *,
    recipe: str = "template",
    reference: Path | None = None,
    centres: Path | None = None,
    shapes: Path | None = None,
    gain: Path | None = None,
    focus: Path | None = None,
    params: Mapping[str, Mapping[str, Any]] | None = None,
) -> Path:
    """Make a project folder with a starting recipe and return its absolute path.

    `params` overrides parameters by step: {"pick": {"particle_diameter": 180.0}}. InputError if the folder already
    holds a project, a file is missing, or a parameter is unknown or out of bounds.
    """
    folder = Path(folder).resolve()
    if (folder / RECIPE).exists():
        raise InputError(f"{folder}: there is already a project here")
    if recipe not in STARTS:
        raise InputError(f"no starting recipe {recipe!r}; there are {', '.join(STARTS)}")
    given = {"reference": reference, "centres": centres, "shapes": shapes, "gain": gain, "focus": focus}
    inputs = Inputs(**{name: _input_file(path, folder) for name, path in given.items()})
    start = start_recipe(recipe, inputs, params or {})
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{folder}: cannot be made ({error.strerror})") from error
    write_file(folder / RECIPE, write_recipe(start))
    return folder


def start_recipe(name: str, inputs: Inputs, overrides: Mapping[str, Mapping[str, Any]]) -> Recipe:
    """The starting recipe of this name, with inputs and overrides by step."""
    start = STARTS[name]
    for step in overrides:
        if step not in start:
            raise InputError(f"recipe {name!r} has no step {step!r}; its steps are {', '.join(start)}")
    steps = []
    for step, values in start.items():
        stage = pipeline.BY_NAME[step]
        model = check_params(
            params_class(stage), {**values, **overrides.get(step, {})}, f"recipe {name!r}: step {step!r}"
        )
        steps.append(Step(name=step, stage=stage, params=model))
    return Recipe(steps=tuple(steps), inputs=inputs)


def _input_file(path: Path | None, folder: Path) -> str | None:
    if path is None:
        return None
    if SERIES not in str(path) and not Path(path).is_file():
        raise InputError(f"{path}: no such file")
    return relative_path(Path(path), folder)
