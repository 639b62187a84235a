"""A simulated session on disk: what a microscope leaves behind, and beside it the truth."""

import json
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass, replace
from functools import partial
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import torch
from scipy.fft import next_fast_len

from tiltwise.data.atoms import Atoms
from tiltwise.data.errors import InputError
from tiltwise.data.particles import Particles
from tiltwise.data.progress import Progress, no_progress
from tiltwise.data.tilt_series import TiltSeries
from tiltwise.data.volume import Volume
from tiltwise.io.images import stack_image_names
from tiltwise.io.imod import write_tlt
from tiltwise.io.mdoc import Mdoc, MdocSection, write_mdoc
from tiltwise.io.mrc import read_volume, write_mrc, write_volume
from tiltwise.io.relion import read_particles, read_tilt_series, write_particles, write_tilt_series
from tiltwise.ops.filters import low_pass
from tiltwise.ops.masks import soft_mask_from_map
from tiltwise.params.simulate import SimulateParams
from tiltwise.project.store import join
from tiltwise.project.threads import count_cores, prepare_process
from tiltwise.simulate.potential import Scatterer, potential_map, scatterer_from_atoms
from tiltwise.simulate.session import series_name, simulate_tilt_series
from tiltwise.simulate.specimen import procedural_molecule

REFERENCE_LOWPASS = 40.0
"""Å; all that the pipeline is told of the molecule."""
_BOX_PER_DIAMETER = 1.25
_MASK_RESOLUTION, _MASK_GROW, _MASK_EDGE = 15.0, 8.0, 24.0  # Å
_MASK_THRESHOLD = 0.15  # of the 99.9th percentile of the filtered map
_MAP, _MASK = "truth_map.mrc", "mask.mrc"
TRUTH_PARTICLES, TRUTH_SETTINGS = "particles.star", "truth.json"
"""Names in a truth folder: the particles of every field, and the settings."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Truth:
    """All that a simulation knows."""

    tilt_series: dict[str, TiltSeries]
    """By name: images, true geometry, CTF and handedness."""
    particles: Particles
    """True poses; every particle of every field."""
    map: Volume
    """The molecule's potential less that of ice, V, at the pixel size of the images."""
    mask: Volume
    """Soft mask about the map, 0 to 1."""
    particle_diameter: float
    """Å."""
    reference_lowpass: float
    """Low-pass of the reference that was given away, Å."""
    symmetry: str = "C1"
    """Point group of the molecule, which averages may impose."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Recording:
    """What a user is given."""

    stacks: tuple[Path, ...]
    """One for each tilt series, with .mdoc and .rawtlt beside it."""
    reference: Path
    """The molecule low-passed to REFERENCE_LOWPASS."""
    particle_diameter: float
    """Å."""


def write_simulation(
    output: Path,
    params: SimulateParams,
    *,
    series: int = 3,
    atoms: Atoms | None = None,
    workers: int | None = None,
    progress: Progress = no_progress,
) -> Recording:
    """Image a molecule and write output/data (stacks, .mdoc, .rawtlt, reference.mrc) and output/truth.

    Without atoms the molecule is the procedural one of params.seed. Series are made side by side in
    `workers` processes of one thread each (default: the cores); the bits do not depend on their number.
    """
    output = Path(output).resolve()
    data, truth = output / "data", output / "truth"
    for folder in (data, truth):
        folder.mkdir(parents=True, exist_ok=True)
    molecule = procedural_molecule(params.specimen, params.seed) if atoms is None else atoms
    scatterer = scatterer_from_atoms(molecule)
    diameter = particle_diameter(scatterer)
    settings = {
        "particle_diameter_A": diameter,
        "reference_lowpass_A": REFERENCE_LOWPASS,
        "simulate": params.model_dump(),
    }
    (truth / TRUTH_SETTINGS).write_text(json.dumps(settings, indent=1) + "\n", encoding="utf-8")
    write_molecule(scatterer, params.pixel_size, data / "reference.mrc", truth)
    make = partial(_write_series, scatterer, params, output)
    parts = _side_by_side(make, series, min(series, workers or count_cores()), progress)
    write_particles(truth / TRUTH_PARTICLES, join("particles", {str(n): part for n, part in enumerate(parts)}))
    stacks = tuple(data / f"{series_name(number)}.mrc" for number in range(1, series + 1))
    return Recording(stacks=stacks, reference=data / "reference.mrc", particle_diameter=diameter)


def _write_series(
    scatterer: Scatterer, params: SimulateParams, output: Path, number: int, progress: Progress = no_progress
) -> Particles:
    """Image one series and write it and its truth; gives its true particles."""
    simulated = simulate_tilt_series(scatterer, params, number, progress=progress)
    stack = write_recording(output / "data", simulated.recorded)
    truth = replace(simulated.truth, image_names=stack_image_names(stack, simulated.truth.number))
    write_tilt_series(output / "truth" / f"{truth.name}.star", truth, root=output)
    return simulated.particles


def _side_by_side(make: Callable[..., Particles], series: int, workers: int, progress: Progress) -> list[Particles]:
    """The particles of all series in their order, made in processes where there is more than one worker."""
    if workers == 1:
        return [
            make(n, lambda part, text, done=n - 1: progress((done + part) / series, text)) for n in range(1, series + 1)
        ]
    context = get_context("spawn")
    with ProcessPoolExecutor(workers, mp_context=context, initializer=prepare_process, initargs=(1,)) as pool:
        futures = [pool.submit(make, number) for number in range(1, series + 1)]
        for done, future in enumerate(as_completed(futures), start=1):
            future.result()
            progress(done / series, f"{done} of {series} series")
        return [future.result() for future in futures]


def write_recording(folder: Path, recorded: TiltSeries) -> Path:
    """Write a series as a microscope leaves it: stack, .mdoc and .rawtlt; gives the stack."""
    stack = folder / f"{recorded.name}.mrc"
    write_mrc(stack, recorded.images, recorded.pixel_size, stack=True)
    write_tlt(folder / f"{recorded.name}.rawtlt", recorded.stage_tilt_angle)
    write_mdoc(folder / f"{stack.name}.mdoc", series_mdoc(recorded, stack.name))
    return stack


def is_truth(folder: Path) -> bool:
    """Whether a folder was written by `write_simulation`."""
    return (Path(folder) / TRUTH_SETTINGS).is_file()


def read_truth(folder: Path) -> Truth:
    """Read what `write_simulation` wrote into its truth folder; InputError where a file is absent or at fault."""
    folder = Path(folder).resolve()
    try:
        settings = json.loads((folder / TRUTH_SETTINGS).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"{folder / TRUTH_SETTINGS}: not the truth of a simulation ({error})") from None
    particles = read_particles(folder / TRUTH_PARTICLES)
    names = dict.fromkeys(particles.tilt_series.tolist())
    return Truth(
        tilt_series={n: read_tilt_series(folder / f"{n}.star", root=folder.parent) for n in names},
        particles=particles,
        map=read_volume(folder / _MAP),
        mask=read_volume(folder / _MASK),
        particle_diameter=float(settings["particle_diameter_A"]),
        reference_lowpass=float(settings["reference_lowpass_A"]),
    )


def particle_diameter(scatterer: Scatterer) -> float:
    """Å, of the sphere that holds 99 of 100 of the molecule's points."""
    return round(2 * float(np.percentile(np.linalg.norm(scatterer.position, axis=1), 99)), 1)


