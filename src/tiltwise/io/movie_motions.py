"""By what the movies of a series were corrected, as one STAR file (`motions.star`), in full digits.

The sign is that of `data.motion`: what lies at r in the sum lies at r + d_f(r) in frame f, d in Å along image x, y.
"""

import os
from pathlib import Path

import numpy as np

from tiltwise.data.defects import DefectMap
from tiltwise.data.errors import InputError
from tiltwise.data.motion import Motion, MovieMotions, MovieReading
from tiltwise.io.images import parse_image_name
from tiltwise.io.movies import Movie, open_movie
from tiltwise.io.star import Block, block, integers, numbers, read_star, single_text, texts, write_star

_NONE = -1
"""Stands for an orientation of what there was none of."""
_READING = {
    "gain_orientation": "tiltwiseGainOrientation",
    "gain_inverted": "tiltwiseGainInverted",
    "defects_orientation": "tiltwiseDefectsOrientation",
    "find_defects": "tiltwiseFindDefects",
    "samples": "tiltwiseSamplesPerPixel",
    "binning": "tiltwiseBinning",
}
_WEIGHTING = "tiltwiseFrameWeighting"
_MOVIE, _FRAMES, _TILT = "rlnMicrographMovieName", "tiltwiseFrames", "tiltwiseTilt"
_EXTENT = ("tiltwiseExtentX", "tiltwiseExtentY")
_CONTROLS = ("tiltwiseControlsExposure", "tiltwiseControlsY", "tiltwiseControlsX")
_SHIFT = ("tiltwiseFrameShiftX", "tiltwiseFrameShiftY")
_AMPLITUDE = ("tiltwiseFrameAmplitude", "tiltwiseFrameBFactor")
_LOCAL = ("tiltwiseLocalX", "tiltwiseLocalY")
_LEAST, _MOST = 4, 10**5
_DEFECTS_SHAPE = ("tiltwiseDefectsRows", "tiltwiseDefectsColumns")
_RECTANGLE = ("tiltwiseDefectX", "tiltwiseDefectY", "tiltwiseDefectWidth", "tiltwiseDefectHeight")
_WEIGHTINGS = ("plain", "critical", "measured")


def write_motions(path: str | Path, motions: MovieMotions, *, root: str | Path | None = None) -> None:
    """Write motions so that `read_motions` gives them back bit by bit. Movies below `root` are named relative to it."""
    known = [(tilt, one) for tilt, one in enumerate(motions.motion, start=1) if one is not None]
    if not known:
        raise ValueError("no movie has a motion to write")
    amplitude = [motions.amplitude[tilt - 1] for tilt, _ in known] if motions.amplitude else []
    local = [(tilt, one) for tilt, one in known if one.coefficient is not None]
    write_star(
        path,
        {
            "series": {_WEIGHTING: motions.weighting} | _reading_columns(motions.reading) | _shape(motions.defects),
            "tilts": _tilt_columns(motions, root),
            "frames": {
                _TILT: np.concatenate([np.full(one.frames, tilt) for tilt, one in known]),
                "tiltwiseFrameExposure": np.concatenate([one.exposure for _, one in known]).astype(np.float64),
                **_pair(_SHIFT, [one.shift for _, one in known]),
                **(_pair(_AMPLITUDE, amplitude) if amplitude else {}),
            },
            **({"defects": _rectangles(motions.defects)} if motions.defects is not None else {}),
            **({"local": _pair(_LOCAL, [one.coefficient.reshape(-1, 2) for _, one in local])} if local else {}),
        },
    )


