"""Averages of classes: sums by fold and class, and references made of chosen folds.

A particle's noise is in every average that it is part of: compared with such an average it prefers the class it is in,
by about the number of independent values of the map over the number of particles in it, some tens of log units for a
hundred particles. So particles are dealt into folds, sums are kept by fold, and what a particle is compared with is
made of other folds than its own.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import reduce

import torch

from tiltwise.ops.classes.likelihood import ClassReferences
from tiltwise.ops.particles.averaging import Accumulator, accumulate, average_map, empty_accumulator, merge
from tiltwise.ops.particles.images import ParticleImages
from tiltwise.ops.particles.references import masked_reference
from tiltwise.ops.particles.slices import volume_spectrum

_FEWEST = 1.0  # particles that a class's difference is made of; below, it has none
_LEAST_POSTERIOR = 1e-4  # a particle is not added to a class below this


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class FoldSums:
    """What the particles of one fold give to every class."""

    totals: tuple[Accumulator, ...]
    """Sums of each class."""
    members: torch.Tensor
    """(class,) float64 particles in each, by their posteriors."""


def weighted_images(images: ParticleImages, weight: torch.Tensor) -> ParticleImages:
    """Images that count as `weight` (particle,) particles in any sum of transfer · data and transfer²."""
    weight = torch.where(weight < _LEAST_POSTERIOR, torch.zeros_like(weight), weight)
    root = weight.sqrt().to(images.transfer)[:, None, None]
    return replace(images, data=images.data * root, transfer=images.transfer * root)


def accumulate_classes(
    sums: FoldSums,
    images: ParticleImages,
    rotation: torch.Tensor,
    shift: torch.Tensor,
    posterior: torch.Tensor,
) -> FoldSums:
    """The sums with particles added (to the same tensors) to every class, by their posterior (particle, class).

    rotation (particle, class, 3, 3) and shift (particle, class, 3), Å, are the poses for each class.
    """
    for k, total in enumerate(sums.totals):
        accumulate(total, weighted_images(images, posterior[:, k]), rotation[:, k], shift[:, k])
    return replace(sums, members=sums.members + posterior.sum(0))


def empty_sums(classes: int, box_size: int, radius: float, symmetry: str) -> FoldSums:
    """Nothing of any class, for |k| <= radius in 1 / (box · pixel)."""
    totals = tuple(empty_accumulator(box_size, radius, symmetry) for _ in range(classes))
    return FoldSums(totals=totals, members=torch.zeros(classes, dtype=torch.float64))


def references_of(
    parts: Sequence[FoldSums], *, mask: torch.Tensor, focus: torch.Tensor, radius: float
) -> ClassReferences:
    """The references that folds make together.

    mask (n, n, n) bounds the consensus, focus (n, n, n) the differences from it.
    """
    totals = [reduce(merge, sums) for sums in zip(*[part.totals for part in parts], strict=True)]
    members = sum(part.members for part in parts)
    consensus = average_map(reduce(merge, totals))
    nothing = torch.zeros_like(consensus)
    differences = [
        (average_map(total) - consensus) * focus if float(members[k]) >= _FEWEST else nothing
        for k, total in enumerate(totals)
    ]
    return ClassReferences(
        consensus=volume_spectrum(masked_reference(consensus, mask), radius + 1),
        differences=tuple(volume_spectrum(difference, radius + 1) for difference in differences),
    )
