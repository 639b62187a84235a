"""The project as RELION-5 sees it: star files in the project folder, from the newest results that stand."""

from pathlib import Path

from tiltwise.data.errors import InputError
from tiltwise.data.tilt_series import TiltSeries
from tiltwise.io.mrc import read_header
from tiltwise.io.relion import TomogramFile, write_optimisation_set, write_particles, write_tilt_series_set
from tiltwise.project import graph, store
from tiltwise.project.graph import Item
from tiltwise.project.layout import ALL, import_folder
from tiltwise.project.state import ProjectState

TILT_SERIES, TOMOGRAMS, PARTICLES, OPTIMISATION = (
    "tilt_series.star",
    "tomograms.star",
    "particles.star",
    "optimisation_set.star",
)


def write_relion_files(state: ProjectState) -> None:
    """Write tilt_series.star, and as far as there are any tomograms.star, particles.star and optimisation_set.star;
    of several kinds of particles the latter two for each, called particles_NAME.star. RELION, started in the project
    folder, opens them as they are. They follow from the results, and are written anew after every run."""
    root = state.project
    series = {name: found for name in state.series if (found := _tilt_series(state, name))}
    if not series:
        return
    write_tilt_series_set(root / TILT_SERIES, series.values())
    tomograms = {name: _tomogram_file(folder) for name in series if (folder := newest(state, "tomogram", name))}
    listed = [series[name] for name in tomograms]
    if listed:
        write_tilt_series_set(root / TOMOGRAMS, listed, tomograms=tomograms)
    folders = dict.fromkeys(folder for name in series if (folder := newest(state, "particles", name)))
    for kind in dict.fromkeys(kind for folder in folders for kind in store.names_in("particles", folder) or ("",)):
        _write_particles(root, kind, list(folders), series, whole=bool(listed))


def _write_particles(root: Path, kind: str, folders: list[Path], series: dict[str, TiltSeries], *, whole: bool) -> None:
    """Particles of one kind, '' where there is but one, and with the tomograms the set that names both."""
    holding = [folder for folder in folders if kind in (store.names_in("particles", folder) or ("",))]
    parts = {str(folder): store.load("particles", folder, root, species=kind) for folder in holding}
    particles, optimisation = (store.named_file(file, kind) for file in (PARTICLES, OPTIMISATION))
    write_particles(root / particles, store.join("particles", parts), tilt_series=series)
    if whole:
        write_optimisation_set(root / optimisation, particles=particles, tomograms=TOMOGRAMS)


def _tilt_series(state: ProjectState, name: str) -> TiltSeries | None:
    """The newest state of a series; None if its files cannot be read, which the run has said of its items."""
    try:
        folder = newest(state, "tilt_series", name) or import_folder(state.project, name)
        return store.load("tilt_series", folder, state.project, series=name)
    except InputError:
        return None


def newest(state: ProjectState, kind: str, series: str) -> Path | None:
    """The folder of the last item that is done and gives this kind for a series; None if there is none."""
    for step in range(len(state.recipe.steps) - 1, -1, -1):
        if kind in state.recipe.steps[step].stage.gives:
            item = Item(step, series if graph.per_series(state.recipe, step) else ALL)
            if state.status(item) == "done":
                return state.folder(item)
    return None


def _tomogram_file(folder: Path) -> TomogramFile:
    path = folder / store.VOLUMES["tomogram"]
    header = read_header(path)
    return TomogramFile(path=path, shape=header.shape, voxel_size=header.voxel_size[0])
