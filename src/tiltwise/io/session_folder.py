"""A folder as the microscope left it: which file belongs to which tilt series, and what the files say of each.

Nothing is refused here and no image is read: every fault is a finding, in words, so that a user sees all of them at
once before the import (`io.acquisition`) stops at the first.
"""

import re
from datetime import datetime
from pathlib import Path

import numpy as np

from tiltwise.data.errors import InputError
from tiltwise.io import mdoc as mdoc_format
from tiltwise.io.acquisition import series_name
from tiltwise.io.images import MRC_SUFFIXES
from tiltwise.io.imod import read_tlt
from tiltwise.io.mdoc import Mdoc, MdocSection, read_mdoc
from tiltwise.io.mrc import read_header
from tiltwise.io.session_findings import SeriesFindings, some
from tiltwise.io.session_images import (
    FRAME_SUFFIXES,
    are_movies,
    check_gain,
    check_images,
    check_movies,
    is_gain,
)

_ANGLE_SUFFIXES = (".rawtlt", ".tlt")
_SAME_ANGLE = 0.1
_TWO_DIGIT_YEAR = re.compile(r"\d{1,2}-[A-Za-z]{3}-\d{2}\s")
_DECIMAL_COMMA = re.compile(r"^[-+]?\d+,\d+$")
_PLAIN_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_MOST_FILES = 200_000
_PIXEL_AGREEMENT = 0.01
_COARSEST = 1e5
"""No image of a tilt series has larger pixels, Å."""


def read_session(folder: str | Path) -> tuple[list[SeriesFindings], list[str]]:
    """The series of a folder and of the folders in it, and notes on what was passed over. InputError for no folder, or
    one in which nothing describes a tilt series."""
    folder = Path(folder)
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder")
    files = _files(folder)
    stems = _by_stem(files)
    notes: list[str] = []
    series, taken = [], set()
    for path in (file for file in files if file.suffix.lower() == ".mdoc"):
        one, stack = _from_mdoc(path, stems, notes)
        if one is not None:
            series.append(one)
            taken.add(stack)
    for path in (file for file in files if file.suffix.lower() in _ANGLE_SUFFIXES):
        stack = _stack_beside(path)
        if stack is not None and stack not in taken:
            series.append(_from_angles(path, stack))
            taken.add(stack)
        elif stack is None and path.suffix.lower() == ".rawtlt" and series_name(path.with_suffix("")) not in stems:
            notes.append(f"{path.name}: lists angles, but no stack lies beside it")
    gains = [file for file in files if is_gain(file)]
    for one in series:
        check_gain(one, gains)
        _check_name(one, series)
    _check_mixture(series, notes)
    if not series and not notes:
        raise InputError(f"{folder}: holds no .mdoc, and no stack with angles beside it")
    return series, notes


def _files(folder: Path) -> list[Path]:
    """The files of a folder and of the folders in it, hidden ones left out, sorted."""
    try:
        inside = [path for path in sorted(folder.iterdir()) if not path.name.startswith(".")]
        folders = [path for path in inside if path.is_dir()]
        deeper = [path for one in folders for path in sorted(one.iterdir()) if not path.name.startswith(".")]
    except OSError as error:
        raise InputError(f"{folder}: cannot be read ({error.strerror or error})") from None
    found = [path for path in (*inside, *deeper) if path.is_file()]
    if len(found) > _MOST_FILES:
        raise InputError(f"{folder}: holds {len(found)} files; name a folder nearer to the data")
    return found


def _by_stem(files: list[Path]) -> dict[str, list[Path]]:
    stems: dict[str, list[Path]] = {}
    for file in files:
        if file.suffix.lower() in FRAME_SUFFIXES:
            stems.setdefault(file.stem, []).append(file)
    return stems


def _stack_beside(path: Path) -> Path | None:
    """TS.mrc for TS.mrc.mdoc, TS.mdoc and TS.rawtlt."""
    stem = path.with_suffix("")
    candidates = [stem, *(stem.with_name(stem.name + suffix) for suffix in MRC_SUFFIXES)]
    return next((one for one in candidates if one.suffix.lower() in MRC_SUFFIXES and one.is_file()), None)


