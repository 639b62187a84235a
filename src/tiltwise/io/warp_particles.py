"""Particles of Warp and M as STAR files.

Warp: rlnCoordinateX/Y/Z in pixels of the size the file states (rlnPixelSize, rlnImagePixelSize, or 10000 ·
rlnDetectorPixelSize / rlnMagnification), rlnAngleRot/Tilt/Psi and the series in rlnTomoName or rlnMicrographName. M
(WarpLib/Sociology/Species.cs, ParticlesToStar): wrpCoordinateX1/Y1/Z1 in Å and wrpAngleRot1/..., with a second and more
where it lets particles move over the exposure, wrpRandomSubset 1 or 2, the series in wrpSourceName and, for M itself,
wrpSourceHash; further columns pass through it. Both count from the corner of the volume, voxel i at i times its size,
and have the centre at n / 2; angles as in RELION (docs/conventions.md). RELION-4 lists differ by rlnOriginX/Y/ZAngst,
which are subtracted.
"""

from itertools import count, takewhile
from pathlib import Path

import numpy as np
from scipy.spatial.transform import Rotation

from tiltwise.data.errors import InputError
from tiltwise.io.euler import euler_to_rotation, rotation_to_euler
from tiltwise.io.m_source import MSource, source_files
from tiltwise.io.particle_list import ParticleList
from tiltwise.io.region_columns import read_regions, region_columns
from tiltwise.io.star import Block, integers, numbers, read_star, row_count, texts, write_star
from tiltwise.io.text_tables import LARGEST_NUMBER

_WARP = tuple(f"rlnCoordinate{axis}" for axis in "XYZ")
_M = tuple(f"wrpCoordinate{axis}" for axis in "XYZ")
_ANGLES, _M_ANGLES = (tuple(f"{stem}{end}" for end in ("Rot", "Tilt", "Psi")) for stem in ("rlnAngle", "wrpAngle"))
_ORIGINS = tuple(f"rlnOrigin{axis}Angst" for axis in "XYZ")
_NAMES = ("rlnTomoName", "rlnMicrographName", "wrpSourceName")
_SCORES = ("rlnAutopickFigureOfMerit", "rlnMaxValueProbDistribution", "rlnLCCmax")


def read_warp_particles(path: str | Path) -> ParticleList:
    """Read a list of Warp, M or RELION 4. Without a pixel size in the file, coordinates count in the tomogram's voxels;
    of a particle that M lets move, the mean over its samples in time is taken, as M's own lists for RELION do.
    InputError for a file without coordinates or names of series."""
    path = Path(path)
    blocks = read_star(path)
    table = next((one for one in blocks.values() if _WARP[0] in one or f"{_M[0]}1" in one), None)
    if table is None:
        raise InputError(f"{path}: holds no particles (no column _rlnCoordinateX or _wrpCoordinateX1)")
    number = row_count(table)
    if not number:
        raise InputError(f"{path}: holds no particle")
    from_m = f"{_M[0]}1" in table
    unit, pixel = (1.0, None) if from_m else _unit(blocks, table, path)
    place = _mean_place(table, path) if from_m else _columns(table, _WARP, path)
    place = place if pixel is None else place * pixel[:, None]
    if any(column in table for column in _ORIGINS):
        if unit is None:
            raise InputError(f"{path}: has shifts in Å (_rlnOriginXAngst) but states no pixel size")
        place = place - _columns(table, _ORIGINS, path)
    names = next((column for column in _NAMES if column in table), None)
    if names is None:
        raise InputError(f"{path}: lacks the name of the tilt series (_rlnTomoName or _rlnMicrographName)")
    return ParticleList(
        tomogram=np.array(texts(table, names, path), dtype=str),
        place=place,
        rotation=_rotation(table, path, from_m),
        score=next((numbers(table, c, path) for c in _SCORES if c in table), np.full(number, np.nan)),
        half_set=_half_sets(table, path),
        region=read_regions(table, path),
        class_number=integers(table, "rlnClassNumber", path) if "rlnClassNumber" in table else None,
        unit=unit,
        middle="n / 2",
    )


def write_warp_particles(path: str | Path, listed: ParticleList, *, pixel_size: dict[str, float]) -> None:
    """Write what Warp's export takes (coordinates in pixels of rlnPixelSize, by tomogram in Å) of a list in Å."""
    pixel = np.array([pixel_size[name] for name in listed.tomogram.tolist()])
    table: dict[str, object] = {
        **_spread(_WARP, listed.place / pixel[:, None]),
        **_spread(_ANGLES, rotation_to_euler(listed.rotation, "warp")),
        "rlnMicrographName": [f"{name}.tomostar" for name in listed.tomogram.tolist()],
        "rlnPixelSize": pixel,
        **_what_else(listed),
    }
    if np.any(listed.half_set):
        table["rlnRandomSubset"] = listed.half_set
    write_star(path, {"particles": table})


