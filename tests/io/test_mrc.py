"""MRC: every mode back as it was, the same bytes every time, foreign quirks understood, faults in one line."""

import gzip

import mrcfile
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from tiltwise.data.errors import InputError
from tiltwise.io.mrc import read_header, read_mrc, read_volume, write_mrc

KEPT = [np.int8, np.int16, np.uint16, np.float16, np.float32]
MODES = {np.int8: 0, np.int16: 1, np.float32: 2, np.uint16: 6, np.float16: 12}


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data(), st.sampled_from(KEPT), st.floats(0.1, 30).map(lambda x: float(f"{x:.5g}")))
def test_every_mode_comes_back_as_it_was_and_as_mrcfile_reads_it(tmp_path, data, dtype, voxel_size):
    array = data.draw(npst.arrays(dtype, npst.array_shapes(min_dims=3, max_dims=3, max_side=6)))
    if array.dtype.kind == "f":
        array = np.nan_to_num(array)
    path = tmp_path / "x.mrc"
    write_mrc(path, array, voxel_size)
    back, spacing = read_mrc(path)
    assert back.dtype == array.dtype and np.array_equal(back, array) and spacing == voxel_size
    with mrcfile.open(path) as oracle:
        assert np.array_equal(oracle.data, array) and int(oracle.header.mode) == MODES[dtype]
        assert np.isclose(oracle.voxel_size.x, voxel_size, rtol=1e-6)


def test_written_files_are_sound_for_mrcfile_and_hold_no_time(tmp_path):
    array = np.random.default_rng(0).normal(size=(3, 5, 7)).astype(np.float32)
    write_mrc(tmp_path / "a.mrc", array, 1.35)
    write_mrc(tmp_path / "b.mrc", array.copy(), 1.35)
    write_mrc(tmp_path / "s.mrc", array, 1.35, stack=True)
    assert (tmp_path / "a.mrc").read_bytes() == (tmp_path / "b.mrc").read_bytes()
    assert mrcfile.validate(tmp_path / "a.mrc") and mrcfile.validate(tmp_path / "s.mrc")
    with mrcfile.open(tmp_path / "a.mrc") as volume, mrcfile.open(tmp_path / "s.mrc") as stack:
        assert volume.is_volume() and stack.is_image_stack()
        assert np.isclose(volume.header.rms, array.std(), rtol=1e-5)
        assert not any(character.isdigit() for character in str(volume.header.label[0]))


def test_a_map_is_read_as_a_memory_map_that_cannot_be_written(tmp_path):
    write_mrc(tmp_path / "a.mrc", np.zeros((2, 3, 4), np.float32), 2.0)
    data, _ = read_mrc(tmp_path / "a.mrc")
    assert isinstance(data, np.memmap) and not data.flags.writeable


@pytest.mark.parametrize("given_type, written", [(np.bool_, np.int8), (np.uint8, np.int16), (np.float64, np.float32)])
def test_types_without_a_mode_are_widened_or_narrowed_as_stated(tmp_path, given_type, written):
    array = np.array([[[0, 1], [1, 0]]]).astype(given_type) * given_type(1)
    write_mrc(tmp_path / "a.mrc", array, 1.0)
    data, _ = read_mrc(tmp_path / "a.mrc")
    assert data.dtype == written and np.array_equal(data, array)


def test_numbers_that_no_mode_holds_are_refused(tmp_path):
    with pytest.raises(TypeError, match="no mode for complex64"):
        write_mrc(tmp_path / "a.mrc", np.zeros((1, 2, 2), np.complex64), 1.0)


@pytest.mark.parametrize("voxel_size", [1.35, 0.675, 2.7, 10.017, 7.407407, 3.3702, 13.48, 1 / 3, 4.0])
@pytest.mark.parametrize("side", [1, 7, 100, 720, 4092])
def test_voxel_size_survives_float32_cell_lengths(tmp_path, voxel_size, side):
    write_mrc(tmp_path / "a.mrc", np.zeros((1, 2, side), np.int8), voxel_size)
    found = read_header(tmp_path / "a.mrc").voxel_size[0]
    assert found == pytest.approx(voxel_size, rel=1.3e-7)
    if len(str(voxel_size)) < 8:
        assert found == voxel_size


def test_a_single_image_has_three_axes(tmp_path):
    write_mrc(tmp_path / "a.mrc", np.ones((3, 4), np.int16), 1.0)
    assert read_mrc(tmp_path / "a.mrc")[0].shape == (1, 3, 4)


def test_big_endian_files_are_read(tmp_path):
    array = np.arange(24, dtype=np.float32).reshape(2, 3, 4)
    with mrcfile.new(tmp_path / "a.mrc") as file:
        file.set_data(array.astype(">f4"))
        file.voxel_size = 2.5
    data, voxel_size = read_mrc(tmp_path / "a.mrc")
    assert data.dtype == np.dtype(">f4") and np.array_equal(data, array) and voxel_size == 2.5


