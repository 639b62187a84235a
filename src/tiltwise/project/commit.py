"""Results appear whole or not at all: a kill at any instant loses no finished result and leaves no half of one.

Work goes into a folder `<item>.<token>.part`, the record last, and is synced to disk. Then `<item>` is renamed to
`<item>.old`, the part to `<item>`, and the old one is removed. `repair`, called at every start, undoes whatever was
left in between. The token differs from run to run: a worker that outlives its killed run can never write into the
folder of the next one.
"""

import os
import shutil
import uuid
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from tiltwise.project.layout import OLD, PART


def begin(place: Path) -> Path:
    """An empty folder to work in, beside the place that its content will take."""
    part = place.with_name(f"{place.name}.{uuid.uuid4().hex[:8]}{PART}")
    part.mkdir(parents=True)
    return part


@contextmanager
def begin_or_drop(place: Path) -> Iterator[Path]:
    """As `begin`; after an error the folder goes, so that on a full disk there is room again."""
    part = begin(place)
    try:
        yield part
    except Exception:
        shutil.rmtree(part, ignore_errors=True)
        raise


def final_place(part: Path) -> Path:
    """The place that a folder of `begin` will take; any other folder stays where it is."""
    name = part.name.removesuffix(PART)
    return part if name == part.name else part.with_name(name.rpartition(".")[0])


def commit(part: Path, place: Path) -> None:
    """Put the finished, synced part in its place; what was there before is gone afterwards."""
    old = place.with_name(place.name + OLD)
    if place.exists():
        os.rename(place, old)
    os.rename(part, place)
    sync_folder(place.parent)
    if old.exists():
        shutil.rmtree(old)


def repair(project: Path, steps: Iterable[str]) -> None:
    """Bring the folders of the steps back to whole items, whatever instant the last run was killed at."""
    for path in Path(project).glob(f".*{PART}"):
        path.unlink()
    for step in (Path(project) / name for name in steps):
        if step.is_dir():
            _repair_step(step)


def _repair_step(step: Path) -> None:
    for part in step.glob(f"*{PART}"):
        shutil.rmtree(part)
    for old in step.glob(f"*{OLD}"):
        place = old.with_name(old.name.removesuffix(OLD))
        if place.exists():
            shutil.rmtree(old)
        else:
            os.rename(old, place)
    sync_folder(step)


def sync_tree(folder: Path) -> None:
    """Force the content of a folder, its files and its own entries, to disk."""
    for path in Path(folder).rglob("*"):
        if path.is_file():
            _sync(path)
    for path in (folder, *(path for path in Path(folder).rglob("*") if path.is_dir())):
        sync_folder(path)


def sync_folder(folder: Path) -> None:
    """Force the entries of a folder to disk."""
    _sync(folder)


def write_file(path: Path, text: str) -> None:
    """Write a text file whole: readers see the old content or the new, never a part."""
    part = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}{PART}")
    try:
        part.write_text(text, encoding="utf-8")
        _sync(part)
        os.replace(part, path)
    except OSError:
        part.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
