"""From movies through the step `frames` in a project: movies are read once more, new stacks are written, or none."""

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

for folder in ("stages", "report"):
    sys.path.append(str(Path(__file__).parents[1] / folder))
from movie_scene import EXPOSURE, FRAMES, NAME, movie_scene, walks  # noqa: E402
from particle_scene import DIAMETER, PIXEL  # noqa: E402
from report_project import put  # noqa: E402

from tiltwise.cli import main  # noqa: E402
from tiltwise.io.mrc import write_mrc  # noqa: E402
from tiltwise.project import store  # noqa: E402
from tiltwise.project.create import find_recipe, new_project  # noqa: E402
from tiltwise.project.graph import sources_of  # noqa: E402
from tiltwise.project.importing import import_tilt_series  # noqa: E402
from tiltwise.project.records import read_record  # noqa: E402
from tiltwise.project.run import run_project  # noqa: E402
from tiltwise.report.write import write_report  # noqa: E402

RECIPE = f"""
[run]
executor = "serial"
threads = 1

[[step]]
name = "motion"
params = {{ model = "none", defects = false }}

[[step]]
name = "align"

[[step]]
name = "reconstruct"

[[step]]
name = "pick"

[[step]]
name = "refine"

[[step]]
name = "frames"
params = {{ particle_diameter = {DIAMETER}, shift_step = 5.0, field_step = 1.5 }}
"""


def refined_project(folder, shifts, **scene):
    """Movies imported and summed by the step `motion`, which finds no motion; all to `refine` done by hand."""
    made = movie_scene(shifts, **scene)
    series, raw = made.tilt_series, folder / "raw"
    raw.mkdir()
    lines = [f"PixelSpacing = {PIXEL}", "Voltage = 300", "", "[T = Tilt axis angle = 85.0, binning = 1]"]
    for tilt, angle in enumerate(series.stage_tilt_angle):
        write_mrc(raw / f"{NAME}_{tilt:02d}.mrc", np.array(list(made.motions.movies[tilt])), PIXEL, stack=True)
        second = int(series.acquisition_order[tilt])
        lines += ["", f"[ZValue = {tilt}]", f"TiltAngle = {angle}", f"ExposureDose = {EXPOSURE}"]
        lines += [f"SubFramePath = D:\\frames\\{NAME}_{tilt:02d}.mrc", f"DateTime = 01-Feb-24  10:00:{second:02d}"]
    (raw / f"{NAME}.mdoc").write_text("\n".join(lines) + "\n")
    project = new_project(folder / "project", recipe="movies")
    (project / "project.toml").write_text(RECIPE)
    import_tilt_series(project, [raw / f"{NAME}.mdoc"])
    assert not run_project(project, executor="serial", steps=("motion", "motion")).failed
    summed = store.load("tilt_series", project / "motion" / NAME, project)
    known = {"geometry": series.geometry, "ctf": series.ctf, "defocus_handedness": series.defocus_handedness}
    values = {"tilt_series": {NAME: replace(summed, **known)}, "half_maps": made.half_maps}
    put(project, "refine", "all", {}, values | {"particles": made.particles})
    return project, made, summed


def run_frames(project):
    with pytest.raises(SystemExit) as left:
        main(["frames", str(project), "--executor", "serial"])
    assert not left.value.code
    return store.load("tilt_series", project / "frames" / NAME, project)


def test_frames_in_a_project(tmp_path):
    shifts = walks(21, FRAMES, 5.0)
    project, made, summed = refined_project(tmp_path, shifts, noise=0.5)
    assert np.allclose(summed.images, made.tilt_series.images, atol=1e-3)
    found = run_frames(project)
    quality = read_record(project / "frames" / NAME)["quality"]
    assert quality["taken"] == ["shift"] and (project / "frames" / NAME / "images.mrc").is_file()
    assert found.geometry is not None and found.ctf is not None
    motions = store.load("motions", project / "frames" / NAME, project)
    rest = np.array([one.shift for one in motions.motion]) - shifts
    assert np.sqrt((rest**2).mean()) < 0.1 * np.sqrt((shifts**2).mean())
    before, after = (np.asarray(one.images, float).reshape(21, -1) for one in (summed, found))
    clean = made.clean.reshape(21, -1)
    gain = [(clean * (x - x.mean(1, keepdims=True))).sum() / (clean**2).sum() for x in (before, after)]
    assert gain[0] < 0.9 and gain[1] == pytest.approx(1, abs=0.02)
    page = write_report(project).read_text()
    assert "shifts of the frames" in page


def test_images_stay_those_of_the_step_before_where_nothing_is_told(tmp_path):
    project, _, summed = refined_project(tmp_path, np.zeros((21, FRAMES, 2)), noise=1.5, particles=5)
    found = run_frames(project)
    assert found.image_names == summed.image_names and found.half_image_names == summed.half_image_names
    assert sorted(path.suffix for path in (project / "frames" / NAME).iterdir() if path.suffix == ".mrc") == []
    one, other = ((project / step / NAME / "motions.star").read_text() for step in ("motion", "frames"))
    assert one == other
    assert read_record(project / "frames" / NAME)["quality"]["taken"] == []


def test_frames_are_not_refined_by_what_other_movies_gave(tmp_path):
    """A movie changed since: all that rests on it is outdated, and the step is left out until that is made anew."""
    project, _, _ = refined_project(tmp_path, np.zeros((21, FRAMES, 2)), noise=1.5, particles=5)
    path = tmp_path / "raw" / f"{NAME}_03.mrc"
    path.write_bytes(path.read_bytes()[:5000])
    with pytest.raises(SystemExit) as left:
        main(["frames", str(project), "--executor", "serial"])
    assert left.value.code and not (project / "frames" / NAME).exists()


def test_the_starting_recipe_polishes_before_and_after():
    recipe = find_recipe("movies-polished")
    names = [step.name for step in recipe.steps]
    assert names[-4:] == ["polish", "frames", "polish-frames", "postprocess"] and names[0] == "motion"
    frames, last = recipe.step_number("frames"), recipe.step_number("polish-frames")
    taken = sources_of(recipe, frames)
    assert {taken[kind].step for kind in ("tilt_series", "particles", "half_maps")} == {frames - 1}
    assert taken["motions"].step == 0
    assert sources_of(recipe, last)["tilt_series"].step == frames
    assert sources_of(recipe, last)["particles"].step == frames - 1
