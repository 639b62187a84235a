"""Tilt series as STAR files with RELION-5's names.

`tilts.star` is ours: every tilt, excluded ones with their reason, and all that a TiltSeries knows, in full digits; what
RELION has no name for is called tiltwise*. The RELION-5 set beside it (`write_tilt_series_set`) lists the used tilts
only, since RELION has no such flag. The geometry of both is RELION-5's own and needs no conversion
(docs/conventions.md).
"""

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tiltwise.data.errors import InputError
from tiltwise.data.optics import Ctf, Optics
from tiltwise.data.tilt_series import GoldBeads, TiltGeometry, TiltSeries
from tiltwise.io.images import ImageFile, open_images, parse_image_name
from tiltwise.io.movies import open_movies, unmoved_images
from tiltwise.io.relion.deformation import deformation_columns, read_deformation
from tiltwise.io.star import Block, block, integers, numbers, read_star, single_number, single_text, texts, write_star

_GEOMETRY_COLUMNS = {"x_tilt": "rlnTomoXTilt", "tilt_angle": "rlnTomoYTilt", "tilt_axis_angle": "rlnTomoZRot"}
_SHIFT_COLUMNS = ("rlnTomoXShiftAngst", "rlnTomoYShiftAngst")
_CTF_COLUMNS = {
    "defocus_u": "rlnDefocusU",
    "defocus_v": "rlnDefocusV",
    "astigmatism_angle": "rlnDefocusAngle",
    "phase_shift": "rlnPhaseShift",
    "fit_resolution": "rlnCtfMaxResolution",
}
_OPTICS_COLUMNS = {
    "voltage": "rlnVoltage",
    "spherical_aberration": "rlnSphericalAberration",
    "amplitude_contrast": "rlnAmplitudeContrast",
}
_BEAD_COLUMNS = ("rlnCenteredCoordinateXAngst", "rlnCenteredCoordinateYAngst", "rlnCenteredCoordinateZAngst")
_THICKNESS_COLUMN = "tiltwiseSpecimenThickness"
_MOVIE_COLUMN = "rlnMicrographMovieName"
_HALF_COLUMNS = ("rlnMicrographNameOdd", "rlnMicrographNameEven")
_ANGSTROM_PER_UM = 1e4
_OPTICS_GROUP = "optics1"


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class TomogramFile:
    """A reconstructed tomogram, as RELION's tomograms.star lists it."""

    path: Path
    """The file."""
    shape: tuple[int, int, int]
    """(z, y, x) voxels."""
    voxel_size: float
    """Å."""


def write_tilt_series(path: str | Path, tilt_series: TiltSeries, *, root: str | Path | None = None) -> None:
    """Write everything but the images into one STAR file (`tilts.star`), so that `read_tilt_series` gives it back bit
    by bit. Image files below `root` are named relative to it."""
    series = {
        "rlnTomoName": tilt_series.name,
        "rlnTomoTiltSeriesPixelSize": tilt_series.pixel_size,
        **{column: getattr(tilt_series.optics, field) for field, column in _OPTICS_COLUMNS.items()},
    }
    if tilt_series.nominal_tilt_axis_angle is not None:
        series["rlnTomoNominalTiltAxisAngle"] = tilt_series.nominal_tilt_axis_angle
    if tilt_series.defocus_handedness is not None:
        series["rlnTomoHand"] = tilt_series.defocus_handedness
    tilts = {
        **_name_columns(tilt_series, root),
        "tiltwiseUse": tilt_series.use.astype(bool),
        "tiltwiseWhyNot": list(tilt_series.why_not),
        "rlnTomoNominalStageTiltAngle": tilt_series.stage_tilt_angle.astype(np.float64),
        "rlnMicrographPreExposure": tilt_series.pre_exposure.astype(np.float64),
        "tiltwiseExposure": tilt_series.exposure.astype(np.float64),
        "tiltwiseAcquisitionOrder": tilt_series.acquisition_order.astype(np.int64),
    }
    if tilt_series.nominal_defocus is not None:
        tilts["tiltwiseNominalDefocus"] = tilt_series.nominal_defocus.astype(np.float64)
    tilts |= _geometry_columns(tilt_series.geometry) | _ctf_columns(tilt_series.ctf)
    if tilt_series.ctf is not None:
        tilts["tiltwiseDefocusError"] = tilt_series.ctf.defocus_error.astype(np.float64)
    if tilt_series.specimen_thickness is not None:
        series[_THICKNESS_COLUMN] = tilt_series.specimen_thickness
    of_series, of_tilts, more = deformation_columns(tilt_series.deformation)
    if tilt_series.beads is not None:
        series["tiltwiseBeadDiameter"] = tilt_series.beads.diameter
        more["beads"] = dict(zip(_BEAD_COLUMNS, tilt_series.beads.position.astype(np.float64).T, strict=True))
    write_star(path, {"series": series | of_series, "tilts": tilts | of_tilts, **more})