def molecule_and_mask(scatterer: Scatterer, voxel_size: float) -> tuple[Volume, Volume]:
    """The molecule's potential less that of ice, V, in a box about it, and a soft mask about it, 0 to 1."""
    box = 2 * next_fast_len(int(np.ceil(_BOX_PER_DIAMETER * scatterer.radius / voxel_size)))
    potential = potential_map(scatterer, voxel_size, box)
    filtered = low_pass(torch.from_numpy(potential.data), _MASK_RESOLUTION, voxel_size)
    threshold = _MASK_THRESHOLD * float(np.percentile(filtered.numpy(), 99.9))
    mask = soft_mask_from_map(filtered, threshold, _MASK_GROW / voxel_size, _MASK_EDGE / voxel_size)
    return potential, Volume(data=mask.numpy(), voxel_size=voxel_size)


def write_molecule(scatterer: Scatterer, voxel_size: float, reference: Path, truth: Path) -> None:
    """Write the molecule low-passed to `reference`, and into `truth` its potential and a mask about it."""
    potential, mask = molecule_and_mask(scatterer, voxel_size)
    write_volume(truth / _MAP, potential)
    write_volume(truth / _MASK, mask)
    given = low_pass(torch.from_numpy(potential.data), REFERENCE_LOWPASS, voxel_size).numpy()
    write_volume(reference, Volume(data=given, voxel_size=voxel_size))


def series_mdoc(recorded: TiltSeries, stack: str) -> Mdoc:
    """What SerialEM writes of a series, in the order of the stack. Defocus there is negative, in µm."""
    height, width = recorded.image_shape
    header = {
        "PixelSpacing": f"{recorded.pixel_size:g}",
        "ImageFile": stack,
        "ImageSize": f"{width} {height}",
        "DataMode": "1",
        "Voltage": f"{recorded.optics.voltage:g}",
    }
    axis = f"Tilt axis angle = {recorded.nominal_tilt_axis_angle:.1f}, binning = 1  spot = 8  camera = 0"
    sections = []
    for tilt in range(recorded.number):
        seconds = 45 * int(recorded.acquisition_order[tilt])
        clock = f"{9 + seconds // 3600:02d}:{seconds // 60 % 60:02d}:{seconds % 60:02d}"
        keys = {
            "TiltAngle": f"{recorded.stage_tilt_angle[tilt]:.4f}",
            "ExposureDose": f"{recorded.exposure[tilt]:g}",
            "PriorRecordDose": f"{recorded.pre_exposure[tilt]:g}",
            "TargetDefocus": f"{-recorded.nominal_defocus[tilt] / 1e4:.2f}",
            "PixelSpacing": f"{recorded.pixel_size:g}",
            "DateTime": f"01-Jan-26  {clock}",
        }
        sections.append(MdocSection(kind="ZValue", value=str(tilt), keys=keys))
    return Mdoc(header=header, titles=("SerialEM: simulated by tiltwise", axis), sections=tuple(sections))
