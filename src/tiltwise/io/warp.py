"""Warp's tilt series: the XML that WarpTools and M keep of each, and the .tomostar that lists its images.

Warp places the point X of the volume, Å from its middle, in image i (WarpLib/TiltSeries/TiltSeries.cs,
GetPositionInAllTilts, with Matrix3.Euler and Matrix3.RotateX of WarpLib/Tools/Matrix3.cs written out):

    image = Rz(AxisAngle) · Ry(-(Angle + LevelAngleY)) · Rx(LevelAngleX) · (X + volume warp)
            + (AxisOffsetX, AxisOffsetY) - (GridMovementX, GridMovementY) + image size / 2,   all Å

so that tilt_axis_angle = AxisAngle, tilt_angle = -(Angle + LevelAngleY), x_tilt = LevelAngleX, and the shift is the
offset less the movement, moved by the difference of the centres, n / 2 there and n // 2 here. Its defocus grows with
the depth for AreAnglesInverted = False and falls for True: our defocus_handedness +1 and -1.

A volume warp or movement that is the same everywhere in an image is taken over; what differs over the image (M's local
refinement) is not, and said so. Decimal commas, which Warp has written, are understood.
"""

import re
import xml.etree.ElementTree as ElementTree
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PureWindowsPath

import numpy as np

from tiltwise.data.errors import InputError
from tiltwise.data.tilt_series import TiltGeometry
from tiltwise.io.alignment import Alignment
from tiltwise.io.star import numbers, read_star, texts, write_star
from tiltwise.io.text_tables import LARGEST_NUMBER, decode, read_bytes

_MOVEMENT = ("GridMovementX", "GridMovementY")
_VOLUME_WARP = ("GridVolumeWarpX", "GridVolumeWarpY", "GridVolumeWarpZ")
_FLAGS = {"true": True, "false": False}
_SAME_X_TILT = 0.002
"""x-tilts that differ by less move no point of a 4k image by 0.1 px, degrees."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class WarpSeries:
    """What a tilt-series XML says of the alignment, rows in its order; angles in degrees, lengths in Å."""

    angle: np.ndarray
    """(row,) Angles: the negative of the tilt angle."""
    axis_angle: np.ndarray
    """(row,) AxisAngle."""
    axis_offset: np.ndarray
    """(row, 2) AxisOffsetX, AxisOffsetY, Å."""
    movement: np.ndarray
    """(row, 2) GridMovementX and Y of each whole image, Å."""
    use: np.ndarray
    """(row,) UseTilt."""
    dose: np.ndarray
    """(row,) accumulated exposure, e⁻/Å²."""
    movie_paths: tuple[str, ...] | None = None
    """(row,) MoviePath; None if not stated."""
    angles_inverted: bool = False
    """AreAnglesInverted."""
    level_angle: tuple[float, float] = (0.0, 0.0)
    """LevelAngleX, LevelAngleY, degrees."""
    volume_warp: tuple[float, float, float] = (0.0, 0.0, 0.0)
    """Mean of the volume warp, Å."""
    local_grids: tuple[str, ...] = ()
    """Names of the grids that differ over an image or over the volume."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Tomostar:
    """A .tomostar: the images of one series, rows in its order."""

    movie_names: tuple[str, ...]
    """(row,) path of each image, relative to the file."""
    angle: np.ndarray
    """(row,) wrpAngleTilt: the negative of the stage angle unless the user kept it, degrees."""
    axis_angle: np.ndarray
    """(row,) wrpAxisAngle, degrees."""
    dose: np.ndarray
    """(row,) accumulated exposure, e⁻/Å²."""