def read_tilt_series(path: str | Path, *, root: str | Path | None = None) -> TiltSeries:
    """Read what `write_tilt_series` wrote and open its images; names that are not absolute count from `root`.

    Raises InputError for a file that is not such a file, lacks a column, or names images that are not there while their
    tilt is used.
    """
    path = Path(path)
    blocks = read_star(path)
    series, tilts = block(blocks, "series", path), block(blocks, "tilts", path)
    are_movies = _MOVIE_COLUMN in tilts and "rlnMicrographName" not in tilts
    names = _names(tilts, _MOVIE_COLUMN if are_movies else "rlnMicrographName", path, root)
    halves = tuple(_names(tilts, column, path, root) for column in _HALF_COLUMNS if column in tilts)
    use = integers(tilts, "tiltwiseUse", path).astype(bool)
    ctf = _read_ctf(tilts, path)
    return TiltSeries(
        name=single_text(series, "rlnTomoName", path),
        **_open_movies(path, names, use) if are_movies else {"images": _open_named_images(path, names, use)},
        half_images=tuple(_open_named_images(path, half, use) for half in halves) or None,
        half_image_names=halves or None,
        image_names=names,
        pixel_size=single_number(series, "rlnTomoTiltSeriesPixelSize", path),
        optics=Optics(**{field: single_number(series, column, path) for field, column in _OPTICS_COLUMNS.items()}),
        stage_tilt_angle=numbers(tilts, "rlnTomoNominalStageTiltAngle", path),
        nominal_tilt_axis_angle=_single_or_none(series, "rlnTomoNominalTiltAxisAngle", path),
        exposure=numbers(tilts, "tiltwiseExposure", path),
        pre_exposure=numbers(tilts, "rlnMicrographPreExposure", path),
        acquisition_order=integers(tilts, "tiltwiseAcquisitionOrder", path),
        nominal_defocus=column_or_none(tilts, "tiltwiseNominalDefocus", path),
        use=use,
        why_not=tuple(texts(tilts, "tiltwiseWhyNot", path)),
        geometry=read_geometry(tilts, path),
        deformation=read_deformation(blocks, series, tilts, path),
        specimen_thickness=_single_or_none(series, _THICKNESS_COLUMN, path),
        beads=_read_beads(blocks, path),
        ctf=ctf,
        defocus_handedness=_handedness(series, path),
    )


def write_tilt_series_set(
    path: str | Path,
    tilt_series: Iterable[TiltSeries],
    *,
    root: str | Path | None = None,
    tomograms: Mapping[str, TomogramFile] | None = None,
) -> None:
    """Write the used tilts as a RELION-5 set: the table of series at `path`, a file for each in tilt_series/ beside it.

    File names are relative to `root`, the folder in which RELION will run (default: that of `path`). With `tomograms`
    the table is a tomograms.star. The column rlnTomoHand is left out unless the handedness of every series is known.
    """
    path = Path(path)
    root = path.parent if root is None else Path(root)
    rows = []
    for series in tilt_series:
        own = path.parent / "tilt_series" / f"{series.name}.star"
        own.parent.mkdir(parents=True, exist_ok=True)
        write_star(own, {series.name: _used_rows(series, root)})
        rows.append(_global_row(series, own, root) | _tomogram_row(series, (tomograms or {}).get(series.name), root))
    if not rows:
        raise ValueError("a RELION set needs at least one tilt series")
    columns = [column for column in max(rows, key=len) if all(column in row for row in rows)]
    write_star(path, {"global": {column: [row[column] for row in rows] for column in columns}})