def read_motions(path: str | Path, *, root: str | Path | None = None) -> MovieMotions:
    """Read what `write_motions` wrote and open its movies; names that are not absolute count from `root`.

    A movie that cannot be opened is None, with the reason. InputError for a file that is not such a file.
    """
    path = Path(path)
    blocks = read_star(path)
    series, tilts, frames = (block(blocks, name, path) for name in ("series", "tilts", "frames"))
    weighting = single_text(series, _WEIGHTING, path)
    if weighting not in _WEIGHTINGS:
        raise InputError(f"{path}: frames are weighted by {weighting!r}; it can only be {', '.join(_WEIGHTINGS)}")
    motion, amplitude = _motions(tilts, frames, blocks.get("local"), path)
    if weighting == "measured" and not any(one is not None for one in amplitude):
        raise InputError(f"{path}: frames are weighted as measured, but their amplitudes are missing")
    names = tuple(name and str(Path(root or "") / name) for name in texts(tilts, _MOVIE, path))
    reading = _read_reading(series, path)
    opened = [_open(name, one, reading.samples) for name, one in zip(names, motion, strict=True)]
    return MovieMotions(
        movies=tuple(movie for movie, _ in opened),
        movie_names=names,
        faults=tuple(fault for _, fault in opened),
        motion=motion,
        reading=reading,
        defects=_read_defects(series, blocks.get("defects"), path),
        weighting=weighting,
        amplitude=amplitude if weighting == "measured" else (),
    )


def _reading_columns(reading: MovieReading) -> dict[str, object]:
    values = {column: getattr(reading, field) for field, column in _READING.items()}
    return {column: _NONE if value is None else int(value) for column, value in values.items()}


def _read_reading(series: Block, path: Path) -> MovieReading:
    values = {field: _single_integer(series, column, path) for field, column in _READING.items()}
    for field in ("gain_orientation", "defects_orientation"):
        if not _NONE <= values[field] <= 7:
            raise InputError(f"{path}: {_READING[field]} is {values[field]}; it is 0 to 7, or {_NONE} for none")
        values[field] = None if values[field] == _NONE else values[field]
    for field in ("gain_inverted", "find_defects"):
        values[field] = bool(values[field])
    if values["samples"] not in (1, 2, 4) or not 1 <= values["binning"] <= 8:
        raise InputError(
            f"{path}: samples are 1, 2 or 4, binning 1 to 8; it has {values['samples']}, {values['binning']}"
        )
    return MovieReading(**values)


def _shape(defects: DefectMap | None) -> dict[str, int]:
    rows, columns = (0, 0) if defects is None or defects.shape is None else defects.shape
    return {_DEFECTS_SHAPE[0]: int(rows), _DEFECTS_SHAPE[1]: int(columns)}


def _rectangles(defects: DefectMap) -> dict[str, np.ndarray]:
    values = np.asarray(defects.rectangles, dtype=np.int64).reshape(-1, 4)
    return {name: values[:, number] for number, name in enumerate(_RECTANGLE)}


def _read_defects(series: Block, table: Block | None, path: Path) -> DefectMap | None:
    if table is None:
        return None
    rows, columns = (_single_integer(series, name, path) for name in _DEFECTS_SHAPE)
    rectangles = np.stack([integers(table, name, path) for name in _RECTANGLE], axis=-1)
    if (rectangles < 0).any() or min(rows, columns) < 0:
        raise InputError(f"{path}: its defective pixels have places or sizes below 0")
    return DefectMap(rectangles=rectangles, shape=(rows, columns) if rows and columns else None)


def _single_integer(table: Block, column: str, path: Path) -> int:
    single_text(table, column, path)
    return int(integers(table, column, path)[0])


def _tilt_columns(motions: MovieMotions, root: str | Path | None) -> dict[str, object]:
    extent = [(np.nan, np.nan) if one is None else one.extent for one in motions.motion]
    controls = [
        (0, 0, 0) if one is None or one.coefficient is None else one.coefficient.shape[:3] for one in motions.motion
    ]
    return {
        _MOVIE: [_relative(name, root) for name in motions.movie_names],
        _FRAMES: np.array([0 if one is None else one.frames for one in motions.motion]),
        **{name: np.array(extent, dtype=np.float64)[:, axis] for axis, name in enumerate(_EXTENT)},
        **{name: np.array(controls)[:, axis] for axis, name in enumerate(_CONTROLS)},
    }


