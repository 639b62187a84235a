"""Whether the pages of a TIFF file hang together: a file cut short can look like a sound one of fewer pages, and a
damaged one can ask for more memory than there is."""

import struct
from pathlib import Path
from typing import Any

from tiltwise.data.errors import InputError

_CLASSIC, _BIG = 42, 43
_LARGEST = 1 << 16
"""Pixels along a side that no camera has."""
_DENSEST = 4096
"""Bytes of an image from one of a file; LZW and deflate give at most some 1300."""
_ALWAYS = 1 << 28
"""Bytes that any file may ask for: other codecs make next to nothing of a camera's map of few defects."""
_LONGEST_REASON = 200


def check_chain(path: str | Path) -> None:
    """Follow the pages of a TIFF or BigTIFF file to the end. InputError if one begins or ends beyond the file."""
    path = Path(path)
    try:
        with open(path, "rb") as file:
            size = file.seek(0, 2)
            file.seek(0)
            order, big, place = _start(path, file.read(16))
            seen: set[int] = set()
            while place:
                if place in seen or place + 2 > size:
                    raise InputError(f"{path}: cut short or damaged after page {len(seen)}")
                seen.add(place)
                place = _next(file, place, order, big)
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror or error})") from None
    except InputError:
        raise
    except (struct.error, OverflowError, ValueError):
        raise InputError(f"{path}: cut short or damaged in its list of pages") from None


def check_page(path: str | Path, page: Any) -> tuple[int, int]:
    """The shape (y, x) of a page of tifffile. InputError for one that is larger than a file of this size can hold."""
    shape = (int(page.imagelength), int(page.imagewidth))
    tile = (int(page.tilelength), int(page.tilewidth)) if page.is_tiled else (1, 1)
    need = max(shape[0] * shape[1], tile[0] * tile[1]) * (page.dtype.itemsize if page.dtype is not None else 1)
    size = Path(path).stat().st_size
    room = max(_ALWAYS, _DENSEST * size)
    ends = (first + count for first, count in zip(page.dataoffsets, page.databytecounts, strict=False))
    if max(ends, default=0) > size:
        raise InputError(f"{path}: cut short or damaged: it states data beyond its end")
    if min(*shape, *tile) < 1 or max(*shape, *tile) > _LARGEST or need > room:
        raise InputError(f"{path}: damaged: it states images of {shape[1]} × {shape[0]} px")
    return shape


def reason_of(error: Exception) -> str:
    """What a decoder says of a damaged file, in one line; it may quote much of the file."""
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= _LONGEST_REASON else f"{text[:_LONGEST_REASON]} ..."


def _start(path: Path, head: bytes) -> tuple[str, bool, int]:
    order = {b"II": "<", b"MM": ">"}.get(head[:2])
    kind = struct.unpack(order + "H", head[2:4])[0] if order else 0
    if kind not in (_CLASSIC, _BIG):
        raise InputError(f"{path}: this is not a TIFF file")
    big = kind == _BIG
    return order, big, struct.unpack(order + ("Q" if big else "I"), head[8:16] if big else head[4:8])[0]


def _next(file, place: int, order: str, big: bool) -> int:
    """Where the next page begins; 0 behind the last."""
    count_format, entry, link = ("Q", 20, "Q") if big else ("H", 12, "I")
    file.seek(place)
    count = struct.unpack(order + count_format, file.read(struct.calcsize(count_format)))[0]
    file.seek(count * entry, 1)
    return struct.unpack(order + link, file.read(struct.calcsize(link)))[0]
