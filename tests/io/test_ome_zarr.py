"""OME-Zarr as written: chunks that hold the numbers, copies that are means, and where their voxels lie."""

import json
import zlib

import numpy as np
import pytest

from tiltwise.data.volume import Volume
from tiltwise.io.ome_zarr import write_ome_zarr


def read(folder):
    """A Zarr 2 array, read by nothing but its description."""
    said = json.loads((folder / ".zarray").read_text())
    chunk = said["chunks"]
    data = np.zeros([-(-n // c) * c for n, c in zip(said["shape"], chunk, strict=True)], said["dtype"])
    for path in folder.glob("*/*/*"):
        place = [int(part) for part in path.relative_to(folder).parts]
        values = np.frombuffer(zlib.decompress(path.read_bytes()), said["dtype"]).reshape(chunk)
        data[tuple(slice(p * c, (p + 1) * c) for p, c in zip(place, chunk, strict=True))] = values
    return data[tuple(slice(n) for n in said["shape"])]


@pytest.mark.parametrize("dtype", [np.int8, np.float16, np.float32])
def test_the_numbers_and_their_smaller_copies(tmp_path, dtype):
    data = (np.random.default_rng(0).normal(size=(5, 70, 130)) * 30).astype(dtype)
    write_ome_zarr(tmp_path / "a.zarr", Volume(data=data, voxel_size=4.0))
    np.testing.assert_array_equal(read(tmp_path / "a.zarr" / "0"), data)
    half = read(tmp_path / "a.zarr" / "1")
    assert half.shape == (3, 35, 65) and half.dtype == dtype
    means = data[:4].astype(np.float32).reshape(2, 2, 35, 2, 65, 2).mean((1, 3, 5))
    step = 0.5 if dtype is np.int8 else 0.03  # a float16 near 60 is rounded to 1/32 at most
    assert np.abs(half[:2].astype(np.float32) - means).max() <= step
    assert read(tmp_path / "a.zarr" / "2").shape == (2, 18, 33)


def test_a_ramp_lies_at_the_same_places_in_every_copy(tmp_path):
    x = np.arange(128, dtype=np.float32)
    write_ome_zarr(tmp_path / "a.zarr", Volume(data=np.tile(x, (8, 8, 1)), voxel_size=1.0))
    levels = json.loads((tmp_path / "a.zarr" / ".zattrs").read_text())["multiscales"][0]["datasets"]
    assert len(levels) == 2
    for level in levels:
        scale, first = (t[t["type"]][2] for t in level["coordinateTransformations"])
        row = read(tmp_path / "a.zarr" / level["path"])[0, 0]
        np.testing.assert_allclose(row, first + scale * np.arange(len(row)))
