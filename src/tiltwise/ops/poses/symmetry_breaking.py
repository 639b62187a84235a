"""A first reference from nothing but starting directions: particles on a surface whose turns about it are not known.

Each half makes its own. Positions and directions (the reference's z axis, a surface normal) are given; the turn about
the normal is not. First all turns are averaged: what is left is the layers along the normal, against which particles
are brought to one height and direction. Then turns and places along the surface are searched against averages that
start from random turns, with the point group imposed. Every second particle makes the starts, the others tell which of
them to trust (ops/poses/starts.py). All of it runs on the coarse data vectors of ops/poses/search.py, which are made
once.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch

from tiltwise.ops.filters import low_pass
from tiltwise.ops.geometry import rotate_about_z
from tiltwise.ops.interpolate import centred_points, rotate_volume, sample_volume
from tiltwise.ops.particles.references import masked_reference
from tiltwise.ops.particles.slices import SpectralGrid, grid_to_volume, hermitian_complete, insert_slices
from tiltwise.ops.poses.alignment import search_grid
from tiltwise.ops.poses.posterior import pose_likelihood
from tiltwise.ops.poses.search import Candidates, ParticleVectors, search_poses, shift_phases
from tiltwise.ops.poses.starts import FirstMap, Start, trusted_start
from tiltwise.ops.rotations import cone_rotation_grid
from tiltwise.ops.steady import steady_rfftn
from tiltwise.ops.symmetry import symmetrise_volume

_ALL_TURNS = "C24"  # stands for the average over every turn: finer than any coarse map resolves
_PENALTY = 0.05  # of the denominator's mean, added to it


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class BreakingSettings:
    """How a first reference is looked for."""

    resolution: float
    """Finest spacing used, Å."""
    diameter: float
    """Å."""
    cone: float
    """Half-angle of the directions tried about the given ones, degrees."""
    shift: float
    """Largest shift tried, Å."""
    symmetry: str
    """Point group imposed."""
    starts: int = 3
    """Random starts."""
    rounds: int = 4
    """Rounds of search and averaging in each start, with every second particle."""
    more_rounds: int = 6
    """Rounds that the best of them then goes on for, with all."""


def first_reference(
    vectors: ParticleVectors,
    mask: torch.Tensor,
    settings: BreakingSettings,
    rng: np.random.Generator,
    told: Callable[[float], None] = lambda part: None,
) -> FirstMap:
    """First map (n, n, n) of one half from the vectors of some of its particles, in the frames of their poses.

    told is called with the part of the work that is done.
    """
    grid = search_grid(settings.resolution, settings.diameter, settings.cone, settings.shift, settings.symmetry)
    # searches of half of the particles: in each start the rounds and the two likelihoods, then those of all
    work, done = settings.starts * (settings.rounds + 2) + 2 * settings.more_rounds, 0.0

    def rounds(some: ParticleVectors, reference: torch.Tensor, number: int) -> torch.Tensor:
        nonlocal done
        for _ in range(number):
            poses = search_poses(some, reference, grid.rotations, grid.shifts)
            reference = average_vectors(some, poses, mask, settings.symmetry, settings.resolution)
            done += 2 * len(some.data) / len(vectors.data)
            told(min(done / work, 1.0))
        return reference

    making, held_out = vectors.of(slice(0, None, 2)), vectors.of(slice(1, None, 2))
    levelled, starts = _levelled(making, mask, settings, grid.angular_step, 0.35 * settings.resolution), []
    for _ in range(settings.starts):
        poses = _turned_at_random(levelled, rng)
        first = average_vectors(making, poses, mask, settings.symmetry, settings.resolution)
        found = rounds(making, first, settings.rounds)
        fitted, left_out = (pose_likelihood(some, found, grid).double().cpu().numpy() for some in (making, held_out))
        done += 2
        starts.append(Start(map=found, fitted=float(fitted.mean()), held_out=left_out))
    trusted = trusted_start(starts)
    final = rounds(vectors, starts[trusted].map, settings.more_rounds)
    return FirstMap(map=final, starts=tuple(starts), trusted=trusted)


def _turned_at_random(poses: Candidates, rng: np.random.Generator) -> Candidates:
    turn = torch.as_tensor(rng.uniform(0, 360, len(poses.rotation)))
    return replace(poses, rotation=poses.rotation @ rotate_about_z(turn)[:, None])


def _levelled(
    vectors: ParticleVectors, mask: torch.Tensor, settings: BreakingSettings, step: float, spacing: float
) -> Candidates:
    """The particles brought to the height and direction of their average over all turns."""
    number = len(vectors.data)
    poses = Candidates(
        rotation=torch.eye(3, dtype=torch.float64).expand(number, 1, 3, 3),
        shift=torch.zeros(number, 1, 3, dtype=torch.float64),
        score=torch.zeros(number, 1),
    )
    heights = (
        torch.arange(-np.floor(settings.shift / spacing), np.floor(settings.shift / spacing) + 1).double() * spacing
    )
    shifts = torch.nn.functional.pad(heights[:, None], (2, 0))
    rotations = cone_rotation_grid(settings.cone, step, f"C{int(np.ceil(360 / step))}")
    for _ in range(3):
        layers = average_vectors(vectors, poses, mask, _ALL_TURNS, settings.resolution)
        poses = search_poses(vectors, layers, rotations, shifts)
    return poses


def average_vectors(
    vectors: ParticleVectors, poses: Candidates, mask: torch.Tensor, symmetry: str, resolution: float
) -> torch.Tensor:
    """(n, n, n) masked, low-passed average of data vectors in their first candidate pose."""
    period = vectors.layout.box_size * vectors.pixel_size
    phase = shift_phases(vectors.voxels, poses.shift[:, 0] / period)
    sums = insert_slices(
        (vectors.data * phase).contiguous(), vectors.weight, poses.rotation[:, 0], vectors.voxels, vectors.layout
    )
    numerator, denominator = (hermitian_complete(s) for s in sums)
    floor = _PENALTY * denominator[denominator > 0].mean()
    grid = SpectralGrid(values=numerator / (denominator + floor), step=1.0, box_size=vectors.layout.box_size)
    average = symmetrise_volume(grid_to_volume(grid), symmetry, vectors.pixel_size)
    return masked_reference(low_pass(average, resolution, vectors.pixel_size), mask)


def turned_onto(
    moving: torch.Tensor, fixed: torch.Tensor, voxel_size: float, resolution: float, largest_shift: float
) -> tuple[torch.Tensor, float]:
    """`moving` turned about z and shifted onto `fixed`, compared below `resolution` (Å) only, and their correlation.

    The one step in which the halves meet: a rigid motion, found where they agree anyway (40 Å or coarser). Turns are
    tried in steps of a third of what is resolved at the box's edge; the shift is the peak of the correlation.
    """
    n = moving.shape[0]
    first, second = (low_pass(v.double(), resolution, voxel_size) for v in (fixed, moving))
    target = steady_rfftn(first)
    reach = centred_points((n, n, n)).norm(dim=-1) * voxel_size <= largest_shift
    step = float(np.degrees(resolution / 3 / (n * voxel_size / 2)))
    best = (-2.0, 0.0, torch.zeros(3, dtype=torch.float64))
    for angle in torch.arange(0, 360, step, dtype=torch.float64):
        turned = rotate_volume(second, rotate_about_z(angle))
        product = torch.fft.irfftn(target * steady_rfftn(turned).conj(), s=(n, n, n))
        product = torch.fft.fftshift(product) / (first.norm() * turned.norm())
        peak = torch.where(reach, product, torch.full_like(product, -2.0)).argmax()
        value = float(product.reshape(-1)[peak])
        if value > best[0]:
            best = value, float(angle), centred_points((n, n, n)).reshape(-1, 3)[peak]
    turned = rotate_volume(moving.double(), rotate_about_z(torch.tensor(best[1], dtype=torch.float64)))
    moved = sample_volume(turned, centred_points((n, n, n)) - best[2], method="cubic")
    return moved.float(), best[0]
