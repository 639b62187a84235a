"""Motive lists of TOM and AV3 (.em): an EM file of 20 rows, one column a particle.

    1 score · 4 particle · 5 tomogram · 6 object · 7 half set · 8-10 x, y, z · 11-13 shift · 17 phi · 18 psi · 19 theta
    20 class

EM: 512 bytes of header (byte 0 the machine, 6 for little-endian; byte 3 the type, 5 for float32, 9 for float64; three
int32 sizes), then the numbers, the first index fastest. Coordinates and shifts are voxels, the first being 1, and add
up. A = R('zxz', [phi, theta, psi]) (docs/conventions.md): in the file psi stands before theta.
"""

import struct
from pathlib import Path

import numpy as np

from tiltwise.data.errors import InputError
from tiltwise.io.euler import euler_to_rotation, rotation_to_euler
from tiltwise.io.particle_list import ParticleList
from tiltwise.io.text_tables import LARGEST_NUMBER, read_bytes

_HEADER_BYTES, _ROWS = 512, 20
_LITTLE_ENDIAN, _BIG_ENDIAN = (1, 2, 6), (0, 3, 4, 5)
_TYPES = {5: "f4", 9: "f8"}
_ANGLES = [16, 18, 17]  # phi, theta, psi
_FIRST = 1.0


def read_em(path: str | Path) -> ParticleList:
    """Read a motive list. InputError for what is no EM file of 20 rows, or holds numbers that are none."""
    table = _read_table(path)
    table[0] = np.where(np.isfinite(table[0]), table[0], np.nan)
    used = table[[4, 5, 6, 7, 8, 9, 10, 11, 12, 16, 17, 18, 19]]
    if not (np.isfinite(used).all() and (np.abs(used) < LARGEST_NUMBER).all()):
        raise InputError(f"{path}: a place, angle or number of the motive list is not a number, or too large")
    half = np.round(table[6]).astype(np.int64)
    return ParticleList(
        tomogram=np.array([str(value) for value in np.round(table[4]).astype(np.int64).tolist()]),
        place=(table[7:10] + table[10:13]).T - _FIRST,
        rotation=euler_to_rotation(table[_ANGLES].T, "stopgap"),
        score=table[0],
        half_set=np.where((half == 1) | (half == 2), half, 0),
        region=np.maximum(np.round(table[5]), 0).astype(np.int64) - 1,
        class_number=np.round(table[19]).astype(np.int64),
    )


def write_em(path: str | Path, listed: ParticleList) -> None:
    """Write a motive list whose tomograms are numbers. Float32 holds whole voxels exactly, angles to 1e-5 degrees."""
    number = len(listed.score)
    voxel = np.round(listed.place)
    table = np.zeros((_ROWS, number), dtype="<f4")
    table[0], table[3], table[4] = listed.score, np.arange(1, number + 1), listed.tomogram.astype(int)
    table[5], table[6] = listed.region + 1, listed.half_set
    table[7:10], table[10:13] = (voxel + _FIRST).T, (listed.place - voxel).T
    table[_ANGLES] = rotation_to_euler(listed.rotation, "stopgap").T
    table[19] = 1 if listed.class_number is None else listed.class_number
    header = struct.pack("<4B3i", 6, 0, 0, 5, _ROWS, number, 1).ljust(_HEADER_BYTES, b"\0")
    Path(path).write_bytes(header + table.T.tobytes())


def _read_table(path: str | Path) -> np.ndarray:
    """(20, particle) float64."""
    raw = read_bytes(path)
    if len(raw) < _HEADER_BYTES or raw[3] not in _TYPES or raw[0] not in (*_LITTLE_ENDIAN, *_BIG_ENDIAN):
        raise InputError(f"{path}: this is no EM file of real numbers")
    order = "<" if raw[0] in _LITTLE_ENDIAN else ">"
    rows, columns, sections = struct.unpack(f"{order}3i", raw[4:16])
    if rows != _ROWS or columns < 1 or sections != 1:
        raise InputError(f"{path}: a motive list has 20 rows; this has {rows} × {columns} × {sections}")
    kind = np.dtype(order + _TYPES[raw[3]])
    if len(raw) < _HEADER_BYTES + kind.itemsize * rows * columns:
        raise InputError(f"{path}: cut short: {columns} particles are announced")
    with np.errstate(invalid="ignore"):
        values = np.frombuffer(raw, dtype=kind, count=rows * columns, offset=_HEADER_BYTES).astype(np.float64)
    return values.reshape(columns, rows).T.copy()
