"""Where things lie in a project folder: `<project>/<step>/<item>/`, and what may be named how."""

import re
from pathlib import Path

from tiltwise.data.errors import InputError

RECIPE = "project.toml"
DATA_SET = "data_set.json"
"""What all series together have decided of single ones."""
IMPORT = "import"
"""Folder of the imported tilt series, one folder a series."""
GIVEN = "given_particles"
"""Folder of imported particles, one folder a series."""
ALL = "all"
"""The one item of a step that takes all series."""
RECORD = "record.json"
LOG = "log.txt"
PREVIEW = "preview.png"
PART = ".part"
OLD = ".old"
FAILED = ".failed"
"""Ends the folder of a failed try, beside that of an earlier result."""

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_TAKEN = frozenset({IMPORT, GIVEN, "tilt_series", "report"})


def check_project(folder: Path) -> Path:
    """The absolute folder of a project; InputError if there is none."""
    folder = Path(folder).resolve()
    if not (folder / RECIPE).is_file():
        raise InputError(f"{folder}: not a tiltwise project (no {RECIPE}); make one with: tiltwise new {folder}")
    return folder


def check_name(name: str, what: str) -> str:
    """The name of a step or series, if it can be a folder and a name in STAR files; InputError if not."""
    if not _NAME.fullmatch(name) or name.endswith((PART, OLD, FAILED)):
        raise InputError(
            f"{what} {name!r}: a name is made of letters, digits, '.', '_' and '-' and starts with a letter or digit"
        )
    return name


def check_step_name(name: str, where: str) -> str:
    """The name of a step, if no other part of the project uses it."""
    check_name(name, f"{where}: step")
    if name in _TAKEN:
        raise InputError(f"{where}: step {name!r}: this name is taken by a folder of the project itself")
    return name


def item_folder(project: Path, step: str, item: str) -> Path:
    """The folder of one item of one step."""
    return project / step / item


def failed_folder(place: Path) -> Path:
    """The folder of a try that failed, where the item's own folder keeps an earlier result."""
    return place.with_name(place.name + FAILED)


def import_folder(project: Path, series: str) -> Path:
    """The folder of one imported tilt series."""
    return project / IMPORT / series


def given_folder(project: Path, series: str) -> Path:
    """The folder of the imported particles of one tilt series."""
    return project / GIVEN / series


def list_series(project: Path) -> tuple[str, ...]:
    """The names of the imported tilt series, sorted."""
    folder = project / IMPORT
    if not folder.is_dir():
        return ()
    return tuple(sorted(path.name for path in folder.iterdir() if (path / RECORD).is_file() and not _unfinished(path)))


def _unfinished(path: Path) -> bool:
    return path.name.endswith((PART, OLD))


def relative_path(path: Path, project: Path) -> str:
    """The path as it is written in the project: relative to it where it lies inside, absolute elsewhere."""
    path, project = Path(path).resolve(), Path(project).resolve()
    return path.relative_to(project).as_posix() if path.is_relative_to(project) else path.as_posix()


SERIES = "{series}"
"""In a file of the recipe's [inputs]: the name of the tilt series."""


def resolve_path(path: str, project: Path) -> Path:
    """The inverse of relative_path."""
    return Path(project) / path
