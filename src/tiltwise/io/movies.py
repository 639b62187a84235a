"""Movies frame by frame, as the camera wrote them: MRC, TIFF (LZW, deflate, none) and EER; and gain references.

A movie is opened without reading its frames; each frame is decoded when it is asked for, and kept by nobody here. Rows
run from the bottom up: those of TIFF and EER, which run from the top down, are turned over, as IMOD turns TIFF.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
import tifffile

from tiltwise.data.errors import InputError
from tiltwise.io import eer
from tiltwise.io.images import MRC_SUFFIXES, TIFF_SUFFIXES, ImageFile
from tiltwise.io.mrc import read_header, read_mrc, write_mrc
from tiltwise.io.tiff_chain import check_chain, check_page, reason_of

MOVIE_SUFFIXES = (*MRC_SUFFIXES, *TIFF_SUFFIXES, ".eer")
_GAIN_BY_SENSITIVITY = ".gain"
MovieFormat = Literal["mrc", "tif"]
"""What movies are written as."""


@dataclass(frozen=True, kw_only=True, slots=True)
class EerReading:
    """How electron events become frames."""

    frames: int = 8
    """Frames that a movie is divided into; the camera's own, some hundreds, hold too few electrons each."""
    upsampling: int = 1
    """Samples for each pixel of the camera along a side: 1, 2 or 4."""


class Movie:
    """The frames (frame, y, x) of one file, decoded one by one when iterated or indexed."""

    ndim = 3

    def __init__(self, path: str | Path, *, reading: EerReading | None = None):
        self.path = Path(path)
        self._reading = reading or EerReading()
        if self.path.suffix.lower() == ".eer":
            self._eer = eer.open_eer(self.path)
            self.groups = eer.group_frames(self._eer.frames, self._reading.frames)
            side = self._reading.upsampling
            self.shape = (len(self.groups), self._eer.shape[0] * side, self._eer.shape[1] * side)
            self.dtype = np.dtype(np.uint8 if max(map(len, self.groups)) < 256 else np.uint16)
        elif self.path.suffix.lower() in TIFF_SUFFIXES:
            self.shape, self.dtype = _tiff_layout(self.path)
        elif self.path.suffix.lower() in MRC_SUFFIXES:
            header = read_header(self.path)
            self.shape, self.dtype = header.shape, header.dtype.newbyteorder("=")
        else:
            raise InputError(f"{path}: movies are read from MRC, TIFF and EER files")

    def __len__(self) -> int:
        return self.shape[0]

    def __iter__(self) -> Iterator[np.ndarray]:
        """Each frame in turn, (y, x) counts; the file is opened once."""
        suffix = self.path.suffix.lower()
        if suffix == ".eer":
            yield from eer.read_groups(self._eer, self.groups, self._reading.upsampling, self.dtype)
        elif suffix in TIFF_SUFFIXES:
            yield from _tiff_frames(self.path, self.shape)
        else:
            yield from read_mrc(self.path)[0]

    def read_as(self, **reading: int) -> "Movie":
        """The same movie with other frames or upsampling (`EerReading`) where the file lists electrons; as it is
        elsewhere."""
        if self.path.suffix.lower() != ".eer":
            return self
        return Movie(self.path, reading=replace(self._reading, **reading))

    @property
    def exposure_shares(self) -> np.ndarray:
        """(frame,) part of the movie's exposure in each frame; sums to 1."""
        sizes = np.ones(len(self)) if self.path.suffix.lower() != ".eer" else np.array([len(g) for g in self.groups])
        return sizes / sizes.sum()


def is_movie(file: ImageFile) -> bool:
    """Whether a file that stands for a tilt image holds frames: EER, or several images and none of them named."""
    suffix = file.path.suffix.lower()
    if file.section is not None or suffix not in MOVIE_SUFFIXES:
        return False
    if suffix == ".eer":
        return True
    return (_tiff_layout(file.path)[0] if suffix in TIFF_SUFFIXES else read_header(file.path).shape)[0] > 1


def open_movies(files: Sequence[ImageFile | None]) -> tuple[tuple[Movie | None, ...], tuple[str, ...]] | None:
    """(tilt,) movies of a series, and why one is None although its file is there; None where the files are images.

    InputError if there are files but none can be opened, or if frames differ in size.
    """
    movies: list[Movie | None] = []
    faults: list[str] = []
    for file in files:
        movie, fault = None, ""
        try:
            if file is not None and not is_movie(file):
                return None
            movie = None if file is None else open_movie(file.path)
        except InputError as error:
            fault = str(error)
        movies.append(movie)
        faults.append(fault)
    opened = [movie for movie in movies if movie is not None]
    if not opened and any(faults):
        raise InputError(next(filter(None, faults)))
    if not opened:
        return None
    other = next((movie for movie in opened if movie.shape[1:] != opened[0].shape[1:]), None)
    if other is not None:
        (height, width), (rows, columns) = other.shape[1:], opened[0].shape[1:]
        raise InputError(f"{other.path}: frames are {width} × {height} px, but those before are {columns} × {rows} px")
    return tuple(movies), tuple(faults)


