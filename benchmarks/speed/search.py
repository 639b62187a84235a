"""Pose search as matrix products: poses scored in a CPU second, against a plain interpolate-and-correlate twin.

The case of shared_case.py, 100 particles of box 64. Three measurements:
- the search over all rotations and shifts of a grid at 30 Å, as refine does it, and its pose error after the search and
  after the refinement that follows it;
- the twin: for each particle and rotation the slices of the reference are interpolated at every tilt, multiplied by the
  transfer and correlated with the data at every shift. Same grid, same band, same score; on a few particles and
  rotations, in one thread like the search. `same_best` is the part of particles for which both prefer the same pose;
- from poses off by 5.9 degrees and 5.9 Å, the CPU time of refine, by iterations. Where RELION-5 is on the PATH it
  refines the same poses against the same reference first (relion_refinement.py); `relion_time_ratio` is the CPU time
  of our refine until its median error is no larger than RELION's at its end, over RELION's.
"""

import resource
from pathlib import Path

import numpy as np
import torch
from relion_refinement import refine_by_relion, relion_present
from shared_case import (
    ABSENT,
    BOX,
    DIAMETER,
    anywhere,
    case_particles,
    case_reference,
    case_series,
    perturbed,
    prepare,
)

from tiltwise.data.particles import Particles
from tiltwise.data.tilt_series import TiltSeries
from tiltwise.data.volume import Volume
from tiltwise.ops.particles.chunks import CropSettings, ImageSource, initial_weights, particle_chunks
from tiltwise.ops.particles.half_maps import posed_particles
from tiltwise.ops.particles.images import ParticleImages
from tiltwise.ops.particles.references import masked_reference, resampled_reference, sphere_mask
from tiltwise.ops.particles.slices import extract_slices, volume_spectrum
from tiltwise.ops.poses.alignment import SearchGrid, search_grid
from tiltwise.ops.poses.comparison import compare_poses
from tiltwise.ops.poses.search import in_tomogram, particle_vectors, search_poses
from tiltwise.params.refine import RefineParams
from tiltwise.project.threads import keep_freed_memory
from tiltwise.stages.refine import refine

__all__ = ["prepare", "run"]

LOWPASS, SHIFT = 30.0, 20.0
TWIN_PARTICLES, TWIN_ROTATIONS = 2, 400
CONE, REACH, ITERATIONS = 10.0, 12.0, 3
"""Degrees and Å searched about the poses given; iterations of refine at most."""
START_ANGLE, START_SHIFT = 3.85, 3.4
"""sd of a rotation vector's component (degrees) and of a coordinate (Å): 5.9 degrees median, 5.9 Å rms."""


def run(folder: Path | None) -> dict:
    if folder is None:
        return ABSENT
    keep_freed_memory()
    torch.set_num_threads(1)
    series, truth = {"TS1": case_series(folder)}, case_particles(folder)
    reference = case_reference(folder)
    start = anywhere(truth, SHIFT, seed=2)
    images, frame = _images(series, start)
    map_ = resampled_reference(reference, BOX, 4.0, LOWPASS)
    map_ = masked_reference(map_, sphere_mask(BOX, 4.0, DIAMETER / 2))
    grid = search_grid(LOWPASS, DIAMETER, 180.0, 1.75 * SHIFT)
    searched = _search(images, frame, map_, grid)
    ours_best = searched.pop("best")
    twin = _twin(images, frame, map_, grid, ours_best)
    errors = compare_poses(
        start.position + searched.pop("shift"), _rotation(searched.pop("rotation")), truth.position, truth.rotation
    )
    return {
        **searched,
        **twin,
        "baseline_ratio": round(searched["poses_per_cpu_s"] / twin["twin_poses_per_cpu_s"], 1),
        "pose_error_median_deg": round(float(np.median(errors.angle)), 2),
        "grid_step_deg": round(grid.angular_step, 2),
        "rotations": len(grid.rotations),
        "shifts": len(grid.shifts),
        **_refinement_from_perturbed_poses(folder, series, truth, reference),
        "fraction_of_peak": None,
    }


