"""The history of a project is a script that makes it again; the doctor looks at this machine."""

import os
import subprocess
import sys

import numpy as np
import pytest
from tiny_projects import write_series

from tiltwise.io.imod import write_tlt, write_xf
from tiltwise.io.mrc import write_mrc
from tiltwise.project import machine
from tiltwise.project.history import history_script
from tiltwise.project.importing import import_tilt_series
from tiltwise.project.layout import import_folder
from tiltwise.project.machine import examine_machine
from tiltwise.project.records import read_record
from tiltwise.project.run import run_project
from tiltwise.project.state import ProjectState


@pytest.fixture
def shell(tmp_path):
    """Runs a script in which `tiltwise` is this one, on the tiny pipeline."""
    bin_folder = tmp_path / "bin"
    bin_folder.mkdir()
    tests = os.path.dirname(__file__)
    program = (
        f"#!{sys.executable}\nimport sys\nsys.path.insert(0, {tests!r})\n"
        "import tiny_projects\ntiny_projects.install()\n"
        "from tiltwise.cli import main\nmain()\n"
    )
    (bin_folder / "tiltwise").write_text(program)
    (bin_folder / "tiltwise").chmod(0o755)

    def run(script, *words):
        (tmp_path / "again.sh").write_text(script)
        return subprocess.run(
            ["sh", str(tmp_path / "again.sh"), *map(str, words)],
            capture_output=True,
            text=True,
            cwd=tmp_path,
            env=os.environ | {"PATH": f"{bin_folder}:{os.environ['PATH']}"},
        )

    return run


def test_the_script_makes_the_project_again(project, tmp_path, shell):
    """With an alignment, overrides, a reference inside the project, and a series whose folder has a blank in its
    name."""
    odd = tmp_path / "raw data's"
    write_series(odd, "D")
    transforms = np.array([np.eye(2, 3)] * 3)
    write_xf(odd / "D.xf", transforms)
    write_tlt(odd / "D.tlt", np.array([-3.0, 0, 3]))
    import_tilt_series(project, [odd / "D.mrc"], alignment=odd / "D.xf", pixel_size=7.5, exposure=3.0)
    write_mrc(project / "ref.mrc", np.arange(8, dtype=np.float32).reshape(2, 2, 2), 10.0)
    recipe = project / "project.toml"
    recipe.write_text(
        recipe.read_text().replace("# reference =", 'reference = "ref.mrc" #').replace('"local"', '"serial"')
    )
    assert ProjectState(project).recipe.inputs.reference == "ref.mrc"
    assert run_project(project).complete
    script = history_script(project)
    assert "# What has been made so far:" in script and "shift/D: done" in script

    done = shell(script, tmp_path / "p 2")
    assert done.returncode == 0, done.stderr
    old, new = ProjectState(project), ProjectState(tmp_path / "p 2")
    assert new.series == old.series == ("A", "B", "C", "D")
    for item in old.items():
        assert new.status(item) == "done"
    record = read_record(import_folder(tmp_path / "p 2", "D"))
    assert record["overrides"] == {"pixel_size": 7.5, "exposure": 3.0} and record["alignment"]
    assert (tmp_path / "p 2" / "project.toml").read_text().rstrip() == recipe.read_text().rstrip()


def test_a_changed_file_stops_the_script(project, tmp_path, shell):
    script = history_script(project)
    write_series(tmp_path / "raw", "B", seed=99)
    done = shell(script, tmp_path / "again")
    assert done.returncode != 0 and "B.mrc" in done.stdout + done.stderr


def test_the_doctor_looks_at_everything(tmp_path):
    findings = {one.what: one for one in examine_machine(tmp_path)}
    assert {"Python", "cores", "memory", "disk", "numpy", "torch loads", "GPU", "numba threads"} <= set(findings)
    assert findings["numpy"].found == np.__version__ and findings["Python"].verdict == "good"
    assert findings["torch loads"].verdict == "good" and str(tmp_path) in findings["disk"].found
    assert all(one.advice for one in findings.values() if one.verdict != "good")


def test_the_doctor_calls_a_busy_machine_busy(tmp_path, monkeypatch):
    monkeypatch.setattr(machine, "_PROBE_SECONDS", 1e-3)
    found = {one.what: one for one in examine_machine(tmp_path)}
    for what in ("torch loads", "numba threads"):
        assert found[what].verdict == "note" and "busy" in found[what].advice


def test_the_doctor_names_what_is_missing(tmp_path, monkeypatch):
    monkeypatch.setattr(
        machine.metadata, "requires", lambda name: ["numpy>=99.0", "absent-thing>=1.2", "x; extra == 'dev'"]
    )
    monkeypatch.setattr(machine, "_ask_libraries", lambda: {"error": "OSError: libcudart.so"})
    found = {one.what: one for one in examine_machine(tmp_path)}
    assert found["numpy"].verdict == "missing" and found["numpy"].advice == "pip install 'numpy>=99.0'"
    assert found["absent-thing"].found == "not installed" and "x" not in found
    assert found["torch loads"].found == "OSError: libcudart.so" and found["numba threads"].verdict == "missing"
