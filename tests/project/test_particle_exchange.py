"""Particles of another program go through the pipeline in the place of picks, and out again."""

from dataclasses import replace

import fake_stages
import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from tiltwise import pipeline
from tiltwise.cli import main
from tiltwise.data.errors import InputError
from tiltwise.data.particles import Particles
from tiltwise.data.volume import TomogramGrid
from tiltwise.io.particle_files import read_particle_files, write_particle_files
from tiltwise.project import store
from tiltwise.project.create import new_project
from tiltwise.project.history import history_script
from tiltwise.project.layout import given_folder
from tiltwise.project.particle_exchange import export_particles, import_particles
from tiltwise.project.records import read_record
from tiltwise.project.run import run_project
from tiltwise.project.state import project_status

GRID = TomogramGrid(shape=(4, 8, 6), voxel_size=5.0)


@pytest.fixture(autouse=True)
def fill_can_be_given(monkeypatch):
    """The second fake stage stands for pick, as in the table."""
    given = {"given": "fake_stages:given_particles", "given_takes": ("given_particles", "tilt_series")}
    stages = (fake_stages.STAGES[0], replace(fake_stages.STAGES[1], **given), *fake_stages.STAGES[2:])
    monkeypatch.setattr(pipeline, "BY_NAME", {stage.name: stage for stage in stages})


def make_particles(names=("A", "B", "C"), shift=0.0):
    number = 2 * len(names)
    return Particles(
        tilt_series=np.repeat(names, 2),
        position=np.arange(3.0 * number).reshape(-1, 3) / 2 - 4 + shift,
        rotation=Rotation.random(number, random_state=1),
        score=np.ones(number),
        half_set=np.array([1, 2] * len(names)),
        region=np.full(number, -1),
    )


def write_list(folder, particles, form):
    folder.mkdir(exist_ok=True)
    names = set(particles.tilt_series.tolist())
    return write_particle_files(folder, particles, form, dict.fromkeys(names, GRID), dict.fromkeys(names, 5.0))[0]


def states(project):
    return {f"{row.step}/{row.item}": row.state for row in project_status(project)}


def test_given_particles_take_the_place_of_picks_and_mark_what_follows(project, tmp_path):
    before = make_particles(("A", "B"))
    path = write_list(tmp_path / "list", before, "stopgap")
    rows = import_particles(project, path, grid=GRID)
    assert [(row.name, row.particles, row.halves, row.form) for row in rows] == [
        ("A", 2, (1, 1), "stopgap"),
        ("B", 2, (1, 1), "stopgap"),
    ]
    assert run_project(project, executor="serial").complete
    functions = {name: read_record(project / "fill" / name)["function"] for name in "ABC"}
    assert functions == {
        "A": "fake_stages:given_particles",
        "B": "fake_stages:given_particles",
        "C": "fake_stages:fill",
    }
    held = store.load("particles", project / "mean" / "all", project)
    taken = held[held.tilt_series == "B"]
    assert np.allclose(taken.position, before.position[2:], atol=1e-3) and taken.half_set.tolist() == [1, 2]
    assert set(states(project).values()) == {"done"}

    import_particles(
        project, write_list(tmp_path / "list", make_particles(("A", "B"), shift=1.0), "stopgap"), grid=GRID
    )
    changed = states(project)
    assert changed["fill/A"] == changed["fill/B"] == changed["mean/all"] == "outdated"
    assert changed["fill/C"] == changed["shift/A"] == "done"
    assert "--particles" in history_script(project) and "--particle-tomogram-size 6,8,4" in history_script(project)