def _from_mdoc(path: Path, stems: dict[str, list[Path]], notes: list[str]) -> tuple[SeriesFindings | None, Path | None]:
    one = SeriesFindings(name=series_name(path), source=path)
    try:
        mdoc = read_mdoc(path)
    except InputError as error:
        one.faults.append(str(error).removeprefix(f"{path}: "))
        return one, None
    if path.stem.endswith("_override"):
        notes.append(f"{path.name}: a copy that Tomography 5 writes; passed over")
        return None, None
    montage = mdoc.header.get("Montage", "0") == "1" or any("PieceCoordinates" in s.keys for s in mdoc.images)
    if not mdoc.images or montage:
        what = "a montage" if montage else "frames, not the images of a series"
        notes.append(f"{path.name}: describes {what}; passed over")
        return None, None
    if len(mdoc.images) == 1 and _stack_beside(path) is None:
        notes.append(f"{path.name}: describes a single image; passed over")
        return None, None
    stack = _stack_beside(path)
    _describe(one, mdoc)
    if stack is not None:
        _compare_stack(one, stack)
        _look_for_movies(one, mdoc.images, stems)
    else:
        _find_images(one, mdoc.images, stems)
    return one, stack


def _describe(one: SeriesFindings, mdoc: Mdoc) -> None:
    """Everything that the metadata alone tells."""
    images = mdoc.images
    one.images = len(images)
    _check_numbers(one, mdoc)
    angles = [mdoc_format.number(section.keys.get("TiltAngle")) for section in images]
    lacking = [section.value for section, angle in zip(images, angles, strict=True) if angle is None]
    if lacking:
        one.faults.append(f"no tilt angle in section {some(lacking)}")
    one.tilt_angle = np.array([angle for angle in angles if angle is not None])
    _check_angles(one, images)
    _describe_order(one, mdoc)
    _describe_exposure(one, mdoc)
    _describe_axis(one, mdoc)
    spacings = mdoc_format.image_numbers(mdoc, "PixelSpacing")
    if spacings is not None and not ((spacings > 0) & (spacings < _COARSEST)).all():
        one.warnings.append(f"PixelSpacing of {spacings.min():g} to {spacings.max():g} Å makes no sense")
    elif spacings is not None:
        one.pixel_size = float(spacings[0])
        if one.pixel_size == 1.0:
            one.warnings.append("the pixel size is exactly 1 Å, which files say too where it was never set")
        if np.ptp(spacings) > _PIXEL_AGREEMENT * spacings[0]:
            one.faults.append(f"PixelSpacing differs between the images ({spacings.min():g} to {spacings.max():g} Å)")
    else:
        one.assumed.append("no PixelSpacing in the .mdoc: the pixel size of the image files counts, or give it")
    one.voltage = mdoc_format.number(mdoc.header.get("Voltage"))
    if one.voltage is None:
        one.assumed.append("voltage 300 kV (not stated)")
    one.assumed.append("spherical aberration 2.7 mm, amplitude contrast 0.07 (never stated)")
    one.gain = next((s.keys["GainReference"] for s in images if s.keys.get("GainReference")), None)


def _check_numbers(one: SeriesFindings, mdoc: Mdoc) -> None:
    """Two series in one file, years of two digits, decimal commas."""
    numbers = [section.value for section in mdoc.images]
    repeated = [number for number in dict.fromkeys(numbers) if numbers.count(number) > 1]
    if repeated:
        again = next(place for place in range(1, len(numbers)) if numbers[place] in numbers[:place])
        one.faults.append(
            f"two series in one file: section {numbers[again]} starts again after {again} images; "
            "cut the file in two there"
        )
    dates = [section.keys.get("DateTime", "") for section in mdoc.images]
    if any(_TWO_DIGIT_YEAR.match(date) for date in dates):
        years = sorted({str(found.year) for s in mdoc.images if (found := mdoc_format.date_time(s)) is not None})
        one.assumed.append(f"years of two digits are read as {' and '.join(years) or '20..'}")
    unread = [s.value for s in mdoc.images if s.keys.get("DateTime") and mdoc_format.date_time(s) is None]
    if unread:
        one.warnings.append(f"DateTime not understood in section {some(unread)}")
    values = [*mdoc.header.values(), *(value for section in mdoc.images for value in section.keys.values())]
    commas = sum(bool(_DECIMAL_COMMA.match(value.strip())) for value in values)
    if commas:
        one.assumed.append(f"decimal commas ({commas} numbers) are read as points")