def write_m_particles(path: str | Path, listed: ParticleList, source: MSource) -> None:
    """Write a list in Å, on the volume of a source of M, as M keeps its particles. InputError for a series that the
    source has not, and where a particle belongs to no half: M takes no such particle."""
    without = int(np.count_nonzero((listed.half_set != 1) & (listed.half_set != 2)))
    if without:
        raise InputError(f"{path}: M takes particles of two halves, and {without} belong to none; run refine first")
    file_of = source_files(source, dict.fromkeys(listed.tomogram.tolist()))
    files = [file_of[name] for name in listed.tomogram.tolist()]
    table: dict[str, object] = {
        **_spread(_sample(_M, 1), listed.place),
        **_spread(_sample(_M_ANGLES, 1), rotation_to_euler(listed.rotation, "warp")),
        "wrpRandomSubset": listed.half_set,
        "wrpSourceName": files,
        "wrpSourceHash": [source.hashes[file] for file in files],
        **_what_else(listed),
    }
    write_star(path, {"": table})


def _what_else(listed: ParticleList) -> dict[str, object]:
    """Scores, regions and, where stated, classes."""
    classes = {} if listed.class_number is None else {"rlnClassNumber": listed.class_number}
    return {_SCORES[0]: listed.score, **region_columns(listed.region), **classes}


def _unit(blocks: dict[str, Block], table: Block, path: Path) -> tuple[float | None, np.ndarray | None]:
    """Å of one unit once places are multiplied by (particle,) Å a pixel; None, None where no size is stated."""
    number = row_count(table)
    for column in ("rlnPixelSize", "rlnImagePixelSize"):
        if column in table:
            return 1.0, _positive(numbers(table, column, path), column, path)
    if "rlnDetectorPixelSize" in table and "rlnMagnification" in table:
        ratio = _positive(numbers(table, "rlnDetectorPixelSize", path), "rlnDetectorPixelSize", path) * 1e4
        return 1.0, ratio / _positive(numbers(table, "rlnMagnification", path), "rlnMagnification", path)
    optics = blocks.get("optics", {})
    if "rlnImagePixelSize" in optics:
        sizes = _positive(numbers(optics, "rlnImagePixelSize", path), "rlnImagePixelSize", path)
        if np.ptp(sizes) == 0:
            return 1.0, np.full(number, sizes[0])
        raise InputError(f"{path}: its optics groups have different pixel sizes; split it")
    return None, None


def _positive(values: np.ndarray, column: str, path: Path) -> np.ndarray:
    if not (np.isfinite(values).all() and (values > 1e-3).all() and (values < 1e6).all()):
        raise InputError(f"{path}: _{column} holds a value that is no size")
    return values


def _mean_place(table: Block, path: Path) -> np.ndarray:
    """(particle, 3) Å, the mean over M's samples in time."""
    places = np.stack([_columns(table, names, path) for names in _samples(table, _M)])
    if not (np.abs(places) < LARGEST_NUMBER).all():
        raise InputError(f"{path}: a coordinate is not a number, or too large")
    return places.mean(axis=0)


def _rotation(table: Block, path: Path, from_m: bool) -> Rotation:
    """(particle,) of the angles, or of the mean over M's samples in time; without any angle the identity."""
    samples = _samples(table, _M_ANGLES) if from_m else [_ANGLES]
    if not any(name in table for name in samples[0]):
        return euler_to_rotation(np.zeros((row_count(table), 3)), "warp")
    angles = [_columns(table, names, path) for names in samples]
    if not np.isfinite(angles).all():
        raise InputError(f"{path}: an angle is not a number")
    rotations = [euler_to_rotation(one, "warp") for one in angles]
    if len(rotations) == 1:
        return rotations[0]
    turns = np.mean([(rotations[0].inv() * one).as_rotvec() for one in rotations], axis=0)
    return rotations[0] * Rotation.from_rotvec(turns)


def _samples(table: Block, stems: tuple[str, ...]) -> list[tuple[str, ...]]:
    """The columns of M's samples in time, the first whether it is there or not."""
    more = takewhile(lambda names: all(name in table for name in names), (_sample(stems, n) for n in count(2)))
    return [_sample(stems, 1), *more]


def _sample(stems: tuple[str, ...], number: int) -> tuple[str, ...]:
    return tuple(f"{stem}{number}" for stem in stems)


def _half_sets(table: Block, path: Path) -> np.ndarray:
    column = next((one for one in ("rlnRandomSubset", "wrpRandomSubset") if one in table), None)
    values = np.zeros(row_count(table), dtype=np.int64) if column is None else integers(table, column, path)
    return np.where((values == 1) | (values == 2), values, 0)


def _columns(table: Block, names: tuple[str, ...], path: Path) -> np.ndarray:
    return np.stack([numbers(table, name, path) for name in names], axis=1)


def _spread(names: tuple[str, ...], values: np.ndarray) -> dict[str, np.ndarray]:
    return {name: values[:, axis] for axis, name in enumerate(names)}
