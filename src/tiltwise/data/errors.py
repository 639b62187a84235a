"""The errors a user is meant to read: one line that says what is wrong, where, and what to do."""

import errno
from pathlib import Path


class InputError(ValueError):
    """A file or a value given by the user is at fault; the message names it and the fault in one line."""


class StageError(RuntimeError):
    """A stage cannot give a result it would stand behind; the message says why in one line."""


def machine_fault(error: OSError, place: Path | None = None) -> str:
    """What the machine refused, in one line: the file, where it is known, and the cause. Of a disk that is full the
    error itself knows no file; `place` is the folder that was written to."""
    text = error.strerror or str(error) or type(error).__name__
    where = error.filename or (place if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EROFS) else None)
    return " ".join((f"{where}: {text}" if where else text).split())
