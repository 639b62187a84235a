"""Particles in files of any program: told apart, read for the series of a project, and written."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np

from tiltwise.data.errors import InputError
from tiltwise.data.particles import Particles
from tiltwise.data.volume import TomogramGrid
from tiltwise.io.copick import read_copick, write_copick, write_copick_config
from tiltwise.io.dynamo import read_dynamo, write_dynamo
from tiltwise.io.em import read_em, write_em
from tiltwise.io.m_source import MSource
from tiltwise.io.particle_list import (
    ParticleList,
    join_lists,
    list_particles,
    match_series,
    place_particles,
    read_tomogram_map,
    write_tomogram_map,
)
from tiltwise.io.peet import read_peet, write_peet
from tiltwise.io.relion import read_optimisation_set, read_particles
from tiltwise.io.relion.tilt_series import relion_root
from tiltwise.io.star import read_star
from tiltwise.io.stopgap import BLOCK as STOPGAP_BLOCK
from tiltwise.io.stopgap import read_stopgap, write_stopgap
from tiltwise.io.warp_particles import read_warp_particles, write_m_particles, write_warp_particles

FORMATS = ("relion", "warp", "m", "dynamo", "stopgap", "em", "copick", "peet")
"""What is read; `write_particle_files` writes all but relion, whose sets the project writes."""
_BY_SUFFIX = {".tbl": "dynamo", ".em": "em", ".json": "copick", ".mod": "peet"}
_MAPS = (".doc", ".vll")
_CENTRED, _SET, _OF_M = "rlnCenteredCoordinateXAngst", "rlnTomoParticlesFile", "wrpCoordinateX1"
_READERS: dict[str, Callable[[Path], ParticleList]] = {
    "warp": read_warp_particles,
    "m": read_warp_particles,
    "dynamo": read_dynamo,
    "stopgap": read_stopgap,
    "em": read_em,
    "copick": read_copick,
    "peet": read_peet,
}


def tell_format(path: Path) -> str:
    """The format of a file by its suffix, of a STAR file by its columns, of a folder by what lies in it."""
    if path.is_dir():
        return "copick" if next(path.rglob("Picks/*.json"), None) else "peet"
    suffix = path.suffix.lower()
    if suffix in _BY_SUFFIX:
        return _BY_SUFFIX[suffix]
    if suffix != ".star":
        raise InputError(f"{path}: its format is not known; name one of {', '.join(FORMATS)}")
    blocks = read_star(path)
    if STOPGAP_BLOCK in blocks:
        return "stopgap"
    if any(_CENTRED in one or _SET in one for one in blocks.values()):
        return "relion"
    return "m" if any(_OF_M in one for one in blocks.values()) else "warp"


def read_particle_files(
    path: Path,
    form: str,
    series: Sequence[str],
    grid_of: Callable[[str], TomogramGrid],
    tomograms: Path | None = None,
) -> tuple[Particles, tuple[str, ...]]:
    """The particles of a file (copick, PEET: or a folder) that lie in these series, and notes on what was left out.

    `grid_of` gives the tomogram, on which the file counts, of a series; `tomograms` is a file that names numbered ones,
    else the .doc or .vll of the same stem beside the file is taken. InputError in one line for any fault.
    """
    if form == "relion":
        return _of_these(*_read_relion(path), series, path)
    if form not in _READERS:
        raise InputError(f"no particle format {form!r}; there are {', '.join(FORMATS)}")
    listed = join_lists([_READERS[form](file) for file in _files(path, form)])
    named = _series_of(listed, series, tomograms or _map_beside(path), path)
    inside = np.isin(listed.tomogram, list(named))
    if not inside.any():
        raise InputError(_no_series(path, listed.tomogram[0], series))
    grids = {name: grid_of(name) for name in dict.fromkeys(named.values())}
    kept = ParticleList(
        unit=listed.unit,
        middle=listed.middle,
        **{
            field: getattr(listed, field)[inside]
            for field in ("tomogram", "place", "rotation", "score", "half_set", "region")
        },
    )
    return place_particles(kept, named, grids, path), _left_out(listed.tomogram[~inside])


def write_particle_files(
    folder: Path,
    particles: Particles,
    form: str,
    grids: Mapping[str, TomogramGrid],
    pixel_sizes: Mapping[str, float],
    m_source: MSource | None = None,
) -> list[Path]:
    """Write particles as files of another program into a folder; the new files. Grids and pixel sizes (Å) by series;
    the source of M, on whose volume its list counts. InputError in one line for any fault."""
    names = sorted(set(particles.tilt_series.tolist()))
    if form in ("dynamo", "stopgap", "em"):
        suffix, write = {
            "dynamo": (".tbl", write_dynamo),
            "stopgap": (".star", write_stopgap),
            "em": (".em", write_em),
        }[form]
        path = folder / f"particles{suffix}"
        numbers = {name: str(number) for number, name in enumerate(names, start=1)}
        write(path, list_particles(particles, numbers, grids))
        write_tomogram_map(path.with_suffix(_MAPS[0]), names)
        return [path, path.with_suffix(_MAPS[0])]
    same = {name: name for name in names}
    if form == "warp":
        path = folder / "particles.star"
        listed = list_particles(particles, same, grids, unit="Å", middle="n / 2")
        write_warp_particles(path, listed, pixel_size=dict(pixel_sizes))
        return [path]
    if form == "m":
        if m_source is None:
            raise InputError("M finds tilt series by the hashes of its source: name its .source file (--m-source)")
        path, grids = folder / "particles.star", dict.fromkeys(names, m_source.grid)
        write_m_particles(path, list_particles(particles, same, grids, unit="Å", middle="n / 2"), m_source)
        return [path]
    if form == "copick":
        own = {name: list_particles(particles[particles.tilt_series == name], same, grids, unit="Å") for name in names}
        picks = [write_copick(folder, one, voxel_size=grids[name].voxel_size) for name, one in own.items()]
        return [write_copick_config(folder), *picks]
    if form == "peet":
        own = {name: list_particles(particles[particles.tilt_series == name], same, grids) for name in names}
        return [path for name, one in own.items() for path in write_peet(folder / f"{name}.mod", one, grids[name])]
    raise InputError(f"no particle format {form!r}; there are {', '.join(FORMATS)}")


def _read_relion(path: Path) -> tuple[Particles, str]:
    """RELION-5's particles: of particles.star, or of the optimisation set that names it with its tomograms."""
    blocks = read_star(path)
    if not any(_SET in one for one in blocks.values()):
        tomograms = path.with_name("tomograms.star")
        return read_particles(path, tomograms=tomograms if tomograms.is_file() else None), path.name
    files = read_optimisation_set(path)
    if "particles" not in files:
        raise InputError(f"{path}: names no {_SET}")
    root = relion_root(path, [files["particles"]])
    tomograms = root / files["tomograms"] if "tomograms" in files else None
    found = tomograms if tomograms is not None and tomograms.is_file() else None
    return read_particles(root / files["particles"], tomograms=found), files["particles"]