def read_warp(path: str | Path) -> WarpSeries:
    """Read the XML of a tilt series. InputError for a file that is not well formed, no tilt series, or whose lists
    differ in length."""
    root = _root(path)
    if root.tag != "TiltSeries":
        raise InputError(f"{path}: this is not a tilt series of Warp (its XML begins with <{root.tag[:40]}>)")
    angle = _list(path, root, "Angles", None)
    count = len(angle)
    grids = {name: _grid(path, root, name) for name in (*_MOVEMENT, *_VOLUME_WARP)}
    movement = [_per_tilt(path, name, grids[name], count) for name in _MOVEMENT]
    movies = _lines(root, "MoviePath")
    if movies is not None and len(movies) != count:
        raise InputError(f"{path}: <MoviePath> has {len(movies)} values, but <Angles> has {count}")
    return WarpSeries(
        angle=angle,
        axis_angle=_list(path, root, "AxisAngle", count),
        axis_offset=np.stack([_list(path, root, f"AxisOffset{axis}", count) for axis in "XY"], axis=1),
        movement=np.stack(movement, axis=1),
        use=_flags(path, root, count),
        dose=_list(path, root, "Dose", count),
        movie_paths=None if movies is None else tuple(movies),
        angles_inverted=_flag(path, root.get("AreAnglesInverted", "False")),
        level_angle=tuple(_number(path, f"LevelAngle{axis}", root.get(f"LevelAngle{axis}", "0")) for axis in "XY"),
        volume_warp=tuple(float(grids[name][1].mean()) for name in _VOLUME_WARP),
        local_grids=tuple(name for name, (shape, values) in grids.items() if _is_local(name, shape, values, count)),
    )


def write_warp(path: str | Path, series: WarpSeries, *, image_size: tuple[float, float], pixel_size: float) -> None:
    """Write the XML of a tilt series; (x, y) image size in Å, pixel size in Å. Warp gives what is left out its
    defaults."""
    root = ElementTree.Element(
        "TiltSeries",
        AreAnglesInverted=str(series.angles_inverted),
        LevelAngleX=_written(series.level_angle[0]),
        LevelAngleY=_written(series.level_angle[1]),
        ImageDimensionsAngstrom=", ".join(_written(length) for length in image_size),
    )
    offset = series.axis_offset - series.movement
    lists = {"Angles": series.angle, "Dose": series.dose, "AxisAngle": series.axis_angle}
    lists |= {"AxisOffsetX": offset[:, 0], "AxisOffsetY": offset[:, 1]}
    for name, values in lists.items():
        ElementTree.SubElement(root, name).text = "\n".join(_written(value) for value in values)
    ElementTree.SubElement(root, "UseTilt").text = "\n".join(str(bool(used)) for used in series.use)
    if series.movie_paths is not None:
        ElementTree.SubElement(root, "MoviePath").text = "\n".join(series.movie_paths)
    ctf = ElementTree.SubElement(root, "CTF")
    ElementTree.SubElement(ctf, "Param", Name="PixelSize", Value=_written(pixel_size))
    ElementTree.indent(root, space="\t")
    Path(path).write_bytes(ElementTree.tostring(root, encoding="utf-8", xml_declaration=True) + b"\n")


def read_tomostar(path: str | Path) -> Tomostar:
    """Read a .tomostar. InputError for a file without wrpMovieName and wrpAngleTilt, or with angles that are no
    numbers."""
    table = next((block for block in read_star(path).values() if "wrpMovieName" in block), None)
    if table is None:
        raise InputError(f"{path}: this is no .tomostar (it has no column _wrpMovieName)")
    names, angle = texts(table, "wrpMovieName", path), numbers(table, "wrpAngleTilt", path)
    zero = np.zeros(len(names))
    axis = numbers(table, "wrpAxisAngle", path) if "wrpAxisAngle" in table else zero
    dose = numbers(table, "wrpDose", path) if "wrpDose" in table else zero
    if not all((np.abs(values) < LARGEST_NUMBER).all() for values in (angle, axis, dose)):
        raise InputError(f"{path}: an angle or a dose is not a finite number")
    return Tomostar(movie_names=tuple(names), angle=angle, axis_angle=axis, dose=dose)


def write_tomostar(path: str | Path, tomostar: Tomostar) -> None:
    """Write a .tomostar with the columns of WarpTools."""
    columns = {
        "wrpMovieName": list(tomostar.movie_names),
        "wrpAngleTilt": np.asarray(tomostar.angle, dtype=np.float64),
        "wrpAxisAngle": np.asarray(tomostar.axis_angle, dtype=np.float64),
        "wrpDose": np.asarray(tomostar.dose, dtype=np.float64),
    }
    write_star(path, {"": columns})


