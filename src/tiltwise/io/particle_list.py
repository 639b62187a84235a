"""What the particle lists of other programs have in common: places counted in their tomogram, and its name or number.

A place x (three numbers a particle) of a list whose unit is u Å stands at x u / v voxels of a tomogram of voxel size v,
the middle of the first voxel being 0. Ours is then (x u / v - c) v Å from the centre, c = n // 2 along each axis
(docs/conventions.md). Warp counts to n / 2 instead, which differs by half a voxel where n is odd.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from scipy.spatial.transform import Rotation

from tiltwise.data.errors import InputError
from tiltwise.data.particles import Particles
from tiltwise.data.volume import TomogramGrid
from tiltwise.io.text_tables import LARGEST_NUMBER, read_text

Middle = Literal["n // 2", "n / 2"]


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class ParticleList:
    tomogram: np.ndarray
    """(particle,) name or number of the tomogram, text as in the file."""
    place: np.ndarray
    """(particle, 3) x, y, z in `unit`, 0 in the middle of the first voxel; shifts are added."""
    rotation: Rotation
    """(particle,) maps reference vectors to tomogram vectors."""
    score: np.ndarray
    """(particle,) nan where there is none."""
    half_set: np.ndarray
    """(particle,) 1 or 2; 0 where not assigned."""
    region: np.ndarray
    """(particle,) number of filament, membrane or field; -1 where not stated."""
    class_number: np.ndarray | None = None
    """(particle,) from 1; None where not stated. Written, not taken over: a number is no posterior."""
    unit: float | None = None
    """Å of one unit of `place`; None: the tomogram's own voxels."""
    middle: Middle = "n // 2"
    """Where the list has the centre of a tomogram of n voxels."""


def place_particles(
    listed: ParticleList, series: Mapping[str, str], grids: Mapping[str, TomogramGrid], path: str | Path
) -> Particles:
    """Particles of a list, its tomograms being those series, on those grids (by series)."""
    names = np.array([series[tomogram] for tomogram in listed.tomogram.tolist()], dtype=str)
    if not (np.isfinite(listed.place).all() and (np.abs(listed.place) < LARGEST_NUMBER).all()):
        raise InputError(f"{path}: a coordinate is not a number, or too large")
    position = np.empty((len(names), 3))
    for name in dict.fromkeys(names.tolist()):
        grid, own = grids[name], names == name
        unit = grid.voxel_size if listed.unit is None else listed.unit
        position[own] = listed.place[own] * unit - _centre(grid, listed.middle) * grid.voxel_size
    return Particles(
        tilt_series=names,
        position=position,
        rotation=listed.rotation,
        score=listed.score,
        half_set=listed.half_set,
        region=listed.region,
    )


def list_particles(
    particles: Particles,
    tomograms: Mapping[str, str],
    grids: Mapping[str, TomogramGrid],
    *,
    unit: Literal["voxel", "Å"] = "voxel",
    middle: Middle = "n // 2",
) -> ParticleList:
    """The inverse of place_particles; `tomograms` names those of the list by series."""
    place = np.empty((len(particles), 3))
    for name in dict.fromkeys(particles.tilt_series.tolist()):
        grid, own = grids[name], particles.tilt_series == name
        length = 1.0 if unit == "Å" else grid.voxel_size
        place[own] = (particles.position[own] + _centre(grid, middle) * grid.voxel_size) / length
    return ParticleList(
        tomogram=np.array([tomograms[name] for name in particles.tilt_series.tolist()], dtype=str),
        place=place,
        rotation=particles.rotation,
        score=np.asarray(particles.score, dtype=np.float64),
        half_set=np.asarray(particles.half_set, dtype=np.int64),
        region=np.asarray(particles.region, dtype=np.int64),
        class_number=particles.class_number,
        unit=1.0 if unit == "Å" else None,
        middle=middle,
    )


def join_lists(lists: Sequence[ParticleList]) -> ParticleList:
    """One list of several of the same format, in a row."""
    return ParticleList(
        rotation=Rotation.concatenate([one.rotation for one in lists]),
        unit=lists[0].unit,
        middle=lists[0].middle,
        **{
            name: np.concatenate([getattr(one, name) for one in lists])
            for name in ("tomogram", "place", "score", "half_set", "region")
        },
    )


def read_tomogram_map(path: str | Path) -> dict[str, str]:
    """Names of tomograms by number, as text: Dynamo's .doc (`number file` a line) or .vll (a file a line, from 1)."""
    rows = [line.split(maxsplit=1) for line in read_text(path).splitlines() if line.strip() and line[0] not in "#*%"]
    found = {}
    for number, words in enumerate(rows, start=1):
        numbered = len(words) == 2 and words[0].isdigit()
        found[str(int(words[0])) if numbered else str(number)] = words[1] if numbered else " ".join(words)
    if not found:
        raise InputError(f"{path}: names no tomogram; write 'number name' a line")
    return found


def write_tomogram_map(path: str | Path, names: Iterable[str]) -> None:
    """Number the names from 1, one a line."""
    lines = (f"{number} {name}\n" for number, name in enumerate(names, start=1))
    Path(path).write_text("".join(lines), encoding="utf-8")


def match_series(tomogram: str, series: Iterable[str]) -> str | None:
    """The series that a tomogram's name or path stands for: the longest whose name begins its last part and ends there
    at a character that is no letter or digit (TS_03 of rec/TS_03_10.0Apx.mrc); None where there is none."""
    last = tomogram.replace("\\", "/").rstrip("/").rpartition("/")[2]
    fitting = [name for name in series if last.startswith(name) and not last[len(name) : len(name) + 1].isalnum()]
    return max(fitting, key=len, default=None)


def _centre(grid: TomogramGrid, middle: Middle) -> np.ndarray:
    """(3,) x, y, z in voxels."""
    size = np.array(grid.shape[::-1], dtype=np.float64)
    return size // 2 if middle == "n // 2" else size / 2
