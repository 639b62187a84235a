"""Maps against the truth: what was reached, and what an oracle reaches that is told everything (methods.md section
9)."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import torch

from tiltwise.data.maps import HalfMaps
from tiltwise.data.particles import Particles
from tiltwise.data.tilt_series import TiltSeries
from tiltwise.data.volume import Volume
from tiltwise.ops.fsc import first_crossing, fourier_shell_correlation
from tiltwise.ops.maps.superpose import RigidMotion, move_map, superpose
from tiltwise.ops.particles.half_maps import average_particles
from tiltwise.workflows.simulation import Truth

_THRESHOLD = 0.5
_MAP_KEYS = (
    "resolution_to_truth_A",
    "oracle_resolution_A",
    "oracle_ratio",
    "oracle_ratio_particles_used",
    "sum_ssnr_ratio",
    "oracle_valid",
    "weighting",
)
Weighted = Mapping[str, HalfMaps]
"""The same average by each weighting of the tilts: 'measured', 'expected'."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class MapScore:
    """A map against the truth."""

    weighting: str
    """The weighting that came nearer to it."""
    resolution: float
    """Spacing at which the FSC to the truth first falls below 0.5, Å."""
    fsc: torch.Tensor
    """(shell,)."""


def score_maps(
    reached: Weighted | None,
    used: np.ndarray | None,
    known: Truth,
    start: RigidMotion | None,
    oracle: MapScore | None = None,
) -> dict[str, Any]:
    """Resolution of the merged half maps to the truth, and its ratio to that of the oracle.

    Both take the better of the weightings. used: indices of the true particles that were refined, for the oracle of the
    same particles; start: where the search for the motion onto the truth begins; oracle: its score, if it is there
    already (`oracle_score`). The ratio is valid only if the oracle lies between 1.25 × the Nyquist spacing and 0.6 ×
    the low-pass of the starting reference. All values None without half maps.
    """
    if reached is None:
        return dict.fromkeys(_MAP_KEYS)
    score, oracle = better_score(reached, known, start), oracle or oracle_score(known)
    oracle_used = oracle if used is not None and len(used) == len(known.particles) else None
    if oracle_used is None and used is not None and len(used):
        oracle_used = oracle_score(known, used)
    nyquist = 2 * known.map.voxel_size
    return {
        "resolution_to_truth_A": score.resolution,
        "oracle_resolution_A": oracle.resolution,
        "oracle_ratio": score.resolution / oracle.resolution,
        "oracle_ratio_particles_used": score.resolution / oracle_used.resolution if oracle_used else None,
        "sum_ssnr_ratio": _sum_ssnr(score.fsc, oracle.resolution, known)
        / _sum_ssnr(oracle.fsc, oracle.resolution, known),
        "oracle_valid": bool(1.25 * nyquist <= oracle.resolution <= 0.6 * known.reference_lowpass),
        "weighting": {"reached": score.weighting, "oracle": oracle.weighting},
        "fsc_frequency": shell_frequency(known).tolist(),
        "fsc_to_truth": score.fsc.tolist(),
        "fsc_oracle": oracle.fsc.tolist(),
    }


def oracle_score(known: Truth, chosen: np.ndarray | None = None) -> MapScore:
    """What the oracle reaches with all true particles, or with those of an index array."""
    return better_score(oracle_maps(known, chosen), known)


def better_score(maps: Weighted, known: Truth, start: RigidMotion | None = None) -> MapScore:
    """The score of the weighting that reaches the finer resolution; of equals, the first."""
    scores = []
    for weighting, halves in maps.items():
        resolution, fsc = compare_to_truth(merged_map(halves), known, start)
        scores.append(MapScore(weighting=weighting, resolution=resolution, fsc=fsc))
    return min(scores, key=lambda score: score.resolution)


def compare_to_truth(merged: Volume, known: Truth, start: RigidMotion | None = None) -> tuple[float, torch.Tensor]:
    """Spacing, Å, at which the FSC to the truth first falls below 0.5, and the FSC (shell,), after one rigid motion.

    Both maps are within the truth's mask, on its grid. start is where the search for the motion begins.
    """
    mask, truth = (torch.as_tensor(np.array(v.data, dtype=np.float32)) for v in (known.mask, known.map))
    moved = move_map(merged, superpose(merged, known.map, mask, start), known.map)
    fsc = fourier_shell_correlation(moved * mask, truth * mask)
    return first_crossing(shell_frequency(known), fsc, _THRESHOLD), fsc


def merged_map(halves: HalfMaps) -> Volume:
    """The mean of two half maps."""
    data = (np.asarray(halves.half1.data, dtype=np.float32) + np.asarray(halves.half2.data, dtype=np.float32)) / 2
    return Volume(data=data, voxel_size=halves.half1.voxel_size)


def oracle_maps(known: Truth, chosen: np.ndarray | None = None) -> Weighted:
    """The averages of true particles (all, or those of an index array) at true poses, geometry, CTF and damage."""
    particles = known.particles if chosen is None else known.particles[np.sort(chosen)]
    particles = replace(particles, half_set=1 + np.arange(len(particles)) % 2)
    names = set(particles.tilt_series.tolist())
    series = {name: series for name, series in known.tilt_series.items() if name in names}
    return {weighting: average_as(series, particles, known, weighting) for weighting in ("measured", "expected")}


def average_as(
    tilt_series: Mapping[str, TiltSeries],
    particles: Particles,
    known: Truth,
    weighting: Literal["expected", "measured"],
) -> HalfMaps:
    """Half maps of particles as they stand, in the box, mask and point group of the truth."""
    return average_particles(
        tilt_series,
        particles,
        box_size=known.map.data.shape[0],
        particle_diameter=known.particle_diameter,
        symmetry=known.symmetry,
        weighting=weighting,
    )


def shell_frequency(known: Truth) -> torch.Tensor:
    """(shell,) 1/Å, of the truth's map."""
    n = known.map.data.shape[0]
    return torch.arange(n // 2 + 1, dtype=torch.float64) / (n * known.map.voxel_size)


def _sum_ssnr(fsc: torch.Tensor, resolution: float, known: Truth) -> float:
    """Σ C² / (1 - C²) over the shells down to a resolution, the origin left out; C is the FSC to the truth."""
    inside = shell_frequency(known) <= 1 / resolution
    inside[0] = False
    c = fsc[inside].clamp(0, 0.9999)
    return float((c**2 / (1 - c**2)).sum())
