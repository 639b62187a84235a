"""Centres of spheres (virions, vesicles) clicked by a user: STAR, or plain text with one centre a line."""

from pathlib import Path

import numpy as np

from tiltwise.data.errors import InputError
from tiltwise.io.star import Block, numbers, read_star, texts

_CENTRED = tuple(f"rlnCenteredCoordinate{axis}Angst" for axis in "XYZ")
_VOXELS = tuple(f"rlnCoordinate{axis}" for axis in "XYZ")
_RADIUS = "tiltwiseRadius"
_RADIUS_VOXELS = "rlnSphereRadius"


def read_centres(
    path: str | Path, *, shape: tuple[int, int, int] | None = None, voxel_size: float | None = None
) -> dict[str, np.ndarray]:
    """By tilt series, (centre, 4): x, y, z from the tomogram centre and radius, all in Å; radius nan where not given.

    A `.star` file has one table with rlnTomoName and either rlnCenteredCoordinateX/Y/ZAngst and, if known,
    tiltwiseRadius in Å; or rlnCoordinateX/Y/Z and, if known, rlnSphereRadius in voxels, counted from 0, of a tomogram
    whose `shape` (z, y, x) and `voxel_size` must then be given. Any other file is text in Å: `series x y z [radius]` a
    line, with blanks or commas; `#` begins a comment. InputError names file, line and fault.
    """
    path = Path(path)
    if path.suffix.lower() == ".star":
        names, rows = _star_rows(path, shape, voxel_size)
    else:
        names, rows = _text_rows(path)
    if not names:
        raise InputError(f"{path}: holds no centre")
    if not np.isfinite(rows[:, :3]).all() or (rows[:, 3] <= 0).any():
        raise InputError(f"{path}: a coordinate is not finite, or a radius is not positive")
    return {name: rows[np.array(names) == name] for name in dict.fromkeys(names)}


def _star_rows(
    path: Path, shape: tuple[int, int, int] | None, voxel_size: float | None
) -> tuple[list[str], np.ndarray]:
    blocks = read_star(path)
    table = next((block for block in blocks.values() if "rlnTomoName" in block), None)
    if table is None:
        raise InputError(f"{path}: has no table with the column _rlnTomoName")
    names = texts(table, "rlnTomoName", path)
    if _CENTRED[0] in table or _VOXELS[0] not in table:
        return names, _rows(table, (*_CENTRED, _RADIUS), path)
    if shape is None or voxel_size is None:
        raise InputError(f"{path}: counts in voxels (_rlnCoordinateX); write {_CENTRED[0]}, Å from the tomogram centre")
    centre = np.array([n // 2 for n in reversed(shape)] + [0])
    return names, (_rows(table, (*_VOXELS, _RADIUS_VOXELS), path) - centre) * voxel_size


def _rows(table: Block, columns: tuple[str, ...], path: Path) -> np.ndarray:
    """(centre, 4) of three coordinates and a radius; the last column may be absent."""
    values = [numbers(table, column, path) for column in columns[:3]]
    radius = numbers(table, columns[3], path) if columns[3] in table else np.full(len(values[0]), np.nan)
    return np.stack([*values, radius], axis=1)


def _text_rows(path: Path) -> tuple[list[str], np.ndarray]:
    names: list[str] = []
    rows: list[list[float]] = []
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror or error})") from None
    except UnicodeDecodeError:
        raise InputError(f"{path}: this is not text") from None
    for number, line in enumerate(lines, start=1):
        words = line.split("#")[0].replace(",", " ").split()
        if not words:
            continue
        try:
            values = [float(word) for word in words[1:]]
        except ValueError:
            values = []
        if len(values) not in (3, 4) or not np.isfinite(values).all():
            raise InputError(f"{path}, line {number}: write 'series x y z [radius]', in Å from the tomogram centre")
        names.append(words[0])
        rows.append(values if len(values) == 4 else [*values, np.nan])
    return names, np.array(rows, dtype=np.float64).reshape(-1, 4)
