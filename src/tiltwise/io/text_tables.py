"""What the readers of small text files share: text or an InputError of one line, and lines of numbers."""

from pathlib import Path

from tiltwise.data.errors import InputError

LARGEST_NUMBER = 1e9
"""No angle, length or count in such a file is larger; what is larger would overflow later, without a name."""
LARGEST_TEXT = 1 << 26
"""No table of one tilt series is larger, bytes; what is larger is another kind of file."""


def read_text(path: str | Path, *, encoding: str = "utf-8") -> str:
    """The text of a file. InputError for a file that is absent, larger than any table of a tilt series, or no text."""
    return decode(path, read_bytes(path), encoding=encoding)


def read_bytes(path: str | Path) -> bytes:
    """The bytes of a small file. InputError for a file that is absent or larger than any table of a tilt series."""
    path = Path(path)
    try:
        if path.stat().st_size > LARGEST_TEXT:
            raise InputError(f"{path}: is larger than any such file ({path.stat().st_size >> 20} MiB)")
        return path.read_bytes()
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror or error})") from None


def decode(path: str | Path, raw: bytes, *, encoding: str = "utf-8") -> str:
    """Bytes as text; InputError for bytes that are none."""
    try:
        text = raw.decode(encoding)
    except UnicodeDecodeError:
        raise InputError(f"{path}: this is not a text file") from None
    if "\0" in text:
        raise InputError(f"{path}: this is not a text file")
    return text


def number_row(path: str | Path, line: int, words: list[str], count: int) -> list[float]:
    """The finite numbers of one line, counted from 1; InputError names line and fault."""
    try:
        values = [float(word) for word in words]
    except ValueError:
        values = []
    if len(values) != count or not all(abs(value) < LARGEST_NUMBER for value in values):
        raise InputError(f"{path}, line {line}: expected {count} finite numbers, found {' '.join(words)[:60]!r}")
    return values


def whole(path: str | Path, line: int, value: float, what: str) -> int:
    """A number that must be a whole one, 0 or more."""
    if value != int(value) or not 0 <= value < 1 << 31:
        raise InputError(f"{path}, line {line}: {what} is {value:g}; a whole number from 0 is expected")
    return int(value)
