"""Particles as RELION-5 writes them, and the optimisation set that names them together with their tomograms.

With A = R('ZYZ', [rot, tilt, psi])⁻¹ (intrinsic), the total orientation is A(rlnTomoSubtomogram*) · A(rlnAngle*),
reference to tomogram, and the centre is the centred coordinate minus A(rlnTomoSubtomogram*) · rlnOrigin
(docs/conventions.md).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy.spatial.transform import Rotation

from tiltwise.data.errors import InputError
from tiltwise.data.particles import Particles
from tiltwise.data.tilt_series import TiltSeries
from tiltwise.io.euler import euler_to_rotation, rotation_to_euler
from tiltwise.io.region_columns import read_regions, region_columns
from tiltwise.io.star import Block, block, integers, numbers, read_star, row_count, single_text, texts, write_star

_COORDINATES = tuple(f"rlnCenteredCoordinate{axis}Angst" for axis in "XYZ")
_ORIGINS = tuple(f"rlnOrigin{axis}Angst" for axis in "XYZ")
_ANGLES = ("rlnAngleRot", "rlnAngleTilt", "rlnAnglePsi")
_SUBTOMOGRAM_ANGLES = ("rlnTomoSubtomogramRot", "rlnTomoSubtomogramTilt", "rlnTomoSubtomogramPsi")
_ANGLE_DECIMALS = 9
_SCORE = "rlnAutopickFigureOfMerit"
_CLASS, _POSTERIOR = "rlnClassNumber", "tiltwiseClassPosterior"
_PATH = "tiltwisePath"
_UNCERTAINTY = ("tiltwiseRotationErrorDeg", "tiltwisePositionErrorAngst")
_FILES = {
    "particles": "rlnTomoParticlesFile",
    "tomograms": "rlnTomoTomogramsFile",
    "trajectories": "rlnTomoTrajectoriesFile",
}


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class StackFiles:
    """The 2D stacks of particles, times the CTF (`ops.particles.stacks`), as particles.star lists them."""

    names: tuple[str, ...]
    """(particle,) file of each, relative to RELION's folder."""
    visible: tuple[np.ndarray, ...]
    """(particle,) of (used tilt,) bool: the tilts that its stack holds."""
    box_size: int
    """Side, px."""
    binning: int
    """Of the pixels."""


def write_particles(
    path: str | Path,
    particles: Particles,
    *,
    tilt_series: Mapping[str, TiltSeries] | None = None,
    stacks: StackFiles | None = None,
) -> None:
    """Write a RELION-5 particles.star, from which `read_particles` gives the particles back.

    The whole orientation goes into rlnAngle*, the whole position into the centred coordinate. With `tilt_series` the
    optics table is written too, one group for each different setting; RELION's own picks go without. With `stacks`,
    which need it, also the columns of RELION's subtomo job. Regions are tubes of a helix to RELION (io/region_columns).
    """
    count = len(particles)
    angles = _to_relion_angles(particles.rotation) if count else np.empty((0, 3))
    table: dict[str, object] = {
        "rlnTomoName": [str(name) for name in particles.tilt_series],
        "rlnTomoParticleName": [f"{name}/{index + 1}" for index, name in enumerate(particles.tilt_series)],
        **_spread(_COORDINATES, np.asarray(particles.position, dtype=np.float64)),
        **_spread(_ANGLES, angles),
        _SCORE: np.asarray(particles.score, dtype=np.float64),
        **region_columns(particles.region),
    }
    if np.any(particles.half_set):
        table["rlnRandomSubset"] = np.asarray(particles.half_set, dtype=np.int64)
    if particles.class_posterior is not None:
        table[_CLASS] = particles.class_number
        table |= {f"{_POSTERIOR}{k}": values for k, values in enumerate(particles.class_posterior.T, start=1)}
    for mode in range(0 if particles.trajectory is None else particles.trajectory.shape[1]):
        table |= _spread(_path_columns(mode + 1), particles.trajectory[:, mode])
    if particles.uncertainty is not None:
        table |= _spread(_UNCERTAINTY, np.asarray(particles.uncertainty, dtype=np.float64))
    blocks: dict[str, dict[str, object]] = {"particles": table}
    if tilt_series is not None:
        optics, group = _optics_table(particles, tilt_series)
        table["rlnOpticsGroup"] = group
        if stacks is not None:
            _add_stacks(table, optics, stacks)
        blocks = {"general": {"rlnTomoSubTomosAre2DStacks": 1}, "optics": optics, "particles": table}
    write_star(path, blocks)