def from_warp(series: WarpSeries, *, pixel_size: float, image_shape: tuple[int, int]) -> Alignment:
    """The alignment in our geometry; pixel size Å and (y, x) size px of the images."""
    count = len(series.angle)
    x_tilt, level = series.level_angle
    geometry = TiltGeometry(
        tilt_angle=-(series.angle + level),
        tilt_axis_angle=series.axis_angle,
        x_tilt=np.full(count, float(x_tilt)),
        shift=np.zeros((count, 2)),
    )
    shift = series.axis_offset - series.movement + _turned(geometry, series.volume_warp)
    notes = ()
    if series.local_grids:
        notes = (f"Warp's local refinement ({', '.join(series.local_grids)}) is not taken over, only its mean",)
    geometry = TiltGeometry(
        tilt_angle=geometry.tilt_angle,
        tilt_axis_angle=geometry.tilt_axis_angle,
        x_tilt=geometry.x_tilt,
        shift=shift + _centre_difference(image_shape) * pixel_size,
    )
    return Alignment(
        program="Warp",
        geometry=geometry,
        use=series.use,
        image_stems=None
        if series.movie_paths is None
        else tuple(PureWindowsPath(name).stem for name in series.movie_paths),
        sign_known=False,
        defocus_handedness=-1 if series.angles_inverted else 1,
        notes=notes,
    )


def to_warp(
    geometry: TiltGeometry,
    *,
    use: np.ndarray,
    dose: np.ndarray,
    movie_paths: Sequence[str],
    pixel_size: float,
    image_shape: tuple[int, int],
    defocus_handedness: int | None,
) -> WarpSeries:
    """The XML content of our geometry. InputError for an x-tilt that differs between the tilts."""
    x_tilt = np.asarray(geometry.x_tilt, dtype=np.float64)
    if np.ptp(x_tilt[use]) > _SAME_X_TILT:
        raise InputError(
            f"Warp holds one x-tilt for a series, and here they differ by {np.ptp(x_tilt[use]):.2f}°; "
            "export it as imod, relion or portal"
        )
    return WarpSeries(
        angle=-geometry.tilt_angle,
        axis_angle=geometry.tilt_axis_angle,
        axis_offset=geometry.shift - _centre_difference(image_shape) * pixel_size,
        movement=np.zeros_like(geometry.shift),
        use=np.asarray(use, dtype=bool),
        dose=dose,
        movie_paths=tuple(movie_paths),
        angles_inverted=defocus_handedness != 1,
        level_angle=(float(x_tilt[use].mean()), 0.0),
    )


def _turned(geometry: TiltGeometry, vector: tuple[float, float, float]) -> np.ndarray:
    """(row, 2) x, y of a vector of the volume as each image shows it."""
    x, y, z = vector
    tilt, x_tilt, axis = (np.radians(a) for a in (geometry.tilt_angle, geometry.x_tilt, geometry.tilt_axis_angle))
    across = x * np.cos(tilt) + (y * np.sin(x_tilt) + z * np.cos(x_tilt)) * np.sin(tilt)
    along = y * np.cos(x_tilt) - z * np.sin(x_tilt)
    return np.stack(
        [across * np.cos(axis) - along * np.sin(axis), across * np.sin(axis) + along * np.cos(axis)], axis=1
    )


def _root(path: str | Path) -> ElementTree.Element:
    raw = read_bytes(path)
    if b"<!DOCTYPE" in raw[:4096] or "<!DOCTYPE".encode("utf-16-le") in raw[:8192]:
        raise InputError(f"{path}: has a document type, which no file of Warp has")
    wide = raw[:2] in (b"\xff\xfe", b"\xfe\xff")
    if not wide and b"\0" in raw[:4096]:
        raise InputError(f"{path}: this is not an XML file")
    text = decode(path, raw, encoding="utf-16" if wide else "utf-8-sig")
    try:
        return ElementTree.fromstring(re.sub(r"^\s*<\?xml[^>]*\?>", "", text, count=1))
    except ElementTree.ParseError as error:
        raise InputError(f"{path}: this is not a well-formed XML file ({error})") from None
    except ValueError as error:
        raise InputError(f"{path}: this is not a well-formed XML file ({' '.join(str(error).split())})") from None