def _check_angles(one: SeriesFindings, images: tuple[MdocSection, ...]) -> None:
    angles = np.sort(one.tilt_angle)
    if len(angles) < 2:
        return
    if np.abs(angles).max() > 90:
        one.faults.append(f"a tilt angle of {angles[np.abs(angles).argmax()]:g}° makes no sense")
    steps = np.diff(angles)
    apart = steps[steps > _SAME_ANGLE]
    one.tilt_step = float(np.median(apart)) if len(apart) else 0.0
    same = angles[:-1][steps <= _SAME_ANGLE]
    numbers = [section.value for section in images]
    if len(same) and len(set(numbers)) == len(numbers):  # of two series in one file it goes without saying
        one.warnings.append(
            f"angle taken twice: {some([f'{angle:.1f}°' for angle in same])}; the image taken first is used"
        )
    wide = [f"{angles[i]:.1f}° to {angles[i + 1]:.1f}°" for i in np.flatnonzero(steps > 1.7 * max(one.tilt_step, 0.1))]
    if wide:
        one.warnings.append(f"gap in the angles: {some(wide)}")


def _describe_order(one: SeriesFindings, mdoc: Mdoc) -> None:
    order, source = mdoc_format.acquisition_order(mdoc)
    if len(one.tilt_angle) == len(order) and one.tilt_step and len(order) > 2:
        one.scheme = _scheme(one.tilt_angle[np.argsort(order)])
    text = f"order of acquisition from {source}"
    (one.matches if source == "DateTime" else one.assumed).append(text)
    dates = [mdoc_format.date_time(section) for section in mdoc.images]
    prior = [mdoc_format.number(section.keys.get("PriorRecordDose")) for section in mdoc.images]
    if source == "DateTime" and None not in prior and len(set(prior)) == len(prior):
        by_dose = np.argsort(np.argsort(np.array(prior, dtype=float)))
        (one.matches if np.array_equal(order, by_dose) else one.warnings).append(
            "PriorRecordDose grows with time"
            if np.array_equal(order, by_dose)
            else "PriorRecordDose does not grow with DateTime; the order is taken from DateTime"
        )
    known = [date for date in dates if isinstance(date, datetime)]
    if len(known) > 2 and (max(known) - min(known)).total_seconds() > 86400:
        one.warnings.append(f"the images were taken over {(max(known) - min(known)).days} days: one series?")


def _scheme(in_time: np.ndarray) -> str:
    """The name of an order of angles in time."""
    steps = np.diff(in_time)
    if (steps > 0).all() or (steps < 0).all():
        return "one direction"
    turns = int((np.diff(np.sign(steps)) != 0).sum())
    magnitude = np.abs(in_time - in_time[0])
    if turns <= 2 and np.abs(steps).max() > 3 * np.median(np.abs(steps)):
        return "bidirectional"
    nearly = np.diff(magnitude) > -2.1 * max(float(np.median(np.abs(np.diff(np.sort(in_time))))), 0.1)
    return "dose-symmetric" if nearly.all() else "another order"


def _describe_exposure(one: SeriesFindings, mdoc: Mdoc) -> None:
    exposure = [mdoc_format.number(section.keys.get("ExposureDose")) for section in mdoc.images]
    stated = [value for value in exposure if value is not None and value > 0]
    prior = [mdoc_format.number(section.keys.get("PriorRecordDose")) for section in mdoc.images]
    if len(stated) == len(exposure):
        one.exposure, one.total_exposure = float(np.median(stated)), float(np.sum(stated))
        if max(stated) > 3 * one.exposure:
            one.warnings.append(f"exposures run from {min(stated):g} to {max(stated):g} e⁻/Å²")
    elif None not in prior and len(prior) > 1 and max(prior) > 0:
        one.exposure = float(np.median(np.diff(np.sort(prior))))
        one.total_exposure = float(max(prior) + one.exposure)
        one.assumed.append("exposures are the steps of PriorRecordDose (ExposureDose is 0 or absent)")
    else:
        one.warnings.append("no exposure is stated (ExposureDose is 0 or absent): give it at import, --exposure-e-A2")


