"""Warp's tilt series: the XML that WarpTools and M keep of each, and the .tomostar that lists its images.

Warp places the point X of the volume, Å from its middle, in image i (WarpLib/TiltSeries/TiltSeries.cs,
GetPositionInAllTilts, with Matrix3.Euler and Matrix3.RotateX of WarpLib/Tools/Matrix3.cs written out):

    image = Rz(AxisAngle) · Ry(-(Angle + LevelAngleY)) · Rx(LevelAngleX) · (X + volume warp)
            + (AxisOffsetX, AxisOffsetY) - (GridMovementX, GridMovementY) + image size / 2,   all Å

so that tilt_axis_angle = AxisAngle, tilt_angle = -(Angle + LevelAngleY), x_tilt = LevelAngleX, and the shift is the
offset less the movement, moved by the difference of the centres, n / 2 there and n // 2 here. Its defocus grows with
the depth for AreAnglesInverted = False and falls for True: our defocus_handedness +1 and -1.

Movements that differ over the image become a warp of the image. A volume warp is taken over as its mean over the volume
at each exposure; what differs over the volume is not, since the file does not say how large that is, and this is said.
Decimal commas, which Warp has written, are understood.
"""

import xml.etree.ElementTree as ElementTree
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PureWindowsPath

import numpy as np

from tiltwise.data.deformation import Deformation, ImageWarp
from tiltwise.data.errors import InputError
from tiltwise.data.tilt_series import TiltGeometry
from tiltwise.io.alignment import Alignment
from tiltwise.io.local_warp import fit_warp
from tiltwise.io.star import numbers, read_star, texts, write_star
from tiltwise.io.text_tables import LARGEST_NUMBER
from tiltwise.io.warp_grids import NO_GRID, WarpGrid, exposure_means, grid_at, grid_rows, warp_to_grids
from tiltwise.io.warp_xml import read_xml, xml_number

