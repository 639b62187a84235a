"""The recipe of a project: `project.toml`, the ordered steps with their parameters, the inputs and how to run.

Everything a user may write is checked here, and whatever is wrong is one line that names file, step and key.
"""

import difflib
import importlib
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeVar

from pydantic import Field, ValidationError

from tiltwise import pipeline
from tiltwise.data.errors import InputError
from tiltwise.params.base import Params
from tiltwise.pipeline import Stage
from tiltwise.project.layout import RECIPE, check_name, check_step_name

P = TypeVar("P", bound=Params)


class Inputs(Params):
    """Files that steps take beside the tilt series; paths relative to the project folder, or absolute."""

    reference: str | None = Field(
        None, description="Density map (MRC) to search with and to start the refinement from."
    )
    centres: str | None = Field(
        None, description="Sphere centres clicked in your own tomograms (STAR, or text: series x y z in Å)."
    )
    shapes: str | None = Field(
        None,
        description="Filaments or membranes: points (STAR, text: series shape x y z in Å, or IMOD models) or "
        "segmentations (MRC); {series} in the name stands for that of each series.",
    )
    gain: str | None = Field(
        None, description="Gain reference of the camera for movies (MRC, TIFF or .gain, in any orientation)."
    )
    defects: str | None = Field(
        None,
        description="Defective pixels of the camera for movies: an image (MRC or TIFF, not 0 where defective), or text "
        "with x y width height in each line, rows from the bottom; the orientation is found.",
    )
    focus: str | None = Field(
        None, description="Mask (MRC, 0 to 1, on the grid of the averages) of the region in which classes may differ."
    )


class RunSettings(Params):
    """How the work is spread over this machine."""

    executor: str = Field(
        "local",
        pattern=r"^(serial|local|tcp://.+)$",
        description="serial, local, or tcp://host:port of a Dask scheduler.",
    )
    workers: int | None = Field(
        None, ge=1, description="Items worked on at once; from cores, series and memory if not set."
    )
    threads: int | None = Field(None, ge=1, description="Threads of each item; cores / workers if not set.")
    memory_GB: float | None = Field(
        None, gt=0, description="Memory the run may use, GB; that of the machine if not set."
    )
    item_memory_GB: float = Field(2.0, gt=0, description="Memory to allow for each item, GB; bounds the workers.")
    device: Literal["cpu", "cuda"] = Field("cpu", description="Where arrays are computed.")


@dataclass(frozen=True, kw_only=True, slots=True)
class Step:
    """One step of the recipe."""

    name: str
    """Its own name, that of its folder."""
    stage: Stage
    """What it does."""
    params: Params
    """With what."""
    inputs: Mapping[str, str | Mapping[str, str]] = field(default_factory=dict)
    """By kind, what it takes from elsewhere than the nearest step before that gives it: a step, or step/name of one
    that gives several by name; several such by name; a file in the place of that of the recipe's [inputs]."""

    def names_of(self, kind: str) -> tuple[str, ...]:
        """The names by which it gives several of a kind; empty if it gives one."""
        taken = self.inputs.get("particles")
        return tuple(taken) if kind != "tilt_series" and isinstance(taken, Mapping) else ()


@dataclass(frozen=True, kw_only=True, slots=True)
class Recipe:
    """What a project does, in order."""

    steps: tuple[Step, ...]
    inputs: Inputs = Inputs()
    run: RunSettings = RunSettings()

    def files(self) -> Iterator[str]:
        """The files that it names, of the project and of single steps."""
        yield from (path for path in self.inputs.model_dump().values() if path is not None)
        for step in self.steps:
            yield from (path for kind, path in step.inputs.items() if kind in Inputs.model_fields)

    def step_number(self, name: str) -> int:
        """The index of a step by its name; InputError if there is none."""
        names = [step.name for step in self.steps]
        if name not in names:
            raise InputError(
                f"no step {name!r} in the recipe{_did_you_mean(name, names)}; its steps are {', '.join(names)}"
            )
        return names.index(name)


def load_recipe(project: Path) -> Recipe:
    """Read and check project.toml; InputError with one line for whatever is wrong in it."""
    return read_recipe(Path(project) / RECIPE)


def read_recipe(path: Path) -> Recipe:
    """Read and check a recipe; what it leaves out has its default. InputError with one line for what is wrong."""
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: not valid TOML: {error}") from error
    return parse_recipe(content, str(path))


def parse_recipe(content: dict[str, Any], where: str) -> Recipe:
    """Check the content of a recipe; `where` names its file in errors."""
    _check_keys(content, ["inputs", "run", "step"], where)
    steps = content.get("step", [])
    if not isinstance(steps, list) or not all(isinstance(step, dict) for step in steps):
        raise InputError(f"{where}: steps are written as [[step]] tables")
    parsed = tuple(_parse_step(step, f"{where}: step {number}", where) for number, step in enumerate(steps, start=1))
    names = [step.name for step in parsed]
    for name in names:
        if names.count(name) > 1:
            raise InputError(f"{where}: two steps are named {name!r}; give each its own name")
    for number, step in enumerate(parsed):
        _check_inputs(step, parsed[:number], f"{where}: step {step.name!r}: inputs")
    return Recipe(
        steps=parsed,
        inputs=check_params(Inputs, content.get("inputs", {}), f"{where}: [inputs]"),
        run=check_params(RunSettings, content.get("run", {}), f"{where}: [run]"),
    )


