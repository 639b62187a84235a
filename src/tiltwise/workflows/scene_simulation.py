"""`tiltwise simulate`: a session of a whole scene on disk as the microscope leaves it, and beside it the truth.

Tilts are imaged side by side in processes of one thread. All is written to a folder of another name that becomes the
output by one rename at the end: a session is there whole, or not at all.
"""

import json
import pickle
import shutil
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, ProcessPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import lru_cache
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import torch

from tiltwise.data.atoms import Atoms
from tiltwise.data.deformation import Deformation
from tiltwise.data.errors import InputError
from tiltwise.data.particles import Particles
from tiltwise.data.progress import Progress, no_progress
from tiltwise.io.frame_motion import write_motion
from tiltwise.io.images import stack_image_names
from tiltwise.io.mdoc import Mdoc, write_mdoc
from tiltwise.io.model import assembly_names, read_atoms
from tiltwise.io.movies import MovieFormat, write_movie
from tiltwise.io.mrc import write_mrc
from tiltwise.io.relion import write_particles, write_tilt_series
from tiltwise.params.session import SessionParams
from tiltwise.project.events import Event, Listener, no_listener
from tiltwise.project.store import join
from tiltwise.project.threads import count_cores, prepare_process, use_threads
from tiltwise.simulate.acquisition import Scheme
from tiltwise.simulate.build_scene import target_atoms
from tiltwise.simulate.camera import draw_gain
from tiltwise.simulate.image_scene import image_frames, image_tilt
from tiltwise.simulate.potential import Scatterer, scatterer_from_atoms
from tiltwise.simulate.scene import Population
from tiltwise.simulate.scene_session import SceneSeries, prepare_series, recorded_series
from tiltwise.simulate.session import series_name
from tiltwise.workflows.simulation import (
    REFERENCE_LOWPASS,
    TRUTH_PARTICLES,
    TRUTH_SETTINGS,
    Recording,
    particle_diameter,
    series_mdoc,
    write_molecule,
    write_recording,
)

GAIN = "gain.mrc"
"""Name of the gain reference of a session with movies."""
_LARGEST_BOX = 224  # voxels along the side of the map of the truth
_GAIN_STREAM = 4  # of the seed


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Shot:
    """Where one worker finds a series, and where it puts an image of it."""

    plan: Path
    """The pickled SceneSeries."""
    tilt: int
    """Which tilt."""
    stack: Path
    """A .npy of the whole stack."""
    movie: Path | None
    """The movie's own file; None if only the stack is wanted."""
    gain: Path
    """Gain reference (.npy) of movies."""


