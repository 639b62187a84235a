"""A RELION-5 optimisation set of a project's particles, with their 2D stacks: RELION's refinement can start from it."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from tiltwise.data.errors import InputError
from tiltwise.data.particles import Particles
from tiltwise.data.progress import Progress, no_progress
from tiltwise.data.tilt_series import TiltSeries
from tiltwise.io.mrc import write_mrc
from tiltwise.io.relion import (
    StackFiles,
    TomogramFile,
    write_optimisation_set,
    write_particles,
    write_tilt_series_set,
)
from tiltwise.ops.particles.images import normalised_images
from tiltwise.ops.particles.stacks import relion_stack
from tiltwise.project import store
from tiltwise.project.particle_exchange import newest_particles, tomogram_grid
from tiltwise.project.relion_files import OPTIMISATION, PARTICLES, TOMOGRAMS, newest
from tiltwise.project.state import ProjectState

SUBTOMOGRAMS = "Subtomograms"
_BACKGROUND = 2
"""Width of the running mean that is taken off the images, in boxes, as the refinement does."""


def export_relion(
    folder: Path,
    output: Path,
    *,
    box_size: int | None = None,
    binning: int = 1,
    only: Sequence[str] | None = None,
    kind: str = "",
    progress: Progress = no_progress,
) -> tuple[list[Path], str]:
    """Write the newest particles of a project as a RELION-5 set into `output`, RELION's folder; star files and a note.
    kind: which of several kinds of particles.

    With box_size (even, px of the binned images) each particle's 2D stack of the tilts in which its box lies whole is
    written too; particles that no tilt shows so are left out. Memory: the images of one series and one stack. The
    images are those of the refinement: normalised tilt by tilt, their slow background and gold taken off. InputError
    where there are no particles, or, for stacks, no fitted defocus or handedness.
    """
    state = ProjectState(folder)
    particles, series = newest_particles(state, only, kind)
    files = {name: _tomogram(state, name) for name in series}
    state.save_digests()
    if box_size is not None:
        _check_stacks(series, box_size)
    try:
        output.mkdir(parents=True, exist_ok=True)
        write_tilt_series_set(output / TOMOGRAMS, series.values(), tomograms=files, root=output)
        kept, stacks = particles, None
        if box_size is not None:
            kept, stacks = _write_stacks(output, particles, series, (box_size, binning), progress)
        write_particles(output / PARTICLES, kept, tilt_series=series, stacks=stacks)
        write_optimisation_set(output / OPTIMISATION, particles=PARTICLES, tomograms=TOMOGRAMS)
    except OSError as error:
        raise InputError(f"{output}: cannot be written ({error.strerror or error})") from None
    lost = len(particles) - len(kept)
    note = f"{lost} of {len(particles)} particles are left out: their box lies whole in no tilt" if lost else ""
    return [output / name for name in (OPTIMISATION, PARTICLES, TOMOGRAMS)], note


def _write_stacks(
    output: Path,
    particles: Particles,
    series: Mapping[str, TiltSeries],
    sizes: tuple[int, int],
    progress: Progress,
) -> tuple[Particles, StackFiles]:
    """Write Subtomograms/<series>/<number>_stack2d.mrcs; the particles that have one, and the files."""
    box_size, binning = sizes
    particles = particles[np.argsort(particles.tilt_series, kind="stable")]
    kept: list[int] = []
    names: list[str] = []
    seen: list[np.ndarray] = []
    for name, one in series.items():
        width = _BACKGROUND * box_size * binning * one.pixel_size
        images = normalised_images(one, width)
        (output / SUBTOMOGRAMS / name).mkdir(parents=True, exist_ok=True)
        for index in np.flatnonzero(particles.tilt_series == name).tolist():
            progress(len(seen) / len(particles), f"{name}: cutting stacks")
            path = None if particles.trajectory is None else particles.trajectory[index]
            stack, visible = relion_stack(
                images, one, particles.position[index], box_size=box_size, binning=binning, trajectory=path
            )
            if not visible.any():
                continue
            kept.append(index)
            seen.append(visible)
            names.append(f"{SUBTOMOGRAMS}/{name}/{len(kept)}_stack2d.mrcs")
            write_mrc(output / names[-1], stack, one.pixel_size * binning, stack=True)
    if not kept:
        raise InputError(f"a box of {box_size} px lies whole in no tilt image at any particle; give a smaller --box")
    files = StackFiles(names=tuple(names), visible=tuple(seen), box_size=box_size, binning=binning)
    return particles[np.array(kept)], files


def _check_stacks(series: Mapping[str, TiltSeries], box_size: int) -> None:
    if box_size % 2:
        raise InputError(f"--box {box_size}: RELION takes even boxes")
    for name, one in series.items():
        if one.ctf is None or not np.isfinite(one.ctf.mean_defocus[one.use]).all():
            raise InputError(f"{name}: has no defocus in every used tilt, with which RELION's stacks are multiplied")
        if one.defocus_handedness is None:
            raise InputError(f"{name}: its defocus handedness is not determined, which RELION's stacks depend on")


def _tomogram(state: ProjectState, name: str) -> TomogramFile:
    grid = tomogram_grid(state, name, state.project)
    path = newest(state, "tomogram", name) / store.VOLUMES["tomogram"]
    return TomogramFile(path=path, shape=grid.shape, voxel_size=grid.voxel_size)
