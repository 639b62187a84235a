"""The walls of docs/decisions: sizes, names, layers, and a command line that answers without loading torch."""

import ast
import importlib
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tiltwise.params.base import Params
from tiltwise.pipeline import BY_NAME, STAGES

ROOT = Path(__file__).parents[1]
SOURCE = ROOT / "src" / "tiltwise"
MODULES = sorted(SOURCE.rglob("*.py"))
NO_HOME = {"utils", "util", "misc", "common", "helpers", "helper", "tools", "lib", "core"}
KINDS = {
    *("tilt_series", "tomogram", "half_tomograms", "pyramid", "particles"),
    *("half_maps", "class_maps", "map", "mask", "local_resolution", "reference", "centres", "shapes", "gain"),
    *("defects", "focus", "motions"),
}


def name(path):
    return path.relative_to(SOURCE).as_posix()


def functions(path):
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]


def arguments(function):
    a = function.args
    every = [*a.posonlyargs, *a.args, *a.kwonlyargs]
    return [argument.arg for argument in every if argument.arg not in ("self", "cls")]


@pytest.mark.parametrize("path", MODULES, ids=name)
def test_a_module_stays_small_and_has_a_home(path):
    assert len(path.read_text(encoding="utf-8").splitlines()) <= 500
    assert not NO_HOME & set(path.relative_to(SOURCE).with_suffix("").parts)
    assert not re.search(r"_(cpu|gpu|cuda|2d|3d)$", path.stem), "no twin per device or dimension"
    assert ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))), "a module says what it is"


@pytest.mark.parametrize("path", MODULES, ids=name)
def test_functions_stay_short(path):
    for function in functions(path):
        length = function.end_lineno - function.lineno + 1
        assert length <= 60, f"{function.name}: {length} lines"
        assert len(arguments(function)) <= 8, f"{function.name}: {len(arguments(function))} arguments"
        forbidden = {"plot", "verbose", "use_gpu", "cuda"} & set(arguments(function))
        assert not forbidden, f"{function.name}: {forbidden}"
        negative = [a for a in arguments(function) if a.startswith(("no_", "disable_", "without_", "skip_", "dont_"))]
        assert not negative, f"{function.name}: negative flags {negative}"


@pytest.mark.parametrize("path", MODULES, ids=name)
def test_only_the_command_line_prints(path):
    if "cli" in path.relative_to(SOURCE).with_suffix("").parts:
        return
    calls = [node for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))) if isinstance(node, ast.Call)]
    assert not [call.lineno for call in calls if isinstance(call.func, ast.Name) and call.func.id == "print"]


@pytest.mark.parametrize("path", [p for p in MODULES if p.parent.name == "data"], ids=name)
def test_every_field_of_a_type_says_what_it_is(path):
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if not isinstance(node, ast.ClassDef) or not node.decorator_list:
            continue
        for field, after in zip(node.body, [*node.body[1:], None], strict=True):
            if isinstance(field, ast.AnnAssign):
                said = isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant)
                assert said, f"{node.name}.{field.target.id} has no line of its own"


def test_layers():
    lint = Path(sys.executable).with_name("lint-imports")
    environment = os.environ | {"COLUMNS": "120"}
    done = subprocess.run([lint, "--no-cache"], cwd=ROOT, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("stage", STAGES, ids=lambda stage: stage.name)
def test_every_row_of_the_table_leads_somewhere(stage):
    module, model = stage.params.split(":")
    params = getattr(importlib.import_module(module), model)
    assert issubclass(params, Params) and params()
    module, function = stage.function.split(":")
    assert callable(getattr(importlib.import_module(module), function))
    if stage.given:
        module, function = stage.given.split(":")
        assert callable(getattr(importlib.import_module(module), function))
    assert stage.per in ("tilt_series", "project")
    assert {kind.rstrip("?+") for kind in stage.takes} | set(stage.gives) <= KINDS
    assert BY_NAME[stage.name] is stage


@pytest.mark.parametrize("stage", STAGES, ids=lambda stage: stage.name)
def test_every_parameter_says_what_it_is(stage):
    module, model = stage.params.split(":")
    fields = getattr(importlib.import_module(module), model).model_fields
    assert 1 <= len(fields) <= 12
    assert all(field.description and field.description.endswith(".") for field in fields.values())


@pytest.mark.parametrize(
    "arguments", [["--help"], ["align", "--help"], ["status", "--help"], ["simulate", "--help"]], ids=" ".join
)
def test_help_does_not_load_torch(arguments):
    code = (
        "import sys\nfrom tiltwise.cli import main\nsys.argv = ['tiltwise', *sys.argv[1:]]\n"
        "try:\n    main()\nexcept SystemExit as end:\n    assert not end.code, end.code\n"
        "heavy = {'torch', 'scipy', 'numba', 'dask', 'matplotlib'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "Usage" in done.stdout