def _images(series: dict[str, TiltSeries], start: Particles) -> tuple[ParticleImages, torch.Tensor]:
    """The crops of all particles in the band of the search, and the frames of their starting poses."""
    settings = CropSettings(box_size=BOX, pixel_size=4.0, particle_radius=DIAMETER / 2, device="cpu")
    source = ImageSource(tilt_series=series, settings=settings, ready={})
    posed = posed_particles(start)
    posed = type(posed)(
        tilt_series=posed.tilt_series,
        position=posed.position,
        rotation=posed.rotation,
        half_set=np.ones(len(posed), dtype=int),
    )
    weights = initial_weights(source, posed)
    parts = [part for *_, part in particle_chunks(source, posed, weights=weights, resolution=LOWPASS)]
    joined = ParticleImages(
        data=torch.cat([part.data for part in parts]),
        transfer=torch.cat([part.transfer for part in parts]),
        rotations=parts[0].rotations,
        points=parts[0].points,
        box_size=BOX,
        pixel_size=4.0,
    )
    return joined, posed.rotation


def _search(images: ParticleImages, frame: torch.Tensor, reference: torch.Tensor, grid: SearchGrid) -> dict:
    radius = BOX * 4.0 / LOWPASS
    few = _some(images, slice(0, 1))
    search_poses(particle_vectors(few, frame[:1], radius), reference, grid.rotations[:8], grid.shifts)  # compile
    before = _cpu_seconds()
    vectors = particle_vectors(images, frame, radius)
    found = search_poses(vectors, reference, grid.rotations, grid.shifts)
    seconds = _cpu_seconds() - before
    placed = in_tomogram(found, frame)
    poses = len(frame) * len(grid.rotations) * len(grid.shifts)
    return {
        "poses": poses,
        "search_cpu_s": round(seconds, 2),
        "poses_per_cpu_s": round(poses / seconds),
        "rotation": placed.rotation[:, 0],
        "shift": placed.shift[:, 0].numpy(),
        "best": (found.rotation[:, 0], found.shift[:, 0]),
    }


