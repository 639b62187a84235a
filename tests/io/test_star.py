"""STAR: text stays text, real files come through whole, and a faulty line is named."""

import re

import gemmi
import numpy as np
import pytest
import starfile
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tiltwise.data.errors import InputError
from tiltwise.io.star import block, integers, numbers, read_star, row_count, texts, write_star


def written(tmp_path, text):
    path = tmp_path / "x.star"
    path.write_text(text)
    return path


PARTICLES = """
# version 50001

data_general

_rlnTomoSubTomosAre2DStacks\t\t\t1

data_particles

loop_
_rlnTomoName #1
_name #2
_rlnCoordinateX #3
007  tilt\t1.5
TS_2 "two words" -2e3   # a comment

data_
_key  "" 
"""


def test_blocks_pairs_loops_and_text_that_looks_like_a_number(tmp_path):
    blocks = read_star(written(tmp_path, PARTICLES))
    assert list(blocks) == ["general", "particles", ""]
    assert blocks["general"] == {"rlnTomoSubTomosAre2DStacks": "1"}
    table = blocks["particles"]
    assert table["rlnTomoName"] == ["007", "TS_2"] and table["name"] == ["tilt", "two words"]
    assert numbers(table, "rlnCoordinateX", "f").tolist() == [1.5, -2000.0]
    assert blocks[""] == {"key": ""} and row_count(table) == 2


def test_windows_line_ends_change_nothing(tmp_path):
    path = tmp_path / "x.star"
    path.write_bytes(PARTICLES.replace("\n", "\r\n").encode())
    assert read_star(path) == read_star(written(tmp_path, PARTICLES))


WORDS = st.text(st.characters(exclude_categories=["Cs", "Cc", "Zl", "Zp"], exclude_characters="\x85"), max_size=12)
TEXTS = st.one_of(
    WORDS, st.sampled_from(["", "a b", "_x", "#x", "data_x", "loop_", "$HOME", "it's", 'a "b" c', "[1,0]"])
)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(TEXTS, TEXTS), max_size=6), TEXTS)
def test_any_text_comes_back(tmp_path, rows, single):
    blocks = {"list": {"rlnA": single}, "table": {"rlnB": [a for a, _ in rows], "rlnC": [b for _, b in rows]}}
    path = tmp_path / "x.star"
    try:
        write_star(path, blocks)
    except ValueError as error:
        assert "cannot be written" in str(error)
        return
    assert read_star(path) == blocks


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(st.floats(), min_size=1, max_size=8), st.lists(st.integers(1 - 2**53, 2**53 - 1), min_size=1, max_size=8)
)
def test_numbers_come_back_bit_by_bit(tmp_path, floats, whole):
    path = tmp_path / "x.star"
    write_star(path, {"a": {"x": np.array(floats)}, "b": {"n": np.array(whole)}, "c": {"u": np.array([True, False])}})
    blocks = read_star(path)
    assert np.array_equal(numbers(blocks["a"], "x", path), np.array(floats), equal_nan=True)
    assert integers(blocks["b"], "n", path).tolist() == whole and blocks["c"]["u"] == ["1", "0"]


def test_columns_of_unequal_length_are_refused(tmp_path):
    with pytest.raises(ValueError, match="differ in length"):
        write_star(tmp_path / "x.star", {"a": {"x": [1, 2], "y": [1]}})


FAULTS = {
    "line 5: the row has 1 values, but the table has 2 columns": "data_a\nloop_\n_x\n_y\n1\n",
    "line 5: the row has 3 values": "data_a\nloop_\n_x\n_y\n1 2 3\n",
    "line 1 comes before any data_ block": "hello\n",
    "line 5: a second loop in block data_a": "data_a\nloop_\n_x\n1\nloop_\n_y\n2\n",
    "line 3: a second block data_a": "data_a\n_x 1\ndata_a\n_y 2\n",
    "line 4: a second column _x": "data_a\nloop_\n_x\n_x\n1 2\n",
    "line 2: _x has 0 values": "data_a\n_x\n",
    "line 2: _x has 2 values": "data_a\n_x 1 2\n",
    "line 2: a value without a label": "data_a\n1 2\n",
    "line 3: a quotation mark that is not closed": 'data_a\nloop_\n_x "y\n',
    "holds no data_ block": "\n# nothing\n",
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_faulty_file_gives_one_line_that_names_file_and_line(tmp_path, fault):
    path = written(tmp_path, FAULTS[fault])
    with pytest.raises(InputError, match=re.escape(fault)) as caught:
        read_star(path)
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)


def test_absent_and_binary_files_and_wrong_contents(tmp_path):
    with pytest.raises(InputError, match="No such file"):
        read_star(tmp_path / "none.star")
    (tmp_path / "b.star").write_bytes(b"\xff\xfe\x00data_\x80")
    with pytest.raises(InputError, match="not text"):
        read_star(tmp_path / "b.star")
    blocks = read_star(written(tmp_path, "data_a\nloop_\n_x\n1\nten\n"))
    with pytest.raises(InputError, match="has no block data_b .it has data_a"):
        block(blocks, "b", "f.star")
    with pytest.raises(InputError, match="f.star: lacks the column _y"):
        texts(blocks["a"], "y", "f.star")
    with pytest.raises(InputError, match="_x in row 2 is 'ten', not a number"):
        numbers(blocks["a"], "x", "f.star")
    with pytest.raises(InputError, match="row 1 is 1.5, not a whole number"):
        integers({"x": ["1.5"]}, "x", "f.star")


def real_files(shared_data):
    files = sorted(shared_data.glob("**/*.star"))
    assert len(files) > 40
    return files


def test_every_real_file_comes_back_from_writing(shared_data, tmp_path):
    for path in real_files(shared_data):
        blocks = read_star(path)
        write_star(tmp_path / "x.star", blocks)
        assert read_star(tmp_path / "x.star") == blocks, path


def test_real_files_are_read_as_gemmi_and_starfile_read_them(shared_data):
    refused = 0
    for path in real_files(shared_data):
        ours = read_star(path)
        try:
            document = gemmi.cif.read(str(path))
        except ValueError:
            refused += 1  # bare values that begin with _ or $, which a strict CIF parser does not take
        else:
            for theirs in document:
                own = ours[theirs.name.strip()]
                for item in theirs:
                    if item.loop is not None:
                        for place, tag in enumerate(item.loop.tags):
                            column = item.loop.values[place :: item.loop.width()]
                            assert [_plain(value) for value in column] == own[tag[1:]], (path, tag)
        for name, frame in starfile.read(path, always_dict=True).items():
            if hasattr(frame, "columns"):
                for column in frame.columns:
                    if frame[column].dtype.kind == "f":
                        assert np.allclose(numbers(ours[name], column, path), frame[column], equal_nan=True, rtol=1e-12)
    assert refused == 3


def _plain(value):
    return gemmi.cif.as_string(value) if value[:1] in "'\"" else value
