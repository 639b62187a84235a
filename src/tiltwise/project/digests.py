"""Digests of files, remembered by size and time of change, so that a large stack is read once."""

import hashlib
import json
from contextlib import suppress
from pathlib import Path

from tiltwise.project.commit import write_file

ABSENT = "absent"
_CACHE = ".digests.json"
_BLOCK = 1 << 22


def file_digest(path: Path) -> str:
    """SHA-256 of a file's content, hexadecimal."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(_BLOCK):
            digest.update(block)
    return digest.hexdigest()


def text_digest(text: str) -> str:
    """SHA-256 of a text, hexadecimal."""
    return hashlib.sha256(text.encode()).hexdigest()


class Digests:
    """Digests of a project's raw files; a file whose size and time of change are the same is not read again."""

    def __init__(self, project: Path) -> None:
        self._path = Path(project) / _CACHE
        self._known = _read_cache(self._path)
        self._changed = False

    def of(self, path: Path) -> str:
        """SHA-256 of the file; `ABSENT` if it cannot be read, which the item that needs it will say itself."""
        path = Path(path)
        try:
            state = path.stat()
            stamp = [state.st_size, state.st_mtime_ns]
            known = self._known.get(str(path))
            if known is None or known[:2] != stamp:
                known = [*stamp, file_digest(path)]
                self._known[str(path)] = known
                self._changed = True
        except OSError:
            return ABSENT
        return known[2]

    def save(self) -> None:
        """Remember what was read for the next start; if that cannot be written, it is read once more then."""
        if self._changed:
            with suppress(OSError):
                write_file(self._path, json.dumps(self._known, indent=0, sort_keys=True))
                self._changed = False


def _read_cache(path: Path) -> dict[str, list]:
    try:
        known = json.loads(path.read_text())
    except (OSError, ValueError):
        return {}
    return known if isinstance(known, dict) else {}
