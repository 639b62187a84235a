"""EER movies (Guo et al. 2020, IUCrJ 7, 860): TIFF pages that list electrons, each one short exposure of the camera.

A page is a stream of run lengths: so many pixels without an electron, then one with, and where in the pixel it fell.
Compression 65000 takes 8 bits for a run and 65001 takes 7, both with 2 + 2 bits within the pixel; 65002 states its
bits in tags 65007 to 65009. imagecodecs decodes a page to an image; here pages are added up in groups.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import imagecodecs
import numpy as np
import tifffile

from tiltwise.data.errors import InputError
from tiltwise.io.tiff_chain import check_chain, check_page, reason_of

UPSAMPLINGS = (1, 2, 4)
_BITS = {65000: (8, 2, 2), 65001: (7, 2, 2)}
_STATED = 65002


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class EerFile:
    """What the pages of an EER file are."""

    path: Path
    """The file."""
    shape: tuple[int, int]
    """(y, x) pixels of the camera."""
    bits: tuple[int, int, int]
    """Of a run length, and of the place in the pixel along x and y."""
    segments: tuple[tuple[tuple[int, int], ...], ...]
    """Offset and length, bytes, of the strips of each page."""

    @property
    def frames(self) -> int:
        """Number of pages."""
        return len(self.segments)


def open_eer(path: str | Path) -> EerFile:
    """The layout of an EER file; pages of another kind (a picture of the gain) are passed over. InputError if none is
    left, or if the file is cut short."""
    path = Path(path)
    check_chain(path)
    try:
        with tifffile.TiffFile(path) as tiff:
            pages = [page for page in tiff.pages if int(page.compression) in (*_BITS, _STATED)]
            if not pages:
                raise ValueError("no page of it holds electron events")
            first = pages[0]
            segments = tuple(tuple(zip(p.dataoffsets, p.databytecounts, strict=True)) for p in pages)
            bits = _BITS.get(int(first.compression)) or tuple(int(first.tags[t].value) for t in (65007, 65008, 65009))
            size = path.stat().st_size
            cut = next((n for n, s in enumerate(segments) if not s or s[-1][0] + s[-1][1] > size), None)
            if cut is not None:
                raise ValueError(f"cut short in page {cut + 1} of {len(segments)}")
            shape = check_page(path, first)
    except InputError:
        raise
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror or error})") from None
    except Exception as error:  # tifffile raises many kinds for a damaged file
        raise InputError(f"{path}: this is not a sound EER file ({reason_of(error)})") from None
    return EerFile(path=path, shape=shape, bits=bits, segments=segments)


def group_frames(pages: int, frames: int) -> list[range]:
    """Pages divided into `frames` groups that differ by at most one page, none left out; or fewer groups if there are
    fewer pages."""
    edges = np.linspace(0, pages, min(frames, pages) + 1).round().astype(int)
    return [range(first, last) for first, last in zip(edges[:-1], edges[1:], strict=True)]


def read_groups(file: EerFile, groups: Sequence[range], upsampling: int, dtype: np.dtype) -> Iterator[np.ndarray]:
    """(y, x) counts of each group of pages in turn, rows from the bottom up."""
    if upsampling not in UPSAMPLINGS:
        raise ValueError(f"upsampling is one of {UPSAMPLINGS}, not {upsampling}")
    shape = (file.shape[0] * upsampling, file.shape[1] * upsampling)
    with open(file.path, "rb") as stream:
        for group in groups:
            total = np.zeros(shape, dtype)
            for page in group:
                total += _decode(file, stream, page, shape, upsampling)
            yield total[::-1]


def _decode(file: EerFile, stream, page: int, shape: tuple[int, int], upsampling: int) -> np.ndarray:
    data = b""
    for offset, length in file.segments[page]:
        stream.seek(offset)
        data += stream.read(length)
    superres = upsampling.bit_length() - 1  # extra bits of position that are kept along each side
    reason = ""
    for tail in (b"", b"\0"):  # the decoder is strict about the bits behind the last run; a zero byte holds no event
        try:
            return imagecodecs.eer_decode(data + tail, shape, *file.bits, superres=superres)
        except Exception as error:
            reason = reason_of(error)
    raise InputError(f"{file.path}: page {page + 1} of {file.frames} is damaged ({reason})")