def read_tilt_series_set(
    path: str | Path,
    *,
    root: str | Path | None = None,
    images: Mapping[str, np.ndarray] | None = None,
) -> dict[str, TiltSeries]:
    """All series of a RELION-5 tilt_series.star or tomograms.star by name.

    File names count from `root`, RELION's folder; by default the nearest folder above `path` from which the first of
    them is found. `images` gives the images of a series instead of its image files (before motion correction: its
    movies). A tilt whose image is not there is flagged. RELION keeps no exposure of each tilt: it is
    rlnTomoImportFractionalDose, or else the median step of the pre-exposure.
    """
    path = Path(path)
    table = block(read_star(path), "global", path)
    names = texts(table, "rlnTomoName", path)
    if not names:
        raise InputError(f"{path}: lists no tilt series")
    files = texts(table, "rlnTomoTiltSeriesStarFile", path)
    root = Path(root) if root is not None else relion_root(path, files)
    if len(set(names)) < len(names):
        raise InputError(f"{path}: the same rlnTomoName stands in two rows; names must differ")
    return {
        name: _read_relion_series(path, _row(table, index), root / files[index], root, (images or {}).get(name))
        for index, name in enumerate(names)
    }


def _used_rows(series: TiltSeries, root: Path) -> dict[str, object]:
    columns: dict[str, object] = {
        **{column: [_hinted_name(name) for name in names] for column, names in _name_columns(series, root).items()},
        "rlnTomoNominalStageTiltAngle": series.stage_tilt_angle,
        "rlnMicrographPreExposure": series.pre_exposure,
    }
    if series.nominal_tilt_axis_angle is not None:
        columns["rlnTomoNominalTiltAxisAngle"] = np.full(series.number, series.nominal_tilt_axis_angle)
    if series.nominal_defocus is not None:
        columns["rlnTomoNominalDefocus"] = -series.nominal_defocus / _ANGSTROM_PER_UM  # µm, negative, as in the mdoc
    columns |= _geometry_columns(series.geometry) | _ctf_columns(series.ctf)
    used = np.flatnonzero(series.use)
    return {name: [column[index] for index in used] for name, column in columns.items()}


def _global_row(series: TiltSeries, own: Path, root: Path) -> dict[str, object]:
    row = {
        "rlnTomoName": series.name,
        "rlnTomoTiltSeriesStarFile": _relative_path(own, root),
        **{column: float(getattr(series.optics, field)) for field, column in _OPTICS_COLUMNS.items()},
        "rlnMicrographOriginalPixelSize": float(series.pixel_size),
        "rlnTomoTiltSeriesPixelSize": float(series.pixel_size),
        "rlnOpticsGroupName": _OPTICS_GROUP,
        "rlnTomoImportFractionalDose": float(np.median(series.exposure)),
    }
    if series.defocus_handedness is not None:
        row["rlnTomoHand"] = float(series.defocus_handedness)
    return row


def _tomogram_row(series: TiltSeries, tomogram: TomogramFile | None, root: Path) -> dict[str, object]:
    """RELION counts the size in pixels of the tilt images; an even number, for its two centres differ for odd ones."""
    if tomogram is None:
        return {}
    binning = tomogram.voxel_size / series.pixel_size
    z, y, x = (2 * round(n * binning / 2) for n in tomogram.shape)
    return {
        "rlnTomoTomogramBinning": float(binning),
        "rlnTomoSizeX": x,
        "rlnTomoSizeY": y,
        "rlnTomoSizeZ": z,
        "rlnTomoReconstructedTomogram": _relative_path(tomogram.path, root),
    }


