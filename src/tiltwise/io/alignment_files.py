"""Alignments in files of any format: found, read and written for a tilt series."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from tiltwise.data.errors import InputError
from tiltwise.data.tilt_series import TiltSeries
from tiltwise.io.alignment import Alignment, align_series, image_sections, image_stem
from tiltwise.io.aretomo import from_aretomo, read_aln, to_aretomo, write_aln
from tiltwise.io.images import parse_image_name
from tiltwise.io.imod_com import read_imod, write_imod
from tiltwise.io.portal import from_portal, read_portal, to_portal, write_portal
from tiltwise.io.relion import write_tilt_series_set
from tiltwise.io.relion.alignment import read_relion_alignment
from tiltwise.io.star import read_star
from tiltwise.io.warp import Tomostar, from_warp, read_warp, to_warp, write_tomostar, write_warp

FORMATS = ("imod", "aretomo", "warp", "relion", "portal")
"""What `write_alignments` writes."""
_SUFFIXES = (".aln", ".xf", ".xml", ".json", ".star")
_RIGID = "these files hold a rigid geometry; the deformation is not in them"
_RELION_TABLES = ("aligned_tilt_series.star", "tilt_series.star", "tomograms.star")


def find_alignment(place: Path, name: str) -> Path:
    """The alignment of a series: the file itself, or the one file in a folder, or in a folder of the series' name in
    it, that is called after the series or is a table of RELION that lists it. InputError where there is none, or
    several."""
    if place.is_file():
        return place
    if not place.is_dir():
        raise InputError(f"{place}: no such file or folder")
    folders = [place, *(place / inner for inner in (name, f"{name}_Imod", "tilt_series") if (place / inner).is_dir())]
    found = [file for folder in folders for file in _candidates(folder, name)]
    if not found:
        raise InputError(
            f"{place}: holds no alignment of {name} (looked for {name}.aln, .xf, .xml, .json and star files)"
        )
    suffixes = dict.fromkeys(file.suffix for file in found)
    if len(suffixes) > 1:
        listed = ", ".join(str(file) for file in found)
        raise InputError(f"{place}: holds several alignments of {name}, name one of them: {listed}")
    return found[0]


def read_alignment(path: Path, name: str, *, pixel_size: float, image_shape: tuple[int, int]) -> Alignment:
    """Read the alignment of a series from .aln, .xf, Warp's .xml, the portal's .json or RELION's .star, told by suffix;
    pixel size Å and (y, x) size px of its raw images. InputError in one line for any fault."""
    sizes = {"pixel_size": pixel_size, "image_shape": image_shape}
    suffix = path.suffix.lower()
    if suffix == ".aln":
        return from_aretomo(read_aln(path), **sizes, path=path)
    if suffix == ".xf":
        return read_imod(path, **sizes)
    if suffix == ".xml":
        return from_warp(read_warp(path), **sizes)
    if suffix == ".json":
        return from_portal(read_portal(path), **sizes, path=path)
    if suffix == ".star":
        return read_relion_alignment(path, name, **sizes)
    if suffix == ".tomostar":
        raise InputError(f"{path}: a .tomostar holds no alignment; name the .xml of the series")
    raise InputError(f"{path}: alignments are read from {', '.join(_SUFFIXES)}, not from {suffix or 'this'}")


def read_aligned(series: TiltSeries, path: Path) -> tuple[TiltSeries, tuple[str, ...]]:
    """The series with the alignment of a file, and notes on what was left out."""
    alignment = read_alignment(path, series.name, pixel_size=series.pixel_size, image_shape=series.image_shape)
    aligned = align_series(series, alignment, path)
    left = int(np.asarray(series.use, dtype=bool).sum() - aligned.use.sum())
    notes = [f"aligned by {alignment.program}: {path.name}", *alignment.notes]
    if left:
        notes.append(f"{left} tilts are left out, as {alignment.program} did")
    return aligned, tuple(notes)


def write_alignments(folder: Path, series: Sequence[TiltSeries], form: str) -> list[Path]:
    """Write the alignments of series as files of another program into a folder and return the new files.

    What a format does not hold of a deformation is left out, and deformation_left_out.txt says what, series by series.
    InputError for a series without alignment, or one that the format cannot hold.
    """
    for one in series:
        if one.geometry is None:
            raise InputError(f"{one.name}: is not aligned yet; run: tiltwise align")
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    left_out = {one.name: _RIGID if one.deformation is not None else "" for one in series}
    if form == "relion":
        write_tilt_series_set(folder / "tilt_series.star", series, root=folder)
    else:
        for one in series:
            try:
                note = _WRITERS[form](folder, one)
            except InputError as error:
                raise InputError(f"{one.name}: {error}") from None
            left_out[one.name] = left_out[one.name] if note is None else note
    lines = [f"{name}: {note}\n" for name, note in left_out.items() if note]
    if lines:
        (folder / "deformation_left_out.txt").write_text("".join(lines), encoding="utf-8")
    files = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return [path for path in files if before.get(path) != path.stat().st_mtime_ns]


def _candidates(folder: Path, name: str) -> list[Path]:
    stems = (name, f"{name}.mrc", f"{name}.st", f"{name}_st")
    own = [folder / f"{stem}{suffix}" for suffix in _SUFFIXES for stem in stems]
    found = [file for file in own if file.is_file()]
    json = [folder / "alignment_metadata.json", folder / f"{name}_alignment_metadata.json"]
    found += [file for file in json if file.is_file()]
    tables = (folder / table for table in _RELION_TABLES)
    return found or [table for table in tables if table.is_file() and _lists(table, name)][:1]


def _lists(table: Path, name: str) -> bool:
    names = read_star(table).get("global", {}).get("rlnTomoName", ())
    return name in ([names] if isinstance(names, str) else names)


def _in_stack_order(series: TiltSeries) -> tuple[TiltSeries, np.ndarray]:
    """The series with its rows in the order of the stack, and the sections; IMOD's files have a line for each
    section."""
    sections = image_sections(series)
    order = np.argsort(sections)
    if not np.array_equal(sections[order], np.arange(series.number)):
        raise InputError("its images are not all those of one stack, which this format needs")
    return series if np.array_equal(order, np.arange(series.number)) else _reordered(series, order), sections[order]


def _reordered(series: TiltSeries, order: np.ndarray) -> TiltSeries:
    rows = ("stage_tilt_angle", "exposure", "pre_exposure", "acquisition_order", "use")
    geometry = replace(
        series.geometry,
        **{
            field: getattr(series.geometry, field)[order]
            for field in ("tilt_angle", "tilt_axis_angle", "x_tilt", "shift")
        },
    )
    return replace(
        series,
        geometry=geometry,
        image_names=tuple(series.image_names[index] for index in order),
        why_not=tuple(series.why_not[index] for index in order),
        **{field: getattr(series, field)[order] for field in rows},
    )


def _write_imod(folder: Path, series: TiltSeries) -> None:
    series, _ = _in_stack_order(series)
    stack = str(parse_image_name(series.image_names[0]).path)
    sizes = {"pixel_size": series.pixel_size, "image_shape": series.image_shape}
    folder = folder / series.name  # of its own: tilt.com and newst.com have the same name in every series
    folder.mkdir(exist_ok=True)
    write_imod(folder, series.name, stack, series.geometry, use=series.use, **sizes)


def _write_aretomo(folder: Path, series: TiltSeries) -> None:
    sizes = {"pixel_size": series.pixel_size, "image_shape": series.image_shape}
    offset = float(np.median(series.geometry.tilt_angle - series.stage_tilt_angle))
    content = to_aretomo(series.geometry, series.use, image_sections(series), **sizes, alpha_offset=offset)
    write_aln(folder / f"{series.name}.aln", content)


def _write_warp(folder: Path, series: TiltSeries) -> str:
    names = [f"{image_stem(name)}.mrc" for name in series.image_names]
    content, note = to_warp(
        series.geometry,
        use=np.asarray(series.use, dtype=bool),
        dose=series.pre_exposure,
        movie_paths=names,
        pixel_size=series.pixel_size,
        image_shape=series.image_shape,
        defocus_handedness=series.defocus_handedness,
        deformation=series.deformation,
    )
    size = (series.image_shape[1] * series.pixel_size, series.image_shape[0] * series.pixel_size)
    write_warp(folder / f"{series.name}.xml", content, image_size=size, pixel_size=series.pixel_size)
    tomostar = Tomostar(
        movie_names=tuple(names),
        angle=-series.stage_tilt_angle,
        axis_angle=series.geometry.tilt_axis_angle,
        dose=series.pre_exposure,
    )
    write_tomostar(folder / f"{series.name}.tomostar", tomostar)
    return note


def _write_portal(folder: Path, series: TiltSeries) -> None:
    sizes = {"pixel_size": series.pixel_size, "image_shape": series.image_shape}
    write_portal(
        folder / f"{series.name}.json", to_portal(series.geometry, series.use, image_sections(series), **sizes)
    )


_WRITERS: dict[str, Callable[[Path, TiltSeries], str | None]] = {
    "imod": _write_imod,
    "aretomo": _write_aretomo,
    "warp": _write_warp,
    "portal": _write_portal,
}
"""Each may say what it leaves out of a deformation; None: all of it."""
