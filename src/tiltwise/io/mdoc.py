"""mdoc files of SerialEM and of Tomography 5: what the microscope wrote down about each image.

The reader is tolerant: it keeps every key as text, of whatever dialect (CRLF, Windows paths, decimal commas, [T = ...]
titles with and without brackets), and judges nothing. The functions below it read single meanings out of that text.
"""

import re
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path, PureWindowsPath

import numpy as np

from tiltwise.data.errors import InputError

_SECTION = re.compile(r"\[\s*(\w+)\s*=\s*(.*?)\s*\]$")
_PAIR = re.compile(r"(\w+)\s*=\s*(.*)$")
_TILT_AXIS = re.compile(r"Tilt\s*axis\s*angle\s*=\s*([-+\d.,eE]+)", re.IGNORECASE)
_DAY_MONTH_YEAR = re.compile(r"(\d{1,2})-([A-Za-z]{3})-(\d{4}|\d{2})\s+(\d{1,2}):(\d{2}):(\d{2})")
_YEAR_MONTH_DAY = re.compile(r"(\d{4})[-/](\d{1,2})[-/](\d{1,2})[\sT]+(\d{1,2}):(\d{2}):(\d{2})")
_MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_IMAGE_KINDS = ("ZValue", "Image")
_LARGEST = 1e12


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class MdocSection:
    """One [kind = value] section and its keys, all as text."""

    kind: str
    """ZValue: an image of a stack; Image: an image of its own file; FrameSet, MontSection: no tilt image."""
    value: str
    """What stands after kind: the number of the section, or the name of the file."""
    keys: dict[str, str]
    """Every key of the section."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Mdoc:
    """An mdoc file."""

    header: dict[str, str]
    """Keys before the first section."""
    titles: tuple[str, ...]
    """The lines [T = ...], without the brackets."""
    sections: tuple[MdocSection, ...]
    """Every section in the order of the file."""

    @property
    def images(self) -> tuple[MdocSection, ...]:
        """The sections that describe one image each; FrameSet and MontSection are left out."""
        return tuple(section for section in self.sections if section.kind in _IMAGE_KINDS)


def read_mdoc(path: str | Path) -> Mdoc:
    """Read an mdoc file. Raises InputError for a file that is absent, not text, or holds no section at all."""
    path = Path(path)
    try:
        text = path.read_bytes().decode("utf-8", errors="replace")
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror or error})") from None
    header: dict[str, str] = {}
    titles: list[str] = []
    sections: list[MdocSection] = []
    keys = header
    for line in map(str.strip, text.splitlines()):
        section, pair = _SECTION.match(line), _PAIR.match(line)
        if section and section[1] == "T":
            titles.append(section[2])
        elif section:
            keys = {}
            sections.append(MdocSection(kind=section[1], value=section[2], keys=keys))
        elif pair and pair[1] == "T":
            titles.append(pair[2])
        elif pair:
            keys[pair[1]] = pair[2]
    if not sections:
        raise InputError(f"{path}: this is not an mdoc file (it holds no section such as [ZValue = 0])")
    return Mdoc(header=header, titles=tuple(titles), sections=tuple(sections))


def write_mdoc(path: str | Path, mdoc: Mdoc) -> None:
    """Write an mdoc file as SerialEM lays it out."""
    lines = [f"{key} = {value}" for key, value in mdoc.header.items()]
    lines += [f"\n[T = {title}]" for title in mdoc.titles]
    for section in mdoc.sections:
        lines.append(f"\n[{section.kind} = {section.value}]")
        lines += [f"{key} = {value}" for key, value in section.keys.items()]
    Path(path).write_text("\n".join(lines) + "\n", encoding="utf-8", newline="\n")


def number(text: str | None) -> float | None:
    """The first number of a value, with a decimal point or comma; None for no value, nan, what is no number, and what
    no microscope writes and would overflow later."""
    words = (text or "").split()
    if not words:
        return None
    try:
        value = float(words[0].replace(",", "."))
    except ValueError:
        return None
    return value if abs(value) < _LARGEST else None


def image_numbers(mdoc: Mdoc, key: str) -> np.ndarray | None:
    """(image,) the first number of a key in every image section, or of the header's where a section lacks it; None
    unless every image has one."""
    values = [number(section.keys.get(key, mdoc.header.get(key))) for section in mdoc.images]
    return None if not values or any(value is None for value in values) else np.array(values)


def tilt_axis_angle(mdoc: Mdoc) -> float | None:
    """Tilt axis in degrees from image y, from the title of SerialEM ("Tilt axis angle =") or Tomography 5
    ("TiltAxisAngle ="); None if not stated. RotationAngle is no substitute: it lies 90° off."""
    for text in (*mdoc.titles, *(f"{key} = {value}" for key, value in mdoc.header.items())):
        found = _TILT_AXIS.search(text)
        if found:
            return number(found[1].rstrip(",."))
    return None


def image_name(section: MdocSection) -> str | None:
    """Name of the image's own file without its folder (Windows or Unix); None if the section names none."""
    text = (
        section.value if section.kind == "Image" else section.keys.get("SubFramePath") or section.keys.get("ImageFile")
    )
    return PureWindowsPath(text).name or None if text else None


def date_time(section: MdocSection) -> datetime | None:
    """When the image was taken: two- and four-digit years, one or more blanks; None if missing or not understood."""
    text = section.keys.get("DateTime", "")
    day_first, year_first = _DAY_MONTH_YEAR.search(text), _YEAR_MONTH_DAY.search(text)
    try:
        if day_first and day_first[2].lower() in _MONTHS:
            day, month, year, *clock = day_first.groups()
            full_year = int(year) + (0 if len(year) == 4 else 2000 if int(year) < 70 else 1900)
            return datetime(full_year, _MONTHS.index(month.lower()) + 1, int(day), *map(int, clock))
        return datetime(*map(int, year_first.groups())) if year_first else None
    except ValueError:
        return None


def acquisition_order(mdoc: Mdoc) -> tuple[np.ndarray, str]:
    """(image,) place of each image in time, 0 first, and what it was read from.

    The first of DateTime, PriorRecordDose, the running number in the file names, and the section number that every
    image has and that differs between all of them; else the order of the sections in the file.
    """
    images = mdoc.images
    candidates = (
        ("DateTime", [date_time(section) for section in images]),
        ("PriorRecordDose", [number(section.keys.get("PriorRecordDose")) for section in images]),
        ("the number in the file names", file_numbers([image_name(section) for section in images])),
        ("the section number", [number(section.value) for section in images]),
    )
    for source, values in candidates:
        if all(value is not None for value in values) and len(set(values)) == len(values):
            return np.argsort(np.argsort(np.array(values))), source
    return np.arange(len(images)), "the order of the sections"


def file_numbers(names: list[str | None]) -> list[int | None]:
    """The running number in each name: the first field between underscores that is a whole number in every name and
    differs between all of them. None for every name if there is no such field."""
    if any(name is None for name in names):
        return [None] * len(names)
    fields = [PureWindowsPath(name).stem.split("_") for name in names]
    for position in range(min(map(len, fields), default=0)):
        column = [field[position] for field in fields]
        if all(re.fullmatch(r"[0-9]+", text) for text in column) and len(set(map(int, column))) == len(column):
            return [int(text) for text in column]
    return [None] * len(names)
