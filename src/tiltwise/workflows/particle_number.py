"""Resolution against the number of particles (Rosenthal & Henderson 2003, J. Mol. Biol. 333, 721).

If the signal of a particle falls as exp(-B k² / 4) and noise is white, N particles reach the spacing d at which
N exp(-B / (2 d²)) is what the threshold asks: ln N = B / (2 d²) + constant. The line through 1/d² over ln N has the
slope 2 / B. B holds everything that makes particles disagree: motion, wrong poses, wrong defocus, detector, ice.

The poses are those refined with all particles, so that small subsets do better than they would by themselves: B is that
of the images at these poses.
"""

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from tiltwise.data.progress import Progress, no_progress
from tiltwise.ops.maps.masked_fsc import measure_masked_fsc
from tiltwise.ops.particles.chunks import CropSettings, ImageSource, PosedParticles
from tiltwise.ops.particles.half_maps import average_posed, posed_particles
from tiltwise.ops.symmetry import symmetry_order
from tiltwise.project import store
from tiltwise.project.commit import write_file
from tiltwise.project.layout import check_project
from tiltwise.project.records import read_record, to_json
from tiltwise.project.relion_files import newest
from tiltwise.project.state import ProjectState
from tiltwise.report.drawing import save_png
from tiltwise.report.particle_number import draw_particle_number

