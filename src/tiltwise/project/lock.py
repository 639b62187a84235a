"""One run at a time on a project.

The lock is the kernel's (flock): it ends with the process that holds it, even by kill -9, so there is no stale lock to
guess about. Who holds it (process id, host, start) stands in the file, for the message and for the curious.
"""

import fcntl
import json
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path

from tiltwise.data.errors import InputError

LOCK = ".lock"


class BusyError(InputError):
    """Another process holds the project."""


@contextmanager
def project_lock(project: Path) -> Iterator[None]:
    """Hold the project for the time of a run; BusyError at once if another process holds it."""
    handle = os.open(project / LOCK, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise BusyError(
                f"{project}: another run is at work here ({_holder(project)}); wait for it or stop it"
            ) from error
        with suppress(OSError):  # the lock holds without it, on a full disk too
            _write_holder(handle)
        yield
        os.ftruncate(handle, 0)
    finally:
        os.close(handle)


def _write_holder(handle: int) -> None:
    holder = {
        "pid": os.getpid(),
        "host": socket.gethostname(),
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    os.ftruncate(handle, 0)
    os.pwrite(handle, json.dumps(holder).encode(), 0)


def _holder(project: Path) -> str:
    try:
        holder = json.loads((project / LOCK).read_text())
        return f"process {holder['pid']} on {holder['host']} since {holder['started']}"
    except (OSError, ValueError, KeyError):
        return "process unknown"