def _add_stacks(table: dict[str, object], optics: dict[str, object], stacks: StackFiles) -> None:
    """What RELION's subtomo job adds to the particles and to the optics."""
    zeros = np.zeros(len(stacks.names))
    table |= dict.fromkeys(_ORIGINS, zeros)
    table["rlnImageName"] = list(stacks.names)
    table["rlnTomoVisibleFrames"] = [f"[{','.join(str(int(seen)) for seen in one)}]" for one in stacks.visible]
    groups = len(optics["rlnOpticsGroup"])
    optics |= {
        "rlnCtfDataAreCtfPremultiplied": [1] * groups,
        "rlnImageDimensionality": [2] * groups,
        "rlnTomoSubtomogramBinning": [float(stacks.binning)] * groups,
        "rlnImagePixelSize": [size * stacks.binning for size in optics["rlnTomoTiltSeriesPixelSize"]],
        "rlnImageSize": [stacks.box_size] * groups,
    }


def read_particles(path: str | Path, *, tomograms: str | Path | None = None) -> Particles:
    """Read RELION-5 particles. Score is rlnAutopickFigureOfMerit, else rlnMaxValueProbDistribution, else nan; without
    any angle, as RELION's picks are written, the rotation is the identity.

    RELION counts a centred coordinate from n / 2 but projects about the whole part of n / 2, so in a tomogram of odd
    size its points lie half a pixel further: with `tomograms`, the tomograms.star, that is put right (for even sizes
    there is nothing to do). Raises InputError for a file without centred coordinates, and for a missing column.
    """
    path = Path(path)
    blocks = read_star(path)
    table = blocks[""] if list(blocks) == [""] else block(blocks, "particles", path)
    names = np.array(texts(table, "rlnTomoName", path), dtype=str)
    position = _gathered(table, _COORDINATES, path)
    subtomogram = _rotation(table, _SUBTOMOGRAM_ANGLES, path)
    if any(column in table for column in _ORIGINS):
        position = position - _rotate(subtomogram, _gathered(table, _ORIGINS, path))
    if tomograms is not None:
        position = position + _odd_size_correction(names, Path(tomograms))
    return Particles(
        tilt_series=names,
        position=position,
        rotation=_compose(subtomogram, _rotation(table, _ANGLES, path), len(names)),
        score=_score(table, path),
        half_set=_integers_or(table, "rlnRandomSubset", 0, path),
        region=read_regions(table, path),
        class_posterior=_class_posterior(table, path),
        trajectory=_trajectory(table, path),
        uncertainty=_gathered(table, _UNCERTAINTY, path) if _UNCERTAINTY[0] in table else None,
    )


def write_optimisation_set(path: str | Path, **files: str | Path) -> None:
    """Write the file that names `particles`, `tomograms` and, where known, `trajectories` for RELION."""
    unknown = set(files) - set(_FILES)
    if unknown:
        raise ValueError(f"an optimisation set has no {sorted(unknown)}")
    write_star(path, {"": {_FILES[key]: str(value) for key, value in files.items()}})


def read_optimisation_set(path: str | Path) -> dict[str, str]:
    """The files that an optimisation set names, by `particles`, `tomograms`, `trajectories`; those it has."""
    path = Path(path)
    blocks = read_star(path)
    table = blocks.get("optimisation_set", blocks.get(""))
    if table is None:
        raise InputError(f"{path}: has neither a block data_ nor data_optimisation_set")
    found = {key: single_text(table, column, path) for key, column in _FILES.items() if column in table}
    if "particles" not in found and "tomograms" not in found:
        raise InputError(f"{path}: names neither rlnTomoParticlesFile nor rlnTomoTomogramsFile")
    return {key: value for key, value in found.items() if value}


def _to_relion_angles(rotation: Rotation) -> np.ndarray:
    angles = rotation_to_euler(rotation, "relion")
    return np.round(angles, _ANGLE_DECIMALS) + 0.0  # rounded, so that reading and writing again gives the same text


def _rotation(table: Block, columns: tuple[str, str, str], path: Path) -> Rotation | None:
    """The rotations of three angle columns; None where the table has none of them."""
    if not any(column in table for column in columns):
        return None
    angles = _gathered(table, columns, path)
    if not np.isfinite(angles).all():
        raise InputError(f"{path}: {columns[0]} and its two companions hold a value that is not finite")
    return euler_to_rotation(angles, "relion") if len(angles) else _identity(0)