def test_export_gives_the_particles_back_in_every_format(project, tmp_path):
    with pytest.raises(InputError, match="no particles yet"):
        export_particles(project, "dynamo", tmp_path / "x")
    import_particles(project, write_list(tmp_path / "list", make_particles(), "warp"), grid=GRID)
    assert run_project(project, executor="serial").complete
    for form in ("warp", "dynamo", "stopgap", "em", "copick", "peet"):
        files = export_particles(project, form, tmp_path / form, grid=GRID)
        source = tmp_path / form if form in ("copick", "peet") else files[0]
        import_particles(project, source, grid=GRID)
        run_project(project, executor="serial")
        for number, name in enumerate("ABC"):
            one = store.load("given_particles", given_folder(project, name), project, series=name)
            own = make_particles()[2 * number : 2 * number + 2]
            assert np.abs(one.position - own.position).max() < 1e-3
            assert np.degrees((one.rotation.inv() * own.rotation).magnitude()).max() < 1e-4


def test_faults_leave_the_project_as_it_was(project, tmp_path):
    path = write_list(tmp_path / "list", make_particles(("A", "B")), "stopgap")
    with pytest.raises(InputError, match="counts in voxels of a tomogram, and A has none yet"):
        import_particles(project, path)
    with pytest.raises(InputError, match="no particle format 'eman'"):
        import_particles(project, path, form="eman")
    with pytest.raises(InputError, match="no such file or folder"):
        import_particles(project, tmp_path / "absent.tbl")
    assert not (project / "given_particles").exists()


def test_command_line(project, tmp_path, capsys):
    def tiltwise(*words):
        with pytest.raises(SystemExit) as left:
            main([str(word) for word in words])
        return left.value.code, "".join(capsys.readouterr())

    path, out = write_list(tmp_path / "list", make_particles(), "em"), tmp_path / "out"
    sizes = ["--particle-voxel-size-A", "5", "--particle-tomogram-size", "6,8,4"]
    code, said = tiltwise("import", project, "--particles", path, *sizes)
    assert code == 0 and "particles of" in said and "1 + 1" in said
    assert run_project(project, executor="serial").complete
    code, said = tiltwise("export", project, "--particles", "dynamo", "--output", out, *sizes)
    assert code == 0 and said.split() == [f"{out}/particles.tbl", f"{out}/particles.doc"]
    volume = zip(("PixelSize", "DimensionsX", "DimensionsY", "DimensionsZ"), (5, 6, 8, 4), strict=True)
    params = "".join(f'<Param Name="{name}" Value="{value}"/>' for name, value in volume)
    files = "".join(f'<File Hash="hash{name}" Name="{name}.tomostar"/>' for name in "ABC")
    (tmp_path / "a.source").write_text(f"<DataSource>{params}<Files>{files}</Files></DataSource>")
    code, said = tiltwise("export", project, "--particles", "m", "--output", out)
    assert code == 2 and "name its .source file (--m-source)" in said
    code, said = tiltwise("export", project, "--particles", "m", "--m-source", tmp_path / "a.source", "--output", out)
    assert code == 0 and said.split() == [f"{out}/particles.star"]
    back, _ = read_particle_files(out / "particles.star", "m", ["A", "B", "C"], lambda name: GRID)
    assert np.abs(back.position - make_particles().position).max() < 1e-3
    code, said = tiltwise("import", project)
    assert code == 2 and "nothing to import" in said
    code, said = tiltwise("export", project, "--output", out)
    assert code == 2 and "either the alignment (--format) or the particles" in said
    code, said = tiltwise("import", project, "--particles", path, *sizes[:2])
    assert code == 2 and "go together" in said


def test_shapes_of_each_series_are_a_file_or_none(project, tmp_path):
    """{series} in the name: a series without its file has none, and a file that changes marks its series alone."""
    (tmp_path / "A.txt").write_text("A mt 0 0 0\nA mt 9 0 0\n")
    place = str(tmp_path / "{series}.txt")
    assert store.load("shapes", tmp_path / "A.txt", project, series="A").points.shape == (2, 3)
    assert store.load("shapes", tmp_path / "B.txt", project, series="B") is None
    text = (project / "project.toml").read_text()
    assert "# shapes =" in text or "shapes" in text
    recipe = new_project(tmp_path / "other", shapes=tmp_path / "{series}.txt")
    assert place in (recipe / "project.toml").read_text()
