"""Input that is poor or wrong, in whole projects: few particles, one tilt series, tilts of one side, a wrong pixel
size, a mirrored reference, a reference of another size. Each is named in one line, and nothing that was is lost."""

import json
from dataclasses import replace

import numpy as np
import pytest
from blob_project import particle_scene, picked_project, put

from tiltwise.cli import main
from tiltwise.io.mrc import write_volume
from tiltwise.ops.maps import reference_check
from tiltwise.ops.particles.half_maps import average_particles
from tiltwise.project import run
from tiltwise.project.records import read_record

QUICK = {"search_shift": 0.0, "reference_lowpass": 60.0, "refine_tilt_shifts": False}
"""The places are true: rotations alone are searched, all of them. At 60 Å this body is much like its mirror image, so
that the poses follow the images; at 50 Å they may stay with a mirrored reference, and no hand is told."""


@pytest.fixture(autouse=True)
def quickly(monkeypatch):
    """On one core, which other work may not share; of the places that a search finds for the reference, or its mirror
    image, on the average fewer are refined."""
    monkeypatch.setattr(run, "count_cores", lambda: 1)
    monkeypatch.setattr(reference_check, "_CANDIDATES", 2)


@pytest.fixture(scope="module")
def made():
    """Two series of twelve particles."""
    return particle_scene.scene()


def few_particles(scene, reference):
    return replace(scene, particles=scene.particles[np.arange(3)]), reference


def one_series(scene, reference):
    first = {name: one for name, one in scene.tilt_series.items() if name == "TS_1"}
    return replace(
        scene, tilt_series=first, particles=scene.particles[scene.particles.tilt_series == "TS_1"]
    ), reference


def tilts_of_one_side(scene, reference):
    upper = {n: replace(one, use=one.stage_tilt_angle >= 0) for n, one in scene.tilt_series.items()}
    return replace(scene, tilt_series=upper), reference


def a_wrong_pixel_size(scene, reference):
    return scene, replace(reference, voxel_size=1.1 * reference.voxel_size)


def a_mirrored_reference(scene, reference):
    return scene, replace(reference, data=np.ascontiguousarray(reference.data[:, :, ::-1]))


def a_reference_of_another_size(scene, reference):
    return scene, replace(reference, data=np.ascontiguousarray(reference.data[8:-8, 8:-8, 8:-8]))


NOTES = {
    one_series: "all particles come from one tilt series (TS_1): both halves share the errors of its alignment",
    tilts_of_one_side: "all used tilts are on one side in TS_1 (0° to 60°), TS_2 (0° to 60°): a wedge of 120° or more",
    a_wrong_pixel_size: "the reference agrees best with the average when magnified 0.",
    a_mirrored_reference: "the reference looks mirrored: its mirror image agrees with the average better",
    a_reference_of_another_size: "the reference's box is 128 Å wide, less than the particle_diameter of 150 Å",
}


def project_of(folder, fault, scene):
    scene, reference = fault(scene, particle_scene.reference(scene.centres))
    write_volume(folder / "reference.mrc", reference)
    rounds = 3 if fault is a_mirrored_reference else 2 if fault is a_wrong_pixel_size else 1
    return picked_project(folder, scene, refine=QUICK | {"iterations": rounds}, reference=folder / "reference.mrc")


def refined(project, capsys):
    """`tiltwise run` up to refine: exit code, and the events of that step."""
    with pytest.raises(SystemExit) as left:
        main(["run", str(project), "--to", "refine", "--executor", "serial", "--json"])
    printed = capsys.readouterr()
    assert not printed.err
    events = [json.loads(line) for line in printed.out.splitlines()]
    return left.value.code, [event for event in events if event.get("step") == "refine"]


def contents(project):
    """Bytes of the recipe and of every result, by path."""
    steps = ("import", "align", "defocus", "reconstruct", "pick", "refine")
    files = [project / "project.toml", *(path for step in steps for path in (project / step).rglob("*"))]
    return {path: path.read_bytes() for path in files if path.is_file()}


@pytest.mark.parametrize("fault", NOTES, ids=lambda fault: fault.__name__)
def test_what_can_be_refined_is_and_says_what_is_wrong(made, tmp_path, capsys, fault):
    project, _ = project_of(tmp_path, fault, made)
    before = contents(project)
    code, events = refined(project, capsys)
    assert code == 0 and {path: path.read_bytes() for path in before} == before
    notes = read_record(project / "refine" / "all")["quality"]["notes"]
    said = [event["message"] for event in events if event.get("fraction") == 1.0]
    assert len(notes) == 1 and notes[0].startswith(NOTES[fault]) and "\n" not in notes[0]
    assert len(said) == 1 and said[0].endswith(f"; {notes[0]}")


def test_three_particles_are_refused_and_an_earlier_result_stays(made, tmp_path, capsys):
    project, series = project_of(tmp_path, few_particles, made)
    halves = replace(made.particles, half_set=np.arange(len(made.particles)) % 2 + 1)
    maps = average_particles(made.tilt_series, halves, box_size=32, particle_diameter=particle_scene.DIAMETER)
    put(project, "refine", "all", {}, {"particles": halves, "half_maps": maps, "tilt_series": series})
    record = project / "refine" / "all" / "record.json"
    record.write_text(json.dumps(json.loads(record.read_text()) | {"fingerprint": "of more particles"}))
    before = contents(project)
    code, events = refined(project, capsys)
    failures = [event["message"] for event in events if event["kind"] == "item_failed"]
    assert code == 3 and failures == ["particles: 3 in all, 4 are needed in each half"]
    assert {path: path.read_bytes() for path in before} == before