def _compose(first: Rotation | None, second: Rotation | None, count: int) -> Rotation:
    if first is None or second is None or not count:
        known = first if first is not None else second
        return _identity(count) if known is None else known
    return first * second


def _rotate(rotation: Rotation | None, vectors: np.ndarray) -> np.ndarray:
    return vectors if rotation is None or not len(vectors) else rotation.apply(vectors)


def _identity(count: int) -> Rotation:
    return Rotation.from_quat(np.tile([0.0, 0.0, 0.0, 1.0], (count, 1)))


def _spread(columns: tuple[str, ...], array: np.ndarray) -> dict[str, np.ndarray]:
    return {column: array[:, axis] for axis, column in enumerate(columns)}


def _gathered(table: Block, columns: tuple[str, ...], path: Path) -> np.ndarray:
    return np.stack([numbers(table, column, path) for column in columns], axis=1)


def _score(table: Block, path: Path) -> np.ndarray:
    for column in (_SCORE, "rlnMaxValueProbDistribution"):
        if column in table:
            return numbers(table, column, path)
    return np.full(row_count(table), np.nan)


def _integers_or(table: Block, column: str, default: int, path: Path) -> np.ndarray:
    return integers(table, column, path) if column in table else np.full(row_count(table), default)


def _class_posterior(table: Block, path: Path) -> np.ndarray | None:
    """(particle, class) where the file has it; RELION's own class numbers come without."""
    columns = [f"{_POSTERIOR}{k}" for k in range(1, len(table) + 1)]
    known = [column for column in columns if column in table]
    return np.stack([numbers(table, column, path) for column in known], axis=1) if known else None


def _path_columns(mode: int) -> tuple[str, ...]:
    return tuple(f"{_PATH}{mode}{axis}Angst" for axis in "XYZ")


def _trajectory(table: Block, path: Path) -> np.ndarray | None:
    """(particle, mode, 3) where the file has paths, Å."""
    known = [mode for mode in range(1, len(table) + 1) if _path_columns(mode)[0] in table]
    return np.stack([_gathered(table, _path_columns(mode), path) for mode in known], axis=1) if known else None


def _odd_size_correction(names: np.ndarray, path: Path) -> np.ndarray:
    """(particle, 3) Å to add to RELION's centred coordinates: half a pixel along each axis of odd size."""
    table = block(read_star(path), "global", path)
    sizes = np.stack([integers(table, f"rlnTomoSize{axis}", path) for axis in "XYZ"], axis=1)
    pixel = numbers(table, "rlnTomoTiltSeriesPixelSize", path)
    shift = dict(zip(texts(table, "rlnTomoName", path), 0.5 * pixel[:, None] * (sizes % 2), strict=True))
    missing = set(names.tolist()) - set(shift)
    if missing:
        raise InputError(f"{path}: lacks the tomogram {sorted(missing)[0]} that particles name")
    return np.array([shift[name] for name in names.tolist()]).reshape(-1, 3)


def _optics_table(particles: Particles, tilt_series: Mapping[str, TiltSeries]) -> tuple[dict[str, object], np.ndarray]:
    """One row for each different microscope setting and pixel size, and (particle,) the number of its row."""
    group_of: dict[tuple[float, ...], int] = {}
    group_of_name = {}
    for name in dict.fromkeys(particles.tilt_series.tolist()):
        if name not in tilt_series:
            raise ValueError(f"particles lie in tilt series {name}, which is not among those given")
        series = tilt_series[name]
        optics = series.optics
        key = (optics.voltage, optics.spherical_aberration, optics.amplitude_contrast, series.pixel_size)
        group_of_name[name] = group_of.setdefault(tuple(map(float, key)), len(group_of) + 1)
    columns = ("rlnVoltage", "rlnSphericalAberration", "rlnAmplitudeContrast", "rlnTomoTiltSeriesPixelSize")
    table: dict[str, object] = {
        "rlnOpticsGroup": list(group_of.values()),
        "rlnOpticsGroupName": [f"optics{number}" for number in group_of.values()],
    }
    table |= {column: [key[place] for key in group_of] for place, column in enumerate(columns)}
    group = np.array([group_of_name[name] for name in particles.tilt_series.tolist()], dtype=np.int64)
    return table, group
