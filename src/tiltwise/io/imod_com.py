"""IMOD's command files tilt.com and newst.com, and a whole alignment as etomo leaves it in a folder.

What `tilt` does with its entries (flib/tilt/tilt.f90 of IMOD 4.7 and its manual page), in pixels of the aligned image,
with X the point in the volume after `trimvol -rx` (right-handed, z = -row of the slice), from the volume's middle:

    aligned = Ry(tlt + OFFSET₁) · Rx(xtilt - XAXISTILT) · (X - (D_x + SHIFT₁, D_y, -SHIFT₂)) + (D_x, D_y),
    D = (OFFSET₂, 0) + FULLIMAGE / 2 - SUBSETSTART - aligned size / 2

Entries are in unbinned pixels whatever IMAGEBINNED says; newst.com's SizeToOutputInXandY alone is in binned ones. The
aligned image goes back to the raw one by .xf, x' = A x + d about the middles (io/imod.py), so that with A a rotation
our axis and shift are

    tilt_axis_angle = atan2(A12, A11),   shift = -A⁻¹ d + A⁻¹ [D - Ry Rx (D_x + SHIFT₁, D_y, -SHIFT₂)]_xy

The origin of the volume is thus kept: picks made in IMOD's tomogram stay where they are.
"""

import re
from dataclasses import dataclass, replace
from pathlib import Path, PureWindowsPath

import numpy as np

from tiltwise.data.errors import InputError
from tiltwise.data.tilt_series import TiltGeometry
from tiltwise.io.alignment import Alignment
from tiltwise.io.imod import geometry_from_xf, geometry_to_xf, read_tlt, read_xf, write_tlt, write_xf
from tiltwise.io.text_tables import number_row, read_text

