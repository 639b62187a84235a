"""Particles of Warp and M as STAR files.

Warp: rlnCoordinateX/Y/Z in pixels of the size the file states (rlnPixelSize, rlnImagePixelSize, or 10000 ·
rlnDetectorPixelSize / rlnMagnification), rlnAngleRot/Tilt/Psi and the series in rlnTomoName or rlnMicrographName. M:
wrpCoordinateX1/Y1/Z1 in Å, wrpAngleRot1/..., wrpSourceName. Both count from the corner of the volume, voxel i at i
times its size, and have the centre at n / 2; angles as in RELION (docs/conventions.md). RELION-4 lists differ by
rlnOriginX/Y/ZAngst, which are subtracted.
"""

from pathlib import Path

import numpy as np

from tiltwise.data.errors import InputError
from tiltwise.io.euler import euler_to_rotation, rotation_to_euler
from tiltwise.io.particle_list import ParticleList
from tiltwise.io.star import Block, integers, numbers, read_star, row_count, texts, write_star

_WARP = tuple(f"rlnCoordinate{axis}" for axis in "XYZ")
_M = tuple(f"wrpCoordinate{axis}1" for axis in "XYZ")
_ANGLES, _M_ANGLES = (tuple(f"{stem}{end}" for end in ("Rot", "Tilt", "Psi")) for stem in ("rlnAngle", "wrpAngle"))
_ORIGINS = tuple(f"rlnOrigin{axis}Angst" for axis in "XYZ")
_NAMES = ("rlnTomoName", "rlnMicrographName", "wrpSourceName")
_SCORES = ("rlnAutopickFigureOfMerit", "rlnMaxValueProbDistribution", "rlnLCCmax")
_REGION = "tiltwiseRegion"


def read_warp_particles(path: str | Path) -> ParticleList:
    """Read a list of Warp, M or RELION 4. Without a pixel size in the file, coordinates count in the tomogram's voxels.
    InputError for a file without coordinates or names of series."""
    path = Path(path)
    blocks = read_star(path)
    table = next((one for one in blocks.values() if _WARP[0] in one or _M[0] in one), None)
    if table is None:
        raise InputError(f"{path}: holds no particles (no column _rlnCoordinateX or _wrpCoordinateX1)")
    number = row_count(table)
    if not number:
        raise InputError(f"{path}: holds no particle")
    from_m = _M[0] in table
    unit, pixel = (1.0, None) if from_m else _unit(blocks, table, path)
    place = _columns(table, _M if from_m else _WARP, path)
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
        rotation=euler_to_rotation(_angles(table, path, from_m), "warp"),
        score=next((numbers(table, c, path) for c in _SCORES if c in table), np.full(number, np.nan)),
        half_set=_half_sets(table, path),
        region=integers(table, _REGION, path) if _REGION in table else np.full(number, -1),
        class_number=integers(table, "rlnClassNumber", path) if "rlnClassNumber" in table else None,
        unit=unit,
        middle="n / 2",
    )


def write_warp_particles(path: str | Path, listed: ParticleList, *, pixel_size: dict[str, float]) -> None:
    """Write what Warp's export takes (coordinates in pixels of rlnPixelSize, by tomogram in Å) of a list in Å."""
    pixel = np.array([pixel_size[name] for name in listed.tomogram.tolist()])
    angles = rotation_to_euler(listed.rotation, "warp")
    table: dict[str, object] = {
        **{column: listed.place[:, axis] / pixel for axis, column in enumerate(_WARP)},
        **{column: angles[:, axis] for axis, column in enumerate(_ANGLES)},
        "rlnMicrographName": [f"{name}.tomostar" for name in listed.tomogram.tolist()],
        "rlnPixelSize": pixel,
        _SCORES[0]: listed.score,
        _REGION: listed.region,
    }
    if np.any(listed.half_set):
        table["rlnRandomSubset"] = listed.half_set
    if listed.class_number is not None:
        table["rlnClassNumber"] = listed.class_number
    write_star(path, {"particles": table})


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


def _angles(table: Block, path: Path, from_m: bool) -> np.ndarray:
    names = tuple(f"{name}1" for name in _M_ANGLES) if from_m else _ANGLES
    if not any(name in table for name in names):
        return np.zeros((row_count(table), 3))
    angles = _columns(table, names, path)
    if not np.isfinite(angles).all():
        raise InputError(f"{path}: an angle is not a number")
    return angles


def _half_sets(table: Block, path: Path) -> np.ndarray:
    column = next((one for one in ("rlnRandomSubset", "wrpRandomSubset") if one in table), None)
    values = np.zeros(row_count(table), dtype=np.int64) if column is None else integers(table, column, path)
    return np.where((values == 1) | (values == 2), values, 0)


def _columns(table: Block, names: tuple[str, ...], path: Path) -> np.ndarray:
    return np.stack([numbers(table, name, path) for name in names], axis=1)
