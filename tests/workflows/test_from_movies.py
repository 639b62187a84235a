"""From movies and an .mdoc, as the microscope leaves them, to images in a project."""

import sys
from pathlib import Path

import numpy as np
import pytest
import tifffile

sys.path.append(str(Path(__file__).parents[1] / "ops"))
from made_movies import make_movie

from tiltwise.data.errors import InputError
from tiltwise.io.mrc import write_mrc
from tiltwise.io.relion import read_tilt_series
from tiltwise.project.create import new_project
from tiltwise.project.importing import import_tilt_series
from tiltwise.project.records import read_record
from tiltwise.project.run import run_project
from tiltwise.project.state import project_status

SHAPE, PIXEL, FRAMES = (192, 256), 3.0, 4
TRACK = np.array([[0, 0], [6, -3], [9, -6], [10, -7.0]])


def write_movies(folder, broken=()):
    folder.mkdir()
    lines = [f"PixelSpacing = {PIXEL}", "Voltage = 300", "", "[T = Tilt axis angle = 85.0, binning = 1]"]
    for number, angle in enumerate((-3, 0, 3)):
        frames = make_movie(lambda f, x, y: np.broadcast_to(TRACK[f], (*x.shape, 2)), SHAPE, PIXEL, 0.8, number, FRAMES)
        path = folder / f"TS_{number:03d}_{angle}.tif"
        with tifffile.TiffWriter(path) as tiff:
            for frame in frames[:, ::-1]:
                tiff.write(frame, compression="lzw", photometric="minisblack", metadata=None)
        if number in broken:
            path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
        lines += ["", f"[ZValue = {number}]", f"TiltAngle = {angle}", f"ExposureDose = {0.8 * FRAMES}"]
        lines += [f"SubFramePath = D:\\frames\\{path.name}", f"DateTime = 01-Feb-24  10:0{number}:00"]
    (folder / "TS.mdoc").write_text("\n".join(lines) + "\n")
    return folder / "TS.mdoc"


def correct(folder, mdoc, **files):
    project = new_project(folder / "project", recipe="movies", **files)
    import_tilt_series(project, [mdoc])
    return project, run_project(project, executor="serial", steps=("motion", "motion"))


def test_movies_become_a_series_that_the_next_step_can_take(tmp_path):
    write_mrc(tmp_path / "gain.mrc", np.ones(SHAPE, np.float32), PIXEL)
    project, summary = correct(tmp_path, write_movies(tmp_path / "movies", broken=(1,)))
    assert not summary.failed
    series = read_tilt_series(project / "motion" / "TS" / "tilts.star", root=project)
    assert series.images.shape == (3, *SHAPE) and series.movies is None
    assert series.use.tolist() == [True, False, True]
    assert "cut short" in series.why_not[1] and "\n" not in series.why_not[1]
    odd, even = series.half_images
    assert np.allclose(series.images[2], odd[2] + even[2], atol=1e-3)
    quality = read_record(project / "motion" / "TS")["quality"]
    assert quality["kept"][0] in ("whole", "local") and quality["kept"][1] is None
    # the true track ends 12.2 Å from where it begins; the fit states its error
    assert quality["drift"][0] == pytest.approx(np.linalg.norm(TRACK[-1]), abs=5 * quality["shift_error"][0])
    stars = {row.step: row.state for row in project_status(project)}
    assert stars["motion"] == "done"


def test_a_gain_of_another_size_fails_its_item_in_one_line(tmp_path):
    write_mrc(tmp_path / "gain.mrc", np.ones((30, 40), np.float32), PIXEL)
    project, summary = correct(tmp_path, write_movies(tmp_path / "movies"), gain=tmp_path / "gain.mrc")
    assert summary.failed
    assert "the gain reference is 40 × 30 px" in read_record(project / "motion" / "TS")["error"]["message"]


def test_images_are_no_movies(tmp_path):
    folder = tmp_path / "still"
    folder.mkdir()
    images = np.random.default_rng(0).normal(size=(3, 32, 32)).astype(np.float32)
    write_mrc(folder / "TS.mrc", images, PIXEL, stack=True)
    (folder / "TS.rawtlt").write_text("-3\n0\n3\n")
    project, summary = correct(tmp_path, folder / "TS.mrc")
    assert summary.failed and "has no movies" in read_record(project / "motion" / "TS")["error"]["message"]
    with pytest.raises(InputError):
        import_tilt_series(tmp_path / "nowhere", [folder / "TS.mrc"])


def test_a_defect_map_is_an_input_of_the_recipe(tmp_path):
    (tmp_path / "defects.txt").write_text("# x y w h\n100 0 1 192\n")
    project, summary = correct(tmp_path, write_movies(tmp_path / "movies"), defects=tmp_path / "defects.txt")
    assert not summary.failed
    quality = read_record(project / "motion" / "TS")["quality"]
    assert "192 pixels" in quality["defect_map"] and min(quality["defective_pixels"]) >= 192
    assert "defects.txt" in (project / "project.toml").read_text()
    (tmp_path / "defects.txt").write_text("100 0 1 193\n")
    summary = run_project(project, executor="serial", steps=("motion", "motion"))
    assert "beyond the camera" in summary.failed["motion/TS"]
    assert "beyond the camera" in read_record(project / "motion" / "TS.failed")["error"]["message"]
    assert read_record(project / "motion" / "TS")["quality"] == quality
