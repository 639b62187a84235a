"""Whether the pages of a TIFF file hang together: a file cut short can look like a sound one of fewer pages."""

import struct
from pathlib import Path

from tiltwise.data.errors import InputError

_CLASSIC, _BIG = 42, 43


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
    except (struct.error, OverflowError):
        raise InputError(f"{path}: cut short or damaged in its list of pages") from None


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
