"""A tilt series as the microscope left it: a stack with .rawtlt and .mdoc beside it, or an .mdoc with separate images.

Nothing is guessed in silence: what is not stated and has no safe default is an InputError that says what is missing,
and what was assumed is said in the notes.
"""

from dataclasses import dataclass
from pathlib import Path, PureWindowsPath

import numpy as np

from tiltwise.data.errors import InputError
from tiltwise.data.optics import Optics
from tiltwise.data.tilt_series import TiltSeries
from tiltwise.io import mdoc as mdoc_format
from tiltwise.io.images import (
    MRC_SUFFIXES,
    TIFF_SUFFIXES,
    ImageFile,
    image_pixel_size,
    open_images,
    stack_image_names,
)
from tiltwise.io.imod import read_tlt
from tiltwise.io.mdoc import Mdoc, MdocSection, read_mdoc
from tiltwise.io.movies import MOVIE_SUFFIXES, open_movies, unmoved_images
from tiltwise.io.mrc import read_header
from tiltwise.ops.tilt_schemes import on_one_side

_STACK_SUFFIXES = (".mrc", ".st", ".mrcs", ".ali")
_SAME_ANGLE = 0.1
_ANGLE_AGREEMENT = 0.5
_PIXEL_AGREEMENT = 0.01
_ANGSTROM_PER_UM = 1e4


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Acquisition:
    """A tilt series and what was assumed in reading it."""

    tilt_series: TiltSeries
    """The series; not aligned, no CTF."""
    notes: tuple[str, ...]
    """One line each: what was assumed, derived or left out."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class _Rows:
    """Where the images lie and what describes each, in the order of the tilts."""

    files: list[ImageFile | None]
    names: tuple[str, ...]
    sections: list[MdocSection] | None
    angles: np.ndarray
    mdoc: Mdoc | None
    mdoc_path: Path | None


def read_acquisition(
    path: str | Path,
    *,
    pixel_size: float | None = None,
    tilt_axis_angle: float | None = None,
    voltage: float | None = None,
    spherical_aberration: float | None = None,
    amplitude_contrast: float | None = None,
    exposure: float | None = None,
    images: str | Path | None = None,
) -> Acquisition:
    """Read a tilt series from a stack (.mrc, .st, .mrcs) or an .mdoc; what is given here goes before what files say.

    pixel_size Å, tilt_axis_angle degrees, voltage kV, spherical_aberration mm, exposure e⁻/Å² of each image; `images`
    is the folder of an .mdoc's separate images (default: the .mdoc's own). A stack needs a .rawtlt (or .tlt) or an
    .mdoc beside it. Tilts whose image is absent, or whose angle was taken before, are flagged with the reason.

    Raises InputError, in one line, for numbers of images, angles and sections that differ, for two series in one .mdoc,
    and for a pixel size that is not stated or on which the files disagree.
    """
    path, notes = Path(path).absolute(), []
    rows = _rows(path, None if images is None else Path(images).absolute(), notes)
    if np.abs(rows.angles).max() > 90:
        raise InputError(f"{path}: a tilt angle of {rows.angles[np.abs(rows.angles).argmax()]:g}° makes no sense")
    pixel_size = _pixel_size(path, rows, pixel_size, notes)
    order, pre_exposure, exposures = _exposures(rows, exposure, notes)
    movies, faults = open_movies(rows.files) or (None, ("",) * len(rows.files))
    use, why_not = _flags(rows, order, faults)
    given = {"voltage": voltage, "spherical_aberration": spherical_aberration, "amplitude_contrast": amplitude_contrast}
    series = TiltSeries(
        name=series_name(path),
        images=open_images(rows.files) if movies is None else unmoved_images(movies),
        image_names=rows.names,
        pixel_size=pixel_size,
        optics=_optics(rows.mdoc, given, notes),
        stage_tilt_angle=rows.angles,
        nominal_tilt_axis_angle=_tilt_axis_angle(rows.mdoc, tilt_axis_angle, notes),
        exposure=exposures,
        pre_exposure=pre_exposure,
        acquisition_order=order,
        nominal_defocus=_nominal_defocus(rows.sections),
        use=use,
        why_not=why_not,
        movies=movies,
    )
    if movies is not None:
        notes.append("the files are movies: the recipe must begin with the step motion")
    notes += _one_sided(rows.angles)
    notes += [f"tilt {index + 1} is left out: {reason}" for index, reason in enumerate(why_not) if reason]
    return Acquisition(tilt_series=series, notes=tuple(notes))


def series_name(path: str | Path) -> str:
    """Name of a series from its file: TS_03 for TS_03.mrc, TS_03.st.mdoc, TS_03.mdoc."""
    name = Path(path).name
    for suffix in (".mdoc", *_STACK_SUFFIXES, *TIFF_SUFFIXES):
        if name.lower().endswith(suffix):
            name = name[: -len(suffix)]
    return name


def _one_sided(angles: np.ndarray) -> list[str]:
    """A note where all tilts lie on one side of the untilted image, or nearly."""
    if not on_one_side(angles):
        return []
    return [
        f"all tilts are on one side ({angles.min():.0f}° to {angles.max():.0f}°): the missing wedge is larger, tilt "
        "axis and hand of the defocus are less certain"
    ]


def _rows(path: Path, folder: Path | None, notes: list[str]) -> _Rows:
    if path.suffix.lower() in _STACK_SUFFIXES:
        return _stack_rows(path, _beside(path, ".mdoc"), notes)
    if path.suffix.lower() != ".mdoc":
        raise InputError(f"{path}: expected a stack ({', '.join(_STACK_SUFFIXES)}) or an .mdoc file")
    mdoc = _tilt_series_mdoc(path)
    stack = None if folder is not None else _stack_of(path, mdoc)
    return (
        _stack_rows(stack, path, notes)
        if stack is not None
        else _separate_rows(path, mdoc, folder or path.parent, notes)
    )


def _beside(stack: Path, suffix: str) -> Path | None:
    """TS.mrc.mdoc or TS.mdoc beside TS.mrc; the first that is there."""
    for candidate in (stack.with_name(stack.name + suffix), stack.with_suffix(suffix)):
        if candidate.is_file():
            return candidate
    return None


def _tilt_series_mdoc(path: Path) -> Mdoc:
    """An .mdoc, checked to describe one tilt series."""
    mdoc = read_mdoc(path)
    numbers = [section.value for section in mdoc.images]
    repeated = next((value for value in numbers if numbers.count(value) > 1), None)
    if not numbers:
        raise InputError(f"{path}: describes no tilt image (it has no [ZValue = ...] section)")
    if repeated is not None:
        raise InputError(
            f"{path}: holds two series or a repeated section: [{mdoc.images[0].kind} = {repeated}] occurs twice"
        )
    if mdoc.header.get("Montage", "0") == "1" or any("PieceCoordinates" in section.keys for section in mdoc.images):
        raise InputError(f"{path}: describes a montage, not a tilt series")
    if any(mdoc_format.number(section.keys.get("TiltAngle")) is None for section in mdoc.images):
        raise InputError(f"{path}: a section lacks a TiltAngle that is a number")
    return mdoc


def _stack_of(path: Path, mdoc: Mdoc) -> Path | None:
    """The stack that an .mdoc describes, if it lies beside it: TS.mrc for TS.mrc.mdoc, or its ImageFile."""
    if any(section.kind == "Image" for section in mdoc.images):
        return None
    candidates = [path.with_suffix("")] + [path.with_suffix(suffix) for suffix in _STACK_SUFFIXES]
    candidates.append(path.parent / PureWindowsPath(mdoc.header.get("ImageFile", "")).name)
    for candidate in candidates:
        if candidate.suffix.lower() in _STACK_SUFFIXES and candidate.is_file():
            return candidate
    return None


def _stack_rows(stack: Path, mdoc_path: Path | None, notes: list[str]) -> _Rows:
    count = read_header(stack).shape[0]
    angles_path = _beside(stack, ".rawtlt") or (_beside(stack, ".tlt") if mdoc_path is None else None)
    if mdoc_path is None and angles_path is None:
        raise InputError(f"{stack}: has neither a .rawtlt nor an .mdoc beside it, so its tilt angles are not known")
    angles = None if angles_path is None else read_tlt(angles_path)
    if angles is not None and len(angles) != count:
        raise InputError(f"{angles_path}: has {len(angles)} angles, but {stack.name} has {count} images")
    mdoc = None if mdoc_path is None else _tilt_series_mdoc(mdoc_path)
    sections = None
    if mdoc is not None:
        sections = _sections_of_stack(mdoc, mdoc_path, stack, count, angles, notes)
        angles = np.array([mdoc_format.number(section.keys["TiltAngle"]) for section in sections])
    return _Rows(
        files=[ImageFile(path=stack, section=index) for index in range(count)],
        names=stack_image_names(stack, count),
        sections=sections,
        angles=angles,
        mdoc=mdoc,
        mdoc_path=mdoc_path,
    )


def _sections_of_stack(
    mdoc: Mdoc, path: Path, stack: Path, count: int, angles: np.ndarray | None, notes: list[str]
) -> list[MdocSection]:
    """(tilt,) the section of each image of the stack: by its ZValue, or by angle where a .rawtlt shows that the stack
    was put into another order after the .mdoc was written."""
    if len(mdoc.images) != count:
        raise InputError(f"{path}: describes {len(mdoc.images)} images, but {stack.name} has {count}")
    by_number = sorted(mdoc.images, key=lambda section: mdoc_format.number(section.value) or 0.0)
    if angles is None or _largest_difference(by_number, angles) <= _ANGLE_AGREEMENT:
        return by_number
    by_angle = sorted(mdoc.images, key=_tilt_angle)
    matched = [by_angle[rank] for rank in np.argsort(np.argsort(angles, kind="stable"), kind="stable")]
    difference = _largest_difference(matched, angles)
    if difference > _ANGLE_AGREEMENT:
        raise InputError(f"{path}: its tilt angles differ from those of the .rawtlt by up to {difference:.1f}°")
    notes.append(f"{path.name} lists the images in another order than the .rawtlt; they are matched by tilt angle")
    return matched


def _tilt_angle(section: MdocSection) -> float:
    return mdoc_format.number(section.keys["TiltAngle"])


def _largest_difference(sections: list[MdocSection], angles: np.ndarray) -> float:
    return float(np.abs(np.array([_tilt_angle(section) for section in sections]) - angles).max())


def _separate_rows(path: Path, mdoc: Mdoc, folder: Path, notes: list[str]) -> _Rows:
    """Rows in the order of rising tilt; each image is the file whose stem is exactly that which its section names."""
    sections = sorted(mdoc.images, key=_tilt_angle)
    wanted = [mdoc_format.image_name(section) for section in sections]
    if any(name is None for name in wanted):
        raise InputError(
            f"{path}: no stack lies beside it, and a section names no image file of its own (SubFramePath)"
        )
    stems = [Path(name).stem for name in wanted]
    repeated = next((stem for stem in stems if stems.count(stem) > 1), None)
    if repeated is not None:
        raise InputError(f"{path}: two sections name the same image {repeated}")
    present = _images_by_stem(folder)
    files = [None if stem not in present else ImageFile(path=present[stem]) for stem in stems]
    if not any(files):
        unread = (folder / wanted[0]).is_file()
        why = "only MRC, TIFF and EER are read" if unread else "they are matched by stem; give their folder, --images"
        raise InputError(f"{path}: none of its {len(files)} images is in {folder} ({wanted[0]} ...): {why}")
    names = [str(file.path) if file else str(folder / name) for file, name in zip(files, wanted, strict=True)]
    notes.append(f"separate images, {len(files) - files.count(None)} of {len(files)} found in {folder}")
    angles = np.array([_tilt_angle(section) for section in sections])
    return _Rows(files=files, names=tuple(names), sections=sections, angles=angles, mdoc=mdoc, mdoc_path=path)


def _images_by_stem(folder: Path) -> dict[str, Path]:
    """Image files of a folder by stem; where one stem has two files, MRC goes before TIFF, TIFF before EER."""
    try:
        files = sorted(folder.iterdir())
    except OSError as error:
        raise InputError(f"{folder}: cannot be read ({error.strerror or error})") from None
    found: dict[str, Path] = {}
    for suffix in dict.fromkeys((*MRC_SUFFIXES, *TIFF_SUFFIXES, *MOVIE_SUFFIXES)):
        for file in files:
            if file.suffix.lower() == suffix:
                found.setdefault(file.stem, file)
    return found


def _pixel_size(path: Path, rows: _Rows, given: float | None, notes: list[str]) -> float:
    if given is not None:
        if not (np.isfinite(given) and given > 0):
            raise InputError(f"{path}: a pixel size of {given} Å makes no sense")
        return float(given)
    first = next(file for file in rows.files if file is not None)
    header = image_pixel_size(first)
    stated = None
    if rows.mdoc is not None:
        spacings = mdoc_format.image_numbers(rows.mdoc, "PixelSpacing")
        stated = None if spacings is None else float(spacings[0])
        if spacings is not None and np.ptp(spacings) > _PIXEL_AGREEMENT * spacings[0]:
            raise InputError(f"{rows.mdoc_path}: PixelSpacing differs between the images; give the pixel size")
    if header in (0.0, 1.0):  # what programs write when they do not know
        header = None
    if not stated and header is None:
        raise InputError(f"{path}: the pixel size is stated nowhere; give it")
    if stated and header is not None and abs(stated - header) > _PIXEL_AGREEMENT * header:
        raise InputError(
            f"{path}: PixelSpacing is {stated:g} Å in {rows.mdoc_path.name} but {header:g} Å in {first.path.name}; "
            "give the pixel size"
        )
    doubt = ", which files say too where it was never set: give it if so" if (stated or header) == 1.0 else ""
    notes.append(f"pixel size {stated or header:g} Å from {rows.mdoc_path.name if stated else first.path.name}{doubt}")
    _note_unequal_spacing(first, notes)
    return stated or header


def _note_unequal_spacing(file: ImageFile, notes: list[str]) -> None:
    if file.path.suffix.lower() in MRC_SUFFIXES:
        x, y, _ = read_header(file.path).voxel_size
        if x > 0 and y > 0 and x != y:
            notes.append(f"{file.path.name} is spaced {x:g} Å in x and {y:g} Å in y; that of x is used for both")


def _exposures(rows: _Rows, given: float | None, notes: list[str]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(tilt,) acquisition order, pre-exposure (the image itself excluded) and exposure."""
    count = len(rows.angles)
    order = _order(rows, notes)
    if given is not None:
        return order, order * float(given), np.full(count, float(given))
    exposure = _section_numbers(rows, "ExposureDose")
    prior = _section_numbers(rows, "PriorRecordDose")
    prior_grows = prior is not None and count > 1 and bool(np.all(np.diff(prior[np.argsort(order)]) > 0))
    if exposure is None or not np.all(exposure > 0):
        if not prior_grows:
            notes.append("the exposure is not stated: taken as 0, so nothing is weighted by exposure")
            return order, np.zeros(count), np.zeros(count)
        steps = np.diff(prior[np.argsort(order)])
        exposure = np.append(steps, np.median(steps))[order]
        notes.append("the exposure of each image is the step of PriorRecordDose; of the last, the median step")
    if prior_grows:
        notes.append("pre-exposure from PriorRecordDose")
        return order, prior, exposure
    in_time = np.argsort(order)
    pre_exposure = np.empty(count)
    pre_exposure[in_time] = np.cumsum(exposure[in_time]) - exposure[in_time]
    notes.append("pre-exposure from the exposures in order of acquisition")
    return order, pre_exposure, exposure


