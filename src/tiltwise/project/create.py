"""A new project: a folder with a starting recipe, complete with defaults and what each parameter means."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from tiltwise import pipeline
from tiltwise.data.errors import InputError
from tiltwise.project.commit import write_file
from tiltwise.project.layout import RECIPE, SERIES, relative_path
from tiltwise.project.recipe import Inputs, Recipe, Step, check_params, params_class, read_recipe
from tiltwise.project.recipe_text import merge, write_recipe

_LINE = ("align", "defocus", "reconstruct", "pick", "refine", "postprocess")

STARTS: dict[str, dict[str, dict[str, Any]]] = {
    "template": {name: {} for name in _LINE},
    "movies": {name: {} for name in ("motion", *_LINE)},
    "classes": {name: {} for name in (*_LINE[:-1], "classify", *_LINE[-1:])},
    "polished": {name: {} for name in (*_LINE[:-1], "polish", *_LINE[-1:])},
    "movies-polished": {name: {} for name in ("motion", *_LINE[:-1], "polish", "frames", "polish-frames", *_LINE[-1:])},
    "spheres": {
        **{name: {} for name in _LINE},
        "pick": {"method": "spheres", "surface_spacing": 65.0},
        "refine": {
            "particle_diameter": 240.0,
            "symmetry": "find",
            "search_cone": 15.0,
            "search_shift": 45.0,
            "duplicate_distance": 50.0,
        },
    },
}
"""Starting recipes: their steps, and the parameters that differ from the defaults."""

_STAGES = {"polish-frames": "polish"}
"""Of steps that do not bear the name of their stage."""

DEPOSITS = {path.stem: path for path in sorted((Path(__file__).parent / "deposits").glob("*.toml"))}
"""Recipes for public data, by the name of the deposit."""


def new_project(
    folder: Path,
    *,
    recipe: str = "template",
    params: Mapping[str, Mapping[str, Any]] | None = None,
    **files: Path | None,
) -> Path:
    """Make a project folder with a starting recipe and return its absolute path.

    `recipe` is the name of a starting recipe, or a recipe file: one of another project, or a shorter one, what it
    leaves out having its default. `files` are those of [inputs] by their names (`Inputs`) and go before its own.
    `params` overrides parameters by step: {"pick": {"particle_diameter": 180.0}}. InputError if the folder already
    holds a project, a file is missing, or a step or parameter is unknown or out of bounds.
    """
    folder = Path(folder).resolve()
    if (folder / RECIPE).exists():
        raise InputError(f"{folder}: there is already a project here")
    start = _with_inputs(find_recipe(recipe), files, folder, _folder_of(recipe))
    start = replace(start, steps=_overridden(start.steps, params or {}, f"recipe {str(recipe)!r}"))
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{folder}: cannot be made ({error.strerror})") from error
    write_file(folder / RECIPE, write_recipe(start))
    return folder


def find_recipe(name: str) -> Recipe:
    """The starting recipe of this name, or the one in this file."""
    if name in STARTS:
        return Recipe(steps=tuple(_starting_step(name, step, values) for step, values in STARTS[name].items()))
    path = DEPOSITS.get(name, Path(name))
    if not path.is_file():
        raise InputError(f"no starting recipe {name!r}, and no such file; there are {', '.join((*STARTS, *DEPOSITS))}")
    return read_recipe(path)


def _starting_step(recipe: str, name: str, values: Mapping[str, Any]) -> Step:
    stage = pipeline.BY_NAME[_STAGES.get(name, name)]
    return Step(
        name=name, stage=stage, params=check_params(params_class(stage), values, f"recipe {recipe!r}: step {name!r}")
    )


def _overridden(steps: tuple[Step, ...], params: Mapping[str, Mapping[str, Any]], where: str) -> tuple[Step, ...]:
    """The steps with these parameters over their own."""
    names = [step.name for step in steps]
    for name in params:
        if name not in names:
            raise InputError(f"{where} has no step {name!r}; its steps are {', '.join(names)}")
    return tuple(
        replace(
            step,
            params=check_params(
                type(step.params),
                merge(step.params.model_dump(exclude_unset=True), params.get(step.name, {})),
                f"{where}: step {step.name!r}",
            ),
        )
        for step in steps
    )


def _folder_of(recipe: str) -> Path:
    """What paths in the recipe are relative to."""
    return Path() if recipe in STARTS else Path(recipe).resolve().parent


def _with_inputs(recipe: Recipe, given: Mapping[str, Path | None], folder: Path, base: Path) -> Recipe:
    """The recipe with its files as this folder names them, those given before its own."""
    own = {name: base / path for name, path in recipe.inputs.model_dump(exclude_none=True).items()}
    files = own | {name: path for name, path in given.items() if path is not None}
    return replace(
        recipe,
        inputs=Inputs(**{name: _input_file(path, folder) for name, path in files.items()}),
        steps=tuple(_with_own_files(step, folder, base) for step in recipe.steps),
    )


def _with_own_files(step: Step, folder: Path, base: Path) -> Step:
    """The step with its own files as this folder names them."""
    files = {
        kind: _input_file(base / path, folder) for kind, path in step.inputs.items() if kind in Inputs.model_fields
    }
    return replace(step, inputs={**step.inputs, **files})


def _input_file(path: Path, folder: Path) -> str:
    if SERIES not in str(path) and not Path(path).is_file():
        raise InputError(f"{path}: no such file")
    return relative_path(Path(path), folder)