_MOVEMENT = ("GridMovementX", "GridMovementY")
_VOLUME_WARP = ("GridVolumeWarpX", "GridVolumeWarpY", "GridVolumeWarpZ")
_FLAGS = {"true": True, "false": False}
_EXACT = 0.03
"""px; of a spline that stands for another one, so that points are right to 0.1 px with all else."""
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
    use: np.ndarray
    """(row,) UseTilt."""
    dose: np.ndarray
    """(row,) accumulated exposure, e⁻/Å²."""
    movement: tuple[WarpGrid, WarpGrid] = (NO_GRID, NO_GRID)
    """GridMovementX and Y, Å."""
    movie_paths: tuple[str, ...] | None = None
    """(row,) MoviePath; None if not stated."""
    angles_inverted: bool = False
    """AreAnglesInverted."""
    level_angle: tuple[float, float] = (0.0, 0.0)
    """LevelAngleX, LevelAngleY, degrees."""
    volume_warp: tuple[WarpGrid, WarpGrid, WarpGrid] = (NO_GRID, NO_GRID, NO_GRID)
    """GridVolumeWarpX, Y and Z, Å."""
    image_size: tuple[float, float] | None = None
    """ImageDimensionsAngstrom along x, y, over which the movements lie; None if not stated."""


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
    root = read_xml(path)
    if root.tag != "TiltSeries":
        raise InputError(f"{path}: this is not a tilt series of Warp (its XML begins with <{root.tag[:40]}>)")
    angle = _list(path, root, "Angles", None)
    count = len(angle)
    movies = _lines(root, "MoviePath")
    if movies is not None and len(movies) != count:
        raise InputError(f"{path}: <MoviePath> has {len(movies)} values, but <Angles> has {count}")
    return WarpSeries(
        angle=angle,
        axis_angle=_list(path, root, "AxisAngle", count),
        axis_offset=np.stack([_list(path, root, f"AxisOffset{axis}", count) for axis in "XY"], axis=1),
        movement=tuple(_grid(path, root, name) for name in _MOVEMENT),
        use=_flags(path, root, count),
        dose=_list(path, root, "Dose", count),
        movie_paths=None if movies is None else tuple(movies),
        angles_inverted=_flag(path, root.get("AreAnglesInverted", "False")),
        level_angle=tuple(xml_number(path, f"LevelAngle{axis}", root.get(f"LevelAngle{axis}", "0")) for axis in "XY"),
        volume_warp=tuple(_grid(path, root, name) for name in _VOLUME_WARP),
        image_size=_image_size(path, root),
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
    lists = {"Angles": series.angle, "Dose": series.dose, "AxisAngle": series.axis_angle}
    lists |= {"AxisOffsetX": series.axis_offset[:, 0], "AxisOffsetY": series.axis_offset[:, 1]}
    for name, values in lists.items():
        ElementTree.SubElement(root, name).text = "\n".join(_written(value) for value in values)
    ElementTree.SubElement(root, "UseTilt").text = "\n".join(str(bool(used)) for used in series.use)
    if series.movie_paths is not None:
        ElementTree.SubElement(root, "MoviePath").text = "\n".join(series.movie_paths)
    for name, grid in zip((*_MOVEMENT, *_VOLUME_WARP), (*series.movement, *series.volume_warp), strict=True):
        if grid.values.any():
            _write_grid(ElementTree.SubElement(root, name), grid)
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
    moved = np.stack([grid_rows(grid, count).mean(axis=(1, 2)) for grid in series.movement], axis=1)
    volume = np.stack([exposure_means(grid, series.dose) for grid in series.volume_warp], axis=1)
    centre = _centre_difference(image_shape) * pixel_size
    warp, notes = _local_warp(series, moved, centre, pixel_size, image_shape)
    local = [name for name, grid in zip(_VOLUME_WARP, series.volume_warp, strict=True) if not grid.is_even]
    if local:
        notes += (f"{', '.join(local)}: only means over the volume are taken over; the file does not say its size",)
    return Alignment(
        program="Warp",
        geometry=replace(geometry, shift=series.axis_offset - moved + _turned(geometry, volume) + centre),
        use=series.use,
        image_stems=None
        if series.movie_paths is None
        else tuple(PureWindowsPath(name).stem for name in series.movie_paths),
        image_warp=warp,
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
    deformation: Deformation | None = None,
) -> tuple[WarpSeries, str]:
    """The XML content of our geometry, with magnifications and warp of the images as movements, and what is to be said
    of it. InputError for an x-tilt that differs between the tilts."""
    x_tilt = np.asarray(geometry.x_tilt, dtype=np.float64)
    if np.ptp(x_tilt[use]) > _SAME_X_TILT:
        raise InputError(
            f"Warp holds one x-tilt for a series, and here they differ by {np.ptp(x_tilt[use]):.2f}°; "
            "export it as imod, relion or portal"
        )
    extent = (image_shape[1] * pixel_size, image_shape[0] * pixel_size)
    movement, note = _movement_of(deformation or Deformation(), len(use), extent, pixel_size)
    content = WarpSeries(
        angle=-geometry.tilt_angle,
        axis_angle=geometry.tilt_axis_angle,
        axis_offset=geometry.shift - _centre_difference(image_shape) * pixel_size,
        movement=movement,
        use=np.asarray(use, dtype=bool),
        dose=dose,
        movie_paths=tuple(movie_paths),
        angles_inverted=defocus_handedness != 1,
        level_angle=(float(x_tilt[use].mean()), 0.0),
        image_size=extent,
    )
    return content, note


def _local_warp(
    series: WarpSeries, moved: np.ndarray, centre: np.ndarray, pixel_size: float, image_shape: tuple[int, int]
) -> tuple[ImageWarp | None, tuple[str, ...]]:
    """Movements less their means moved (row, 2) as a warp of the image; centre (2,): theirs less ours, Å."""
    if all(grid.is_even for grid in series.movement):
        return None, ()
    count, extent = len(series.angle), (image_shape[1] * pixel_size, image_shape[0] * pixel_size)
    size = np.array(series.image_size or extent)
    rows = [grid_rows(grid, count) for grid in series.movement]

    def field(row: int, position: np.ndarray) -> np.ndarray:
        place = (position + moved[row] - centre) / size + 0.5
        parts = [grid_at(values[row], grid, place) for values, grid in zip(rows, series.movement, strict=True)]
        return moved[row] - np.stack(parts, axis=1)

    warp, error = fit_warp(field, count, extent, _EXACT * pixel_size)
    return warp, (f"Warp's movements within the image are a spline, right to {error / pixel_size:.3f} px",)


def _movement_of(
    deformation: Deformation, rows: int, extent: tuple[float, float], pixel_size: float
) -> tuple[tuple[WarpGrid, WarpGrid], str]:
    """Movement grids of what a deformation does to the images, and a note on what they do not hold."""
    sample, notes = deformation.sample, []
    magnification = np.ones(rows) if sample is None else sample.magnification
    if sample is not None and sample.coefficient.any():
        notes.append(
            "the deformation of the specimen is left out: the volume over which Warp would lay it is not known"
        )
    if deformation.image is None and (magnification == 1).all():
        return (NO_GRID, NO_GRID), "; ".join(notes)
    *grids, error = warp_to_grids(deformation.image, magnification, extent, _EXACT * pixel_size)
    if error > 2 * _EXACT * pixel_size:
        notes.append(f"the warp of the images is right to {error / pixel_size:.2f} px")
    return tuple(grids), "; ".join(notes)


def _turned(geometry: TiltGeometry, vector: np.ndarray) -> np.ndarray:
    """(row, 2) x, y of vectors (row, 3) of the volume as each image shows them."""
    x, y, z = vector.T
    tilt, x_tilt, axis = (np.radians(a) for a in (geometry.tilt_angle, geometry.x_tilt, geometry.tilt_axis_angle))
    across = x * np.cos(tilt) + (y * np.sin(x_tilt) + z * np.cos(x_tilt)) * np.sin(tilt)
    along = y * np.cos(x_tilt) - z * np.sin(x_tilt)
    return np.stack(
        [across * np.cos(axis) - along * np.sin(axis), across * np.sin(axis) + along * np.cos(axis)], axis=1
    )


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
    return np.array([xml_number(path, name, line) for line in lines])


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


def _grid(path: str | Path, root: ElementTree.Element, name: str) -> WarpGrid:
    element = root.find(name)
    nodes = [] if element is None else element.findall("Node")
    if not nodes:
        return NO_GRID
    size = [int(xml_number(path, name, element.get(key, "1"))) for key in ("Duration", "Depth", "Height", "Width")]
    if min(size) < 1 or float(np.prod(np.array(size, dtype=float))) != len(nodes):
        raise InputError(f"{path}: <{name}> has {len(nodes)} nodes, but its size is {' × '.join(map(str, size[::-1]))}")
    margin = tuple(xml_number(path, name, element.get(f"Margin{axis}", "0")) for axis in "XYZ")
    if min(margin) < 0 or max(margin) >= 0.5:
        raise InputError(f"{path}: <{name}> has margins of {', '.join(map(str, margin))}, which are parts below a half")
    places = np.array([[xml_number(path, name, node.get(key, "0")) for key in ("W", "Z", "Y", "X")] for node in nodes])
    values = np.array([xml_number(path, name, node.get("Value", "")) for node in nodes])
    return WarpGrid(values=values[np.lexsort(places.T[::-1])].reshape(size), margin=margin)


def _write_grid(element: ElementTree.Element, grid: WarpGrid) -> None:
    """Nodes as Warp lists them; those of a movement have no W."""
    over_volume = element.tag in _VOLUME_WARP
    sizes = zip(("Duration", "Depth", "Height", "Width"), grid.values.shape, strict=True)
    for key, size in reversed([*sizes][0 if over_volume else 1 :]):
        element.set(key, str(size))
    for axis, margin in zip("XYZ", grid.margin, strict=True) if not over_volume else ():
        element.set(f"Margin{axis}", _written(margin))
    for w, z, y, x in np.ndindex(grid.values.shape):
        place = {"X": str(x), "Y": str(y), "Z": str(z)} | ({"W": str(w)} if over_volume else {})
        ElementTree.SubElement(element, "Node", {**place, "Value": _written(grid.values[w, z, y, x])})


def _image_size(path: str | Path, root: ElementTree.Element) -> tuple[float, float] | None:
    words = root.get("ImageDimensionsAngstrom", "").split(", ")
    sizes = tuple(xml_number(path, "ImageDimensionsAngstrom", word) for word in words) if len(words) == 2 else ()
    return sizes if sizes and min(sizes) > 0 else None


def _written(value: float) -> str:
    return f"{float(value) + 0.0:.9g}"


def _centre_difference(image_shape: tuple[int, int]) -> np.ndarray:
    """(2,) Warp's image centre n / 2 minus ours, n // 2, in x, y, px."""
    return np.array([n / 2 - n // 2 for n in reversed(image_shape)])