def _order(rows: _Rows, notes: list[str]) -> np.ndarray:
    if rows.mdoc is None:
        notes.append("the order of acquisition is not stated: taken as that of the stack")
        return np.arange(len(rows.angles))
    order, source = mdoc_format.acquisition_order(rows.mdoc)
    place = {id(section): int(place) for section, place in zip(rows.mdoc.images, order, strict=True)}
    notes.append(f"order of acquisition from {source}")
    return np.array([place[id(section)] for section in rows.sections])


def _section_numbers(rows: _Rows, key: str) -> np.ndarray | None:
    if rows.sections is None:
        return None
    values = [mdoc_format.number(section.keys.get(key)) for section in rows.sections]
    return None if any(value is None for value in values) else np.array(values)


def _flags(rows: _Rows, order: np.ndarray, faults: tuple[str, ...]) -> tuple[np.ndarray, tuple[str, ...]]:
    """Which tilts are used, and why the others are not: image absent; movie damaged; angle taken before (the first one
    taken is kept, since it met the least exposure)."""
    why_not = [
        fault if file is not None else f"its image {Path(name).name} is absent"
        for file, name, fault in zip(rows.files, rows.names, faults, strict=True)
    ]
    kept: list[int] = []
    for tilt in np.argsort(order):
        if why_not[tilt]:
            continue
        same = [other for other in kept if abs(rows.angles[other] - rows.angles[tilt]) < _SAME_ANGLE]
        if same:
            why_not[tilt] = f"the angle {rows.angles[tilt]:.2f}° was taken before, in tilt {same[0] + 1}"
        else:
            kept.append(int(tilt))
    return np.array([not reason for reason in why_not]), tuple(why_not)


