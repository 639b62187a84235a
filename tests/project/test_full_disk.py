"""A disk that fills up at any file: one line with the cause for what failed, earlier results as they were, and the same
command does the rest once there is room."""

import builtins
import errno
import io
import os
from pathlib import Path

import pytest
from tiny_projects import write_series

from tiltwise.cli import main
from tiltwise.project.importing import import_tilt_series
from tiltwise.project.layout import list_series


class Disk:
    """Takes so many more files and folders below a folder; of the next file a few bytes, and then no more."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder, self.room = folder, None
        self.open, self.mkdir = io.open, os.mkdir
        monkeypatch.setattr(builtins, "open", self._open)
        monkeypatch.setattr(io, "open", self._open)
        monkeypatch.setattr(os, "mkdir", self._mkdir)

    def _open(self, file, mode="r", *rest, **more):
        if isinstance(file, str | os.PathLike) and set(mode) & set("wax+") and self._is_full(file):
            with self.open(file, "wb") as half:
                half.write(b"half")
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(file))
        return self.open(file, mode, *rest, **more)

    def _mkdir(self, path, *rest, **more):
        if self._is_full(path):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
        return self.mkdir(path, *rest, **more)

    def _is_full(self, path) -> bool:
        if self.room is None or not Path(path).is_relative_to(self.folder):
            return False
        self.room -= 1
        return self.room < 0


@pytest.fixture
def disk(project, monkeypatch) -> Disk:
    return Disk(project, monkeypatch)


@pytest.fixture
def tiltwise(capsys):
    def run(*words):
        with pytest.raises(SystemExit) as left:
            main([*map(str, words)])
        printed = capsys.readouterr()
        return left.value.code, printed.out, printed.err

    return run


def contents(project, *parts):
    """Bytes of every file of these folders, and whether all of them are whole."""
    files = [path for part in parts for path in sorted((project / part).rglob("*")) if path.is_file()]
    return {path: path.read_bytes() for path in files}


@pytest.mark.parametrize("room", [0, 1, 2, 3, 4, 5, 6, 8, 10, 12, 14])
def test_a_run(project, tiltwise, disk, tmp_path, room):
    """Of A to C all is done; D comes when the disk is nearly full."""
    assert tiltwise("run", project, "--executor", "serial")[0] == 0
    import_tilt_series(project, [write_series(tmp_path / "raw", "D", seed=4)])
    earlier = [f"{step}/{name}" for step in ("import", "shift", "fill") for name in "ABC"]
    before = contents(project, *earlier)
    disk.room = room
    code, out, err = tiltwise("run", project, "--executor", "serial")
    assert code == 3 and err == "" and "No space left on device" in out and "Traceback" not in out
    disk.room = None
    assert contents(project, *earlier) == before
    assert not list(project.rglob("*.part"))
    code, out, _ = tiltwise("run", project, "--executor", "serial")
    assert code == 0 and tiltwise("run", project, "--executor", "serial")[1].startswith("9 already done")
    again = contents(project, "tilt_series.star", "tilt_series", *earlier)
    assert all(text != b"half" for text in again.values()) and before.items() <= again.items()


@pytest.mark.parametrize("room", range(5))
def test_an_import(project, tiltwise, disk, tmp_path, room):
    before = contents(project, "import")
    disk.room = room
    stacks = [write_series(tmp_path / "raw", name, seed=4) for name in "DE"]
    code, out, err = tiltwise("import", project, *stacks)
    disk.room = None
    assert code in (2, 3) and "E.mrc: cannot be imported: " in err and "No space left on device" in err
    assert all("No space left on device" in line for line in err.splitlines())
    assert before.items() <= contents(project, "import").items() and not list(project.rglob("*.part"))
    assert list_series(project) in (("A", "B", "C"), ("A", "B", "C", "D"))
    assert tiltwise("import", project, *stacks)[0] == 0 and list_series(project) == tuple("ABCDE")
