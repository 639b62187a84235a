"""The images, movies and gain references of a folder from the microscope, as far as their headers tell."""

from pathlib import Path

from tiltwise.data.errors import InputError
from tiltwise.io import mdoc as mdoc_format
from tiltwise.io.images import MRC_SUFFIXES, TIFF_SUFFIXES, ImageFile, open_images
from tiltwise.io.mdoc import MdocSection
from tiltwise.io.movies import gain_shape, is_movie, open_movie
from tiltwise.io.session_findings import SeriesFindings, some

FRAME_SUFFIXES = (*TIFF_SUFFIXES, ".eer", *MRC_SUFFIXES)
_GAIN_SUFFIXES = (".gain", ".dm4", ".dm3")


def check_images(one: SeriesFindings, files: list[Path]) -> None:
    """Images that are cut short, or of another size than the others, which import refuses."""
    sound = []
    for file in files:
        try:
            open_images([ImageFile(path=file, section=None)])
            sound.append(file)
        except InputError as error:
            one.faults.append(str(error).removeprefix(f"{file.parent}/"))
    try:
        images = open_images([ImageFile(path=file, section=None) for file in sound])
        one.image_size = images.shape[:0:-1]
    except InputError as error:
        one.faults.append(str(error).removeprefix(f"{files[0].parent}/"))


def are_movies(images: tuple[MdocSection, ...], first: Path) -> bool:
    """Whether the files hold frames; where the first cannot be read, what the .mdoc says."""
    try:
        return is_movie(ImageFile(path=first, section=None))
    except InputError:
        frames = [mdoc_format.number(section.keys.get("NumSubFrames")) for section in images]
        return any(count is not None and count > 1 for count in frames)


def check_movies(one: SeriesFindings, files: list[Path]) -> None:
    """Movies that are cut short, as far as their headers tell, and sizes that differ, which import refuses."""
    sizes: dict[tuple[int, int], str] = {}
    for file in files:
        try:
            rows, columns = open_movie(file).shape[1:]
            sizes.setdefault((columns, rows), file.name)
        except InputError as error:
            reason = str(error).removeprefix(f"{file}: ")
            one.warnings.append(f"the tilt of {file.name} would be left out: {reason}")
    if not sizes:
        one.faults.append("none of its movies can be read")
        return
    one.image_size = next(iter(sizes))
    if len(sizes) > 1:
        said = (f"{columns} × {rows} px ({name})" for (columns, rows), name in sizes.items())
        one.faults.append(f"the movies differ in size: {some(list(said))}")


def is_gain(file: Path) -> bool:
    """Whether a file is a gain reference, by its name."""
    name = file.name.lower()
    return file.suffix.lower() in _GAIN_SUFFIXES or ("gain" in name and file.suffix.lower() in FRAME_SUFFIXES)


def check_gain(one: SeriesFindings, gains: list[Path]) -> None:
    """The gain reference that the .mdoc names, or the only one that is there."""
    named = one.gain
    if named is not None:
        name = named.replace("\\", "/").rpartition("/")[2]
        there = [file for file in gains if file.name == name]
        if not there:
            one.missing.append(f"gain reference {name}")
        elif _gain_fits(one, there[0]):
            one.matches.append(f"gain reference {name}")
        one.gain = name
    elif one.kind == "movies":
        one.gain = gains[0].name if len(gains) == 1 and _gain_fits(one, gains[0]) else None
        one.assumed.append(
            f"gain reference {gains[0].name}, the only one here (the .mdoc names none)"
            if one.gain
            else f"no gain reference ({len(gains) or 'none'} here, the .mdoc names none)"
        )


def _gain_fits(one: SeriesFindings, gain: Path) -> bool:
    """Whether the gain reference can be laid on the frames, which may have 2 or 4 samples for each of its pixels."""
    try:
        shape = gain_shape(gain)
    except InputError as error:
        one.warnings.append(f"gain reference {gain.name} cannot be used: {str(error).removeprefix(f'{gain}: ')}")
        return False
    if one.kind != "movies" or one.image_size is None:
        return True
    if any(sorted(side * samples for side in shape) == sorted(one.image_size) for samples in (1, 2, 4)):
        return True
    one.warnings.append(
        f"gain reference {gain.name} is {shape[1]} × {shape[0]} px, but the frames are {one.image_size[0]} × "
        f"{one.image_size[1]}: motion correction will refuse it"
    )
    return False
