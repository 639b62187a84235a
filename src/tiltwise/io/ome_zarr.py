"""OME-Zarr for viewing in the browser or napari: version 0.4 of the format (Zarr 2), with smaller copies.

Each copy is the mean of 2 × 2 × 2 voxels of the one before, so its first voxel lies half a voxel of that further in:
the format's translation says so. Nothing reads these files back here; the MRC file is the result.
"""

import json
import zlib
from pathlib import Path

import numpy as np

from tiltwise.data.volume import Volume

_CHUNK = 64
_LEAST_SIDE = 64
"""Voxels; copies are made until the longest side is no longer than this."""


def write_ome_zarr(folder: str | Path, volume: Volume) -> list[Path]:
    """Write a volume and its smaller copies into a new folder; gives the files that describe them.

    Numbers are kept as they are, int8, float16 or float32 among them; lengths are Å, position 0 the first voxel.
    """
    folder = Path(folder)
    folder.mkdir(parents=True)
    data, described = volume.data, []
    while True:
        described.append(_write_array(folder / str(len(described)), data))
        if max(data.shape) <= _LEAST_SIDE:
            break
        data = _halved(data)
    _write_json(folder / ".zgroup", {"zarr_format": 2})
    _write_json(folder / ".zattrs", {"multiscales": [_multiscale(len(described), volume)]})
    return [folder / ".zattrs", folder / ".zgroup", *described]


def _multiscale(levels: int, volume: Volume) -> dict:
    datasets = []
    for level in range(levels):
        size = volume.voxel_size * 2**level
        first = volume.voxel_size * (2**level - 1) / 2
        transforms = [{"type": "scale", "scale": [size] * 3}, {"type": "translation", "translation": [first] * 3}]
        datasets.append({"path": str(level), "coordinateTransformations": transforms})
    axes = [{"name": name, "type": "space", "unit": "angstrom"} for name in "zyx"]
    return {"version": "0.4", "name": "tomogram", "axes": axes, "datasets": datasets, "type": "mean"}


def _write_array(folder: Path, data: np.ndarray) -> Path:
    """One array in compressed chunks of 64 voxels a side, the last ones filled up with zeros; gives its description."""
    folder.mkdir()
    dtype = np.dtype(data.dtype).newbyteorder("<")
    description = {
        "zarr_format": 2,
        "shape": list(data.shape),
        "chunks": [_CHUNK] * 3,
        "dtype": dtype.str,
        "compressor": {"id": "zlib", "level": 1},
        "fill_value": 0,
        "order": "C",
        "filters": None,
        "dimension_separator": "/",
    }
    for chunk in np.ndindex(*(-(-n // _CHUNK) for n in data.shape)):
        part = np.asarray(data[tuple(slice(c * _CHUNK, (c + 1) * _CHUNK) for c in chunk)], dtype)
        full = np.zeros((_CHUNK,) * 3, dtype)
        full[tuple(slice(n) for n in part.shape)] = part
        path = folder / str(chunk[0]) / str(chunk[1]) / str(chunk[2])
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(zlib.compress(full.tobytes(), 1))
    _write_json(folder / ".zarray", description)
    return folder / ".zarray"


def _halved(data: np.ndarray) -> np.ndarray:
    """Means of 2 × 2 × 2 voxels, two planes at a time; of what there is at an odd end."""
    shape = tuple(-(-n // 2) for n in data.shape)
    out = np.empty(shape, data.dtype)
    for z in range(shape[0]):
        plane = np.asarray(data[2 * z : 2 * z + 2], dtype=np.float32).mean(0)
        for axis in (0, 1):
            plane = np.moveaxis(_pair_means(np.moveaxis(plane, axis, 0)), 0, axis)
        out[z] = np.rint(plane) if np.issubdtype(data.dtype, np.integer) else plane
    return out


def _pair_means(rows: np.ndarray) -> np.ndarray:
    means = (rows[0 : len(rows) // 2 * 2 : 2] + rows[1::2]) / 2
    return np.concatenate([means, rows[-1:]]) if len(rows) % 2 else means


def _write_json(path: Path, content: dict) -> None:
    path.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
