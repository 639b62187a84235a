"""One round of averaging and assignment: which folds make the references of which."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import torch

from tiltwise.ops.classes.averages import FoldSums, accumulate_classes, empty_sums, references_of
from tiltwise.ops.classes.likelihood import ClassAgreement, ClassReferences, Mixture, class_agreement, class_spectrum
from tiltwise.ops.poses.refinement import refine_poses
from tiltwise.params.classify import ClassifyParams
from tiltwise.stages.classify.setup import FOLDS, Band, Setup


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class ClassPoses:
    """The pose of every particle for every class."""

    rotation: torch.Tensor
    """(particle, class, 3, 3) float64 reference to tomogram."""
    shift: torch.Tensor
    """(particle, class, 3) float64 from the position given, Å."""


def poses_as_given(setup: Setup, classes: int) -> ClassPoses:
    """The same pose for all classes."""
    rotation = setup.particles.rotation[:, None].repeat(1, classes, 1, 1)
    return ClassPoses(rotation=rotation, shift=torch.zeros_like(rotation[..., 0]))


def half_of(fold: int) -> int:
    """The half set, 1 or 2, that a fold is of."""
    return 1 + (fold - 1) // FOLDS


def sum_folds(band: Band, posterior: torch.Tensor, poses: ClassPoses, params: ClassifyParams) -> dict[int, FoldSums]:
    """The sums of every fold, each particle added to the classes by its posterior (particle, class)."""
    sums: dict[int, FoldSums] = {}
    for fold, index, images in band.chunks():
        own = sums.get(fold) or empty_sums(params.classes, band.box_size, band.radius, params.symmetry)
        pose = poses.rotation[index], poses.shift[index]
        sums[fold] = accumulate_classes(own, images, *pose, posterior[index])
    return sums


def references_by_fold(
    band: Band, sums: Mapping[int, FoldSums], makers: Callable[[int], list[FoldSums]]
) -> dict[int, ClassReferences]:
    """What the particles of each fold are compared with: the references that its `makers` make together."""
    made: dict[tuple[int, ...], ClassReferences] = {}
    result = {}
    for fold in sums:
        parts = makers(fold)
        key = tuple(id(part) for part in parts)
        if key not in made:
            made[key] = references_of(parts, mask=band.mask, focus=band.focus, radius=band.radius)
        result[fold] = made[key]
    return result


def rest_of_half(sums: Mapping[int, FoldSums], fold: int) -> list[FoldSums]:
    """The sums of all folds of the same half but its own."""
    return [part for other, part in sorted(sums.items()) if half_of(other) == half_of(fold) and other != fold]


def other_half(sums: Mapping[int, FoldSums], fold: int) -> list[FoldSums]:
    """The sums of all folds of the other half."""
    return [part for other, part in sorted(sums.items()) if half_of(other) != half_of(fold)]


def all_others(sums: Mapping[int, FoldSums], fold: int) -> list[FoldSums]:
    """The sums of all folds but its own."""
    return [part for other, part in sorted(sums.items()) if other != fold]


def agree(band: Band, references: Mapping[int, ClassReferences], poses: ClassPoses) -> ClassAgreement:
    """Every particle against the references of its fold."""
    parts, places = [], []
    for fold, index, images in band.chunks():
        parts.append(class_agreement(images, references[fold], poses.rotation[index], poses.shift[index]))
        places.append(index)
    order = torch.as_tensor(np.argsort(np.concatenate(places)))
    return ClassAgreement(
        base=torch.cat([part.base for part in parts])[order],
        cross=torch.cat([part.cross for part in parts])[order],
        power=torch.cat([part.power for part in parts])[order],
    )


def aligned(
    band: Band,
    references: Mapping[int, ClassReferences],
    mixtures: Mapping[int, Mixture],
    poses: ClassPoses,
    free: float,
) -> ClassPoses:
    """Every pose refined for each class, from where it is, against the reference of the class for its fold.

    mixtures by half set, whose ρ scale the differences; free: Å that a particle may move from the position given.
    """
    rotation, shift = poses.rotation.clone(), poses.shift.clone()
    for fold, index, images in band.chunks():
        shrinkage = mixtures[half_of(fold)].shrinkage
        for k in range(len(shrinkage)):
            start = rotation[index, k], shift[index, k]
            ball = torch.cat([torch.zeros_like(start[1]), torch.full_like(start[1][:, :1], free)], dim=1)
            spectrum = class_spectrum(references[fold], k, shrinkage[k])
            found = refine_poses(images, spectrum, *start, steps=3, allowed_shift=ball)
            rotation[index, k], shift[index, k] = found.rotation, found.shift
    return ClassPoses(rotation=rotation, shift=shift)