def _twin(images: ParticleImages, frame: torch.Tensor, reference: torch.Tensor, grid: SearchGrid, ours: tuple) -> dict:
    """Interpolate and correlate: the same score, pose by pose, in vectorised torch. Shift phases are computed once."""
    spectrum = volume_spectrum(reference, BOX * 4.0 / LOWPASS + 1)
    period = images.box_size * images.pixel_size
    spacing = max(1, len(grid.rotations) // TWIN_ROTATIONS)
    chosen = grid.rotations[::spacing]
    extract_slices(spectrum, images.rotations @ frame[0] @ chosen[0], images.points)  # compile
    same, poses, before = 0, 0, _cpu_seconds()
    for p in range(TWIN_PARTICLES):
        rotations = torch.cat([chosen, ours[0][p][None]])
        to_image = images.rotations @ frame[p]
        moved = torch.einsum("tij,sj->sti", to_image, grid.shifts)[..., :2]
        angle = 2 * torch.pi / period * torch.einsum("sti,ni->stn", moved.float(), images.points)
        data = images.data[p] * images.transfer[p] * torch.polar(torch.ones_like(angle), angle)
        data, power = data.reshape(len(grid.shifts), -1), images.transfer[p].square()
        scores = torch.empty(len(rotations), len(grid.shifts))
        for r, rotation in enumerate(rotations):
            slices = extract_slices(spectrum, to_image @ rotation, images.points)
            norm = (power * slices.abs().square()).sum().sqrt()
            scores[r] = (data.real @ slices.real.reshape(-1) + data.imag @ slices.imag.reshape(-1)) / norm
        poses += scores.numel()
        best = int(scores.argmax())
        rotation, shift = rotations[best // len(grid.shifts)], grid.shifts[best % len(grid.shifts)]
        same += bool(torch.equal(rotation, ours[0][p]) and (shift - ours[1][p]).norm() <= 0.36 * LOWPASS)
    seconds = _cpu_seconds() - before
    return {"twin_poses_per_cpu_s": round(poses / seconds), "same_best": same / TWIN_PARTICLES}


def _refinement_from_perturbed_poses(
    folder: Path, series: dict[str, TiltSeries], truth: Particles, reference: Volume
) -> dict:
    """Errors and CPU time of our refinement, and of RELION's where it is there, from the same poses."""
    start = perturbed(truth, START_ANGLE, START_SHIFT, seed=3)
    figures = _errors("start", start, truth)
    theirs = _by_relion(folder, start, truth) if relion_present() else {}
    runs = []
    for iterations in range(1, ITERATIONS + 1):
        runs.append(_by_us(series, start, truth, reference, iterations))
        if not theirs or runs[-1]["refine_error_deg"] <= theirs["relion_error_deg"]:
            break
    ours = runs[-1]
    reached = theirs and ours["refine_error_deg"] <= theirs["relion_error_deg"]
    ratio = round(ours["refine_cpu_s"] / theirs["relion_cpu_s"], 4) if reached else None
    return figures | theirs | ours | {"relion_time_ratio": ratio}


def _by_relion(folder: Path, start: Particles, truth: Particles) -> dict:
    found = refine_by_relion(folder, start, box=BOX, pixel_size=4.0, diameter=DIAMETER, lowpass=LOWPASS)
    return {
        **_errors("relion", found.particles, truth),
        "relion_cpu_s": round(found.cpu_seconds, 1),
        "relion_iterations": found.iterations,
        "relion_poses": found.poses,
        "relion_ended": found.ended,
    }


def _by_us(
    series: dict[str, TiltSeries], start: Particles, truth: Particles, reference: Volume, iterations: int
) -> dict:
    """Refine from the start, with so many iterations."""
    params = RefineParams(
        box_size=BOX,
        particle_diameter=DIAMETER,
        reference_lowpass=LOWPASS,
        search_cone=CONE,
        search_shift=REACH,
        iterations=iterations,
        refine_tilt_shifts=False,
    )
    grid = search_grid(max(LOWPASS, DIAMETER / 5), DIAMETER, CONE, REACH)
    before = _cpu_seconds()
    result = refine(series, start, reference, params)
    seconds = _cpu_seconds() - before
    return {
        **_errors("refine", result.particles, truth),
        "refine_cpu_s": round(seconds, 2),
        "refine_iterations": len(result.quality["iterations"]),
        "refine_poses": len(start) * len(grid.rotations) * len(grid.shifts),
    }


def _errors(name: str, found: Particles, truth: Particles) -> dict:
    """Median error of the rotation, rms error of the position, each particle against the true one nearest to it."""
    nearest = [int(np.argmin(np.linalg.norm(truth.position - p, axis=1))) for p in found.position]
    errors = compare_poses(found.position, found.rotation, truth.position[nearest], truth.rotation[nearest])
    return {
        f"{name}_error_deg": round(float(np.median(errors.angle)), 3),
        f"{name}_error_A": round(float(np.sqrt(np.mean(errors.shift**2))), 3),
    }


def _some(images: ParticleImages, index: slice) -> ParticleImages:
    return ParticleImages(
        data=images.data[index],
        transfer=images.transfer[index],
        rotations=images.rotations,
        points=images.points,
        box_size=images.box_size,
        pixel_size=images.pixel_size,
    )


def _rotation(matrices: torch.Tensor):
    from scipy.spatial.transform import Rotation

    return Rotation.from_matrix(matrices.numpy())


def _cpu_seconds() -> float:
    """User and system time of this process, all threads."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime
