"""Maps against the truth: what was reached, and what an oracle reaches that is told everything (methods.md section
9)."""

from dataclasses import replace
from typing import Any

import numpy as np
import torch

from tiltwise.data.maps import HalfMaps
from tiltwise.data.volume import Volume
from tiltwise.ops.fsc import first_crossing, fourier_shell_correlation
from tiltwise.ops.half_maps import average_particles
from tiltwise.ops.superpose import RigidMotion, move_map, superpose
from tiltwise.workflows.simulation import Truth

_THRESHOLD = 0.5
_MAP_KEYS = (
    "resolution_to_truth_A",
    "oracle_resolution_A",
    "oracle_ratio",
    "oracle_ratio_particles_used",
    "sum_ssnr_ratio",
    "oracle_valid",
)


def score_maps(
    reached: HalfMaps | None, used: np.ndarray | None, known: Truth, start: RigidMotion | None
) -> dict[str, Any]:
    """Resolution of the merged half maps to the truth, and its ratio to that of the oracle.

    used: indices of the true particles that were refined, for the oracle of the same particles; start: where the search
    for the motion onto the truth begins. The ratio is valid only if the oracle lies between 1.25 × the Nyquist spacing
    and 0.6 × the low-pass of the starting reference. All values None without half maps.
    """
    if reached is None:
        return dict.fromkeys(_MAP_KEYS)
    resolution, fsc = compare_to_truth(merged_map(reached), known, start)
    oracle, oracle_fsc = compare_to_truth(oracle_map(known), known)
    oracle_used = oracle if used is not None and len(used) == len(known.particles) else None
    if oracle_used is None and used is not None and len(used):
        oracle_used, _ = compare_to_truth(oracle_map(known, used), known)
    nyquist = 2 * known.map.voxel_size
    return {
        "resolution_to_truth_A": resolution,
        "oracle_resolution_A": oracle,
        "oracle_ratio": resolution / oracle,
        "oracle_ratio_particles_used": resolution / oracle_used if oracle_used else None,
        "sum_ssnr_ratio": _sum_ssnr(fsc, oracle, known) / _sum_ssnr(oracle_fsc, oracle, known),
        "oracle_valid": bool(1.25 * nyquist <= oracle <= 0.6 * known.reference_lowpass),
        "fsc_frequency": shell_frequency(known).tolist(),
        "fsc_to_truth": fsc.tolist(),
        "fsc_oracle": oracle_fsc.tolist(),
    }


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


def oracle_map(known: Truth, chosen: np.ndarray | None = None) -> Volume:
    """The average of true particles (all, or those of an index array) at true poses, geometry, CTF and damage."""
    particles = known.particles if chosen is None else known.particles[np.sort(chosen)]
    particles = replace(particles, half_set=1 + np.arange(len(particles)) % 2)
    names = set(particles.tilt_series.tolist())
    halves = average_particles(
        {name: series for name, series in known.tilt_series.items() if name in names},
        particles,
        box_size=known.map.data.shape[0],
        particle_diameter=known.particle_diameter,
    )
    return merged_map(halves)


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
