"""The command line as a user meets it: every fault is one line and exit code 2, and nothing heavy loads before it is
needed."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tiltwise import pipeline
from tiltwise.cli import main
from tiltwise.io.mrc import write_mrc
from tiltwise.params.base import Params
from tiltwise.project.layout import list_series
from tiltwise.project.recipe import load_recipe, params_class
from tiltwise.project.recipe_text import set_params
from tiltwise.project.run import RunSummary


@pytest.fixture
def tiltwise(capsys):
    """Run a command in this process: exit code, standard output, standard error."""

    def run(*words) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as left:
            main([str(word) for word in words])
        printed = capsys.readouterr()
        return left.value.code, printed.out, printed.err

    return run


@pytest.fixture
def project(tiltwise, tmp_path) -> Path:
    """A new project with one series of a few pixels."""
    write_mrc(tmp_path / "A.mrc", np.zeros((2, 4, 4), np.float32), 5.0, stack=True)
    (tmp_path / "A.rawtlt").write_text("-3\n0\n")
    assert tiltwise("new", tmp_path / "p")[0] == 0
    assert tiltwise("import", tmp_path / "p", tmp_path / "A.mrc")[0] == 0
    return tmp_path / "p"


@pytest.mark.parametrize("recipe", ["template", "spheres", "movies", "classes", "polished", "movies-polished"])
def test_starting_recipes_are_complete(tiltwise, tmp_path, recipe):
    assert tiltwise("new", tmp_path / "p", "--recipe", recipe)[0] == 0
    optional = {"motion": ("movies",), "classify": ("classes",), "polish": ("polished",), "frames": ()}
    twice = {"motion", "polish", "frames"} if recipe == "movies-polished" else set()
    expected = [name for name in pipeline.BY_NAME if name in twice or recipe in optional.get(name, (recipe,))]
    steps = load_recipe(tmp_path / "p").steps
    assert [step.name for step in steps if step.name == step.stage.name] == expected
    assert [step.name for step in steps if step.name != step.stage.name] == (["polish-frames"] if twice else [])
    method = next(step.params.method for step in load_recipe(tmp_path / "p").steps if step.name == "pick")
    assert method == ("spheres" if recipe == "spheres" else "template")


def test_help_lists_every_command_and_stage(tiltwise):
    code, out, _ = tiltwise("-h")
    assert code == 0
    for name in ("new", "check", "import", "run", "status", "export", "history", "doctor", "report", *pipeline.BY_NAME):
        assert f"\n  {name} " in out


def options_of(model, above=""):
    """Flag and sentence of every field, those of a group behind its name."""
    for name, field in model.model_fields.items():
        flag = f"{above}-{name}".replace("_", "-")
        if isinstance(field.annotation, type) and issubclass(field.annotation, Params):
            yield from options_of(field.annotation, flag)
        else:
            yield f"-{flag.removesuffix('-GB')}", field.description  # the unit stands behind the option


@pytest.mark.parametrize("stage", pipeline.STAGES, ids=lambda stage: stage.name)
def test_every_parameter_is_an_option_with_its_sentence(tiltwise, stage):
    code, out, _ = tiltwise(stage.name, "-h")
    assert code == 0
    words = " ".join(out.split())
    for flag, sentence in options_of(params_class(stage)):
        assert flag in words
        assert sentence in words


@pytest.mark.parametrize(
    "command", ["new", "check", "import", "run", "status", "export", "history", "doctor", "report", "evaluate", "demo"]
)
def test_every_command_has_help(tiltwise, command):
    assert tiltwise(command, "-h")[0] == 0


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("algn", "p"), "no command 'algn'; did you mean 'align'?"),
        (("run", "nowhere"), "nowhere: not a tiltwise project (no project.toml)"),
        (("run",), "Missing argument 'PROJECT'"),
        (("run", "PROJECT", "--onyl", "A"), "--onyl"),
        (("run", "PROJECT", "--only", "B"), "no tilt series 'B' in the project; it holds A"),
        (("run", "PROJECT", "--from", "pik"), "no step 'pik' in the recipe; did you mean 'pick'?"),
        (("align", "PROJECT", "--iterations", "0"), "project.toml: step 'align': iterations: input should be"),
        (("align", "PROJECT", "--resolution", "fine"), "step 'align': resolution: input should be a valid number"),
        (("import", "PROJECT", "absent.mrc"), "absent.mrc: no such file or folder"),
        (("import", "PROJECT", "PROJECT/../A.mrc", "--alignment", "absent"), "absent: no such file or folder"),
        (("export", "PROJECT", "--format", "imod", "--output", "out"), "A: is not aligned yet; run: tiltwise align"),
        (
            ("export", "PROJECT", "--format", "mdoc", "--output", "out"),
            "no format 'mdoc'; alignments are written as imod",
        ),
        (("check", "absent"), "absent: no such folder"),
        (("run", "PROJECT", "--watch", "absent"), "absent: no such folder"),
        (("run", "PROJECT", "--watch", ".", "--only", "A"), "--watch goes with none of --only, --dry-run and --force"),
        (("run", "PROJECT", "--watch", ".", "--settle-s", "-1"), "--settle-s and --timeout-s are times above 0"),
        (("run", "PROJECT", "--pixel-size-A", "3"), "pixel size: is for series that --watch imports"),
        (("history", "nowhere"), "nowhere: not a tiltwise project"),
        (("new", "PROJECT"), "there is already a project here"),
        (("new", "other", "--reference", "absent.mrc"), "absent.mrc: no such file"),
        (("new", "other", "--recipe", "tmplate"), "no starting recipe 'tmplate'"),
        (("evaluate", "PROJECT", "--truth", "absent"), "absent: no such folder"),
        (("demo", "--model", "absent.pdb"), "absent.pdb: no such file"),
    ],
)
def test_a_fault_is_one_line_and_exit_code_2(tiltwise, project, tmp_path, monkeypatch, words, message):
    monkeypatch.chdir(tmp_path)
    code, out, err = tiltwise(*(word.replace("PROJECT", str(project)) for word in words))
    assert code == 2
    assert err.startswith("tiltwise: error: ") and message in err
    assert err.count("\n") == 1 and out == ""


def test_debug_shows_the_traceback(project):
    with pytest.raises(Exception, match="no such file"):
        main(["import", str(project), "absent.mrc", "--debug"])


def test_import_prints_a_table_with_notes(tiltwise, project, tmp_path):
    code, out, _ = tiltwise(
        "import", project, tmp_path / "A.mrc", "--exposure-e-A2", "3.5", "--tilt-axis-angle-deg", "85"
    )
    assert code == 0
    header, row, *notes = out.splitlines()
    assert header.split() == [
        *(
            "series",
            "tilts",
            "used",
            "from",
            "°",
            "to",
            "°",
            "axis",
            "°",
            "pixel",
            "Å",
            "image",
            "px",
            "exposure",
            "e⁻/Å²",
        )
    ]
    assert row.split() == ["A", "2", "2", "-3.0", "0.0", "85.0", "5", "4", "×", "4", "7.0"]
    assert any("order" in note for note in notes)


def test_import_leaves_out_what_is_at_fault_with_exit_code_3(tiltwise, project, tmp_path):
    for name, angles in (("B", "-3\n0\n"), ("C", "-3\n"), ("D", "-3\n0\n"), ("E", "no angle\n")):
        (tmp_path / f"{name}.mrc").write_bytes((tmp_path / "A.mrc").read_bytes())
        (tmp_path / f"{name}.rawtlt").write_text(angles)
    stacks = [tmp_path / f"{name}.mrc" for name in "BCDE"]
    code, out, err = tiltwise("import", project, *stacks)
    assert code == 3 and [line.split()[0] for line in out.splitlines()[1:3]] == ["B", "D"]
    first, second = err.splitlines()
    assert first == f"left out: {tmp_path / 'C.rawtlt'}: has 1 angles, but C.mrc has 2 images"
    assert second.startswith(f"left out: {tmp_path / 'E.rawtlt'}, line 1: ")
    assert list_series(project) == ("A", "B", "D")
    code, out, err = tiltwise("import", project, *stacks, "--json")
    told = [json.loads(line) for line in out.splitlines()]
    assert code == 3 and err == "" and [one.get("name", "left out") for one in told] == ["B", "D"] + ["left out"] * 2
    code, out, err = tiltwise("import", project, stacks[1], stacks[3])
    assert code == 2 and out == "" and [line.split(": ")[0] for line in err.splitlines()] == ["left out", "tiltwise"]


def test_check_prints_a_table_and_its_findings(tiltwise, tmp_path):
    write_mrc(tmp_path / "A.mrc", np.zeros((2, 4, 4), np.float32), 5.0, stack=True)
    (tmp_path / "A.rawtlt").write_text("-3\n0\n")
    code, out, _ = tiltwise("check", tmp_path)
    lines = out.splitlines()
    assert code == 0 and lines[0].split()[0] == "series" and lines[1].split()[:4] == ["A", "2", "of", "2"]
    assert "  missing  .mdoc" in lines
    (tmp_path / "A.rawtlt").write_text("-3\n")
    code, out, _ = tiltwise("check", tmp_path, "--json")
    assert code == 3 and json.loads(out)["faults"] == ["A.rawtlt has 1 angles, but the stack has 2 images"]


def test_status_and_dry_run_say_what_is_missing(tiltwise, project):
    _, out, _ = tiltwise("status", project)
    assert out.splitlines()[0].split() == ["align", "1", "missing"]
    _, out, _ = tiltwise("status", project, "--json")
    rows = [json.loads(line) for line in out.splitlines()]
    assert rows[0] == {"step": "align", "item": "A", "state": "missing", "detail": ""}
    _, out, _ = tiltwise("run", project, "--dry-run", "--to", "defocus")
    assert out.splitlines() == ["align/A: missing", "defocus/A: missing"]


def test_a_stage_command_changes_the_recipe_and_runs_its_step_only(tiltwise, project, monkeypatch):
    requests = []

    def pretend(folder, **request):
        requests.append(request)
        return RunSummary(done=(), current=(), failed={"align/A": "it is dark"}, skipped={}, seconds=1.0)

    monkeypatch.setattr("tiltwise.cli.running.run_project", pretend)
    words = ("align", project, "--resolution", "22.5", "--iterations", "3", "--series", "A", "--executor", "serial")
    code, out, _ = tiltwise(*words)
    assert code == 3
    assert "project.toml: step align: resolution = 22.5, iterations = 3" in out
    assert "align/A failed: it is dark" in out
    params = load_recipe(project).steps[0].params
    assert (params.resolution, params.iterations) == (22.5, 3)
    assert requests[0]["steps"] == ("align", "align") and requests[0]["only"] == ("A",)
    tiltwise("align", project, "--resolution", "unset")
    assert load_recipe(project).steps[0].params.resolution is None
    tiltwise("reconstruct", project, "--no-exposure-weighting", "--ctf-correction", "none")
    params = load_recipe(project).steps[2].params
    assert (params.exposure_weighting, params.ctf_correction) == (False, "none")


@pytest.mark.parametrize(
    "words", [["-h"], ["align", "-h"], ["status", "PROJECT"], ["run", "PROJECT", "--dry-run"], ["check", "PROJECT/.."]]
)
def test_torch_is_not_loaded_by_light_commands(project, words):
    program = (
        "import sys\nfrom tiltwise.cli import main\n"
        "try:\n    main(sys.argv[1:])\nexcept SystemExit as left:\n    assert not left.code\n"
        "loaded = {'torch', 'numba', 'matplotlib'} & set(sys.modules)\nassert not loaded, loaded\n"
    )
    command = [sys.executable, "-c", program, *(word.replace("PROJECT", str(project)) for word in words)]
    result = subprocess.run(command, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr


@pytest.mark.parametrize("name", ["empiar-10164", "empiar-10304", "empiar-10491"])
def test_recipes_of_public_deposits_polish_what_they_refine(tiltwise, tmp_path, name):
    assert tiltwise("new", tmp_path / "p", "--recipe", name, "--set", "refine.iterations=3")[0] == 0
    made = {step.name: step.params for step in load_recipe(tmp_path / "p").steps}
    assert made["refine"].iterations == 3
    assert made["polish"].symmetry == made["refine"].symmetry
    assert made["pick"].particle_diameter > 0


def test_the_recipe_of_several_kinds_in_the_docs_is_understood(tiltwise, tmp_path):
    """Word for word, and what each kind is averaged with; a kind's diameter set on the command line."""
    page = (Path(__file__).parents[1] / "docs" / "how-to" / "several-kinds.md").read_text()
    (tmp_path / "two.toml").write_text(page.split("```toml\n")[1].split("```")[0])
    for name in ("ribosome", "ferritin"):
        write_mrc(tmp_path / f"{name}.mrc", np.ones((2, 2, 2), np.float32), 5.0)
    code, _, err = tiltwise("new", tmp_path / "p", "--recipe", tmp_path / "two.toml")
    assert code == 0, err
    steps = {step.name: step for step in load_recipe(tmp_path / "p").steps}
    assert steps["polish"].inputs == {"particles": {"ribosome": "refine", "ferritin": "refine-ferritin"}}
    assert steps["postprocess"].inputs == {"half_maps": "polish/ribosome"}
    kinds = [steps["polish"].params.of_kind(name) for name in ("ribosome", "ferritin")]
    assert [(kind.particle_diameter, kind.symmetry) for kind in kinds] == [(270.0, "C1"), (140.0, "O")]
    set_params(tmp_path / "p", "polish", {"species": [{"name": "ferritin", "particle_diameter": 150.0}]})
    changed = load_recipe(tmp_path / "p").steps[7].params
    assert changed.of_kind("ferritin").particle_diameter == 150.0 and changed.particle_diameter == 270.0
