"""A series aligned elsewhere goes through the pipeline with its geometry, and out again: nothing is found anew, and
what depends on the alignment knows when it changes."""

import json
from dataclasses import replace

import fake_stages
import numpy as np
import pytest
from tiny_projects import write_series

from tiltwise import pipeline
from tiltwise.data.errors import InputError
from tiltwise.io.imod import write_tlt, write_xf
from tiltwise.project import store
from tiltwise.project.exporting import export_alignments
from tiltwise.project.importing import import_tilt_series
from tiltwise.project.layout import import_folder
from tiltwise.project.records import read_record
from tiltwise.project.run import run_project
from tiltwise.project.state import project_status


@pytest.fixture(autouse=True)
def shift_can_be_given(monkeypatch):
    """The first fake stage stands for align, as in the table."""
    stages = (
        replace(fake_stages.STAGES[0], given="tiltwise.stages.given:given", given_takes=("tilt_series",)),
        *fake_stages.STAGES[1:],
    )
    monkeypatch.setattr(pipeline, "BY_NAME", {stage.name: stage for stage in stages})


def write_alignment(folder, name, shift=4.0):
    folder.mkdir(exist_ok=True)
    transforms = np.array([np.eye(2, 3)] * 3)
    transforms[:, :, 2] = [[shift, index] for index in range(3)]
    write_xf(folder / f"{name}.xf", transforms)
    write_tlt(folder / f"{name}.tlt", np.array([-2.5, 0.5, 3.5]))


def states(project):
    return {f"{row.step}/{row.item}": row.state for row in project_status(project)}


def test_a_given_alignment_is_taken_over_and_its_change_marks_what_follows(project, tmp_path):
    write_alignment(tmp_path / "imod", "A")
    (series,) = import_tilt_series(project, [tmp_path / "raw" / "A.mrc"], alignment=tmp_path / "imod")
    assert any(note == "aligned by IMOD: A.xf" for note in series.notes)
    record = read_record(import_folder(project, "A"))
    assert record["alignment"]["file"].endswith("imod/A.xf") and len(record["alignment"]["sha256"]) == 64

    summary = run_project(project, executor="serial")
    assert summary.complete
    taken, found = (read_record(project / "shift" / name) for name in ("A", "B"))
    assert taken["function"] == "tiltwise.stages.given:given" and taken["quality"]["given"] is True
    assert found["function"] == "fake_stages:shift"
    imported = store.load("tilt_series", import_folder(project, "A"), project)
    aligned = store.load("tilt_series", project / "shift" / "A", project)
    # x' = x + 4: the origin lies 4 px to the left; IMOD's middle of 6 x 8 px is half a pixel before ours
    assert np.array_equal(aligned.geometry.shift[:, 0], [-4.5 * 5.0] * 3)
    assert np.array_equal(aligned.geometry.shift, imported.geometry.shift)
    assert aligned.geometry.tilt_angle.tolist() == [-2.5, 0.5, 3.5]
    assert set(states(project).values()) == {"done"}

    write_alignment(tmp_path / "imod", "A", shift=7.0)
    import_tilt_series(project, [tmp_path / "raw" / "A.mrc"], alignment=tmp_path / "imod" / "A.xf")
    changed = states(project)
    assert changed["shift/A"] == changed["fill/A"] == changed["mean/all"] == "outdated"
    assert changed["shift/B"] == changed["fill/B"] == "done"
    run_project(project, executor="serial")
    import_tilt_series(project, [tmp_path / "raw" / "A.mrc"])
    assert states(project)["shift/A"] == "outdated"
    run_project(project, executor="serial")
    assert read_record(project / "shift" / "A")["function"] == "fake_stages:shift"


def test_a_fault_in_an_alignment_leaves_the_project_as_it_was(project, tmp_path):
    write_alignment(tmp_path / "imod", "A")
    before = (project / "import" / "A" / "record.json").read_bytes()
    with pytest.raises(InputError, match="imod: holds no alignment of B"):
        import_tilt_series(project, [tmp_path / "raw"], alignment=tmp_path / "imod")
    write_tlt(tmp_path / "imod" / "A.tlt", np.array([40.0, -3.0, 0.0]))
    with pytest.raises(InputError, match=r"A\.xf: its tilt angles are not those of A"):
        import_tilt_series(project, [tmp_path / "raw" / "A.mrc"], alignment=tmp_path / "imod")
    assert (project / "import" / "A" / "record.json").read_bytes() == before


def test_export_and_import_close_the_circle(project, tmp_path):
    with pytest.raises(InputError, match="A: is not aligned yet"):
        export_alignments(project, "aretomo", tmp_path / "out")
    run_project(project, executor="serial", steps=("shift", "shift"))
    files = export_alignments(project, "aretomo", tmp_path / "out")
    assert [file.name for file in files] == ["A.aln", "B.aln", "C.aln"]
    assert [file.name for file in export_alignments(project, "imod", tmp_path / "one", only=["B"])][0] == "B.tlt"
    before = store.load("tilt_series", project / "shift" / "B", project).geometry
    import_tilt_series(project, [tmp_path / "raw" / "B.mrc"], alignment=tmp_path / "out")
    after = store.load("tilt_series", import_folder(project, "B"), project).geometry
    assert np.allclose(after.shift, before.shift, atol=0.003) and np.allclose(after.tilt_angle, before.tilt_angle)
    for words, fault in (
        (("dynamo", tmp_path / "x"), "no format 'dynamo'"),
        (("imod", tmp_path / "raw/A.mrc"), "A.mrc"),
    ):
        with pytest.raises(InputError, match=fault):
            export_alignments(project, *words)
    with pytest.raises(InputError, match="no tilt series 'D'"):
        export_alignments(project, "imod", tmp_path / "x", only=["D"])


def test_relions_files_of_a_project_go_into_another(project, tmp_path):
    run_project(project, executor="serial", steps=("shift", "shift"))
    export_alignments(project, "relion", tmp_path / "relion")
    import_tilt_series(project, [tmp_path / "raw"], alignment=tmp_path / "relion")
    record = json.loads((import_folder(project, "C") / "record.json").read_text())
    assert record["alignment"]["file"].endswith("tilt_series.star")
    geometry = store.load("tilt_series", import_folder(project, "C"), project).geometry
    assert np.array_equal(geometry.shift, np.ones((3, 2)))
    write_series(tmp_path / "raw", "D")
    with pytest.raises(InputError, match="holds no alignment of D"):
        import_tilt_series(project, [tmp_path / "raw" / "D.mrc"], alignment=tmp_path / "relion")
