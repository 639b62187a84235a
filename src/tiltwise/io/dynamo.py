"""Dynamo's tables (.tbl): one particle a line, columns by number (Dynamo wiki, "Table").

    1 tag · 4-6 shift · 7-9 tdrot, tilt, narot · 10 cross-correlation · 13 wedge type · 14-17 tilt range · 20 tomogram
    21 region · 22 class · 24-26 x, y, z

Coordinates and shifts are voxels of the tomogram of that binning and add up; the first voxel is 1, as MATLAB counts.
A = R('zxz', [tdrot, tilt, narot])⁻¹ (docs/conventions.md). Region 0 stands for none; half sets are not in a table.
"""

from pathlib import Path

import numpy as np

from tiltwise.data.errors import InputError
from tiltwise.io.euler import euler_to_rotation, rotation_to_euler
from tiltwise.io.particle_list import ParticleList
from tiltwise.io.text_tables import number_row, read_text, whole

_LEAST, _COLUMNS = 26, 35
_FIRST = 1.0


def read_dynamo(path: str | Path) -> ParticleList:
    """Read a table. InputError names the line that is short, or holds what is no number."""
    rows, tomograms = [], []
    for number, line in enumerate(read_text(path).splitlines(), start=1):
        words = line.split()
        if not words:
            continue
        if len(words) < _LEAST:
            raise InputError(f"{path}, line {number}: a row of a table has {_LEAST} columns or more, not {len(words)}")
        score, words[9] = words[9], "0"  # may be nan
        values = number_row(path, number, words[:_LEAST], _LEAST)
        values[9] = _score(score)
        tomograms.append(str(whole(path, number, values[19], "the tomogram (column 20)")))
        rows.append(values)
    if not rows:
        raise InputError(f"{path}: holds no particle")
    table = np.array(rows)
    return ParticleList(
        tomogram=np.array(tomograms),
        place=table[:, 23:26] + table[:, 3:6] - _FIRST,
        rotation=euler_to_rotation(table[:, 6:9], "dynamo"),
        score=table[:, 9],
        half_set=np.zeros(len(table), dtype=np.int64),
        region=np.maximum(np.round(table[:, 20]), 0).astype(np.int64) - 1,
        class_number=np.round(table[:, 21]).astype(np.int64),
    )


def write_dynamo(path: str | Path, listed: ParticleList) -> None:
    """Write a table whose tomograms are numbers: whole voxels as coordinates, the rest as shifts."""
    number = len(listed.score)
    table = np.zeros((number, _COLUMNS))
    whole_voxel = np.round(listed.place)
    table[:, 0], table[:, 1], table[:, 12] = np.arange(1, number + 1), 1, 0
    table[:, 3:6], table[:, 23:26] = listed.place - whole_voxel, whole_voxel + _FIRST
    table[:, 6:9] = rotation_to_euler(listed.rotation, "dynamo")
    table[:, 9], table[:, 19], table[:, 20] = listed.score, listed.tomogram.astype(int), listed.region + 1
    table[:, 21] = 0 if listed.class_number is None else listed.class_number
    lines = (" ".join(f"{value:.10g}" for value in row) + "\n" for row in table)
    Path(path).write_text("".join(lines), encoding="utf-8")


def _score(word: str) -> float:
    try:
        value = float(word)
    except ValueError:
        return float("nan")
    return value if abs(value) < np.inf else float("nan")