def _lines(root: ElementTree.Element, name: str) -> list[str] | None:
    element = root.find(name)
    text = "" if element is None else (element.text or "").strip()
    return [line.strip() for line in text.splitlines()] if text else None


def _list(path: str | Path, root: ElementTree.Element, name: str, count: int | None) -> np.ndarray:
    """The numbers of a list, one a line; zeros for one that is absent, as Warp reads it."""
    lines = _lines(root, name)
    if lines is None and count is None:
        raise InputError(f"{path}: has no <{name}>, so it is no tilt series of Warp")
    if lines is None:
        return np.zeros(count)
    if count is not None and len(lines) != count:
        raise InputError(f"{path}: <{name}> has {len(lines)} values, but <Angles> has {count}")
    return np.array([_number(path, name, line) for line in lines])


def _flags(path: str | Path, root: ElementTree.Element, count: int) -> np.ndarray:
    lines = _lines(root, "UseTilt")
    if lines is None:
        return np.ones(count, dtype=bool)
    if len(lines) != count:
        raise InputError(f"{path}: <UseTilt> has {len(lines)} values, but <Angles> has {count}")
    return np.array([_flag(path, line) for line in lines])


def _flag(path: str | Path, text: str) -> bool:
    if text.strip().lower() not in _FLAGS:
        raise InputError(f"{path}: {text[:40]!r} is neither True nor False")
    return _FLAGS[text.strip().lower()]


def _number(path: str | Path, name: str, text: str) -> float:
    try:
        value = float(text.replace(",", "."))
    except ValueError:
        value = np.nan
    if not abs(value) < LARGEST_NUMBER:
        raise InputError(f"{path}: {name}: {text[:40]!r} is not a finite number")
    return value


def _grid(path: str | Path, root: ElementTree.Element, name: str) -> tuple[tuple[int, ...], np.ndarray]:
    """Size along x, y, z and time, and the values in the file's order; one 0 for a grid that is absent."""
    element = root.find(name)
    nodes = [] if element is None else element.findall("Node")
    if not nodes:
        return (1, 1, 1, 1), np.zeros(1)
    size = [int(_number(path, name, element.get(key, "1"))) for key in ("Width", "Height", "Depth", "Duration")]
    if min(size) < 1 or float(np.prod(np.array(size, dtype=float))) != len(nodes):
        raise InputError(f"{path}: <{name}> has {len(nodes)} nodes, but its size is {' × '.join(map(str, size))}")
    places = np.array([[_number(path, name, node.get(key, "0")) for key in ("W", "Z", "Y", "X")] for node in nodes])
    values = np.array([_number(path, name, node.get("Value", "")) for node in nodes])
    return tuple(size), values[np.lexsort(places.T[::-1])]


def _per_tilt(path: str | Path, name: str, grid: tuple[tuple[int, ...], np.ndarray], count: int) -> np.ndarray:
    """(row,) mean over each image of a grid over x, y and tilt."""
    (width, height, depth, _), values = grid
    means = values.reshape(-1, width * height).mean(axis=1)
    if depth == count and len(means) == count:
        return means
    return np.full(count, float(means.mean()))


def _is_local(name: str, shape: tuple[int, ...], values: np.ndarray, count: int) -> bool:
    if np.ptp(values) == 0:
        return False
    width, height, depth, _ = shape
    return name in _VOLUME_WARP or width * height > 1 or depth != count


def _written(value: float) -> str:
    return f"{float(value) + 0.0:.9g}"


def _centre_difference(image_shape: tuple[int, int]) -> np.ndarray:
    """(2,) Warp's image centre n / 2 minus ours, n // 2, in x, y, px."""
    return np.array([n / 2 - n // 2 for n in reversed(image_shape)])