def unmoved_images(movies: Sequence[Movie | None]) -> np.ndarray:
    """(tilt, y, x) zeros that take no memory, in the place of images until there are some."""
    shape = next(movie.shape[1:] for movie in movies if movie is not None)
    return np.broadcast_to(np.float32(0), (len(movies), *shape))


def open_movie(path: str | Path, *, reading: EerReading | None = None) -> Movie:
    """A movie. Raises InputError, in one line, for a file that is absent, cut short, damaged, or no movie."""
    return Movie(path, reading=reading)


def read_gain(path: str | Path, what: str = "a gain reference") -> tuple[np.ndarray, bool]:
    """A gain reference (y, x) float32 from MRC, TIFF or .gain, and whether counts are divided by it, as by a .gain;
    `what` names it in errors."""
    path = Path(path)
    shape = gain_shape(path, what)
    if path.suffix.lower() in MRC_SUFFIXES:
        return np.array(read_mrc(path)[0][0], dtype=np.float32), False
    return next(_tiff_frames(path, (1, *shape))).astype(np.float32), path.suffix.lower() == _GAIN_BY_SENSITIVITY


def gain_shape(path: str | Path, what: str = "a gain reference") -> tuple[int, int]:
    """(y, x) of a gain reference, from its header alone. InputError as `read_gain`."""
    path = Path(path)
    suffix = path.suffix.lower()
    if suffix in MRC_SUFFIXES:
        shape, kind = read_header(path).shape, "stack of {} images"
    elif suffix in (*TIFF_SUFFIXES, _GAIN_BY_SENSITIVITY):
        shape, kind = _tiff_layout(path)[0], "movie of {} frames"
    else:
        raise InputError(f"{path}: {what} is an MRC, TIFF or .gain file")
    if shape[0] != 1:
        raise InputError(f"{path}: is a {kind.format(shape[0])}, not {what}")
    return shape[1], shape[2]


def _tiff_layout(path: Path) -> tuple[tuple[int, int, int], np.dtype]:
    check_chain(path)
    with _opened_tiff(path) as tiff:
        return _checked(path, lambda: _layout(path, tiff))


def _layout(path: Path, tiff: tifffile.TiffFile) -> tuple[tuple[int, int, int], np.dtype]:
    page = tiff.pages[0]
    if len(page.shape) != 2 or page.dtype is None or page.dtype.kind not in "iuf":
        raise InputError(f"{path}: holds no grey frames")
    check_page(path, tiff.pages[-1])  # where the data of the last frame are cut off, its place still tells
    return (len(tiff.pages), *check_page(path, page)), np.dtype(page.dtype).newbyteorder("=")


def _tiff_frames(path: Path, shape: tuple[int, int, int]) -> Iterator[np.ndarray]:
    with _opened_tiff(path) as tiff:
        for number in range(shape[0]):
            what = f"frame {number + 1} of {shape[0]}"
            frame = _checked(path, lambda number=number: _frame(path, tiff.pages[number]), what)
            if frame.shape != shape[1:]:
                raise InputError(f"{path}: frame {number + 1} is of another size than the first")
            yield frame[::-1]


def _frame(path: Path, page: tifffile.TiffPage) -> np.ndarray:
    check_page(path, page)
    return page.asarray()


def _opened_tiff(path: Path) -> tifffile.TiffFile:
    try:
        return tifffile.TiffFile(path)
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror or error})") from None
    except Exception as error:  # tifffile raises many kinds for a damaged file
        raise InputError(f"{path}: this is not a sound TIFF file ({reason_of(error)})") from None


def _checked(path: Path, read, what: str = "its first frame"):
    """The value of read(); a fault of the file is one line."""
    try:
        return read()
    except InputError:
        raise
    except Exception as error:  # tifffile and its decoders raise many kinds for a damaged or truncated file
        reason = reason_of(error)
        raise InputError(f"{path}: {what} cannot be read, the file is damaged or cut short ({reason})") from None


def write_movie(path: str | Path, frames: np.ndarray, pixel_size: float) -> None:
    """Write frames (frame, y, x) uint8; the suffix says whether as MRC (widened to 16 bits) or TIFF (LZW)."""
    path = Path(path)
    if path.suffix.lower() not in TIFF_SUFFIXES:
        write_mrc(path, frames, pixel_size, stack=True)
        return
    with tifffile.TiffWriter(path) as tiff:
        for frame in frames:
            tiff.write(frame[::-1], compression="lzw", photometric="minisblack", metadata=None, software=False)
