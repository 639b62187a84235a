"""Values on disk, by their kind in the table of stages: what each file of an item folder is called and holds."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from scipy.spatial.transform import Rotation

from tiltwise.data.classes import ClassMaps
from tiltwise.data.errors import InputError
from tiltwise.data.maps import HalfMaps
from tiltwise.data.particles import Particles
from tiltwise.data.tilt_series import TiltSeries
from tiltwise.data.volume import Volume
from tiltwise.io.centres import read_centres
from tiltwise.io.defects import read_defects
from tiltwise.io.images import MRC_SUFFIXES, stack_image_names
from tiltwise.io.movie_motions import read_motions, write_motions
from tiltwise.io.movies import read_gain
from tiltwise.io.mrc import read_label, read_volume, write_mrc, write_volume
from tiltwise.io.ome_zarr import write_ome_zarr
from tiltwise.io.relion import read_particles, read_tilt_series, write_particles, write_tilt_series
from tiltwise.io.shapes import read_shapes
from tiltwise.project.commit import final_place
from tiltwise.project.state import PARTICLES, TILTS

VOLUMES = {
    "tomogram": "tomogram.mrc",
    "map": "map.mrc",
    "mask": "mask.mrc",
    "local_resolution": "local_resolution.mrc",
}
HALVES = {
    "half_maps": ("half1.mrc", "half2.mrc"),
    "half_tomograms": ("tomogram_half1.mrc", "tomogram_half2.mrc"),
}
_IMPOSED = "symmetry "
"""Begins the label that names what was imposed on half maps."""
NAMED = ("particles", "half_maps")
"""Of which a step may give several, by the names of the kinds of particles."""
CLASS_MAPS = "class*.mrc"
"""One for each class, numbered from 1."""
PYRAMID = "tomogram.ome.zarr"
MOTIONS = "motions.star"
"""By what the movies of a series were corrected."""

IMAGES = ("images.mrc", "images_odd.mrc", "images_even.mrc")

KINDS = (
    "tilt_series",
    "tomogram",
    "half_tomograms",
    "pyramid",
    "particles",
    "half_maps",
    "class_maps",
    "map",
    "mask",
    "local_resolution",
    "reference",
    "centres",
    "shapes",
    "gain",
    "defects",
    "focus",
    "given_particles",
    "motions",
)


def save(kind: str, value: Any, folder: Path, root: Path | None = None) -> list[Path]:
    """Write a value into an item folder and return its files. Images of a tilt series stay where they are; below
    `root`, the project, they are named relative to it. Particles and half maps of several kinds, by name, go into
    files of their own. Nothing is written for None, an output not asked for."""
    folder = Path(folder)
    if value is None:
        return []
    if kind in NAMED and isinstance(value, Mapping):
        return [path for name, one in value.items() for path in _save_named(kind, one, folder, name)]
    if kind == "tilt_series":
        single = not isinstance(value, Mapping)
        written = []
        if single and not value.image_names:
            value, written = _write_images(value, folder)
        files = {folder / TILTS: value} if single else {folder / _own_tilts(n): one for n, one in value.items()}
        for path, series in files.items():
            write_tilt_series(path, series, root=root)
        return [*files, *written]
    if kind == "particles":
        return _save_named(kind, value, folder)
    if kind in HALVES:
        return _save_named(kind, value, folder)
    if kind == "class_maps":
        paths = [folder / CLASS_MAPS.replace("*", str(k)) for k in range(1, len(value.maps) + 1)]
        for path, one in zip(paths, value.maps, strict=True):
            write_volume(path, one)
        return paths
    if kind == "motions":
        write_motions(folder / MOTIONS, value, root=root)
        return [folder / MOTIONS]
    if kind == "pyramid":
        return write_ome_zarr(folder / PYRAMID, value)[:1]
    if kind in VOLUMES:
        write_volume(folder / VOLUMES[kind], value)
        return [folder / VOLUMES[kind]]
    raise ValueError(f"values of kind {kind!r} are not saved; kinds are {', '.join(KINDS)}")


def _save_named(kind: str, value: Any, folder: Path, name: str = "") -> list[Path]:
    """Particles, or halves, in files that carry the name of their kind."""
    if kind == "particles":
        path = folder / named_file(PARTICLES, name)
        write_particles(path, value)
        return [path]
    paths = [folder / named_file(file, name) for file in HALVES[kind]]
    for path, half in zip(paths, (value.half1, value.half2), strict=True):
        write_volume(path, half, label=f"{_IMPOSED}{value.symmetry}" if kind == "half_maps" else "")
    return paths


def named_file(file: str, name: str) -> str:
    """File of one of several values of a kind: name_species.suffix."""
    stem, suffix = file.rsplit(".", 1)
    return f"{stem}_{name}.{suffix}" if name else file


def names_in(kind: str, folder: Path) -> tuple[str, ...]:
    """The names of the values of a kind that a folder holds several of; empty if it holds one, or none."""
    first = PARTICLES if kind == "particles" else HALVES[kind][0]
    stem, suffix = first.rsplit(".", 1)
    if (folder / first).exists():
        return ()
    return tuple(path.stem.removeprefix(f"{stem}_") for path in sorted(folder.glob(f"{stem}_*.{suffix}")))


def load(kind: str, path: Path, root: Path, *, series: str | None = None, species: str = "") -> Any:
    """Read a value from an item folder, or a user's file (`reference`, `centres`, `gain` and the like).

    `root` is the project, from which relative image names count. `series` keeps the part of one tilt series where the
    value holds several: of particles its own, of centres its own as (centre, 4) x, y, z, radius in Å, None where it has
    none; `species` says which of several particles or half maps that lie there by name. InputError where the file is
    absent or at fault.
    """
    path = Path(path)
    if kind == "tilt_series":
        return _tilt_series(path, root, series)
    if kind in NAMED:
        _check_name(kind, path, species)
    if kind in ("particles", "given_particles"):
        particles = read_particles(path / named_file(PARTICLES, species))
        return particles if series is None else particles[particles.tilt_series == series]
    if kind in HALVES:
        paths = [path / named_file(name, species) for name in HALVES[kind]]
        first, second = map(read_volume, paths)
        label = read_label(paths[0])
        symmetry = label.removeprefix(_IMPOSED) if label.startswith(_IMPOSED) else "C1"
        return HalfMaps(half1=first, half2=second, symmetry=symmetry)
    if kind in VOLUMES:
        return read_volume(path / VOLUMES[kind])
    if kind == "class_maps":
        number = len(list(path.glob(CLASS_MAPS)))
        return ClassMaps(maps=tuple(read_volume(path / CLASS_MAPS.replace("*", str(k))) for k in range(1, number + 1)))
    if kind == "motions":
        return read_motions(path / MOTIONS, root=root)
    if kind == "focus":
        return read_volume(path)
    if kind == "reference":
        return _reference(path)
    if kind == "gain":
        return read_gain(path)[0]
    if kind == "defects":
        return read_defects(path)
    if kind == "centres":
        return read_centres(path) if series is None else read_centres(path).get(series)
    if kind == "shapes":
        return _shapes(path, series)
    raise ValueError(f"values of kind {kind!r} are not loaded; kinds are {', '.join(KINDS)}")


def _check_name(kind: str, folder: Path, species: str) -> None:
    """InputError where a folder holds several of a kind and not the one asked for, or one where one of several is."""
    names = names_in(kind, folder)
    if species not in (names or ("",)):
        what = kind.replace("_", " ")
        asked = f"none of {species!r}" if species else "none alone"
        raise InputError(f"{folder}: holds {what} of {', '.join(names) or 'one kind'}, {asked}")


def join(kind: str, values: dict[str, Any]) -> Any:
    """One value from those of all series, for a step that takes them all: particles in a row, others by series."""
    if kind == "tilt_series":
        several = [value for value in values.values() if isinstance(value, Mapping)]
        return several[0] if several else values
    if kind != "particles":
        return values
    parts = [part for part in values.values() if len(part)] or list(values.values())[:1]
    posteriors = [part.class_posterior for part in parts]
    classified = all(p is not None and p.shape[1] == posteriors[0].shape[1] for p in posteriors)
    return Particles(
        rotation=Rotation.concatenate([part.rotation for part in parts]),
        class_posterior=np.concatenate(posteriors) if classified else None,
        trajectory=_joined_paths(parts),
        uncertainty=_joined_uncertainties(parts),
        **{
            name: np.concatenate([getattr(part, name) for part in parts])
            for name in ("tilt_series", "position", "score", "half_set", "region")
        },
    )


def _joined_paths(parts: Sequence[Particles]) -> np.ndarray | None:
    """The paths of all particles; those of parts without any are 0."""
    modes = max((part.trajectory.shape[1] for part in parts if part.trajectory is not None), default=0)
    if not modes:
        return None
    joined = np.zeros((sum(map(len, parts)), modes, 3))
    first = 0
    for part in parts:
        if part.trajectory is not None:
            joined[first : first + len(part), : part.trajectory.shape[1]] = part.trajectory
        first += len(part)
    return joined


def _joined_uncertainties(parts: Sequence[Particles]) -> np.ndarray | None:
    """Those of all particles; nan for the particles of parts without any."""
    if all(part.uncertainty is None for part in parts):
        return None
    unknown = [np.full((len(part), 2), np.nan) for part in parts]
    return np.concatenate(
        [blank if part.uncertainty is None else part.uncertainty for part, blank in zip(parts, unknown, strict=True)]
    )


def _write_images(series: TiltSeries, folder: Path) -> tuple[TiltSeries, list[Path]]:
    """Put images that a step made, and their halves, into its folder, and name them where the folder will be."""
    place = final_place(folder)
    halves = series.half_images or ()
    stacks = dict(zip(IMAGES, (series.images, *halves), strict=False))
    for name, images in stacks.items():
        write_mrc(folder / name, images, series.pixel_size, stack=True)
    names = [stack_image_names(place / name, series.number) for name in stacks]
    series = replace(series, image_names=names[0], half_image_names=tuple(names[1:]) or None)
    return series, [folder / name for name in stacks]


def _own_tilts(series: str) -> str:
    """File of one tilt series where a folder holds those of several."""
    return f"tilts_{series}.star"


def _tilt_series(folder: Path, root: Path, series: str | None) -> Any:
    """The tilt series of a folder; where it holds several, the one named, or all by name."""
    if (folder / TILTS).exists():
        return read_tilt_series(folder / TILTS, root=root)
    if series is not None:
        return read_tilt_series(folder / _own_tilts(series), root=root)
    found = [read_tilt_series(path, root=root) for path in sorted(folder.glob(_own_tilts("*")))]
    if not found:
        raise InputError(f"{folder}: holds no tilt series; run the step again")
    return {one.name: one for one in found}


def _shapes(path: Path, series: str | None) -> Any:
    """Shapes that a user pointed out: points, or a segmentation; None where the series has none."""
    if not path.is_file():
        return None
    if path.suffix.lower() in MRC_SUFFIXES:
        return read_volume(path)
    return read_shapes(path, series or "")


def _reference(path: Path) -> Volume:
    """A map given by a user: cubic, finite and not empty."""
    volume = read_volume(path)
    if len(set(volume.data.shape)) != 1:
        raise InputError(
            f"{path}: a reference is a cube; this map is {' × '.join(map(str, volume.data.shape[::-1]))} voxels"
        )
    if not np.isfinite(volume.data).all() or np.ptp(volume.data) == 0:
        raise InputError(f"{path}: the map is constant or holds values that are not numbers")
    return volume
