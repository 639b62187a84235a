"""STOPGAP's motive lists (.star, data_stopgap_motivelist).

A particle stands at orig_x/y/z + x/y/z_shift, voxels of the tomogram of that binning; the first voxel is 1: STOPGAP
cuts a box of b from orig - floor(b / 2) of a MATLAB array, its middle being floor(b / 2) + 1
(extract_parse_subtomo_positions.m). A = R('zxz', [phi, the, psi]) (docs/conventions.md). Half sets are A and B; object
numbers our regions from 1, 0 for none.
"""

from pathlib import Path

import numpy as np

from tiltwise.data.errors import InputError
from tiltwise.io.euler import euler_to_rotation, rotation_to_euler
from tiltwise.io.particle_list import ParticleList
from tiltwise.io.star import Block, block, integers, numbers, read_star, row_count, texts, write_star

BLOCK = "stopgap_motivelist"
_PLACE, _SHIFT = ("orig_x", "orig_y", "orig_z"), ("x_shift", "y_shift", "z_shift")
_ANGLES = ("phi", "the", "psi")
_HALVES = {"A": 1, "B": 2}
_NO_HALF = "none"
_FIRST = 1.0


def read_stopgap(path: str | Path) -> ParticleList:
    """Read a motive list. InputError for a file without data_stopgap_motivelist, or a column that is missing."""
    path = Path(path)
    table = block(read_star(path), BLOCK, path)
    if not row_count(table):
        raise InputError(f"{path}: holds no particle")
    angles = _columns(table, _ANGLES, path)
    if not np.isfinite(angles).all():
        raise InputError(f"{path}: an angle (phi, the, psi) is not a number")
    number = row_count(table)
    halves = texts(table, "halfset", path) if "halfset" in table else [_NO_HALF] * number
    objects = integers(table, "object", path) if "object" in table else np.zeros(number, dtype=np.int64)
    return ParticleList(
        tomogram=np.array([str(value) for value in integers(table, "tomo_num", path)]),
        place=_columns(table, _PLACE, path) + _columns(table, _SHIFT, path) - _FIRST,
        rotation=euler_to_rotation(angles, "stopgap"),
        score=numbers(table, "score", path) if "score" in table else np.full(number, np.nan),
        half_set=np.array([_HALVES.get(half, 0) for half in halves], dtype=np.int64),
        region=np.maximum(objects, 0) - 1,
        class_number=integers(table, "class", path) if "class" in table else None,
    )


def write_stopgap(path: str | Path, listed: ParticleList) -> None:
    """Write a motive list whose tomograms are numbers: whole voxels as orig, the rest as shifts."""
    number = len(listed.score)
    voxel = np.round(listed.place)
    angles = rotation_to_euler(listed.rotation, "stopgap")
    halves = {value: half for half, value in _HALVES.items()}
    table: dict[str, object] = {
        "motl_idx": np.arange(1, number + 1),
        "tomo_num": listed.tomogram.astype(np.int64),
        "object": listed.region + 1,
        "subtomo_num": np.arange(1, number + 1),
        "halfset": [halves.get(value, _NO_HALF) for value in listed.half_set.tolist()],
        **{column: voxel[:, axis] + _FIRST for axis, column in enumerate(_PLACE)},
        "score": listed.score,
        **{column: (listed.place - voxel)[:, axis] for axis, column in enumerate(_SHIFT)},
        "phi": angles[:, 0],
        "psi": angles[:, 2],
        "the": angles[:, 1],
        "class": np.ones(number, dtype=np.int64) if listed.class_number is None else listed.class_number,
    }
    write_star(path, {BLOCK: table})


def _columns(table: Block, names: tuple[str, str, str], path: Path) -> np.ndarray:
    return np.stack([numbers(table, name, path) for name in names], axis=1)
