"""Points on filaments and membranes, in text, STAR and IMOD models."""

import numpy as np
import pytest

from tiltwise.data.errors import InputError
from tiltwise.io.imod_model import ImodObject, contour_at, write_model
from tiltwise.io.shapes import read_shapes
from tiltwise.io.star import write_star


def test_text(tmp_path):
    text = "# clicked\nTS_1 mt1 0 0 0\nTS_1, mt2, 5, 5, 5\nTS_1 mt1 10 0 -3.5\nTS_2 a 1 2 3\n"
    (tmp_path / "a.txt").write_text(text)
    one = read_shapes(tmp_path / "a.txt", "TS_1")
    assert one.points.tolist() == [[0, 0, 0], [5, 5, 5], [10, 0, -3.5]] and one.shape.tolist() == [0, 1, 0]
    assert one.unit == "Å" and read_shapes(tmp_path / "a.txt", "TS_3") is None


def test_star(tmp_path):
    columns = {f"rlnCenteredCoordinate{axis}Angst": np.arange(3.0) + i for i, axis in enumerate("XYZ")}
    table = {"rlnTomoName": ["A", "A", "B"], "rlnHelicalTubeID": np.array([4, 7, 4]), **columns}
    write_star(tmp_path / "a.star", {"particles": table})
    one = read_shapes(tmp_path / "a.star", "A")
    assert one.points.tolist() == [[0, 1, 2], [1, 2, 3]] and one.shape.tolist() == [0, 1]


def test_model(tmp_path):
    contours = tuple(contour_at(np.array(points)) for points in ([[1.0, 2, 3], [4, 5, 6]], [[7.0, 8, 9]]))
    write_model(tmp_path / "a.mod", [ImodObject(name="a", contours=contours)], size=(10, 20, 30), scattered=False)
    one = read_shapes(tmp_path / "a.mod", "whatever")
    assert np.allclose(one.points, [[1, 2, 3], [4, 5, 6], [7, 8, 9]]) and one.shape.tolist() == [0, 0, 1]
    assert one.unit == "voxel" and one.drawn_on == (10, 20, 30)


@pytest.mark.parametrize(
    ("name", "text", "fault"),
    [
        ("a.txt", "TS_1 a 0 0\n", "line 1: write 'series shape x y z'"),
        ("a.txt", "TS_1 a 0 0 nan\n", "line 1: expected 3 finite numbers"),
        ("a.star", "data_\n_rlnTomoName TS_1\n", "lacks the number of the filament or membrane"),
        ("a.star", "data_\n_x 1\n", "has no table with the column _rlnTomoName"),
    ],
)
def test_faults_in_one_line(tmp_path, name, text, fault):
    (tmp_path / name).write_text(text)
    with pytest.raises(InputError, match=fault):
        read_shapes(tmp_path / name, "TS_1")
