"""Sphere centres from STAR and plain text."""

import numpy as np
import pytest

from tiltwise.data.errors import InputError
from tiltwise.io.centres import read_centres
from tiltwise.io.star import write_star


def test_text_with_blanks_commas_and_comments(tmp_path):
    path = tmp_path / "c.txt"
    path.write_text("# name x y z radius\nTS_1 1 2 3 400\nTS_2, -1.5, 2e2, 3  # no radius\n\nTS_1 4 5 6\n")
    centres = read_centres(path)
    assert list(centres) == ["TS_1", "TS_2"]
    assert centres["TS_1"].tolist()[0] == [1, 2, 3, 400] and np.isnan(centres["TS_1"][1, 3])
    assert centres["TS_2"][0, :3].tolist() == [-1.5, 200, 3]


def test_star_in_angstrom(tmp_path):
    columns = {f"rlnCenteredCoordinate{axis}Angst": [i, -i] for i, axis in enumerate("XYZ", start=1)}
    write_star(tmp_path / "c.star", {"": {"rlnTomoName": ["a", "b"], **columns, "tiltwiseRadius": [10, 20]}})
    assert read_centres(tmp_path / "c.star")["b"].tolist() == [[-1, -2, -3, 20]]


def test_real_picks_in_voxels_need_the_tomogram(shared_data):
    folder = shared_data / "hiv_empiar10164/relion5/Picks/job009/annotations"
    centres = read_centres(folder / "TS_03_spheres.star", shape=(270, 540, 540), voxel_size=10.0)["TS_03"]
    assert centres.shape == (8, 4) and np.all((centres[:, 3] > 370) & (centres[:, 3] < 570))
    assert centres[0] == pytest.approx([670.39337, -1179.31656, -60.82382, 437.61147])
    with pytest.raises(InputError, match="counts in voxels"):
        read_centres(folder / "TS_03_spheres.star")


@pytest.mark.parametrize(
    "name, text, fault",
    [
        ("c.txt", "TS_1 1 2\n", "line 1: write 'series x y z"),
        ("c.txt", "TS_1 1 2 3\nTS_1 1 two 3\n", "line 2: write"),
        ("c.txt", "TS_1 1 2 nan\n", "line 1: write"),
        ("c.txt", "TS_1 1 2 3 -4\n", "a radius is not positive"),
        ("c.txt", "# nothing\n", "holds no centre"),
        ("c.star", "data_\nloop_\n_rlnX\n1\n", "no table with the column _rlnTomoName"),
        ("c.star", "data_\nloop_\n_rlnTomoName\na\n", "lacks the column _rlnCenteredCoordinateXAngst"),
    ],
)
def test_faulty_files_give_one_line(tmp_path, name, text, fault):
    (tmp_path / name).write_text(text)
    with pytest.raises(InputError, match=fault) as caught:
        read_centres(tmp_path / name)
    assert name in str(caught.value) and "\n" not in str(caught.value)