def _relative(name: str, root: str | Path | None) -> str:
    if not name:
        return name
    path = str(parse_image_name(name).path)
    relative = path if root is None else os.path.relpath(path, root)
    return path if relative.startswith("..") else relative


def _pair(names: tuple[str, str], parts: list[np.ndarray]) -> dict[str, np.ndarray]:
    values = np.concatenate(parts).astype(np.float64)
    return {name: values[:, axis] for axis, name in enumerate(names)}


def _motions(
    tilts: Block, frames: Block, local: Block | None, path: Path
) -> tuple[tuple[Motion | None, ...], tuple[np.ndarray | None, ...]]:
    """(tilt,) motions, and (tilt,) amplitudes of the frames, each (frame, 2), where the file holds any."""
    numbers_of = integers(tilts, _FRAMES, path)
    extent = np.stack([numbers(tilts, name, path) for name in _EXTENT], axis=-1)
    controls = np.stack([integers(tilts, name, path) for name in _CONTROLS], axis=-1)
    exposure = _finite(frames, ("tiltwiseFrameExposure",), path)[:, 0]
    shift = _finite(frames, _SHIFT, path)
    measured = any(name in frames for name in _AMPLITUDE)
    amplitude = _finite(frames, _AMPLITUDE, path) if measured else None
    inside = np.zeros((0, 2)) if local is None else _finite(local, _LOCAL, path)
    _check_counts(numbers_of, controls, extent, path)
    _check_rows(integers(frames, _TILT, path), numbers_of, len(inside), int(controls.prod(axis=1).sum()), path)
    ends, local_ends = np.cumsum(numbers_of), np.cumsum(controls.prod(axis=1))
    found, factors = [], []
    for tilt, number in enumerate(numbers_of):
        own = slice(ends[tilt] - number, ends[tilt])
        own_local = inside[local_ends[tilt] - controls[tilt].prod() : local_ends[tilt]]
        coefficient = own_local.reshape(*controls[tilt], 2) if len(own_local) else None
        sides = (float(extent[tilt, 0]), float(extent[tilt, 1]))
        one = Motion(exposure=exposure[own], shift=shift[own], coefficient=coefficient, extent=sides)
        found.append(one if number else None)
        factors.append(amplitude[own] if number and measured else None)
    return tuple(found), tuple(factors)


def _finite(table: Block, names: tuple[str, ...], path: Path) -> np.ndarray:
    """(row, column) numbers; InputError where one is none."""
    values = np.stack([numbers(table, name, path) for name in names], axis=-1)
    if not np.isfinite(values).all():
        raise InputError(f"{path}: _{names[int(np.argwhere(~np.isfinite(values))[0, 1])]} holds what is no number")
    return values


def _check_counts(frames: np.ndarray, controls: np.ndarray, extent: np.ndarray, path: Path) -> None:
    """InputError for numbers that no motion has; splines have four control values or more on each axis, or none."""
    odd = (controls.min(axis=1) < _LEAST) & (controls != 0).any(axis=1)
    local = (controls != 0).any(axis=1) & ((frames < 1) | ~(extent > 0).all(axis=1))
    if (frames < 0).any() or (frames > _MOST).any() or (controls > _MOST).any() or odd.any() or local.any():
        raise InputError(
            f"{path}: the numbers of frames or of control values, or the extent, can be those of no motion"
        )


def _check_rows(tilt: np.ndarray, frames: np.ndarray, local: int, controls: int, path: Path) -> None:
    if not np.array_equal(tilt, np.repeat(np.arange(len(frames)) + 1, np.maximum(frames, 0))) or local != controls:
        raise InputError(f"{path}: its rows of frames or of local motion are not those that its tilts announce")


def _open(name: str, motion: Motion | None, samples: int) -> tuple[Movie | None, str]:
    if motion is None:
        return None, ""
    try:
        movie = open_movie(name).read_as(upsampling=samples, frames=motion.frames)
    except InputError as error:
        return None, str(error)
    if len(movie) != motion.frames:
        return None, f"{name}: has {len(movie)} frames, but the motion of {motion.frames} is known"
    return movie, ""
