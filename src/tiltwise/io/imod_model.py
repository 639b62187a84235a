"""IMOD's binary model files (.mod, .fid, .seed): objects of contours of points.

The format is IMOD's "Binary File Format, Version 1, Revision 2": big-endian chunks, each with an id of four letters.
Read are points, names, contour times and surfaces, and the transformation MINX; meshes, labels and display settings are
skipped.

Coordinates as stored: x and y run from 0 at the outer edge of the first pixel to n at that of the last, z from -0.5 to
n - 0.5, so that the z of a point drawn on a section is the section's index. `model_indices` turns them into array
indices (x - 0.5, y - 0.5, z), pixel i having its middle at i. A model drawn on a part of an image or on one with an
origin is moved by (otrans - ctrans) / cscale of MINX to the whole image's coordinates.
"""

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tiltwise.data.errors import InputError
from tiltwise.io.text_tables import read_bytes

_MAGIC = b"IMODV1.2"
_HEADER_BYTES = 232
_OBJECT_BYTES = 176
_CONTOUR = struct.Struct(">iIii")
_MESH = struct.Struct(">iiIhh")
_FLIPPED = 1 << 16
_SCATTERED, _OPEN = 1 << 9, 1 << 3
_ORIGIN_STORED, _TILTS_STORED, _Z_FROM_HALF = 1 << 14, 1 << 15, 1 << 10


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Contour:
    """Points that belong together: a bead in all views, a curve."""

    points: np.ndarray
    """(point, 3) x, y, z as stored; see the module."""
    surface: int = 0
    """Surface it belongs to."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class ImodObject:
    """An object and its contours."""

    name: str
    """Its name."""
    contours: tuple[Contour, ...]
    """In the order of the file."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class ImodModel:
    """A model file."""

    size: tuple[int, int, int]
    """x, y, z size of the image it was drawn on, px."""
    objects: tuple[ImodObject, ...]
    """In the order of the file."""
    pixel_scale: tuple[float, float, float]
    """x, y, z pixel spacing of that image as MINX states it, Å as a rule; 1 where it does not."""
    offset: tuple[float, float, float]
    """x, y, z to add to stored coordinates for those of the whole image, px."""
    flipped: bool
    """Whether the image was last viewed with y and z exchanged; points are then stored exchanged too."""


def read_model(path: str | Path) -> ImodModel:
    """Read a binary model. InputError for a file that is no such model, cut short, or holds points that are no
    numbers."""
    raw = read_bytes(path)
    if raw[:8] != _MAGIC:
        kind = "an ASCII model; save it as binary in 3dmod" if raw[:5] == b"imod " else "no binary model of IMOD"
        raise InputError(f"{path}: this is {kind}")
    header = _unpack(path, raw, struct.Struct(">3iiI"), 8 + 128)
    size, flags = tuple(header[:3]), header[4]
    objects: list[tuple[str, list[Contour]]] = []
    scale, offset = (1.0, 1.0, 1.0), (0.0, 0.0, 0.0)
    place = 8 + _HEADER_BYTES
    while place < len(raw) and raw[place : place + 4] != b"IEOF":
        chunk, place = raw[place : place + 4], place + 4
        if chunk == b"OBJT":
            name = _slice(path, raw, place, _OBJECT_BYTES)[:64].split(b"\0")[0].decode("latin-1")
            objects.append((name, []))
            place += _OBJECT_BYTES
        elif chunk == b"CONT":
            contour, place = _read_contour(path, raw, place)
            if not objects:
                raise InputError(f"{path}: a contour comes before any object")
            objects[-1][1].append(contour)
        elif chunk == b"MESH":
            vertices, items, *_ = _unpack(path, raw, _MESH, place)
            place = _skip(path, raw, place, _MESH.size + 12 * _count(path, vertices) + 4 * _count(path, items))
        else:
            (length,) = _unpack(path, raw, struct.Struct(">i"), place)
            if chunk == b"MINX" and length >= 72:
                scale, offset = _read_minx(path, raw, place + 4, stored=bool(flags & _ORIGIN_STORED))
            place = _skip(path, raw, place, 4 + _count(path, length))
    return ImodModel(
        size=size,
        objects=tuple(ImodObject(name=name, contours=tuple(contours)) for name, contours in objects),
        pixel_scale=scale,
        offset=offset,
        flipped=bool(flags & _FLIPPED),
    )