def _read_relion_series(path: Path, row: Block, own: Path, root: Path, images: np.ndarray | None) -> TiltSeries:
    name = single_text(row, "rlnTomoName", path)
    tilts = block(read_star(own), name, own)
    named = "rlnMicrographMovieName" if "rlnMicrographName" not in tilts else "rlnMicrographName"
    image_names = tuple(_resolved_name(text, root) for text in texts(tilts, named, own))
    pre_exposure = numbers(tilts, "rlnMicrographPreExposure", own)
    if not image_names:
        raise InputError(f"{own}: lists no tilt")
    files = [_present(parse_image_name(text)) for text in image_names]
    if images is not None and len(images) != len(image_names):
        raise InputError(f"{own}: lists {len(image_names)} tilts, but {len(images)} images are given for {name}")
    use = np.array([images is not None or file is not None for file in files])
    nominal_defocus = column_or_none(tilts, "rlnTomoNominalDefocus", own)
    axes = column_or_none(tilts, "rlnTomoNominalTiltAxisAngle", own)
    return TiltSeries(
        name=name,
        images=open_images(files) if images is None else images,
        image_names=image_names,
        pixel_size=_relion_pixel_size(row, path),
        optics=Optics(**{field: single_number(row, column, path) for field, column in _OPTICS_COLUMNS.items()}),
        stage_tilt_angle=numbers(tilts, "rlnTomoNominalStageTiltAngle", own),
        nominal_tilt_axis_angle=None if axes is None else float(axes[0]),
        exposure=np.full(len(use), _relion_exposure(row, pre_exposure, path)),
        pre_exposure=pre_exposure,
        acquisition_order=np.argsort(np.argsort(pre_exposure, kind="stable"), kind="stable"),
        nominal_defocus=None if nominal_defocus is None else -nominal_defocus * _ANGSTROM_PER_UM,
        use=use,
        why_not=tuple("" if used else "its image file is absent" for used in use),
        geometry=read_geometry(tilts, own),
        ctf=_read_ctf(tilts, own),
        defocus_handedness=_handedness(row, path),
    )


def _geometry_columns(geometry: TiltGeometry | None) -> dict[str, np.ndarray]:
    if geometry is None:
        return {}
    columns = {column: getattr(geometry, field) for field, column in _GEOMETRY_COLUMNS.items()}
    columns |= {column: geometry.shift[:, axis] for axis, column in enumerate(_SHIFT_COLUMNS)}
    return {column: np.asarray(values, dtype=np.float64) for column, values in columns.items()}


def _ctf_columns(ctf: Ctf | None) -> dict[str, np.ndarray]:
    if ctf is None:
        return {}
    return {column: np.asarray(getattr(ctf, field), dtype=np.float64) for field, column in _CTF_COLUMNS.items()}


def read_geometry(tilts: Block, path: Path) -> TiltGeometry | None:
    """The alignment; None where the table has none. A part of it without the rest is a missing column."""
    required = (*_SHIFT_COLUMNS, "rlnTomoYTilt", "rlnTomoZRot")
    if not any(column in tilts for column in required):
        return None
    x, y, tilt_angle, tilt_axis_angle = (numbers(tilts, column, path) for column in required)
    x_tilt = column_or_none(tilts, "rlnTomoXTilt", path)
    return TiltGeometry(
        tilt_angle=tilt_angle,
        tilt_axis_angle=tilt_axis_angle,
        x_tilt=np.zeros_like(tilt_angle) if x_tilt is None else x_tilt,
        shift=np.stack([x, y], axis=1),
    )


def _read_beads(blocks: Mapping[str, Block], path: Path) -> GoldBeads | None:
    if "beads" not in blocks:
        return None
    position = np.stack([numbers(blocks["beads"], column, path) for column in _BEAD_COLUMNS], axis=1)
    diameter = single_number(block(blocks, "series", path), "tiltwiseBeadDiameter", path)
    return GoldBeads(position=position, diameter=diameter)


def _read_ctf(tilts: Block, path: Path) -> Ctf | None:
    required = ("rlnDefocusU", "rlnDefocusV", "rlnDefocusAngle")
    if not any(column in tilts for column in required):
        return None
    u, v, angle = (numbers(tilts, column, path) for column in required)
    phase_shift, resolution, error = (
        column_or_none(tilts, column, path)
        for column in ("rlnPhaseShift", "rlnCtfMaxResolution", "tiltwiseDefocusError")
    )
    return Ctf(
        defocus_u=u,
        defocus_v=v,
        astigmatism_angle=angle,
        phase_shift=np.zeros_like(u) if phase_shift is None else phase_shift,
        defocus_error=np.full_like(u, np.nan) if error is None else error,
        fit_resolution=np.full_like(u, np.nan) if resolution is None else resolution,
    )