def _of_these(particles: Particles, name: str, series: Sequence[str], path: Path) -> tuple[Particles, tuple[str, ...]]:
    inside = np.isin(particles.tilt_series, list(series))
    if not inside.any():
        first = particles.tilt_series[0] if len(particles) else name
        raise InputError(_no_series(path, first, series))
    return particles[inside], _left_out(particles.tilt_series[~inside])


def _files(path: Path, form: str) -> list[Path]:
    if not path.is_dir():
        return [path]
    pattern = {"copick": "Picks/*.json", "peet": "*.mod"}.get(form)
    found = sorted(path.rglob(pattern)) if pattern else []
    if not found:
        raise InputError(f"{path}: this folder holds no particles of {form}; name a file")
    return found


def _map_beside(path: Path) -> Path | None:
    return next((file for suffix in _MAPS if (file := path.with_suffix(suffix)).is_file()), None)


def _series_of(listed: ParticleList, series: Sequence[str], tomograms: Path | None, path: Path) -> dict[str, str]:
    """The series by the list's names of tomograms; those of other series are absent. A number without a list of names
    is known only where one number and one series are all there are."""
    found = list(dict.fromkeys(listed.tomogram.tolist()))
    if tomograms is not None and all(name.isdigit() for name in found):
        names = read_tomogram_map(tomograms)
        missing = [number for number in found if number not in names]
        if missing:
            raise InputError(f"{tomograms}: does not name tomogram {missing[0]} of {path}")
    else:
        names = {name: name for name in found}
    matched = {name: match_series(names[name], series) for name in found}
    if len(found) == len(series) == 1 and found[0].isdigit() and tomograms is None:
        matched = {found[0]: series[0]}
    return {name: one for name, one in matched.items() if one is not None}


def _no_series(path: Path, tomogram: str, series: Sequence[str]) -> str:
    held = f"the project holds {', '.join(list(series)[:4])}{' ...' if len(series) > 4 else ''}"
    if str(tomogram).isdigit():
        return f"{path}: tomogram {tomogram} is a number; name a file of 'number series' lines; {held}"
    return f"{path}: no tilt series of the project is called as its tomogram {tomogram}; {held}"


def _left_out(tomograms: np.ndarray) -> tuple[str, ...]:
    others = list(dict.fromkeys(tomograms.tolist()))
    if not others:
        return ()
    return (f"{len(tomograms)} particles of {len(others)} other tomograms are left out ({others[0]} ...)",)