def write_model(
    path: str | Path,
    objects: Sequence[ImodObject],
    *,
    size: tuple[int, int, int],
    pixel_size: float = 1.0,
    scattered: bool = True,
) -> None:
    """Write a binary model drawn on an image of `size` x, y, z px and of `pixel_size` Å whose origin is 0."""
    parts = [_MAGIC, b"tiltwise".ljust(128, b"\0"), struct.pack(">3ii", *size, len(objects))]
    parts.append(struct.pack(">I", _ORIGIN_STORED | _TILTS_STORED | _Z_FROM_HALF))
    parts.append(struct.pack(">4i6f", 1, 1, 0, 255, 0, 0, 0, 1, 1, 1))
    parts.append(struct.pack(">5ifi", -1, -1, -1, 3, 128, pixel_size, -10) + struct.pack(">i3f", 0, 0, 0, 0))
    for one in objects:
        parts.append(b"OBJT" + one.name.encode("latin-1", "replace")[:63].ljust(64, b"\0") + b"\0" * 64)
        flags = _SCATTERED if scattered else _OPEN
        parts.append(
            struct.pack(">iIii3fi8Bii", len(one.contours), flags, 0, 0, 0, 1, 0, 0, 1, 3, 1, 1, 0, 0, 0, 0, 0, 0)
        )
        for contour in one.contours:
            points = np.asarray(contour.points, dtype=">f4").reshape(-1, 3)
            parts += [b"CONT", _CONTOUR.pack(len(points), 0, 0, contour.surface), points.tobytes()]
    minx = np.zeros(18, dtype=">f4")
    minx[0:3], minx[9:12] = 1.0, pixel_size
    parts += [b"MINX", struct.pack(">i", 72), minx.tobytes(), b"IEOF"]
    Path(path).write_bytes(b"".join(parts))


def model_indices(model: ImodModel, contour: Contour) -> np.ndarray:
    """(point, 3) array indices x, y, z in the whole image, pixel i having its middle at i."""
    points = contour.points[:, [0, 2, 1]] if model.flipped else contour.points
    return points + np.array(model.offset) - np.array([0.5, 0.5, 0.0])


def contour_at(indices: np.ndarray, surface: int = 0) -> Contour:
    """The contour whose points lie at (point, 3) array indices x, y, z."""
    return Contour(points=np.asarray(indices, dtype=np.float64) + np.array([0.5, 0.5, 0.0]), surface=surface)


def _read_contour(path: str | Path, raw: bytes, place: int) -> tuple[Contour, int]:
    count, _, _, surface = _unpack(path, raw, _CONTOUR, place)
    start = place + _CONTOUR.size
    end = _skip(path, raw, start, 12 * _count(path, count))
    with np.errstate(invalid="ignore"):  # what is no number is told apart below
        points = np.frombuffer(raw[start:end], dtype=">f4").reshape(-1, 3).astype(np.float64)
    if not np.isfinite(points).all():
        raise InputError(f"{path}: a point is not a number")
    return Contour(points=points, surface=surface), end


def _read_minx(
    path: str | Path, raw: bytes, place: int, *, stored: bool
) -> tuple[tuple[float, float, float], tuple[float, float, float]]:
    with np.errstate(invalid="ignore"):
        values = np.frombuffer(_slice(path, raw, place, 72), dtype=">f4").astype(np.float64)
    origin, scale, moved = values[3:6], values[9:12], values[12:15]
    if not (np.isfinite(values).all() and (scale > 0).all()):
        raise InputError(f"{path}: its image coordinates (MINX) make no sense")
    offset = (origin - moved) / scale if stored else np.zeros(3)
    return tuple(scale.tolist()), tuple(offset.tolist())


def _unpack(path: str | Path, raw: bytes, layout: struct.Struct, place: int) -> tuple:
    return layout.unpack(_slice(path, raw, place, layout.size))


def _slice(path: str | Path, raw: bytes, place: int, length: int) -> bytes:
    _skip(path, raw, place, length)
    return raw[place : place + length]


def _skip(path: str | Path, raw: bytes, place: int, length: int) -> int:
    if place + length > len(raw):
        raise InputError(f"{path}: cut short: a part needs {place + length} bytes, the file has {len(raw)}")
    return place + length


def _count(path: str | Path, value: int) -> int:
    if value < 0:
        raise InputError(f"{path}: a part has a negative length")
    return value
