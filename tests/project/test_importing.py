"""Import: what lies beside what is found, the images stay where they are, and a fault leaves the project as it was."""

from pathlib import Path

import numpy as np
import pytest
from tiny_projects import write_series

from tiltwise.data.errors import InputError
from tiltwise.io.mrc import write_mrc
from tiltwise.project import store
from tiltwise.project.create import new_project
from tiltwise.project.history import history_script
from tiltwise.project.importing import find_series, import_tilt_series
from tiltwise.project.layout import list_series
from tiltwise.project.records import read_record

HIV = Path(__file__).parents[2].parent / "shared" / "data" / "hiv_empiar10164" / "stacks"


def names(paths):
    return [path.name for path in paths]


def test_one_file_stands_for_each_series(tmp_path):
    write_series(tmp_path, "A")
    write_series(tmp_path, "B")
    (tmp_path / "A.mrc.mdoc").touch()
    (tmp_path / "C.mdoc").touch()
    write_mrc(tmp_path / "tomogram.mrc", np.zeros((2, 2, 2), np.float32), 1.0)
    assert names(find_series([tmp_path])) == ["A.mrc", "B.mrc", "C.mdoc"]
    given = [tmp_path / name for name in ("A.mrc", "A.mrc.mdoc", "A.rawtlt", "C.mdoc")]
    assert names(find_series(given)) == ["A.mrc", "C.mdoc"]
    with pytest.raises(InputError, match="nothing: no such file or folder"):
        find_series([tmp_path / "nothing"])
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="empty: holds no stack"):
        find_series([tmp_path / "empty"])


def test_separate_images_become_one_stack_in_the_import_folder(tmp_path):
    project = new_project(tmp_path / "p")
    images = np.random.default_rng(1).normal(size=(3, 6, 4)).astype(np.float32)
    sections = []
    for index, angle in enumerate((0, 3, -3)):
        write_mrc(tmp_path / f"tilt_{index}.mrc", images[index], 2.0)
        sections.append(f"[ZValue = {index}]\nTiltAngle = {angle}\nSubFramePath = D:\\frames\\tilt_{index}.tif\n")
    (tmp_path / "S.mdoc").write_text("PixelSpacing = 2.0\nVoltage = 300\n\n" + "\n".join(sections))
    (series,) = import_tilt_series(project, [tmp_path / "S.mdoc"], pixel_size=2.0, exposure=3.0)
    assert (series.name, series.tilts, series.exposure) == ("S", 3, 9.0)
    loaded = store.load("tilt_series", project / "import" / "S", project)
    np.testing.assert_array_equal(loaded.images, images[[2, 0, 1]])
    np.testing.assert_array_equal(loaded.stage_tilt_angle, [-3, 0, 3])
    np.testing.assert_array_equal(loaded.pre_exposure, [6, 0, 3])
    assert read_record(project / "import" / "S")["images"] == ["import/S/stack.mrc"]


def test_a_folder_of_images_is_kept_relative_to_the_project_whatever_folder_it_was_given_from(tmp_path, monkeypatch):
    """So that the script of the project's history finds it from anywhere."""
    project, frames = new_project(tmp_path / "p"), tmp_path / "frames"
    frames.mkdir()
    write_mrc(frames / "tilt_0.mrc", np.zeros((4, 6), np.float32), 2.0)
    (tmp_path / "S.mdoc").write_text("[ZValue = 0]\nTiltAngle = 0\nSubFramePath = D:\\frames\\tilt_0.tif\n")
    monkeypatch.chdir(tmp_path)
    import_tilt_series(project, [Path("S.mdoc")], images=Path("frames"))
    assert read_record(project / "import" / "S")["overrides"] == {"images": str(frames)}
    assert f"--images {frames}\n" in history_script(project)


def test_overrides_go_first_and_a_second_import_replaces(project, tmp_path):
    (series,) = import_tilt_series(project, [tmp_path / "raw" / "A.mrc"], pixel_size=7.5, tilt_axis_angle=85.0)
    assert (series.pixel_size, series.tilt_axis_angle) == (7.5, 85.0)
    assert store.load("tilt_series", project / "import" / "A", project).pixel_size == 7.5
    assert read_record(project / "import" / "A")["overrides"] == {"pixel_size": 7.5, "tilt_axis_angle": 85.0}
    assert list_series(project) == ("A", "B", "C")


def test_a_fault_leaves_the_project_as_it_was(project, tmp_path):
    good, bad = write_series(tmp_path / "more", "D"), write_series(tmp_path / "more", "E")
    bad.with_suffix(".rawtlt").write_text("0\n")
    with pytest.raises(InputError, match="E.rawtlt: has 1 angles"):
        import_tilt_series(project, [good, bad])
    other = write_series(tmp_path / "other", "D")
    with pytest.raises(InputError, match="two of the given files"):
        import_tilt_series(project, [good, other])
    with pytest.raises(InputError, match="'all'"):
        import_tilt_series(project, [write_series(tmp_path / "more", "all")])
    with pytest.raises(InputError, match="letters, digits"):
        import_tilt_series(project, [write_series(tmp_path / "more", "a b")])
    assert list_series(project) == ("A", "B", "C")


def test_faults_are_told_and_the_sound_series_imported(project, tmp_path):
    good, bad = write_series(tmp_path / "more", "D"), write_series(tmp_path / "more", "E")
    bad.with_suffix(".rawtlt").write_text("0\n")
    told = []
    series = import_tilt_series(project, [bad, good], on_fault=told.append)
    assert [one.name for one in series] == ["D"] and list_series(project) == ("A", "B", "C", "D")
    assert len(told) == 1 and "E.rawtlt: has 1 angles" in told[0]
    bad.with_suffix(".rawtlt").write_text(good.with_suffix(".rawtlt").read_text())
    assert [one.name for one in import_tilt_series(project, [bad], on_fault=told.append)] == ["E"]


def test_images_inside_the_project_are_named_relative_to_it(project):
    stack = write_series(project / "raw", "D")
    import_tilt_series(project, [stack])
    assert "000001@raw/D.mrc" in (project / "import" / "D" / "tilts.star").read_text()
    moved = project.rename(project.with_name("moved"))
    assert store.load("tilt_series", moved / "import" / "D", moved).images.shape == (3, 8, 6)


@pytest.mark.skipif(not HIV.is_dir(), reason="the shared real data are not here")
def test_real_series(tmp_path):
    project = new_project(tmp_path / "p")
    first, second = import_tilt_series(project, [HIV])
    assert [(one.name, one.tilts, one.used) for one in (first, second)] == [("TS_03", 40, 40), ("TS_43", 41, 41)]
    assert (first.pixel_size, first.tilt_axis_angle, first.exposure) == (10.017, 85.0, 120.0)
    assert (second.tilt_angle_min, second.image_shape) == (-59.9991, (517, 500))
