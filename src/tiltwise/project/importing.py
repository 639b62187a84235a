"""Import of tilt series: what the user's files say of a series is read once, checked, and kept beside a pointer to the
images."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from tiltwise.data.errors import InputError, machine_fault
from tiltwise.data.tilt_series import TiltSeries
from tiltwise.io.acquisition import Acquisition, read_acquisition, series_name
from tiltwise.io.alignment_files import find_alignment, read_aligned
from tiltwise.io.images import MRC_SUFFIXES, parse_image_name, stack_image_names
from tiltwise.io.mrc import write_mrc
from tiltwise.project import store
from tiltwise.project.commit import begin_or_drop, commit, repair
from tiltwise.project.digests import file_digest
from tiltwise.project.layout import ALL, IMPORT, check_name, check_project, import_folder, relative_path
from tiltwise.project.lock import project_lock
from tiltwise.project.tasks import finish_part

_ANGLE_SUFFIXES = (".rawtlt", ".tlt")
_STACK = "stack.mrc"
"""Images that came as separate files, as one stack in the import folder."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ImportedSeries:
    """What was read of one tilt series, for the table that import prints."""

    name: str
    """Name of the series."""
    tilts: int
    """Number of tilts."""
    used: int
    """Number of tilts that are used."""
    tilt_angle_min: float
    """Lowest nominal angle, degrees."""
    tilt_angle_max: float
    """Highest nominal angle, degrees."""
    tilt_axis_angle: float | None
    """Nominal tilt axis, degrees; None if not stated."""
    pixel_size: float
    """Å."""
    image_shape: tuple[int, int]
    """(y, x), px."""
    exposure: float
    """Sum over all tilts, e⁻/Å²."""
    notes: tuple[str, ...]
    """What a user should know: where the order came from, what was assumed, what was left out."""


def import_tilt_series(
    folder: Path,
    paths: Iterable[Path],
    *,
    alignment: Path | None = None,
    on_fault: Callable[[str], None] | None = None,
    **overrides: Any,
) -> list[ImportedSeries]:
    """Read tilt series into a project: stacks with .mdoc or .rawtlt beside them, .mdoc files with their images, or
    folders of these.

    `overrides` are those of `io.acquisition.read_acquisition` (pixel_size in Å, tilt_axis_angle in degrees, exposure in
    e⁻/Å² ...) and go before what the files say. With `alignment`, a file or a folder that has one for each series
    (`io.alignment_files`), the series come aligned, and the step align takes that over. A series that is there already
    is replaced. All series are read before any is written: InputError, for the first that is at fault, leaves the
    project as it was; where there is `on_fault`, it is told what is wrong with each, and the sound ones are imported.
    """
    project = check_project(folder)
    given = {name: value for name, value in overrides.items() if value is not None}
    sources = find_series(paths, separate="images" in given)
    names = [series_name(source) for source in sources]
    for name, source in zip(names, sources, strict=True):
        if name == ALL or names.count(name) > 1:
            reason = "this name has a meaning of its own" if name == ALL else "two of the given files have this name"
            raise InputError(f"{source}: cannot be tilt series {name!r}: {reason}; rename the file")
        check_name(name, f"{source}: tilt series")
    with project_lock(project):
        repair(project, [IMPORT])
        read = {}
        for source in sources:
            try:
                read[source] = _read(source, alignment, given)
            except InputError as error:
                if on_fault is None:
                    raise
                on_fault(str(error))
        kept = given | ({"images": relative_path(given["images"], project)} if "images" in given else {})
        added = []
        for source, (one, aligned_by) in read.items():
            rest = {"notes": one.notes, "source": source, "overrides": kept, "alignment": aligned_by}
            try:
                added.append(add_tilt_series(project, one.tilt_series, **rest))
            except OSError as error:  # a full disk, say: another series may be smaller
                if on_fault is None:
                    raise
                on_fault(f"{source}: cannot be imported: {machine_fault(error, project)}")
        return added


def _read(source: Path, alignment: Path | None, given: dict[str, Any]) -> tuple[Acquisition, Path | None]:
    """What the files say of one series, and the file its alignment is from."""
    acquisition = read_acquisition(source, **given)
    if alignment is None:
        return acquisition, None
    file = find_alignment(Path(alignment).resolve(), acquisition.tilt_series.name)
    series, notes = read_aligned(acquisition.tilt_series, file)
    return Acquisition(tilt_series=series, notes=(*acquisition.notes, *notes)), file