FIGURES, DRAWING = "bfactor.json", "bfactor.png"
_FEWEST, _REPEATS = 8, 3
_AT_NYQUIST = 1.03
"""Resolutions within this factor of the Nyquist spacing are limited by the pixel, and take no part in the fit."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Subset:
    """Random particles of the refinement, averaged."""

    particles: int
    """Number, both halves together."""
    resolution: float
    """Å at 0.143, within the mask of the whole, corrected for it; infinite where the halves agree in no shell."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ParticleNumber:
    """What the subsets show."""

    subsets: tuple[Subset, ...]
    """The largest first."""
    b_factor: float | None
    """Å²; None where fewer than three numbers of particles give a resolution that the pixel does not limit."""
    b_factor_error: float | None
    """Å², standard error of the fit."""
    note: str
    """What to know of the result; may be empty."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class _Refined:
    source: ImageSource
    posed: PosedParticles
    symmetry: str
    mask: torch.Tensor
    """(n, n, n) of the postprocess step."""


def measure_particle_number(
    project: Path, *, seed: int = 0, progress: Progress = no_progress
) -> tuple[ParticleNumber, list[Path]]:
    """Average random halves, quarters ... of the refined particles of a project; gives the figures and the files.

    Writes bfactor.json and bfactor.png into the project. Numbers go down by factors of two to 8 particles in each
    half, three random subsets each. InputError where refine or postprocess has not run.
    """
    folder = check_project(project)
    refined = _read(ProjectState(folder))
    total = int((refined.posed.half_set > 0).sum())
    plan = [(1.0, 0)] + [
        (0.5**level, repeat)
        for level in range(1, 1 + int(math.log2(max(2.0, total / (2 * _FEWEST)))))
        for repeat in range(_REPEATS)
    ]
    work, done, subsets = sum(part for part, _ in plan), 0.0, []
    for part, repeat in plan:
        progress(done / work, f"{round(part * total)} of {total} particles")
        chosen = random_subset(refined.posed.half_set, part, np.random.default_rng([seed, round(1 / part), repeat]))
        subsets.append(_measure(refined, chosen, seed))
        done += part
    nyquist = 2 * refined.source.settings.pixel_size
    found = fit_particle_number(subsets, nyquist)
    figures = {**asdict(found), "seed": seed, "nyquist_A": nyquist}
    write_file(folder / FIGURES, json.dumps(to_json(figures), indent=1) + "\n")
    save_png(draw_particle_number(*_points(found), found.b_factor, nyquist), folder / DRAWING)
    progress(1.0, "done")
    return found, [folder / FIGURES, folder / DRAWING]


def random_subset(half_set: np.ndarray, part: float, random: np.random.Generator) -> np.ndarray:
    """(particle,) half sets with the same part of each half chosen and 0 for all others."""
    chosen = np.zeros_like(half_set)
    for half in (1, 2):
        own = np.flatnonzero(half_set == half)
        chosen[random.permutation(own)[: max(1, round(part * len(own)))]] = half
    return chosen


def fit_particle_number(subsets: list[Subset], nyquist: float) -> ParticleNumber:
    """The line 1/d² = 2 ln N / B + constant by least squares over the mean 1/d² of each N."""
    known: dict[int, list[float]] = {}
    for one in subsets:
        if math.isfinite(one.resolution) and one.resolution > _AT_NYQUIST * nyquist:
            known.setdefault(one.particles, []).append(1 / one.resolution**2)
    ordered = tuple(sorted(subsets, key=lambda one: -one.particles))
    if len(known) < 3:
        limited = sum(one.resolution <= _AT_NYQUIST * nyquist for one in subsets)
        why = "the pixel limits the others" if limited else "the others have none"
        note = f"no B-factor: only {len(known)} numbers of particles give a resolution to fit; {why}"
        return ParticleNumber(subsets=ordered, b_factor=None, b_factor_error=None, note=note)
    x = np.log(np.array(list(known), dtype=float))
    y = np.array([np.mean(values) for values in known.values()])
    design = np.stack([x, np.ones_like(x)], axis=1)
    solution, *_ = np.linalg.lstsq(design, y, rcond=None)
    residual = y - design @ solution
    slope_error = math.sqrt(residual @ residual / max(1, len(x) - 2) * np.linalg.inv(design.T @ design)[0, 0])
    if solution[0] <= 2 * slope_error:
        note = "no B-factor: the resolution does not rise with the number of particles"
        return ParticleNumber(subsets=ordered, b_factor=None, b_factor_error=None, note=note)
    b_factor = 2 / float(solution[0])
    error = b_factor * slope_error / float(solution[0])
    note = "at poses refined with all particles: small subsets do better than they would by themselves"
    return ParticleNumber(subsets=ordered, b_factor=b_factor, b_factor_error=error, note=note)


def _points(found: ParticleNumber) -> tuple[np.ndarray, np.ndarray]:
    pairs = [(one.particles, one.resolution) for one in found.subsets if math.isfinite(one.resolution)]
    numbers, resolution = np.array(pairs, dtype=float).reshape(-1, 2).T
    return numbers, resolution


def _measure(refined: _Refined, half_set: np.ndarray, seed: int) -> Subset:
    posed = replace(refined.posed, half_set=half_set)
    halves = average_posed(refined.source, posed, symmetry=refined.symmetry)
    first, second = (torch.as_tensor(np.array(volume.data)) for volume in (halves.half1, halves.half2))
    curves = measure_masked_fsc(
        first, second, refined.mask, refined.source.settings.pixel_size, seed, order=symmetry_order(refined.symmetry)
    )
    return Subset(particles=int((half_set > 0).sum()), resolution=curves.resolution)


def _read(state: ProjectState) -> _Refined:
    """The newest refined particles, their series and the mask that their resolution was measured in."""
    refined, finished = state.finished_giving("half_maps"), state.finished("postprocess")
    record: Mapping[str, Any] = read_record(refined) or {}
    particles = store.load("particles", refined, state.project)
    names = sorted(set(particles.tilt_series.tolist()))
    series = {n: store.load("tilt_series", newest(state, "tilt_series", n), state.project, series=n) for n in names}
    settings = CropSettings(
        box_size=int(record["quality"]["box_size_px"]),
        pixel_size=series[names[0]].pixel_size,
        particle_radius=record["params"]["particle_diameter"] / 2,
        device="cpu",
    )
    mask = store.load("mask", finished, state.project)
    return _Refined(
        source=ImageSource(tilt_series=series, settings=settings, ready={}),
        posed=posed_particles(particles),
        symmetry=record["quality"].get("symmetry", record["params"]["symmetry"]),  # older records have no other
        mask=torch.as_tensor(np.array(mask.data, dtype=np.float32)),
    )