def _parse_step(step: dict[str, Any], where: str, file: str) -> Step:
    _check_keys(step, ["name", "stage", "inputs", "params"], where)
    if not isinstance(step.get("stage", step.get("name")), str):
        raise InputError(f"{where}: a step needs a stage, one of {', '.join(pipeline.BY_NAME)}")
    name = check_step_name(str(step.get("name", step.get("stage"))), file)
    stage_name = step.get("stage", name)
    stages = list(pipeline.BY_NAME)
    if stage_name not in stages:
        raise InputError(
            f"{file}: step {name!r}: no stage {stage_name!r}{_did_you_mean(stage_name, stages)}; "
            f"stages are {', '.join(stages)}"
        )
    stage = pipeline.BY_NAME[stage_name]
    return Step(
        name=name,
        stage=stage,
        params=check_params(params_class(stage), step.get("params", {}), f"{file}: step {name!r}"),
        inputs=step.get("inputs", {}),
    )


def _check_inputs(step: Step, before: tuple[Step, ...], where: str) -> None:
    """InputError if a step asks for what it does not take, or for what no step before it gives."""
    if not isinstance(step.inputs, Mapping):
        raise InputError(f"{where}: written as kind = step or file")
    taken = {kind.rstrip("?+"): kind.endswith("+") for kind in step.stage.takes}
    _check_keys(dict(step.inputs), list(taken), where)
    for kind, value in step.inputs.items():
        several = isinstance(value, Mapping)
        if several and not (taken[kind] and value):
            raise InputError(f"{where}: {kind}: one is taken, not several by name")
        for name, origin in value.items() if several else (("", value),):
            if not isinstance(origin, str):
                raise InputError(f"{where}: {kind}: the name of a step or file, got {origin!r}")
            if several:
                check_name(name, f"{where}: {kind}:")
            if kind not in Inputs.model_fields:
                _check_origin(origin, kind, before, f"{where}: {kind}")


def _check_origin(origin: str, kind: str, before: tuple[Step, ...], where: str) -> None:
    name, _, species = origin.partition("/")
    giving = {step.name: step for step in before if kind in step.stage.gives}
    if name not in giving:
        raise InputError(f"{where}: no step {name!r} before it gives this{_did_you_mean(name, list(giving))}")
    check_named(giving[name], kind, species, where)


def check_named(step: Step, kind: str, species: str, where: str) -> None:
    """InputError unless `species` is one of the names by which a step gives several of a kind, or it gives one."""
    names = step.names_of(kind)
    if names and not species:
        raise InputError(f"{where}: step {step.name!r} gives several, by name; say which: {step.name}/{names[0]}")
    if species and species not in names:
        known = _did_you_mean(species, list(names)) if names else ""
        raise InputError(f"{where}: step {step.name!r} gives none of the name {species!r}{known}")


def params_class(stage: Stage) -> type[Params]:
    """The params model of a stage; loads pydantic, not the stage."""
    module, name = stage.params.split(":")
    return getattr(importlib.import_module(module), name)


def check_params(model: type[P], values: Any, where: str) -> P:
    """The model with these values; InputError with one line that names the first key at fault."""
    if not isinstance(values, dict):
        raise InputError(f"{where}: parameters are written as key = value")
    try:
        return model.model_validate(values)
    except ValidationError as error:
        raise InputError(f"{where}: {_one_line(error, model)}") from error


def _one_line(error: ValidationError, model: type[Params]) -> str:
    fault = error.errors(include_url=False)[0]
    key = ".".join(str(part) for part in fault["loc"] if not str(part).startswith("function-"))
    if fault["type"] == "extra_forbidden":
        return f"unknown key {key!r}{_did_you_mean(str(fault['loc'][-1]), _keys_at(model, fault['loc'][:-1]))}"
    message = fault["msg"][0].lower() + fault["msg"][1:]
    return f"{key}: {message}, got {fault['input']!r}" if key else message.removeprefix("value error, ")


def _keys_at(model: type[Params], location: tuple[Any, ...]) -> list[str]:
    """The keys of the group that a location of nested groups names."""
    for part in location:
        field = model.model_fields.get(str(part))
        if field is None or not (isinstance(field.annotation, type) and issubclass(field.annotation, Params)):
            break
        model = field.annotation
    return list(model.model_fields)


def _check_keys(table: dict[str, Any], known: list[str], where: str) -> None:
    for key in table:
        if key not in known:
            raise InputError(f"{where}: unknown key {key!r}{_did_you_mean(key, known)}")


def _did_you_mean(word: str, known: list[str]) -> str:
    close = difflib.get_close_matches(word, known, n=1, cutoff=0.6)
    return f"; did you mean {close[0]!r}?" if close else f" (known: {', '.join(known)})" if len(known) <= 8 else ""