def _optics(mdoc: Mdoc | None, given: dict[str, float | None], notes: list[str]) -> Optics:
    known = {key: float(value) for key, value in given.items() if value is not None}
    stated = None if mdoc is None else mdoc_format.number(mdoc.header.get("Voltage"))
    if "voltage" not in known and stated:
        known["voltage"] = stated
    optics = Optics(**known)
    assumed = [f"{key.replace('_', ' ')} {getattr(optics, key):g}" for key in given if key not in known]
    if assumed:
        notes.append(f"not stated, so assumed: {', '.join(assumed)}")
    return optics


def _tilt_axis_angle(mdoc: Mdoc | None, given: float | None, notes: list[str]) -> float | None:
    if given is not None:
        return float(given)
    stated = None if mdoc is None else mdoc_format.tilt_axis_angle(mdoc)
    notes.append("the tilt axis is not stated" if stated is None else f"tilt axis {stated:g}° as the .mdoc states it")
    return stated


def _nominal_defocus(sections: list[MdocSection] | None) -> np.ndarray | None:
    """(tilt,) Å, underfocus positive, from TargetDefocus in µm, underfocus negative."""
    targets = [mdoc_format.number(section.keys.get("TargetDefocus")) for section in sections or ()]
    if not targets or any(target is None for target in targets):
        return None
    return -np.array(targets) * _ANGSTROM_PER_UM + 0.0
