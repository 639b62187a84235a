"""The classification as a recipe."""

from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass, replace

import numpy as np
import torch
from scipy.spatial.transform import Rotation

from tiltwise.data.classes import ClassMaps
from tiltwise.data.particles import Particles
from tiltwise.data.progress import Progress, no_progress
from tiltwise.data.tilt_series import TiltSeries
from tiltwise.data.volume import Volume
from tiltwise.ops.classes.averages import accumulate_classes, empty_sums
from tiltwise.ops.fsc import first_crossing
from tiltwise.ops.particles.chunks import particle_chunks
from tiltwise.ops.particles.half_maps import consensus_weights, maps_and_fsc
from tiltwise.ops.particles.images import TiltWeights
from tiltwise.params.classify import ClassifyParams
from tiltwise.stages.classify.halves import (
    Assignment,
    in_order,
    random_starts,
    refine_within_halves,
    settle_together,
    tell_each_other,
)
from tiltwise.stages.classify.iteration import poses_as_given
from tiltwise.stages.classify.setup import Setup, cut_band, prepare

_THRESHOLD = 0.143


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class ClassifyResult:
    particles: Particles
    """As given, with the posterior of each class; where poses were refined, those of the likeliest class."""
    class_maps: ClassMaps
    """The average of each class, the largest first."""
    quality: dict
    """Starts and iterations with their likelihood, sizes of the classes, resolutions."""


def classify(
    tilt_series: Mapping[str, TiltSeries],
    particles: Particles,
    focus: Volume | None,
    params: ClassifyParams,
    *,
    device: str = "cpu",
    progress: Progress = no_progress,
) -> ClassifyResult:
    """Posteriors and averages of K classes by expectation-maximisation on the tilt images, from random starts.

    focus (box, box, box) bounds the region where classes may differ, the sphere if none. Each half of the particles
    finds its classes for itself, then the halves tell each other; only classes that this confirms are refined together.
    No particle is ever compared with a reference that it is in. Equations: ops/classes/likelihood.py. Raises InputError
    for input that cannot be used.
    """
    progress(0.0, "noise of the images")
    setup = prepare(tilt_series, particles, focus, params, device)
    weights = consensus_weights(setup.source, setup.particles, setup.mask, params.symmetry)
    poses = poses_as_given(setup, params.classes)
    state, starts = random_starts(setup, weights, poses, params, _part_of(progress, 0.1, 0.4))
    band = cut_band(setup, weights, setup.resolution)
    state, rounds = refine_within_halves(setup, band, state, params, _part_of(progress, 0.4, 0.7))
    progress(0.7, "the halves tell each other")
    state, told = tell_each_other(setup, band, state, params)
    if told["confirmed"]:
        state, told["changes_together"] = settle_together(setup, band, state, params, _part_of(progress, 0.75, 0.9))
    state = _largest_first(state)
    progress(0.9, "averages of the classes")
    maps, resolutions = _average(setup, weights, state, params)
    quality = _quality(state, resolutions, {"starts": starts, "iterations": rounds} | told)
    progress(1.0, "sizes " + ", ".join(f"{100 * part:.0f} %" for part in quality["class_size"]))
    posed = _posed(setup, state, params)[setup.place]
    return ClassifyResult(particles=posed, class_maps=maps, quality=quality)


def _part_of(progress: Progress, begin: float, end: float) -> Progress:
    return lambda fraction, text: progress(begin + (end - begin) * fraction, text)


def _largest_first(state: Assignment) -> Assignment:
    return in_order(state, state.posterior.sum(0).argsort(descending=True, stable=True))


def _average(
    setup: Setup, weights: Mapping[str, TiltWeights], state: Assignment, params: ClassifyParams
) -> tuple[ClassMaps, list[float]]:
    """Maps of the classes, the mean of those of the half sets, and the resolution between these."""
    settings = setup.source.settings
    empty = empty_sums(params.classes, settings.box_size, settings.radius_of(0.1), params.symmetry)
    sums = {1: empty, 2: deepcopy(empty)}
    for _, half, index, images in particle_chunks(setup.source, setup.particles, weights=weights):
        pose = state.poses.rotation[index], state.poses.shift[index]
        sums[half] = accumulate_classes(sums[half], images, *pose, state.posterior[index])
    maps, resolutions = [], []
    frequency = torch.arange(settings.box_size // 2 + 1) / (settings.box_size * settings.pixel_size)
    for k in range(params.classes):
        halves, fsc = maps_and_fsc({half: sums[half].totals[k] for half in (1, 2)}, setup.mask)
        mean = (0.5 * (halves[1] + halves[2])).cpu().numpy()
        maps.append(Volume(data=mean, voxel_size=settings.pixel_size))
        resolutions.append(first_crossing(frequency, fsc, _THRESHOLD))
    return ClassMaps(maps=tuple(maps)), resolutions


def _posed(setup: Setup, state: Assignment, params: ClassifyParams) -> Particles:
    """The particles with their posteriors, at the poses of their likeliest class where these were refined."""
    known = replace(setup.given, class_posterior=state.posterior.cpu().numpy())
    if not params.align:
        return known
    row, best = torch.arange(len(setup.given)), state.posterior.argmax(1)
    position = setup.particles.position + state.poses.shift[row, best]
    return replace(
        known,
        position=position.cpu().numpy(),
        rotation=Rotation.from_matrix(state.poses.rotation[row, best].cpu().numpy()),
        uncertainty=None,
    )


def _quality(state: Assignment, resolutions: list[float], history: dict) -> dict:
    """Figures of the result. `expected_accuracy` is what the posteriors themselves promise: the mean of the largest."""
    number = state.posterior.argmax(1)
    quality = history | {
        "class_size": state.posterior.mean(0).tolist(),
        "class_particles": torch.bincount(number, minlength=state.posterior.shape[1]).tolist(),
        "expected_accuracy": float(state.posterior.amax(1).mean()),
        "resolution_fsc_A": [value if np.isfinite(value) else None for value in resolutions],
        "shrinkage": state.mixtures[1].shrinkage.tolist(),
    }
    if len(resolutions) > 1 and not quality["confirmed"]:
        quality["note"] = (
            "The classes of each half of the particles do not explain the other half better than one map does: there "
            "is no evidence for more than one class at this resolution"
        )
    return quality
