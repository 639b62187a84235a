"""Centres of spheres clicked by a user: STAR, or plain text with one centre a line."""

from pathlib import Path

import numpy as np

from tiltwise.data.errors import InputError
from tiltwise.io.star import block, numbers, read_star, texts

_COLUMNS = tuple(f"rlnCenteredCoordinate{axis}Angst" for axis in "XYZ")
_RADIUS = "tiltwiseRadius"


def read_centres(path: str | Path) -> dict[str, np.ndarray]:
    """By tilt series, (centre, 4): x, y, z from the tomogram centre and radius, all in Å; radius nan where not given.

    A `.star` file has a block `centres` (or `particles`) with rlnTomoName, rlnCenteredCoordinateX/Y/ZAngst and, if known, tiltwiseRadius.
    Any other file is text: `series x y z [radius]` a line, `#` begins a comment. InputError names file, line and fault.
    """
    path = Path(path)
    names, rows = _star_rows(path) if path.suffix == ".star" else _text_rows(path)
    if not names:
        raise InputError(f"{path}: holds no centre")
    return {name: rows[np.array(names) == name] for name in dict.fromkeys(names)}


def _star_rows(path: Path) -> tuple[list[str], np.ndarray]:
    blocks = read_star(path)
    table = block(blocks, "particles" if "particles" in blocks else "centres", path)
    columns = [numbers(table, column, path) for column in _COLUMNS]
    radius = numbers(table, _RADIUS, path) if _RADIUS in table else np.full(len(columns[0]), np.nan)
    return texts(table, "rlnTomoName", path), np.stack([*columns, radius], axis=1)


def _text_rows(path: Path) -> tuple[list[str], np.ndarray]:
    names: list[str] = []
    rows: list[list[float]] = []
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: cannot be read as text ({error})") from error
    for number, line in enumerate(lines, start=1):
        words = line.split("#")[0].replace(",", " ").split()
        if not words:
            continue
        try:
            values = [float(word) for word in words[1:]]
        except ValueError:
            values = []
        if len(values) not in (3, 4) or not np.isfinite(values).all():
            raise InputError(f"{path}: line {number}: write 'series x y z [radius]', in Å from the tomogram centre")
        names.append(words[0])
        rows.append(values if len(values) == 4 else [*values, np.nan])
    return names, np.array(rows, dtype=np.float64).reshape(-1, 4)
