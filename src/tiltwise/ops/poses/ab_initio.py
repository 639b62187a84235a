"""A first map from particles of which nothing but the place is known.

Several starts, each from random rotations. A start runs rounds of expectation and maximisation over the whole grid of
poses (ops/poses/posterior.py), each with other particles drawn at random, as in stochastic gradient descent (Punjani et
al. 2017): from coarse detail to fine, and from posteriors so flat that they take in every pose to the true ones
(deterministic annealing; Rose 1998). So the strongest differences between directions come first, and a start is not
held by the first poses it took. Every fourth particle makes no start: it judges them (ops/poses/starts.py). The start
that is trusted goes on with all.

The rotations of a tomogram's axes are part of the data: particles are seen in three dimensions, and a map of the wrong
hand does not explain them. Only the common rotation of the map is free.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch

from tiltwise.ops.poses.alignment import SearchGrid, search_grid
from tiltwise.ops.poses.posterior import Weighed, banded, pose_likelihood, weigh_poses, weighed_average
from tiltwise.ops.poses.search import ParticleVectors
from tiltwise.ops.poses.starts import FirstMap, Start, trusted_start

_HELD_OUT = 4  # every fourth particle
_COARSEST = 2.2  # spacings to a diameter in the first round
_FIRST_CONTRAST, _LAST_CONTRAST = 1.0, 6.0  # in standard deviations of the log likelihood over the grid
_FINE_PART = 0.75  # of the annealed rounds: the finest spacing is reached by then
_DRAWN = 0.6  # of the particles, in an annealed round


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class AbInitioSettings:
    """How a first map is looked for."""

    resolution: float
    """Finest spacing used, Å."""
    diameter: float
    """Å."""
    cone: float
    """Half-angle of the directions tried about the starting ones, degrees; 180 is every rotation."""
    shift: float
    """Largest shift tried, Å."""
    starts: int = 4
    """Random starts."""
    annealed_rounds: int = 8
    """Rounds of each start in which the posterior sharpens, with particles drawn at random."""
    rounds: int = 2
    """Rounds that follow with all its particles and the true posterior."""
    more_rounds: int = 3
    """Rounds of the trusted start with all particles of the half."""

    def grid(self, resolution: float) -> SearchGrid:
        """Of poses compared down to a spacing in Å."""
        return search_grid(resolution, self.diameter, self.cone, self.shift)


def ab_initio_map(
    vectors: ParticleVectors,
    mask: torch.Tensor,
    settings: AbInitioSettings,
    rng: np.random.Generator,
    told: Callable[[float], None] = lambda part: None,
) -> FirstMap:
    """First map (n, n, n) of the particles of one half, whose vectors reach the settings' resolution.

    told is called with the part of the work that is done. At least eight particles are needed.
    """
    judging = np.arange(len(vectors.data)) % _HELD_OUT == _HELD_OUT - 1
    making, held_out = vectors.of(np.flatnonzero(~judging)), vectors.of(np.flatnonzero(judging))
    grid, starts = settings.grid(settings.resolution), []
    for number in range(settings.starts):
        told(number / (settings.starts + 1))
        found = _start(making, mask, settings, rng)
        fitted, left_out = (pose_likelihood(some, found, grid).double().cpu().numpy() for some in (making, held_out))
        starts.append(Start(map=found, fitted=float(fitted.mean()), held_out=left_out))
    trusted = trusted_start(starts)
    told(settings.starts / (settings.starts + 1))
    final = _rounds(vectors, starts[trusted].map, mask, settings, settings.more_rounds)
    return FirstMap(map=final, starts=tuple(starts), trusted=trusted)


def annealing(settings: AbInitioSettings) -> list[tuple[float, float]]:
    """Resolution (Å) and contrast of each annealed round, both in equal ratios from one to the next."""
    number = settings.annealed_rounds
    contrast = np.geomspace(_FIRST_CONTRAST, _LAST_CONTRAST, number)
    coarsest = max(settings.diameter / _COARSEST, settings.resolution)
    part = np.minimum(np.arange(number) / max(1.0, _FINE_PART * number), 1)
    resolution = coarsest * (settings.resolution / coarsest) ** part
    return list(zip(resolution.tolist(), contrast.tolist(), strict=True))


def _start(
    vectors: ParticleVectors, mask: torch.Tensor, settings: AbInitioSettings, rng: np.random.Generator
) -> torch.Tensor:
    """(n, n, n) map of one start."""
    number, found = len(vectors.data), None
    few = max(2, round(_DRAWN * number))
    for resolution, contrast in annealing(settings):
        grid = settings.grid(resolution)
        drawn = banded(vectors.of(np.sort(rng.permutation(number)[:few])), resolution)
        if found is None:
            found = weighed_average(_at_random(drawn, grid, rng), drawn, grid, mask, resolution)
        weighed = weigh_poses(drawn, found, grid, contrast=contrast)
        found = weighed_average(weighed, drawn, grid, mask, resolution)
    return _rounds(vectors, found, mask, settings, settings.rounds)


def _at_random(vectors: ParticleVectors, grid: SearchGrid, rng: np.random.Generator) -> Weighed:
    """Every particle in one rotation of the grid, drawn at random, where it stands."""
    drawn = torch.as_tensor(rng.integers(len(grid.rotations), size=len(vectors.data)), device=vectors.data.device)
    numerator = vectors.data.new_zeros(len(grid.rotations), vectors.data.shape[1])
    return Weighed(
        likelihood=torch.zeros(len(vectors.data)),
        numerator=numerator.index_add(0, drawn, vectors.data),
        weight=numerator.real.index_add(0, drawn, vectors.weight),
    )


def _rounds(
    vectors: ParticleVectors, first: torch.Tensor, mask: torch.Tensor, settings: AbInitioSettings, number: int
) -> torch.Tensor:
    """The map after more rounds under the true posterior."""
    grid, found = settings.grid(settings.resolution), first
    for _ in range(number):
        found = weighed_average(weigh_poses(vectors, found, grid), vectors, grid, mask, settings.resolution)
    return found
