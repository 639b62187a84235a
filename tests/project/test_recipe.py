"""project.toml: whatever a user writes is either understood or refused in one line that names file, step and key."""

import tomllib

import fake_stages
import pytest

from tiltwise.data.errors import InputError
from tiltwise.project.create import new_project
from tiltwise.project.graph import sources_of
from tiltwise.project.recipe import load_recipe
from tiltwise.project.recipe_text import parse_changes, set_params, unit_of


@pytest.fixture
def recipe(tmp_path):
    return new_project(tmp_path / "p") / "project.toml"


def change(path, old, new):
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))
    return path.parent


def test_new_recipe_is_complete_and_says_units(recipe):
    text = recipe.read_text()
    assert "[Å] Shift of every image." in text
    assert "# start =" in text
    written = tomllib.loads(text)
    assert [step["name"] for step in written["step"]] == ["shift", "fill", "mean"]
    fields = set(fake_stages.ShiftParams.model_fields) - {"start"}
    assert set(written["step"][0]["params"]) == fields


def test_unit_is_found_in_optional_fields():
    fields = fake_stages.ShiftParams.model_fields
    assert [unit_of(fields[name]) for name in ("shift", "start", "seconds")] == ["Å", "Å", ""]


def test_overrides_of_a_new_project(tmp_path):
    project = new_project(tmp_path / "p", params={"shift": {"shift": 7.5}})
    assert load_recipe(project).steps[0].params.shift == 7.5
    with pytest.raises(InputError, match="no step 'shft'"):
        new_project(tmp_path / "q", params={"shft": {}})
    with pytest.raises(InputError, match="unknown key 'shif'; did you mean 'shift'"):
        new_project(tmp_path / "q", params={"shift": {"shif": 1}})
    with pytest.raises(InputError, match="already a project"):
        new_project(tmp_path / "p")


def test_a_recipe_file_starts_a_project_with_its_files_and_with_what_is_set_over_it(tmp_path):
    (tmp_path / "lab").mkdir()
    (tmp_path / "lab" / "map.mrc").write_bytes(b"map")
    short = tmp_path / "lab" / "short.toml"
    short.write_text(
        '[inputs]\nreference = "map.mrc"\n[[step]]\nname = "shift"\nparams = { shift = 2.0, start = 3.0 }\n'
    )
    project = new_project(
        tmp_path / "p", recipe=str(short), params=parse_changes(["shift.shift=4", "shift.start = 5.5"])
    )
    made = load_recipe(project)
    assert [step.name for step in made.steps] == ["shift"]
    assert (made.steps[0].params.shift, made.steps[0].params.start) == (4.0, 5.5)
    assert (project / made.inputs.reference).resolve() == tmp_path / "lab" / "map.mrc"
    again = load_recipe(new_project(tmp_path / "q", recipe=str(project / "project.toml")))
    assert again.steps == made.steps
    (tmp_path / "lab" / "map.mrc").unlink()
    with pytest.raises(InputError, match="map.mrc: no such file"):
        new_project(tmp_path / "r", recipe=str(short))
    assert not (tmp_path / "r").exists()


def test_parameters_set_on_the_command_line_are_values_of_toml_or_words():
    found = parse_changes(["refine.symmetry=C6", "refine.iterations=3", "reconstruct.iterative.positivity=true"])
    assert found == {
        "refine": {"symmetry": "C6", "iterations": 3},
        "reconstruct": {"iterative": {"positivity": True}},
    }
    for wrong in ("refine=3", "refine.iterations", ".x=1"):
        with pytest.raises(InputError, match="is set as STEP.KEY=VALUE"):
            parse_changes([wrong])


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("shift = 1.0", "shift = -1.0", "step 'shift': shift: .* greater than or equal to 0, got -1.0"),
        ("shift = 1.0", "shfit = 1.0", "step 'shift': unknown key 'shfit'; did you mean 'shift'"),
        ("shift = 1.0", "shift = 'much'", "step 'shift': shift: .* valid number"),
        ('stage = "fill"', 'stage = "fil"', "step 'fill': no stage 'fil'; did you mean 'fill'"),
        ('name = "fill"', 'nme = "fill"', "step 2: unknown key 'nme'; did you mean 'name'"),
        ('name = "fill"', 'name = "shift"', "two steps are named 'shift'"),
        ('name = "fill"', 'name = "import"', "'import': this name is taken"),
        ('name = "fill"', 'name = "a/b"', "'a/b': a name is made of"),
        ("[run]", "[rnu]", "unknown key 'rnu'; did you mean 'run'"),
        ('executor = "local"', 'executor = "locl"', r"\[run\]: executor"),
        ("[run]", "[run", "not valid TOML"),
    ],
)
def test_faults_are_one_line_naming_file_step_and_key(recipe, old, new, message):
    project = change(recipe, old, new)
    with pytest.raises(InputError, match=message) as caught:
        load_recipe(project)
    assert "\n" not in str(caught.value)
    assert str(recipe) in str(caught.value)


def test_set_params_keeps_comments_and_places(recipe):
    project = change(recipe, "shift = 1.0", "# mine\nshift = 1.0")
    before = recipe.read_text().splitlines()
    set_params(project, "shift", {"shift": 2.5, "start": 4.0})
    params = load_recipe(project).steps[0].params
    assert (params.shift, params.start) == (2.5, 4.0)
    after = recipe.read_text().splitlines()
    assert len(after) == len(before)
    changed = [(old, new) for old, new in zip(before, after, strict=True) if old != new]
    assert [new.split("#")[0].strip() for _, new in changed] == ["shift = 2.5", "start = 4.0"]
    assert all(old.split("# ")[-1] == new.split("# ")[-1] for old, new in changed)
    set_params(project, "shift", {"shift": 1.0, "start": None})
    assert load_recipe(project).steps[0].params == fake_stages.ShiftParams()


def test_set_params_of_one_step_leaves_another_of_the_same_stage(recipe):
    recipe.write_text(recipe.read_text() + '\n[[step]]\nname = "again"\nstage = "shift"\nparams = { shift = 3 }\n')
    set_params(recipe.parent, "again", {"shift": 4.0, "start": 1.0})
    steps = load_recipe(recipe.parent).steps
    assert (steps[0].params.shift, steps[0].params.start) == (1.0, None)
    assert (steps[3].params.shift, steps[3].params.start) == (4.0, 1.0)


def test_a_refused_change_leaves_the_file_alone(recipe):
    before = recipe.read_text()
    with pytest.raises(InputError):
        set_params(recipe.parent, "shift", {"shift": -4})
    assert recipe.read_text() == before


def test_inputs_come_from_the_nearest_step_before(recipe):
    recipe.write_text(
        recipe.read_text() + '\n[[step]]\nname = "again"\nstage = "shift"\n\n[[step]]\nname = "more"\nstage = "mean"\n'
    )
    loaded = load_recipe(recipe.parent)
    assert sources_of(loaded, 0)["tilt_series"].step is None
    assert sources_of(loaded, 3)["tilt_series"].step == 0
    assert {kind: source and source.step for kind, source in sources_of(loaded, 4).items()} == {
        "tilt_series": 3,
        "particles": 2,
        "reference": None,
    }


def test_a_step_without_its_input_is_refused(recipe):
    text = recipe.read_text()
    recipe.write_text(text[: text.index('[[step]]\nname = "fill"')] + '[[step]]\nname = "mean"\nstage = "mean"\n')
    with pytest.raises(InputError, match="'mean' needs particles"):
        sources_of(load_recipe(recipe.parent), 1)