def _describe_axis(one: SeriesFindings, mdoc: Mdoc) -> None:
    one.tilt_axis_angle = mdoc_format.tilt_axis_angle(mdoc)
    titles = " ".join((*mdoc.titles, *mdoc.header))
    rotation = [mdoc_format.number(section.keys.get("RotationAngle")) for section in mdoc.images]
    stated = next((value for value in rotation if value is not None), None)
    if one.tilt_axis_angle is None:
        one.warnings.append("the tilt axis is not stated: give it at import, --tilt-axis-angle-deg")
    elif "TiltAxisAngle" in titles:
        one.warnings.append("the axis is as Tomography 5 states it, which is often wrong: look at the alignment's own")
    elif stated is not None:
        apart = (stated - 90 - one.tilt_axis_angle + 90) % 180 - 90
        if abs(apart) > 2:
            one.warnings.append(
                f"the axis is stated as {one.tilt_axis_angle:g}°, but RotationAngle means {stated - 90:g}°"
            )
        else:
            one.matches.append("tilt axis and RotationAngle")


def _compare_stack(one: SeriesFindings, stack: Path) -> None:
    one.kind = "stack"
    if not _describe_stack(one, stack):
        return
    agrees = one.images == one.found
    (one.matches if agrees else one.faults).append(
        f"{stack.name} and .mdoc: {one.images} images"
        if agrees
        else f"{stack.name} has {one.found} images, but the .mdoc describes {one.images}"
    )
    angles = next((file for suffix in _ANGLE_SUFFIXES[:1] if (file := _angles_of(stack, suffix))), None)
    if angles is not None:
        _compare_angles(one, angles)


def _describe_stack(one: SeriesFindings, stack: Path) -> bool:
    try:
        header = read_header(stack)
    except InputError as error:
        one.faults.append(f"{stack.name}: {str(error).removeprefix(f'{stack}: ')}")
        return False
    one.found, one.image_size = header.shape[0], (header.shape[2], header.shape[1])
    spacing = header.voxel_size[0]
    if spacing in (0.0, 1.0):
        if one.pixel_size is None:
            one.warnings.append("the pixel size is stated nowhere: give it at import, --pixel-size-A")
    elif one.pixel_size is None:
        one.pixel_size = spacing
    elif abs(spacing - one.pixel_size) > _PIXEL_AGREEMENT * spacing:
        one.faults.append(
            f"pixel size {one.pixel_size:g} Å in the .mdoc but {spacing:g} Å in {stack.name}: give it at import"
        )
    else:
        one.matches.append("pixel size in .mdoc and stack")
    if any(side % 2 for side in one.image_size):
        one.warnings.append(
            f"odd image size {one.image_size[0]} × {one.image_size[1]} px: other programs may be half a pixel off"
        )
    return True


def _angles_of(stack: Path, suffix: str) -> Path | None:
    candidates = (stack.with_suffix(suffix), stack.with_name(stack.name + suffix))
    return next((file for file in candidates if file.is_file()), None)


def _compare_angles(one: SeriesFindings, path: Path) -> None:
    try:
        listed = read_tlt(path)
    except InputError as error:
        one.faults.append(f"{path.name}: {str(error).removeprefix(f'{path}: ')}")
        return
    if len(listed) != one.found:
        one.faults.append(f"{path.name} has {len(listed)} angles, but the stack has {one.found} images")
    elif len(one.tilt_angle) == len(listed):
        apart = float(np.abs(np.sort(listed) - np.sort(one.tilt_angle)).max())
        agrees = apart <= 0.5
        (one.matches if agrees else one.faults).append(
            f"{path.name} and .mdoc angles" if agrees else f"{path.name} differs from the .mdoc by up to {apart:.1f}°"
        )


