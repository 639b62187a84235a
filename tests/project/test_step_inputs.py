"""Steps that take what they need from a step or file of their own choice, and several kinds of particles by name."""

import json
import tomllib

import numpy as np
import pytest

from tiltwise.data.errors import InputError
from tiltwise.data.volume import TomogramGrid
from tiltwise.io.mrc import write_mrc
from tiltwise.io.relion import read_optimisation_set
from tiltwise.params.polish import PolishParams, SpeciesParams
from tiltwise.project import store
from tiltwise.project.create import new_project
from tiltwise.project.graph import each_source, sources_of
from tiltwise.project.history import history_script
from tiltwise.project.particle_exchange import export_particles
from tiltwise.project.recipe import load_recipe
from tiltwise.project.recipe_text import write_params, write_recipe
from tiltwise.project.run import run_project
from tiltwise.project.state import project_status

BRANCHES = """
[[step]]
name = "shift"

[[step]]
name = "fill"

[[step]]
name = "mean"
inputs = { reference = "own.mrc" }

[[step]]
name = "more"
stage = "fill"
params = { size = 6 }

[[step]]
name = "pool"
inputs = { particles = { a = "mean", b = "more" } }

[[step]]
name = "last"
stage = "mean"
inputs = { particles = "pool/b" }
"""


def write_reference(project):
    write_mrc(project / "own.mrc", np.arange(8, dtype=np.float32).reshape(2, 2, 2), 10.0)


@pytest.fixture
def branched(project):
    write_reference(project)
    (project / "project.toml").write_text(BRANCHES)
    return project


def test_a_step_says_where_its_inputs_come_from(branched):
    recipe = load_recipe(branched)
    pooled, last = sources_of(recipe, 4), sources_of(recipe, 5)
    assert {name: source.step for name, source in each_source(pooled["particles"]).items()} == {"a": 2, "b": 3}
    assert pooled["tilt_series"].step == 0
    assert (last["particles"].step, last["particles"].species) == (4, "b")
    assert sources_of(recipe, 2)["reference"].path == "own.mrc" and last["reference"] is None


def test_several_kinds_run_side_by_side(branched):
    """mean keeps the 4 particles a series of `fill`, `more` makes 6; three series."""
    assert run_project(branched, executor="serial").complete
    folder = branched / "pool" / "all"
    assert {path.name for path in folder.glob("*.star")} == {"particles_a.star", "particles_b.star"}
    assert store.names_in("half_maps", folder) == ("a", "b")
    numbers = {name: len(store.load("particles", folder, branched, species=name)) for name in "ab"}
    assert numbers == {"a": 12, "b": 18}
    halves = store.load("half_maps", folder, branched, species="b")
    assert halves.half1.data.max() == 18 + 3 and halves.symmetry == "C6"
    assert json.loads((folder / "record.json").read_text())["quality"]["kinds"] == ["a", "b"]
    assert len(store.load("particles", branched / "last" / "all", branched)) == 18
    with pytest.raises(InputError, match="holds half maps of a, b, none alone"):
        store.load("half_maps", folder, branched)


def test_what_depends_on_one_branch_is_done_again_and_nothing_else(branched):
    run_project(branched, executor="serial")
    text = (branched / "project.toml").read_text()
    (branched / "project.toml").write_text(text.replace("size = 6", "size = 7"))
    found = {f"{row.step}/{row.item}": row.state for row in project_status(branched)}
    assert {step for step, state in found.items() if state == "outdated"} == {
        *("more/A", "more/B", "more/C"),
        *("pool/all", "last/all"),
    }
    write_mrc(branched / "own.mrc", np.ones((2, 2, 2), np.float32), 10.0)
    assert {f"{row.step}/{row.item}": row.state for row in project_status(branched)}["mean/all"] == "outdated"


def test_a_kind_whose_step_failed_stops_the_step_that_takes_it(branched):
    (branched / "own.mrc").write_bytes(b"no map")
    found = run_project(branched, executor="serial")
    assert set(found.failed) == {"mean/all"}
    assert found.skipped["pool/all"] == "mean/all failed"


def test_relion_finds_each_kind(branched):
    text = (branched / "project.toml").read_text()
    (branched / "project.toml").write_text(text[: text.index('[[step]]\nname = "last"')])
    run_project(branched, executor="serial")
    for name in "ab":
        found = read_optimisation_set(branched / f"optimisation_set_{name}.star")
        assert found["particles"] == f"particles_{name}.star" and (branched / found["particles"]).is_file()
    grid = TomogramGrid(shape=(10, 20, 20), voxel_size=10.0)
    counts = {
        name: sum(
            1
            for file in export_particles(branched, "dynamo", branched / name, kind=name, grid=grid)
            if file.suffix == ".tbl"
            for line in file.read_text().splitlines()
            if line.strip()
        )
        for name in "ab"
    }
    assert counts == {"a": 12, "b": 18}
    with pytest.raises(InputError, match="holds particles of a, b, none of 'c'"):
        export_particles(branched, "dynamo", branched / "c", kind="c", grid=grid)


def test_a_written_recipe_says_it_again(branched, tmp_path):
    recipe = load_recipe(branched)
    (branched / "project.toml").write_text(write_recipe(recipe))
    assert [step.inputs for step in load_recipe(branched).steps] == [step.inputs for step in recipe.steps]
    copy = new_project(tmp_path / "copy", recipe=str(branched / "project.toml"))
    assert (copy / load_recipe(copy).steps[2].inputs["reference"]).resolve() == branched / "own.mrc"
    assert str(branched / "own.mrc") in history_script(branched)


def test_parameters_of_kinds_are_written_and_set(branched):
    """A list of groups, as polish has it, in a file and from the command line's values."""
    params = PolishParams(species=(SpeciesParams(name="b", particle_diameter=130.0, symmetry="O"),))
    text = write_params(params, "polish")
    assert PolishParams.model_validate(tomllib.loads(text)) == params
    assert "[{" in text.replace("\n", "")


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('"pool/b"', '"pool/c"', "'last': inputs: particles: step 'pool' gives none of the name 'c'"),
        ('"pool/b"', '"pool"', "'last': inputs: particles: step 'pool' gives several, by name; say which: pool/a"),
        ('inputs = { particles = "pool/b" }', "", "'last': inputs: particles: step 'pool' gives several, by name"),
        (
            'b = "more"',
            'b = "mre"',
            "'pool': inputs: particles: no step 'mre' before it gives this; did you mean 'more'",
        ),
        ('b = "more"', 'b = "last"', "'pool': inputs: particles: no step 'last' before it gives this"),
        ('a = "mean"', '"a b" = "mean"', "'a b': a name is made of"),
        ('{ reference = "own.mrc" }', '{ refrence = "own.mrc" }', "'refrence'; did you mean 'reference'"),
        ('{ reference = "own.mrc" }', "{ reference = 3 }", "reference: the name of a step or file, got 3"),
        ('"pool/b"', '{ x = "pool/b" }', "particles: one is taken, not several by name"),
        ('inputs = { particles = "pool/b" }', 'inputs = "pool"', "inputs: written as kind = step or file"),
        ('reference = "own.mrc"', 'reference = "gone.mrc"', "gone.mrc: no such file"),
    ],
)
def test_faults_are_one_line(branched, old, new, message):
    text = (branched / "project.toml").read_text()
    assert old in text
    (branched / "project.toml").write_text(text.replace(old, new, 1))
    with pytest.raises(InputError, match=message) as caught:
        run_project(branched, executor="serial")
    assert "\n" not in str(caught.value)
