"""Points clicked along filaments or on membranes: STAR, plain text, or an IMOD model.

Text is one point a line, in Å from the tomogram centre: `series shape x y z`, with blanks or commas; `#` begins a
comment. `shape` is any word; its points stand in order along a filament, whose direction is from the first to the last.
STAR has one table with rlnTomoName, rlnTomoManifoldIndex (or rlnHelicalTubeID) and rlnCenteredCoordinateX/Y/ZAngst. A
model (.mod) holds one contour a shape, drawn on the tomogram of one series.
"""

from pathlib import Path

import numpy as np

from tiltwise.data.errors import InputError
from tiltwise.data.shapes import Shapes
from tiltwise.io.imod_model import model_indices, read_model
from tiltwise.io.star import numbers, read_star, texts
from tiltwise.io.text_tables import LARGEST_NUMBER, number_row, read_text

_CENTRED = tuple(f"rlnCenteredCoordinate{axis}Angst" for axis in "XYZ")
_SHAPE = ("rlnTomoManifoldIndex", "rlnHelicalTubeID")


def read_shapes(path: str | Path, series: str) -> Shapes | None:
    """The shapes of one series; None where the file has none of it. InputError names file, line and fault."""
    path = Path(path)
    if path.suffix.lower() in (".mod", ".fid"):
        return _from_model(path)
    rows = _star_rows(path) if path.suffix.lower() == ".star" else _text_rows(path)
    own = [(shape, point) for name, shape, point in rows if name == series]
    if not own:
        return None
    numbered = {shape: number for number, shape in enumerate(dict.fromkeys(shape for shape, _ in own))}
    points = np.array([point for _, point in own])
    if not (np.isfinite(points).all() and (np.abs(points) < LARGEST_NUMBER).all()):
        raise InputError(f"{path}: a coordinate is not a number, or too large")
    return Shapes(points=points, shape=np.array([numbered[shape] for shape, _ in own]))


def _from_model(path: Path) -> Shapes:
    model = read_model(path)
    contours = [model_indices(model, contour) for one in model.objects for contour in one.contours]
    contours = [points for points in contours if len(points)]
    if not contours:
        raise InputError(f"{path}: the model holds no point")
    return Shapes(
        points=np.concatenate(contours),
        shape=np.repeat(np.arange(len(contours)), [len(points) for points in contours]),
        unit="voxel",
        drawn_on=model.size,
    )


def _star_rows(path: Path) -> list[tuple[str, str, list[float]]]:
    table = next((one for one in read_star(path).values() if "rlnTomoName" in one), None)
    if table is None:
        raise InputError(f"{path}: has no table with the column _rlnTomoName")
    column = next((name for name in _SHAPE if name in table), None)
    if column is None:
        raise InputError(f"{path}: lacks the number of the filament or membrane (_{_SHAPE[0]} or _{_SHAPE[1]})")
    points = np.stack([numbers(table, name, path) for name in _CENTRED], axis=1).tolist()
    return list(zip(texts(table, "rlnTomoName", path), texts(table, column, path), points, strict=True))


def _text_rows(path: Path) -> list[tuple[str, str, list[float]]]:
    rows = []
    for number, line in enumerate(read_text(path).splitlines(), start=1):
        words = line.split("#")[0].replace(",", " ").split()
        if not words:
            continue
        if len(words) != 5:
            raise InputError(f"{path}, line {number}: write 'series shape x y z', in Å from the tomogram centre")
        rows.append((words[0], words[1], number_row(path, number, words[2:], 3)))
    return rows