def _find_images(one: SeriesFindings, images: tuple[MdocSection, ...], stems: dict[str, list[Path]]) -> None:
    """Match each section to its file by exact stem."""
    names = [mdoc_format.image_name(section) for section in images]
    if None in names:
        one.faults.append("no stack lies beside the .mdoc, and it names no image files (SubFramePath)")
        return
    wanted = [Path(name).stem for name in names]
    repeated = [stem for stem in dict.fromkeys(wanted) if wanted.count(stem) > 1]
    if repeated:
        one.faults.append(f"two sections name the same image: {some(repeated)}")
    found = {stem: stems[stem] for stem in wanted if stem in stems}
    one.found = sum(stem in found for stem in wanted)
    absent = [name for name, stem in zip(names, wanted, strict=True) if stem not in found]
    if absent:
        one.missing.append(f"{len(absent)} of {len(names)} images: {some(absent)}")
    if not found:
        one.faults.append("none of its images is here")
        return
    places = sorted({files[0].parent for files in found.values()})
    one.matches.append(f"{one.found} images by name in {', '.join(place.name or str(place) for place in places)}")
    if len(places) > 1:
        one.warnings.append("the images lie in more than one folder, and import looks in one: put them together")
    elif places[0] != one.source.parent:
        one.assumed.append(f"the images lie in a folder of their own: import with --images {places[0]}")
    doubles = [stem for stem, files in found.items() if len(files) > 1]
    if doubles:
        one.warnings.append(f"more than one file for {some(doubles)}")
    first = [files[0] for files in found.values()]
    one.kind = "movies" if are_movies(images, first[0]) else "images"
    if one.kind == "movies":
        check_movies(one, first)
    else:
        check_images(one, first)


def _look_for_movies(one: SeriesFindings, images: tuple[MdocSection, ...], stems: dict[str, list[Path]]) -> None:
    """The movies that a stack's images were summed from, where the metadata name them."""
    names = [
        name for section in images if section.keys.get("SubFramePath") and (name := mdoc_format.image_name(section))
    ]
    absent = [name for name in names if Path(name).stem not in stems]
    if names and not absent:
        one.matches.append(f"the {len(names)} movies that the .mdoc names are here too")
    elif names and len(absent) < len(names):
        one.missing.append(f"{len(absent)} of {len(names)} movies (the stack is whole): {some(absent)}")
    elif names:
        one.assumed.append("the movies that the .mdoc names are not here; the stack's images are used")


def _from_angles(path: Path, stack: Path) -> SeriesFindings:
    """A stack with a list of angles and no .mdoc."""
    one = SeriesFindings(name=series_name(stack), source=stack, kind="stack")
    one.missing.append(".mdoc")
    one.assumed.append("order of acquisition as in the stack; voltage 300 kV; Cs 2.7 mm; amplitude contrast 0.07")
    one.warnings.append("no .mdoc: tilt axis and exposure are not stated; give them at import")
    try:
        one.tilt_angle = read_tlt(path)
    except InputError as error:
        one.faults.append(f"{path.name}: {str(error).removeprefix(f'{path}: ')}")
        return one
    one.images = len(one.tilt_angle)
    _check_angles(one, ())
    if _describe_stack(one, stack) and one.found != one.images:
        one.faults.append(f"{path.name} has {one.images} angles, but the stack has {one.found} images")
    return one


def _check_name(one: SeriesFindings, series: list[SeriesFindings]) -> None:
    if not _PLAIN_NAME.fullmatch(one.name):
        one.faults.append(f"the name {one.name!r} breaks star files: letters, digits, '.', '_' and '-' only")
    others = [other.source.name for other in series if other is not one and other.name == one.name]
    if others:
        one.faults.append(f"another file gives a series of the same name: {some(others)}")


def _check_mixture(series: list[SeriesFindings], notes: list[str]) -> None:
    """Settings that differ within a session."""
    for label, values in (
        ("pixel sizes", {f"{one.pixel_size:.4g} Å" for one in series if one.pixel_size}),
        ("voltages", {f"{one.voltage:g} kV" for one in series if one.voltage}),
        ("tilt axes", {f"{one.tilt_axis_angle:.0f}°" for one in series if one.tilt_axis_angle is not None}),
    ):
        if len(values) > 1:
            notes.append(f"{label} differ between the series: {', '.join(sorted(values))}")