def find_series(paths: Iterable[Path], *, separate: bool = False) -> list[Path]:
    """The file that stands for each tilt series: its stack, or its .mdoc where the images are separate.

    separate: the images, or movies, that an .mdoc names are meant, though a stack may lie beside it; of a folder, then,
    its .mdoc files alone.
    """
    found: list[Path] = []
    for path in (Path(path).resolve() for path in paths):
        if path.is_dir():
            inside = _series_in(path, separate)
            if not inside:
                stack = "" if separate else "stack with .mdoc or .rawtlt beside it, and no "
                raise InputError(f"{path}: holds no {stack}.mdoc")
            found += inside
        elif path.is_file():
            named = separate and path.suffix.lower() == ".mdoc"
            found.append(path if named else _leading_file(path))
        else:
            raise InputError(f"{path}: no such file or folder")
    if not found:
        raise InputError("no tilt series given; name stacks, .mdoc files or folders of these")
    return list(dict.fromkeys(found))


def _series_in(folder: Path, separate: bool) -> list[Path]:
    """Stacks without angles beside them may be anything (tomograms, single images), and are passed over."""
    suffixes = (".mdoc",) if separate else (".mdoc", *_ANGLE_SUFFIXES)
    described = [path for path in sorted(folder.iterdir()) if path.suffix.lower() in suffixes]
    described = [path for path in described if not path.stem.endswith("_override") and not path.name.startswith(".")]
    leading = described if separate else [_leading_file(path) for path in described]
    return list(dict.fromkeys(path for path in leading if path.suffix.lower() not in _ANGLE_SUFFIXES))


def _leading_file(path: Path) -> Path:
    """The stack that an .mdoc or a list of angles lies beside, if there is one; else the path itself."""
    if path.suffix.lower() not in (".mdoc", *_ANGLE_SUFFIXES):
        return path
    stem = path.with_suffix("")
    candidates = (
        [stem]
        if stem.suffix.lower() in MRC_SUFFIXES
        else [stem.with_name(stem.name + suffix) for suffix in MRC_SUFFIXES]
    )
    return next((stack for stack in candidates if stack.is_file()), path)


def add_tilt_series(
    project: Path,
    tilt_series: TiltSeries,
    *,
    notes: tuple[str, ...] = (),
    source: Path | None = None,
    overrides: dict[str, Any] | None = None,
    alignment: Path | None = None,
) -> ImportedSeries:
    """Put one tilt series into the project. Images of one stack stay where they are, and so do movies; separate images
    become a stack. `alignment` is the file that its geometry is from."""
    place = import_folder(project, tilt_series.name)
    with begin_or_drop(place) as part:
        files = {parse_image_name(name).path for name in tilt_series.image_names}
        if tilt_series.movies is not None:
            files = {file for file in files if file.is_file()}
        if len(files) > 1 and tilt_series.movies is None:
            write_mrc(part / _STACK, tilt_series.images, tilt_series.pixel_size, stack=True)
            tilt_series = replace(tilt_series, image_names=stack_image_names(place / _STACK, tilt_series.number))
            files = {place / _STACK}
        store.save("tilt_series", tilt_series, part, project)
        record = {
            "state": "done",
            "tiltwise": version("tiltwise"),
            "source": None if source is None else relative_path(source, project),
            "overrides": overrides or {},
            "images": [relative_path(file, project) for file in sorted(files)],
            "tilts": tilt_series.number,
            "alignment": None
            if alignment is None
            else {"file": relative_path(alignment, project), "sha256": file_digest(alignment)},
            "notes": notes,
            "imported": datetime.now(UTC).isoformat(timespec="seconds"),
        }
        finish_part(part, record)
        commit(part, place)
    return _summary(tilt_series, notes)


def _summary(tilt_series: TiltSeries, notes: tuple[str, ...]) -> ImportedSeries:
    return ImportedSeries(
        name=tilt_series.name,
        tilts=tilt_series.number,
        used=int(tilt_series.use.sum()),
        tilt_angle_min=float(tilt_series.stage_tilt_angle.min()),
        tilt_angle_max=float(tilt_series.stage_tilt_angle.max()),
        tilt_axis_angle=tilt_series.nominal_tilt_axis_angle,
        pixel_size=tilt_series.pixel_size,
        image_shape=tilt_series.image_shape,
        exposure=float(tilt_series.exposure.sum()),
        notes=notes,
    )
