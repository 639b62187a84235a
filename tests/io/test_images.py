"""Separate images behave as one array; TIFF rows are turned over; faults name the file."""

import numpy as np
import pytest
import tifffile

from tiltwise.data.errors import InputError
from tiltwise.io.images import (
    ImageFile,
    SeparateImages,
    open_images,
    parse_image_name,
    read_image,
    stack_image_names,
)
from tiltwise.io.mrc import write_mrc


@pytest.fixture
def images(tmp_path):
    """Three images in files of their own, the second absent, and the same as one array."""
    array = np.arange(3 * 4 * 5, dtype=np.float32).reshape(3, 4, 5)
    array[1] = 0
    write_mrc(tmp_path / "a.mrc", array[0], 1.0)
    tifffile.imwrite(tmp_path / "c.tif", array[2][::-1].astype(np.int16))
    files = [ImageFile(path=tmp_path / "a.mrc"), None, ImageFile(path=tmp_path / "c.tif")]
    return SeparateImages(files), array


@pytest.mark.parametrize(
    "index",
    [0, -1, 1, slice(None), slice(0, 3, 2), [2, 0], np.array([True, False, True]), np.array([2, 2]), ...,
     (0, slice(1, 3)), (slice(None), 2), (slice(1, None), slice(None), [0, 4]), (2, 1, 1), np.int64(2), (..., 0)],
)  # fmt: skip
def test_indexing_is_that_of_an_array(images, index):
    separate, array = images
    assert np.array_equal(separate[index], array[index])


def test_shape_type_and_conversion(images):
    separate, array = images
    assert separate.shape == array.shape and separate.ndim == 3 and len(separate) == 3
    assert separate.dtype == np.float32 and separate.size == array.size
    assert np.array_equal(np.asarray(separate), array) and np.asarray(separate, dtype=np.float64).dtype == np.float64
    with pytest.raises(IndexError):
        separate[3]
    with pytest.raises(ValueError, match="without copying"):
        np.array(separate, copy=False)


def test_a_whole_stack_in_its_order_is_a_memory_map(tmp_path):
    array = np.random.default_rng(0).normal(size=(3, 4, 5)).astype(np.float32)
    write_mrc(tmp_path / "s.mrc", array, 1.0, stack=True)
    files = [parse_image_name(name) for name in stack_image_names(tmp_path / "s.mrc", 3)]
    assert isinstance(open_images(files), np.memmap)
    assert np.array_equal(open_images([files[2], files[0]])[:], array[[2, 0]])


@pytest.mark.parametrize("compression", [None, "lzw", "zlib", "zstd"])
def test_tiff_of_any_packing_is_turned_over(tmp_path, compression):
    rows_down = np.arange(12, dtype=np.uint16).reshape(3, 4)
    tifffile.imwrite(tmp_path / "x.tif", rows_down, compression=compression)
    assert np.array_equal(read_image(ImageFile(path=tmp_path / "x.tif")), rows_down[::-1])


@pytest.mark.parametrize(
    "stored, read",
    [(np.uint8, np.uint8), (np.uint16, np.uint16), (np.int32, np.float32), (np.uint32, np.float32),
     (np.float64, np.float32), (np.bool_, np.float32)],
)  # fmt: skip
def test_types_that_mrc_has_no_mode_for_become_float32(tmp_path, stored, read):
    array = np.array([[0, 1], [1, 0]]).astype(stored)
    tifffile.imwrite(tmp_path / "x.tif", array)
    images = SeparateImages([ImageFile(path=tmp_path / "x.tif")])
    assert images.dtype == read and np.array_equal(images[0], array[::-1])
    write_mrc(tmp_path / "stack.mrc", images, 1.0, stack=True)


@pytest.mark.parametrize(
    "name, path, section",
    [
        ("000003@a/b.mrc", "a/b.mrc", 2),
        ("1@a.mrcs", "a.mrcs", 0),
        ("000003@a/b.mrc:mrcs", "a/b.mrc", 2),
        ("a/b.mrc", "a/b.mrc", None),
        ("me@home/b.mrc", "me@home/b.mrc", None),
        ("0@b.mrc", "0@b.mrc", None),
    ],
)
def test_image_names(name, path, section):
    file = parse_image_name(name)
    assert str(file.path) == path and file.section == section


def test_faults_name_the_file(tmp_path):
    write_mrc(tmp_path / "a.mrc", np.zeros((4, 5)), 1.0)
    write_mrc(tmp_path / "b.mrc", np.zeros((4, 6)), 1.0)
    write_mrc(tmp_path / "movie.mrc", np.zeros((3, 4, 5)), 1.0)
    tifffile.imwrite(tmp_path / "colour.tif", np.zeros((4, 5, 3), np.uint8), photometric="rgb")
    (tmp_path / "bad.tif").write_bytes(b"II*\x00nonsense")
    (tmp_path / "x.eer").write_bytes(b"")
    faults = {
        "b.mrc: is 6 × 4 px, but the images before it are 5 × 4 px": ["a.mrc", "b.mrc"],
        "movie.mrc: is a movie of 3 frames": ["movie.mrc"],
        "colour.tif: is a picture in colours": ["colour.tif"],
        "bad.tif: this is not a sound TIFF file": ["bad.tif"],
        "not from .eer": ["x.eer"],
        "No such file": ["none.mrc"],
        "none.tif: cannot be read": ["none.tif"],
    }
    for fault, names in faults.items():
        with pytest.raises(InputError, match=fault.replace(".", r"\.")) as caught:
            SeparateImages([ImageFile(path=tmp_path / name) for name in names])
        assert "\n" not in str(caught.value)
    with pytest.raises(InputError, match="has 3 images, but number 4 is asked for"):
        SeparateImages([ImageFile(path=tmp_path / "movie.mrc", section=3)])