_RANGE = re.compile(r"(\d+)(?:-(\d+))?$")
_LARGEST_VIEW = 100_000
_TLT_DECIMALS = 4
"""Two decimals, as IMOD writes, move the edge of a 4k image by 0.17 px."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class TiltCom:
    """The entries of tilt.com that say where a voxel projects to; lengths in unbinned pixels."""

    tilt_offset: float = 0.0
    """OFFSET, first number: added to all tilt angles, degrees."""
    axis_offset: float = 0.0
    """OFFSET, second number: x of the tilt axis from the middle of the aligned image, px."""
    x_axis_tilt: float = 0.0
    """XAXISTILT: subtracted from all x-tilts, degrees."""
    shift: tuple[float, float] = (0.0, 0.0)
    """SHIFT: how far the volume is moved along x and up, px."""
    thickness: int | None = None
    """THICKNESS, px."""
    full_image: tuple[int, int] | None = None
    """FULLIMAGE: x, y size of the raw images, px."""
    subset_start: tuple[int, int] = (0, 0)
    """SUBSETSTART: x, y of the aligned image's corner in the raw one, px."""
    binning: int = 1
    """IMAGEBINNED."""
    excluded: tuple[int, ...] = ()
    """EXCLUDELIST: views left out, counted from 1."""
    tilt_file: str | None = None
    """TILTFILE."""
    x_tilt_file: str | None = None
    """XTILTFILE."""
    local_file: str | None = None
    """LOCALFILE: local alignments."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class NewstCom:
    """The entries of newst.com that say how the aligned stack was made."""

    input_file: str | None = None
    """InputFile: the raw stack."""
    transform_file: str | None = None
    """TransformFile."""
    size: tuple[int, int] | None = None
    """SizeToOutputInXandY: x, y size of the aligned images, binned px."""
    binning: int = 1
    """BinByFactor."""


def read_tilt_com(path: str | Path) -> TiltCom:
    """Read tilt.com. InputError for a file without THICKNESS, TILTFILE or OFFSET, or with entries that are no
    numbers."""
    entries = _entries(path)
    if not {"thickness", "tiltfile", "offset"} & set(entries):
        raise InputError(f"{path}: this is not a command file of IMOD's tilt")
    offset, shift = _numbers(path, entries, "offset", 2), _numbers(path, entries, "shift", 2)
    thickness = _numbers(path, entries, "thickness", 1)
    full, subset = _numbers(path, entries, "fullimage", 2), _numbers(path, entries, "subsetstart", 2)
    return TiltCom(
        tilt_offset=offset[0],
        axis_offset=offset[1],
        x_axis_tilt=_numbers(path, entries, "xaxistilt", 1)[0],
        shift=(shift[0], shift[1]),
        thickness=int(thickness[0]) if thickness[0] else None,
        full_image=(int(full[0]), int(full[1])) if min(full) > 0 else None,
        subset_start=(int(subset[0]), int(subset[1])),
        binning=_binning(path, entries, "imagebinned"),
        excluded=_views(path, entries),
        tilt_file=_file(entries, "tiltfile"),
        x_tilt_file=_file(entries, "xtiltfile"),
        local_file=_file(entries, "localfile"),
    )


def read_newst_com(path: str | Path) -> NewstCom:
    """Read newst.com. InputError for a file that names no files, or with entries that are no numbers."""
    entries = _entries(path)
    if not {"inputfile", "transformfile"} & set(entries):
        raise InputError(f"{path}: this is not a command file of IMOD's newstack")
    size = _numbers(path, entries, "sizetooutputinxandy", 2)
    return NewstCom(
        input_file=_file(entries, "inputfile"),
        transform_file=_file(entries, "transformfile"),
        size=(int(size[0]), int(size[1])) if min(size) > 0 else None,
        binning=_binning(path, entries, "binbyfactor"),
    )


def write_com_files(folder: Path, name: str, com: TiltCom, stack: str) -> None:
    """Write tilt.com and newst.com with which etomo, or `submfg`, makes the tomogram of an exported alignment."""
    width, height = com.full_image or (0, 0)
    newst = ["$newstack -StandardInput", f"InputFile\t{stack}", f"OutputFile\t{name}_ali.mrc"]
    newst += [f"TransformFile\t{name}.xf", "TaperAtFill\t1,1", "AdjustOrigin\t", "OffsetsInXandY\t0.0,0.0"]
    newst += [f"SizeToOutputInXandY\t{width},{height}", "ImagesAreBinned\t1.0", "BinByFactor\t1"]
    tilt = ["$tilt -StandardInput", f"InputProjections {name}_ali.mrc", f"OutputFile {name}_full_rec.mrc"]
    tilt += ["IMAGEBINNED 1", f"TILTFILE {name}.tlt", f"XTILTFILE {name}.xtilt", f"FULLIMAGE {width} {height}"]
    tilt += ["SUBSETSTART 0 0", f"THICKNESS {com.thickness}", "XAXISTILT 0.0", "OFFSET 0.0", "SHIFT 0.0 0.0"]
    tilt += ["RADIAL 0.35 0.035", "FalloffIsTrueSigma 1", "SCALE 0.0 0.05", "PERPENDICULAR", "MODE 2", "AdjustOrigin"]
    if com.excluded:
        tilt.append("EXCLUDELIST2 " + ",".join(map(str, com.excluded)))
    for file, lines in (("newst.com", newst), ("tilt.com", tilt)):
        text = "\n".join([*lines, "$if (-e ./savework) ./savework"]) + "\n"
        (folder / file).write_text(text, encoding="ascii", errors="replace", newline="\n")


def read_imod(xf: Path, *, pixel_size: float, image_shape: tuple[int, int]) -> Alignment:
    """An alignment from its .xf and what lies beside it: .tlt (needed), .xtilt, tilt.com and newst.com.

    pixel size Å and (y, x) size px of the raw images. Without tilt.com its entries count as 0. InputError where a file
    is absent or the files contradict each other.
    """
    tilt_com, newst_com = xf.with_name("tilt.com"), xf.with_name("newst.com")
    com = read_tilt_com(tilt_com) if tilt_com.is_file() else TiltCom()
    newst = read_newst_com(newst_com) if newst_com.is_file() else NewstCom()
    if com.tilt_file is not None and Path(com.tilt_file).stem != xf.stem and xf.with_suffix(".tlt").is_file():
        com, newst = TiltCom(), NewstCom()  # of another series in the same folder
    if com.full_image not in (None, image_shape[::-1]):
        theirs, ours = f"{com.full_image[0]} × {com.full_image[1]}", f"{image_shape[1]} × {image_shape[0]}"
        raise InputError(f"{tilt_com}: aligns images of {theirs} px, but those of the series are {ours} px")
    transforms, angles = read_xf(xf), read_tlt(_beside(xf, ".tlt", com.tilt_file))
    x_tilt = _x_tilt(xf, com, len(angles)) - com.x_axis_tilt
    geometry = geometry_from_xf(
        transforms, angles + com.tilt_offset, pixel_size=pixel_size, image_shape=image_shape, x_tilt=x_tilt
    )
    moved = _volume_shift(geometry, com, newst, image_shape)
    outside = [view for view in com.excluded if view > len(transforms)]
    if outside:
        raise InputError(f"{tilt_com}: excludes view {outside[0]} of {len(transforms)}")
    raw = xf.with_suffix(".rawtlt")
    stage = read_tlt(raw) if raw.is_file() else None
    notes = (f"local alignments ({com.local_file}) are not taken over",) if com.local_file else ()
    return Alignment(
        program="IMOD",
        geometry=replace(geometry, shift=geometry.shift + moved * pixel_size),
        use=~np.isin(np.arange(len(transforms)) + 1, com.excluded),
        section=np.arange(len(transforms)),
        stage_tilt_angle=stage if stage is not None and len(stage) == len(transforms) else None,
        notes=notes,
    )


def write_imod(
    folder: Path, name: str, stack: str, geometry: TiltGeometry, *, use: np.ndarray, pixel_size: float, image_shape
) -> None:
    """Write .xf, .tlt, .xtilt, tilt.com and newst.com of a stack whose images are in the order of the rows."""
    write_xf(folder / f"{name}.xf", geometry_to_xf(geometry, pixel_size=pixel_size, image_shape=image_shape))
    write_tlt(folder / f"{name}.tlt", geometry.tilt_angle, decimals=_TLT_DECIMALS)
    write_tlt(folder / f"{name}.xtilt", geometry.x_tilt, decimals=_TLT_DECIMALS)
    excluded = tuple((np.flatnonzero(~np.asarray(use, dtype=bool)) + 1).tolist())
    thickness = 2 * round(0.2 * image_shape[1])
    com = TiltCom(thickness=thickness, full_image=(image_shape[1], image_shape[0]), excluded=excluded)
    write_com_files(folder, name, com, stack)


def _volume_shift(geometry: TiltGeometry, com: TiltCom, newst: NewstCom, image_shape: tuple[int, int]) -> np.ndarray:
    """(tilt, 2) px by which the entries of tilt.com move the projections, in the raw image."""
    aligned = (
        np.array(newst.size, dtype=float) * newst.binning if newst.size else np.array(image_shape[::-1], dtype=float)
    )
    middle = np.zeros(2)
    if com.full_image is not None and newst.size is not None:
        middle = np.array(com.full_image) / 2 - np.array(com.subset_start) - aligned / 2
    offset = np.array([com.axis_offset, 0.0]) + middle
    x, y, z = offset[0] + com.shift[0], offset[1], -com.shift[1]
    tilt, x_tilt, axis = (np.radians(a) for a in (geometry.tilt_angle, geometry.x_tilt, geometry.tilt_axis_angle))
    depth = y * np.sin(x_tilt) + z * np.cos(x_tilt)
    dx = offset[0] - (x * np.cos(tilt) + depth * np.sin(tilt))
    dy = offset[1] - (y * np.cos(x_tilt) - z * np.sin(x_tilt))
    return np.stack([dx * np.cos(axis) - dy * np.sin(axis), dx * np.sin(axis) + dy * np.cos(axis)], axis=1)


def _x_tilt(xf: Path, com: TiltCom, count: int) -> np.ndarray:
    if com.x_tilt_file is None and not xf.with_suffix(".xtilt").is_file():
        return np.zeros(count)
    return read_tlt(_beside(xf, ".xtilt", com.x_tilt_file))


def _beside(xf: Path, suffix: str, named: str | None) -> Path:
    """The file of this suffix beside an .xf: of its own stem, or the one that tilt.com names."""
    own = xf.with_suffix(suffix)
    other = xf.with_name(PureWindowsPath(named).name) if named else own
    return own if own.is_file() or not other.is_file() else other


def _entries(path: str | Path) -> dict[str, list[tuple[int, str]]]:
    """Every entry by its name in lower case: line number and value."""
    entries: dict[str, list[tuple[int, str]]] = {}
    for number, line in enumerate(read_text(path).splitlines(), start=1):
        text = line.strip()
        if text.startswith(("#", "$")) or not text:
            continue
        key, _, value = text.replace("\t", " ").partition(" ")
        entries.setdefault(key.lower(), []).append((number, value.strip()))
    return entries


def _numbers(path: str | Path, entries: dict[str, list[tuple[int, str]]], key: str, count: int) -> list[float]:
    """The numbers of the last entry of a name, those not given 0."""
    if key not in entries:
        return [0.0] * count
    line, text = entries[key][-1]
    words = text.replace(",", " ").split()[:count]
    values = number_row(path, line, words, len(words))
    if any(abs(value) > 1e6 for value in values):
        raise InputError(f"{path}, line {line}: {text[:40]!r} makes no sense")
    return values + [0.0] * (count - len(values))


def _binning(path: str | Path, entries: dict[str, list[tuple[int, str]]], key: str) -> int:
    value = int(_numbers(path, entries, key, 1)[0]) if key in entries else 1
    if not 1 <= value <= 64:
        raise InputError(f"{path}: a binning of {value} makes no sense")
    return value


def _file(entries: dict[str, list[tuple[int, str]]], key: str) -> str | None:
    return entries[key][-1][1] or None if key in entries else None


def _views(path: str | Path, entries: dict[str, list[tuple[int, str]]]) -> tuple[int, ...]:
    """Views of all exclude lists: numbers and ranges such as 1,4-6."""
    views: set[int] = set()
    for key in ("excludelist", "excludelist2", "exclude"):
        for line, text in entries.get(key, ()):
            for word in text.replace(",", " ").split():
                found = _RANGE.match(word)
                first, last = (int(found[1]), int(found[2] or found[1])) if found else (0, 0)
                if not 1 <= first <= last <= _LARGEST_VIEW:
                    raise InputError(f"{path}, line {line}: {word[:40]!r} is no list of views")
                views.update(range(first, last + 1))
    return tuple(sorted(views))