def write_session(
    output: Path,
    params: SessionParams,
    *,
    series: int = 1,
    model: Atoms | None = None,
    scheme: Scheme | None = None,
    movies: MovieFormat | None = None,
    workers: int | None = None,
    progress: Progress = no_progress,
) -> Recording:
    """Write output/data (stacks, .mdoc, .rawtlt, reference.mrc) and output/truth; gives what a user is given.

    With `movies` there are also frames/ and the gain reference, each tilt drifts, and the stack holds the sums of the
    frames as they are: the motion is still in them. Without, the stack is that of a perfect motion correction. `model`
    takes the place of the procedural target, `scheme` that of the params' tilts. The bits do not depend on `workers`
    (default: the cores). Raises InputError if the output is there already, or the scene cannot be built.
    """
    output = Path(output).resolve()
    if output.exists():
        raise InputError(f"{output}: is there already; name another output folder, or remove it")
    part = output.with_name(f"{output.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    try:
        for folder in ("data", "truth", "work"):
            (part / folder).mkdir(parents=True)
        target = scatterer_from_atoms(target_atoms(params.scene.target) if model is None else model)
        diameter = particle_diameter(target)
        _write_session_truth(part, params, target, diameter)
        if movies:
            _write_gain(part, params)
        particles = []
        with _workers(workers or count_cores()) as pool:
            for number in range(1, series + 1):
                whole = prepare_series(params, number, model=model, scheme=scheme, frames=movies is not None)
                particles.append(_write_truth(part, whole))
                told = _share(progress, number - 1, series, whole.series.name)
                _expose_series(part, whole, movies, pool, told)
        joined = join("particles", {str(n): p for n, p in enumerate(particles)})
        write_particles(part / "truth" / TRUTH_PARTICLES, joined)
        shutil.rmtree(part / "work")
        part.rename(output)
    except BaseException:
        shutil.rmtree(part, ignore_errors=True)
        raise
    return Recording(
        stacks=tuple(output / "data" / f"{series_name(number)}.mrc" for number in range(1, series + 1)),
        reference=output / "data" / "reference.mrc",
        particle_diameter=diameter,
    )


def simulate(
    output: Path,
    session: SessionParams,
    *,
    model: Path | None = None,
    series: int = 1,
    movies: MovieFormat | None = None,
    workers: int | None = None,
    listener: Listener = no_listener,
) -> dict[str, Any]:
    """What `tiltwise simulate` does: `write_session` with a model from a file, told to a listener; gives a summary."""
    atoms = None
    if model is not None:
        names = assembly_names(model)
        atoms = read_atoms(model, assembly=names[0] if names else None)
    started = time.perf_counter()
    listener(Event(kind="run_started", total={"simulate": 1}, workers=workers or count_cores(), threads=1))
    listener(Event(kind="item_started", step="simulate", item="all"))

    def progress(fraction: float, message: str) -> None:
        listener(Event(kind="item_progress", step="simulate", item="all", fraction=fraction, message=message))

    recording = write_session(
        output, session, series=series, model=atoms, movies=movies, workers=workers, progress=progress
    )
    seconds = time.perf_counter() - started
    listener(Event(kind="item_done", step="simulate", item="all", seconds=seconds))
    listener(Event(kind="run_done", seconds=seconds))
    return {
        "output": str(Path(output).resolve()),
        "series": series,
        "particle_diameter_A": recording.particle_diameter,
        "reference": str(recording.reference),
        "seconds": round(seconds, 1),
    }


def shoot(shot: Shot) -> None:
    """Image one tilt and write it."""
    whole = _load_plan(shot.plan)
    arguments = (whole.scene, whole.series, shot.tilt, whole.params, whole.seed)
    stack = np.load(shot.stack, mmap_mode="r+")
    if shot.movie is None:
        stack[shot.tilt] = image_tilt(*arguments, disturbances=whole.disturbances)
    else:
        gain = np.load(shot.gain)
        frames = image_frames(*arguments, gain=gain, disturbances=whole.disturbances)
        write_movie(shot.movie, frames, whole.series.pixel_size)
        stack[shot.tilt] = np.rint(frames.sum(axis=0, dtype=np.float32) * gain)
    stack.flush()


@lru_cache(maxsize=1)
def _load_plan(path: Path) -> SceneSeries:
    return pickle.loads(path.read_bytes())


def _expose_series(
    part: Path, whole: SceneSeries, movies: MovieFormat | None, pool: Executor | None, progress: Progress
) -> None:
    """Make and write all images of a series, and what the microscope writes beside them."""
    name, count = whole.series.name, whole.series.number
    plan, stack = part / "work" / f"{name}.pickle", part / "work" / f"{name}.npy"
    plan.write_bytes(pickle.dumps(_without_images(whole)))
    np.lib.format.open_memmap(stack, mode="w+", dtype=np.int16, shape=whole.series.images.shape).flush()
    files: list[Path | None] = [None] * count
    if movies is not None:
        (part / "data" / "frames").mkdir(exist_ok=True)
        files = [part / "data" / "frames" / file for file in movie_names(whole, movies)]
    shots = [
        Shot(plan=plan, tilt=int(tilt), stack=stack, movie=files[tilt], gain=part / "work" / "gain.npy")
        for tilt in np.argsort(whole.series.acquisition_order)
    ]
    _take(shots, pool, progress)
    recorded = replace(recorded_series(whole.series), images=np.load(stack, mmap_mode="r"))
    written = write_recording(part / "data", recorded)
    if movies is not None:
        mdoc = series_mdoc(recorded, written.name)
        write_mdoc(part / "data" / f"{written.name}.mdoc", _with_frames(mdoc, whole, files))
    stack.unlink()


def movie_names(whole: SceneSeries, movies: MovieFormat) -> list[str]:
    """(tilt,) file names as SerialEM makes them: series, number in time, angle."""
    series = whole.series
    pairs = zip(series.acquisition_order, series.stage_tilt_angle, strict=True)
    return [f"{series.name}_{int(order) + 1:03d}_{angle:.1f}.{movies}" for order, angle in pairs]


def _with_frames(mdoc: Mdoc, whole: SceneSeries, files: list[Path]) -> Mdoc:
    """The .mdoc with what SerialEM adds for movies."""
    sections = []
    for tilt, (section, file) in enumerate(zip(mdoc.sections, files, strict=True)):
        exposures = whole.disturbances.frame_exposures(whole.series, tilt)
        frames = {
            "SubFramePath": f"D:\\frames\\{file.name}",
            "NumSubFrames": str(len(exposures)),
            "FrameDosesAndNumber": f"{exposures[0]:.6g} {len(exposures)}",
            "GainReference": GAIN,
            "RotationAndFlip": "0",
        }
        sections.append(replace(section, keys={**section.keys, **frames}))
    return replace(mdoc, sections=tuple(sections))


def _take(shots: list[Shot], pool: Executor | None, progress: Progress) -> None:
    """Take all shots: in the pool's processes, or here."""
    if pool is None:
        results = map(shoot, shots)
    else:
        results = (future.result() for future in as_completed([pool.submit(shoot, shot) for shot in shots]))
    for done, _ in enumerate(results, start=1):
        progress(done / len(shots), f"{done} of {len(shots)} tilts")


@contextmanager
def _workers(number: int) -> Iterator[Executor | None]:
    """A pool of processes of one thread each; None for one worker, which is this process, then of one thread too."""
    if number == 1:
        with _one_thread():
            yield None
        return
    pool = ProcessPoolExecutor(number, mp_context=get_context("spawn"), initializer=prepare_process, initargs=(1,))
    try:
        yield pool
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


@contextmanager
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    use_threads(1)
    try:
        yield
    finally:
        use_threads(before)


def _without_images(whole: SceneSeries) -> SceneSeries:
    """The series with a placeholder of the same shape that takes no room when pickled."""
    return replace(whole, series=replace(whole.series, images=NoImages(shape=tuple(whole.series.images.shape))))


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class NoImages:
    """Stands for images that are not made yet."""

    shape: tuple[int, int, int]
    """(tilt, y, x)."""


def _share(progress: Progress, done: int, total: int, name: str) -> Callable[[float, str], None]:
    return lambda fraction, message: progress((done + fraction) / total, f"{name}: {message}")


def _write_session_truth(part: Path, params: SessionParams, target: Scatterer, diameter: float) -> None:
    settings: dict[str, Any] = {
        "particle_diameter_A": diameter,
        "reference_lowpass_A": REFERENCE_LOWPASS,
        "session": params.model_dump(),
    }
    (part / "truth" / TRUTH_SETTINGS).write_text(json.dumps(settings, indent=1) + "\n", encoding="utf-8")
    pixel_size = params.microscope.camera.pixel_size
    coarser = max(1, int(np.ceil(2.6 * target.radius / pixel_size / _LARGEST_BOX)))
    write_molecule(target, coarser * pixel_size, part / "data" / "reference.mrc", part / "truth")


def _write_gain(part: Path, params: SessionParams) -> None:
    gain = draw_gain(params.microscope.camera, np.random.default_rng([params.seed, _GAIN_STREAM]))
    write_mrc(part / "data" / GAIN, gain, params.microscope.camera.pixel_size)
    np.save(part / "work" / "gain.npy", gain)


def _write_truth(part: Path, whole: SceneSeries) -> Particles:
    """Write geometry, CTF, motion, deformation and the poses of every body; gives the targets of the field."""
    name, truth = whole.series.name, part / "truth"
    stack = part / "data" / f"{name}.mrc"
    bent = Deformation(sample=whole.disturbances.deformation, image=whole.disturbances.warp)
    names = stack_image_names(stack, whole.series.number)
    series = replace(whole.series, image_names=names, deformation=bent)
    write_tilt_series(truth / f"{name}.star", series, root=part)
    write_motion(truth / f"{name}_motion.npz", whole.disturbances.frames, whole.disturbances.deformation)
    (truth / "bodies").mkdir(exist_ok=True)
    for number, population in enumerate(whole.scene.populations):
        poses = _poses(name, population)
        write_particles(truth / "bodies" / f"{name}_{number:02d}_{population.name}.star", poses)
    return _poses(name, whole.scene.populations[0])


def _poses(name: str, population: Population) -> Particles:
    count = len(population.position)
    return Particles(
        tilt_series=np.full(count, name),
        position=population.position,
        rotation=population.rotation,
        score=np.ones(count),
        half_set=np.zeros(count, dtype=np.int64),
        region=np.full(count, -1, dtype=np.int64),
    )
