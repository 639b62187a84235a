"""Import and export of particles: from lists of other programs into the project, and out again."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

import numpy as np

from tiltwise.data.errors import InputError
from tiltwise.data.particles import Particles
from tiltwise.data.tilt_series import TiltSeries
from tiltwise.data.volume import TomogramGrid
from tiltwise.io.m_source import read_m_source
from tiltwise.io.mrc import read_header
from tiltwise.io.particle_files import FORMATS, read_particle_files, tell_format, write_particle_files
from tiltwise.project import store
from tiltwise.project.commit import begin, commit, repair
from tiltwise.project.digests import file_digest
from tiltwise.project.layout import GIVEN, given_folder, import_folder, relative_path
from tiltwise.project.lock import project_lock
from tiltwise.project.relion_files import newest
from tiltwise.project.state import ProjectState
from tiltwise.project.tasks import finish_part


@dataclass(frozen=True, kw_only=True, slots=True)
class ImportedParticles:
    """What was read of the particles of one tilt series."""

    name: str
    """Name of the series."""
    particles: int
    """Number of particles."""
    regions: int
    """Number of regions (filaments, membranes) that the list names."""
    halves: tuple[int, int]
    """Particles of either half set; (0, 0) where the list has none."""
    form: str
    """Format of the list."""
    notes: tuple[str, ...]
    """What was left out."""


def import_particles(
    folder: Path,
    path: Path,
    *,
    form: str | None = None,
    tomograms: Path | None = None,
    grid: TomogramGrid | None = None,
) -> list[ImportedParticles]:
    """Read particles of another program for the series of a project; the step pick then takes them over.

    `form` is told from the file if not given; `tomograms` names numbered tomograms; `grid` is the tomogram that the
    list counts on, else that of the project. Particles that were imported before are replaced, series by series.
    InputError for any fault leaves the project as it was.
    """
    path = Path(path).resolve()
    if not path.exists():
        raise InputError(f"{path}: no such file or folder")
    state = ProjectState(folder)
    if not state.series:
        raise InputError(f"{state.project}: no tilt series yet; import those first: tiltwise import {folder} PATHS")
    if form is not None and form not in FORMATS:
        raise InputError(f"no particle format {form!r}; there are {', '.join(FORMATS)}")
    with project_lock(state.project):
        repair(state.project, [GIVEN])
        known = form or tell_format(path)
        particles, notes = read_particle_files(
            path, known, state.series, lambda name: grid or tomogram_grid(state, name, path), tomograms
        )
        state.save_digests()
        record = {
            "source": relative_path(path, state.project),
            "sha256": None if path.is_dir() else file_digest(path),
            "format": known,
            "tomograms": None if tomograms is None else relative_path(tomograms, state.project),
            "grid": None if grid is None else {"shape": grid.shape, "voxel_size": grid.voxel_size},
            "notes": notes,
        }
        names = sorted(set(particles.tilt_series.tolist()))
        return [_put(state.project, name, particles[particles.tilt_series == name], record) for name in names]


def export_particles(
    folder: Path,
    form: str,
    output: Path,
    *,
    only: Sequence[str] | None = None,
    kind: str = "",
    grid: TomogramGrid | None = None,
    m_source: Path | None = None,
) -> list[Path]:
    """Write the newest particles as files of another program and return these; of several kinds, those of one. Lists
    that count in voxels count on the tomograms of the project, or on `grid`; M's on the volume of its .source.
    InputError for a format that is not written, or where no particles are."""
    if form not in FORMATS:
        raise InputError(f"no particle format {form!r}; there are {', '.join(FORMATS)}")
    state = ProjectState(folder)
    particles, series = newest_particles(state, only, kind)
    source = None if m_source is None else read_m_source(m_source)
    grids = {} if form == "m" else {name: grid or tomogram_grid(state, name, output) for name in series}
    state.save_digests()
    try:
        output.mkdir(parents=True, exist_ok=True)
        sizes = {name: one.pixel_size for name, one in series.items()}
        return write_particle_files(output, particles, form, grids, sizes, source)
    except OSError as error:
        raise InputError(f"{output}: cannot be written ({error.strerror or error})") from None


def newest_particles(
    state: ProjectState, only: Sequence[str] | None, kind: str = ""
) -> tuple[Particles, dict[str, TiltSeries]]:
    """The newest particles of the named series, or of all, and by name those series that have some. kind: which of
    several kinds that the last step gives by name."""
    for name in only or ():
        if name not in state.series:
            raise InputError(f"no tilt series {name!r} in the project; it holds {', '.join(state.series)}")
    names = list(only or state.series)
    places = {name: place for name in names if (place := newest(state, "particles", name)) is not None}
    if not places:
        raise InputError(f"{state.project}: no particles yet; run: tiltwise run {state.project}")
    folders = dict.fromkeys(places.values())
    parts = {str(place): store.load("particles", place, state.project, species=kind) for place in folders}
    loaded = store.join("particles", parts)
    particles = loaded[np.isin(loaded.tilt_series, names)]
    held = sorted(set(particles.tilt_series.tolist()))
    if not held:
        raise InputError(f"{state.project}: the newest particles lie in none of {', '.join(names)}")
    series = {}
    for name in held:
        place = newest(state, "tilt_series", name) or import_folder(state.project, name)
        series[name] = store.load("tilt_series", place, state.project, series=name)
    return particles, series


def tomogram_grid(state: ProjectState, name: str, what: Path) -> TomogramGrid:
    """The grid of the newest tomogram of a series; InputError where none is reconstructed."""
    place = newest(state, "tomogram", name)
    if place is None:
        raise InputError(
            f"{what}: counts in voxels of a tomogram, and {name} has none yet; run: tiltwise reconstruct, or give "
            "voxel size and size of the tomogram"
        )
    header = read_header(place / store.VOLUMES["tomogram"])
    return TomogramGrid(shape=header.shape, voxel_size=header.voxel_size[0])


def _put(project: Path, name: str, particles: Particles, record: dict) -> ImportedParticles:
    place = given_folder(project, name)
    part = begin(place)
    store.save("particles", particles, part, project)
    stamp = {"tiltwise": version("tiltwise"), "imported": datetime.now(UTC).isoformat(timespec="seconds")}
    finish_part(part, {"state": "done", **record, **stamp})
    commit(part, place)
    return ImportedParticles(
        name=name,
        particles=len(particles),
        regions=len(np.unique(particles.region[particles.region >= 0])),
        halves=(int((particles.half_set == 1).sum()), int((particles.half_set == 2).sum())),
        form=record["format"],
        notes=record["notes"],
    )
