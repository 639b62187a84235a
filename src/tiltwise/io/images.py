"""Tilt images wherever they lie: one stack, or a file each; read only when looked at.

An image is named as RELION names it: `000003@folder/stack.mrc` for the third of a stack, `folder/image.mrc` for a file
of its own. Rows run from the bottom up, as in MRC; TIFF rows, which run from the top down, are turned over on reading,
as IMOD, SerialEM and RELION do.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tifffile

from tiltwise.data.errors import InputError
from tiltwise.io.mrc import read_header, read_mrc
from tiltwise.io.tiff_chain import check_page, reason_of

logging.getLogger("tifffile").addHandler(logging.NullHandler())  # or it prints beside our one line for a damaged file

MRC_SUFFIXES = (".mrc", ".mrcs", ".st", ".ali", ".rec", ".map")
TIFF_SUFFIXES = (".tif", ".tiff")
_KEPT_TYPES = tuple(map(np.dtype, (np.int8, np.uint8, np.int16, np.uint16, np.float16, np.float32)))
_FORMAT_HINTS = (":mrcs", ":mrc", ":st")


@dataclass(frozen=True, kw_only=True, slots=True)
class ImageFile:
    """Where one image lies."""

    path: Path
    """The file."""
    section: int | None = None
    """Index in a stack, 0 first; None for a file that holds one image."""


def parse_image_name(name: str) -> ImageFile:
    """The file and section that an image name means; RELION's format hints (`:mrcs`) are taken off."""
    for hint in _FORMAT_HINTS:
        name = name.removesuffix(hint)
    number, at, path = name.partition("@")
    if at and number.isdigit() and int(number) > 0:
        return ImageFile(path=Path(path), section=int(number) - 1)
    return ImageFile(path=Path(name))


def stack_image_names(path: str | Path, count: int) -> tuple[str, ...]:
    """(tilt,) names of all images of a stack."""
    return tuple(f"{index + 1:06d}@{path}" for index in range(count))


class SeparateImages:
    """(tilt, y, x) images in files of their own, read one by one when indexed; an absent one (None) reads as zeros.

    Behaves as a read-only array for indexing, shape, dtype and conversion. All images must be of one size: InputError
    names the first that is not.
    """

    ndim = 3

    def __init__(self, files: Sequence[ImageFile | None]):
        self._files = tuple(files)
        self._image_shape, self._dtype = _common_layout(self._files)

    @property
    def shape(self) -> tuple[int, int, int]:
        return (len(self._files), *self._image_shape)

    @property
    def dtype(self) -> np.dtype:
        return self._dtype

    @property
    def size(self) -> int:
        return int(np.prod(self.shape))

    def __len__(self) -> int:
        return len(self._files)

    def __getitem__(self, index) -> np.ndarray:
        first, rest = (index[0], index[1:]) if isinstance(index, tuple) else (index, ())
        if first is Ellipsis or first is None:
            return np.asarray(self)[index]
        chosen = np.arange(len(self))[first]
        if chosen.ndim == 0:
            return self._image(int(chosen))[rest]
        images = np.empty((len(chosen), *self.shape[1:]), self.dtype)
        for place, tilt in enumerate(chosen):
            images[place] = self._image(int(tilt))
        return images[(slice(None), *rest)]

    def __array__(self, dtype=None, copy=None) -> np.ndarray:
        if copy is False:
            raise ValueError("images in separate files cannot be given without copying")
        return self[:] if dtype is None else self[:].astype(dtype)

    def _image(self, tilt: int) -> np.ndarray:
        file = self._files[tilt]
        if file is None:
            return np.zeros(self.shape[1:], self.dtype)
        return read_image(file).astype(self.dtype, copy=False)


def open_images(files: Sequence[ImageFile | None]) -> np.ndarray | SeparateImages:
    """(tilt, y, x) images: a memory map where they are just one whole MRC stack in its order, else `SeparateImages`."""
    paths = {file.path for file in files if file is not None}
    if len(paths) == 1 and None not in files:
        (path,) = paths
        in_order = [file.section for file in files] == list(range(len(files)))
        if in_order and path.suffix.lower() in MRC_SUFFIXES and read_header(path).shape[0] == len(files):
            return read_mrc(path)[0]
    return SeparateImages(files)


def read_image(file: ImageFile) -> np.ndarray:
    """One image (y, x). Raises InputError for a file of a format that is not read here, and for a movie."""
    if file.path.suffix.lower() in TIFF_SUFFIXES:
        return _tiff_page(file)[1][::-1]
    return read_mrc(file.path)[0][_section(file, read_header(file.path).shape[0])]


def image_pixel_size(file: ImageFile) -> float:
    """Å as the file's header states it; 0.0 if it does not (TIFF and EER never do)."""
    return read_mrc(file.path)[1] if file.path.suffix.lower() in MRC_SUFFIXES else 0.0


def _common_layout(files: Sequence[ImageFile | None]) -> tuple[tuple[int, int], np.dtype]:
    """Size of every image, (0, 0) if there is none, and a type that holds them all: float32 for those that an MRC file
    has no mode for."""
    shape, types = None, []
    for file in files:
        if file is None:
            continue
        found, dtype = _image_layout(file)
        if shape is not None and found != shape:
            raise InputError(f"{file.path}: is {_size(found)} px, but the images before it are {_size(shape)} px")
        shape = found
        types.append(dtype.newbyteorder("="))
    common = np.result_type(*types) if types else np.dtype(np.float32)
    return shape or (0, 0), common if common in _KEPT_TYPES else np.dtype(np.float32)


def _image_layout(file: ImageFile) -> tuple[tuple[int, int], np.dtype]:
    suffix = file.path.suffix.lower()
    if suffix in TIFF_SUFFIXES:
        page, _ = _tiff_page(file, only_layout=True)
        return (int(page.shape[0]), int(page.shape[1])), np.dtype(page.dtype)
    if suffix not in MRC_SUFFIXES:
        raise InputError(f"{file.path}: images are read from MRC and TIFF files, not from {suffix or 'this'}")
    header = read_header(file.path)
    _section(file, header.shape[0])
    return (header.shape[1], header.shape[2]), header.dtype


def _section(file: ImageFile, count: int) -> int:
    if file.section is None and count > 1:
        raise InputError(f"{file.path}: is a movie of {count} frames, not one image; correct its motion first")
    section = file.section or 0
    if section >= count:
        raise InputError(f"{file.path}: has {count} images, but number {section + 1} is asked for")
    return section


def _tiff_page(file: ImageFile, *, only_layout: bool = False) -> tuple[tifffile.TiffPage, np.ndarray | None]:
    try:
        with tifffile.TiffFile(file.path) as tiff:
            if not len(tiff.pages):
                raise ValueError("no image in it")
            page = tiff.pages[_section(file, len(tiff.pages))]
            if len(page.shape) != 2 or page.dtype is None or page.dtype.kind not in "iufb":
                raise InputError(f"{file.path}: is a picture in colours or complex numbers, not an image of a camera")
            check_page(file.path, page)
            return page, None if only_layout else page.asarray()
    except InputError:
        raise
    except OSError as error:
        raise InputError(f"{file.path}: cannot be read ({error.strerror or error})") from None
    except Exception as error:  # tifffile raises many kinds for a damaged file
        raise InputError(f"{file.path}: this is not a sound TIFF file ({reason_of(error)})") from None


def _size(shape: tuple[int, int]) -> str:
    return f"{shape[1]} × {shape[0]}"