def patched(path, source, **bytes_at):
    """A copy of a file with some bytes put in: at_<offset>=bytes."""
    raw = bytearray(source.read_bytes())
    for key, value in bytes_at.items():
        start = int(key.removeprefix("at_"))
        raw[start : start + len(value)] = value
    path.write_bytes(bytes(raw))
    return path


def word(value, kind="<i4"):
    return np.array(value, kind).tobytes()


@pytest.mark.parametrize(
    "changes, expected",
    [
        ({}, np.int8),
        ({"at_152": b"IMOD", "at_156": word(1)}, np.int8),
        ({"at_152": b"IMOD", "at_156": word(0)}, np.uint8),
        ({"at_80": word(200.0, "<f4")}, np.uint8),
    ],
)
def test_mode_0_is_signed_unless_imod_or_the_stated_maximum_says_otherwise(tmp_path, changes, expected):
    raw = np.array([[[0, 100, -56]]], np.int8)
    write_mrc(tmp_path / "a.mrc", raw, 1.0)
    data, _ = read_mrc(patched(tmp_path / "b.mrc", tmp_path / "a.mrc", **changes))
    assert data.dtype == expected and np.array_equal(data, raw.view(expected))


@pytest.mark.parametrize("axes", [(1, 2, 3), (3, 1, 2), (2, 3, 1), (3, 2, 1), (2, 1, 3)])
def test_axes_in_another_order_are_put_right(tmp_path, axes):
    xyz = np.random.default_rng(1).normal(size=(2, 3, 4)).astype(np.float32)  # indexed z, y, x
    along = {1: 2, 2: 1, 3: 0}  # array axis of x, y, z
    columns, rows, sections = axes
    stored = xyz.transpose(along[sections], along[rows], along[columns])
    write_mrc(tmp_path / "a.mrc", stored, 1.0)
    patched(tmp_path / "b.mrc", tmp_path / "a.mrc", at_64=word(axes))
    assert np.array_equal(read_mrc(tmp_path / "b.mrc")[0], xyz)


@pytest.fixture
def sound(tmp_path):
    write_mrc(tmp_path / "sound.mrc", np.zeros((4, 5, 6), np.int16), 2.0)
    return tmp_path / "sound.mrc"


FAULTS = {
    "4-bit numbers packed": lambda good, bad: patched(bad, good, at_12=word(101)),
    "a transform and no image": lambda good, bad: patched(bad, good, at_12=word(4)),
    "complex 16-bit": lambda good, bad: patched(bad, good, at_12=word(3)),
    "header makes no sense": lambda good, bad: patched(bad, good, at_12=word(77)),
    "makes no sense": lambda good, bad: patched(bad, good, at_0=word(-5)),
    "cut short: 1224 bytes": lambda good, bad: bad.write_bytes(good.read_bytes()[:1224]),
    "only 100 bytes": lambda good, bad: bad.write_bytes(good.read_bytes()[:100]),
    "only 0 bytes": lambda good, bad: bad.write_bytes(b""),
    "compressed": lambda good, bad: bad.write_bytes(gzip.compress(good.read_bytes())),
    "not an MRC file": lambda good, bad: bad.write_text("data_\nloop_\n" * 200),
    "square pixels": lambda good, bad: patched(bad, good, at_44=word(50.0, "<f4")),
    "No such file": lambda good, bad: None,
    "Is a directory": lambda good, bad: bad.mkdir(),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_faulty_file_gives_one_line_that_names_it(tmp_path, sound, fault):
    bad = tmp_path / "bad.mrc"
    FAULTS[fault](sound, bad)
    with pytest.raises(InputError, match=fault) as caught:
        read_mrc(bad)
    assert str(bad) in str(caught.value) and "\n" not in str(caught.value)


def test_a_volume_needs_a_voxel_size_and_cubic_voxels(tmp_path, sound):
    with pytest.raises(InputError, match="states no voxel size"):
        read_volume(patched(tmp_path / "b.mrc", sound, at_40=word([0.0] * 3, "<f4")))
    with pytest.raises(InputError, match="voxels must be cubes"):
        read_volume(patched(tmp_path / "b.mrc", sound, at_48=word(99.0, "<f4")))


def test_real_maps_and_stacks_are_read_as_mrcfile_reads_them(shared_data):
    files = [*shared_data.glob("maps/*"), *shared_data.glob("microtubule/*.mrc"), *shared_data.glob("**/stacks/*.mrc")]
    assert len(files) >= 7
    for path in files:
        if "EMD-3001" in path.name:  # a crystal's cell, 0.448 × 0.393 × 0.459 Å
            with pytest.raises(InputError, match="square pixels"):
                read_mrc(path)
            continue
        data, voxel_size = read_mrc(path)
        with mrcfile.open(path) as oracle:
            assert np.array_equal(data, oracle.data)
            assert voxel_size == pytest.approx(float(oracle.voxel_size.x), rel=1e-6)
    assert read_mrc(shared_data / "hiv_empiar10164/stacks/TS_03.mrc")[1] == 10.017
    assert read_volume(shared_data / "maps/mrcfile__EMD-3197.map").voxel_size == 11.4