def _name_columns(series: TiltSeries, root: str | Path | None) -> dict[str, list[str]]:
    """Where the images lie, or the movies while there are no images, and the sums of odd and even frames."""
    column = "rlnMicrographName" if series.movies is None else _MOVIE_COLUMN
    columns = {column: [_relative_name(name, root) for name in series.image_names]}
    for half, names in zip(_HALF_COLUMNS, series.half_image_names or (), strict=False):
        columns[half] = [_relative_name(name, root) for name in names]
    return columns


def _names(tilts: Block, column: str, path: Path, root: str | Path | None) -> tuple[str, ...]:
    return tuple(_resolved_name(name, root) for name in texts(tilts, column, path))


def _open_movies(path: Path, names: tuple[str, ...], use: np.ndarray) -> dict[str, object]:
    opened = open_movies([_present(parse_image_name(name)) for name in names])
    if opened is None:
        raise InputError(f"{path}: none of its movies is there ({names[0]} ...)")
    movies, faults = opened
    for movie, fault, name, used in zip(movies, faults, names, use, strict=True):
        if used and movie is None:
            raise InputError(fault or f"{path}: the movie {name} is not there, but its tilt is used")
    return {"movies": movies, "images": unmoved_images(movies)}


def _open_named_images(path: Path, names: tuple[str, ...], use: np.ndarray) -> np.ndarray:
    files = [_present(parse_image_name(name)) for name in names]
    for file, name, used in zip(files, names, use, strict=True):
        if used and file is None:
            raise InputError(f"{path}: the image {name} is not there, but its tilt is used")
    return open_images(files)


def _present(file: ImageFile) -> ImageFile | None:
    return file if file.path.is_file() else None


def _row(table: Block, index: int) -> Block:
    return {column: values if isinstance(values, str) else [values[index]] for column, values in table.items()}


def _single_or_none(table: Block, column: str, path: Path) -> float | None:
    return single_number(table, column, path) if column in table else None


def column_or_none(table: Block, column: str, path: Path) -> np.ndarray | None:
    return numbers(table, column, path) if column in table else None


def _handedness(table: Block, path: Path) -> int | None:
    hand = _single_or_none(table, "rlnTomoHand", path)
    if hand not in (None, 1.0, -1.0):
        raise InputError(f"{path}: rlnTomoHand is {hand}; it can only be 1 or -1")
    return None if hand is None else int(hand)


def _relion_pixel_size(row: Block, path: Path) -> float:
    """After motion correction rlnTomoTiltSeriesPixelSize; before it the images are the micrographs themselves."""
    known = "rlnTomoTiltSeriesPixelSize" if "rlnTomoTiltSeriesPixelSize" in row else "rlnMicrographOriginalPixelSize"
    return single_number(row, known, path)


def _relion_exposure(row: Block, pre_exposure: np.ndarray, path: Path) -> float:
    stated = _single_or_none(row, "rlnTomoImportFractionalDose", path)
    if stated is not None:
        return stated
    return float(np.median(np.diff(np.sort(pre_exposure)))) if len(pre_exposure) > 1 else 0.0


def relion_root(path: Path, files: list[str]) -> Path:
    folders = path.absolute().parents
    for folder in folders:
        if (folder / files[0]).is_file():
            return folder
    raise InputError(f"{path}: the file {files[0]} that it names is not found from any folder above it")


def _relative_path(path: str | Path, root: str | Path | None) -> str:
    """The path relative to root if it lies below it, else as it is."""
    path = str(path)
    if root is None:
        return path
    relative = os.path.relpath(path, root)
    return path if relative.startswith("..") else relative


def _relative_name(name: str, root: str | Path | None) -> str:
    number, at, path = name.rpartition("@")
    return f"{number}{at}{_relative_path(path, root)}"


def _resolved_name(name: str, root: str | Path | None) -> str:
    number, at, path = name.rpartition("@")
    return name if root is None else f"{number}{at}{Path(root) / path}"


def _hinted_name(name: str) -> str:
    """RELION takes .mrc for one volume; the hint :mrcs tells it that the file is a stack."""
    return f"{name}:mrcs" if "@" in name and not name.endswith(".mrcs") else name
