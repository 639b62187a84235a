"""Classes of two halves, found independently, matched, and then told to each other."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment

from tiltwise.data.progress import Progress
from tiltwise.ops.classes.averages import FoldSums
from tiltwise.ops.classes.likelihood import (
    ClassAgreement,
    ClassReferences,
    Mixture,
    expected_shrinkage,
    fit_mixture,
    mixture_gain,
    posterior_under,
    ranked_posterior,
)
from tiltwise.ops.particles.images import TiltWeights
from tiltwise.params.classify import ClassifyParams
from tiltwise.stages.classify.iteration import (
    ClassPoses,
    agree,
    aligned,
    all_others,
    other_half,
    poses_as_given,
    references_by_fold,
    rest_of_half,
    sum_folds,
)
from tiltwise.stages.classify.setup import Band, Setup, cut_band

_SEARCHES = 12  # rounds of a random start at most
_SETTLED = 0.01  # mean change of the posteriors at which a start has settled
_STILL = 0.005  # the same of an iteration
_SURE = 2.0  # standard errors by which classes must explain the particles better than one map
_EACH_HALF = {(1,): None, (2,): None}


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Assignment:
    """Classes of both halves, and what they rest on."""

    posterior: torch.Tensor
    """(particle, class) float64."""
    mixtures: dict[int, Mixture]
    """By half set."""
    gain: torch.Tensor
    """(particle,) log likelihood over the consensus alone, with prior and ρ fitted to other folds."""
    poses: ClassPoses
    """For each class."""


def random_starts(
    setup: Setup, weights: Mapping[str, TiltWeights], poses: ClassPoses, params: ClassifyParams, progress: Progress
) -> tuple[Assignment, list[dict]]:
    """For each half the most likely mixture of several random starts in a coarse band, and what each came to.

    A start assigns particles at random, then averages and assigns anew by the order of the likelihoods alone until
    that settles: a power iteration towards the largest difference in the data. Its likelihood is that of the mixture
    fitted at its end.
    """
    band, halves = cut_band(setup, weights, setup.first_resolution), setup.particles.half_set
    found: list[Assignment] = []
    for start in range(params.starts):
        progress(start / params.starts, f"random start {start + 1} of {params.starts}")
        posterior = _random_assignment(halves, params, start)
        for _ in range(_SEARCHES):
            agreement = _against_rest_of_half(band, posterior, poses, params)
            before, posterior = posterior, 0.5 * (posterior + _by_half(halves, agreement, ranked_posterior))
            if _change(posterior, before) < _SETTLED:
                break
        found.append(_fitted(setup, agreement, posterior, poses))
    gains = torch.stack([torch.stack([one.gain[halves == half].sum() for half in (1, 2)]) for one in found])
    best = gains.argmax(0)
    rows = [
        {"start": n + 1, "likelihood_gain": gains[n].tolist(), "kept": (best == n).tolist()} for n in range(len(found))
    ]
    return _combined(halves, {half: found[int(best[half - 1])] for half in (1, 2)}), rows


def _random_assignment(halves: np.ndarray, params: ClassifyParams, start: int) -> torch.Tensor:
    """(particle, class) one class for each particle, of equal numbers in each half."""
    drawn = np.empty(len(halves), dtype=np.int64)
    for half in (1, 2):
        own, rng = np.flatnonzero(halves == half), np.random.default_rng([params.seed, half, start])
        drawn[own] = rng.permutation(len(own)) % params.classes
    return torch.nn.functional.one_hot(torch.as_tensor(drawn), params.classes).double()


def _against_rest_of_half(
    band: Band, posterior: torch.Tensor, poses: ClassPoses, params: ClassifyParams
) -> ClassAgreement:
    sums = sum_folds(band, posterior, poses, params)
    return agree(band, references_by_fold(band, sums, partial(rest_of_half, sums)), poses)


def _by_half(halves: np.ndarray, agreement: ClassAgreement, posterior_of) -> torch.Tensor:
    result = torch.empty_like(agreement.base)
    for half in (1, 2):
        own = torch.as_tensor(halves == half)
        result[own] = posterior_of(agreement.of(own))
    return result


def _change(posterior: torch.Tensor, before: torch.Tensor) -> float:
    return float((posterior - before).abs().mean())


def _fitted(
    setup: Setup,
    agreement: ClassAgreement,
    start: torch.Tensor,
    poses: ClassPoses,
    shapes: Mapping[tuple[int, ...], torch.Tensor | None] = _EACH_HALF,
) -> Assignment:
    """A mixture for each group of half sets, with ρ of its shape if it has one; the gain of a fold is under a mixture
    fitted to the other folds of its group."""
    posterior, gain, mixtures = torch.empty_like(start), start.new_empty(len(start)), {}
    for group, shape in shapes.items():
        own = torch.as_tensor(np.isin(setup.particles.half_set, group))
        mixture = fit_mixture(agreement.of(own), start[own], shape)
        posterior[own], mixtures = mixture.posterior, mixtures | dict.fromkeys(group, mixture)
        for fold in np.unique(setup.fold[own.numpy()]).tolist():
            this = torch.as_tensor(setup.fold == fold)
            rest = own & ~this
            gain[this] = mixture_gain(agreement.of(this), fit_mixture(agreement.of(rest), start[rest], shape))
    return Assignment(posterior=posterior, mixtures=mixtures, gain=gain, poses=poses)


def _combined(halves: np.ndarray, chosen: Mapping[int, Assignment]) -> Assignment:
    """Of each half the rows of its own assignment; poses are the same in all."""
    first = torch.as_tensor(halves == 1)
    return Assignment(
        posterior=torch.where(first[:, None], chosen[1].posterior, chosen[2].posterior),
        mixtures={half: chosen[half].mixtures[half] for half in (1, 2)},
        gain=torch.where(first, chosen[1].gain, chosen[2].gain),
        poses=chosen[1].poses,
    )


def refine_within_halves(
    setup: Setup, band: Band, state: Assignment, params: ClassifyParams, progress: Progress
) -> tuple[Assignment, list[dict]]:
    """Averages and posteriors in turn, each half for itself, until the posteriors settle; a record of each round."""
    halves, records, averaged = setup.particles.half_set, [], state.posterior
    for number in range(1, params.iterations + 1):
        progress((number - 1) / params.iterations, f"iteration {number}")
        sums, before = sum_folds(band, averaged, state.poses, params), averaged
        references = references_by_fold(band, sums, partial(rest_of_half, sums))
        state = _fitted(setup, *_compared(setup, band, references, state, params))
        averaged = 0.5 * (averaged + state.posterior)
        change = _change(averaged, before)
        records.append(
            {
                "iteration": number,
                "class_size": [state.mixtures[half].prior.tolist() for half in (1, 2)],
                "likelihood_gain": [float(state.gain[halves == half].sum()) for half in (1, 2)],
                "posterior_change": change,
            }
        )
        if change < _STILL:
            break
    return state, records


def _compared(
    setup: Setup, band: Band, references: Mapping[int, ClassReferences], state: Assignment, params: ClassifyParams
) -> tuple[ClassAgreement, torch.Tensor, ClassPoses]:
    """Every particle against the references of its fold; its posterior under the mixtures there are; poses, refined
    where asked."""
    poses = state.poses
    if params.align:
        poses = aligned(band, references, state.mixtures, poses, 2 * setup.source.settings.pixel_size)
    agreement, posterior = agree(band, references, poses), torch.empty_like(state.posterior)
    for half in (1, 2):
        own = torch.as_tensor(setup.particles.half_set == half)
        posterior[own] = posterior_under(agreement.of(own), state.mixtures[half])
    return agreement, posterior, poses


def tell_each_other(setup: Setup, band: Band, found: Assignment, params: ClassifyParams) -> tuple[Assignment, dict]:
    """Posteriors of all particles against references of nearly all, none of which any particle has had a part in.

    The particles of one half are first assigned by the references of the other half, found without them. That matches
    the classes, and how often it gives the class that their own half gave says whether there are classes. Then each
    is compared with references made of the whole other half, as that assigned itself, and of its own half's other
    folds, as the other half assigned them. Nothing of a particle has gone into any of these. How ρ goes with
    frequency is taken from elsewhere too: from the other half's fit, then from the correlation of the differences that
    the halves found each for itself; its scale alone is fitted. The gain, with prior and scale of other particles, is
    therefore of particles against what they did not shape.
    """
    halves = setup.particles.half_set
    own = sum_folds(band, found.posterior, found.poses, params)
    exchanged = replace(
        found, mixtures={1: found.mixtures[2], 2: found.mixtures[1]}, poses=poses_as_given(setup, params.classes)
    )
    references = references_by_fold(band, own, partial(other_half, own))
    shapes = {(half,): mixture.shrinkage for half, mixture in exchanged.mixtures.items()}
    crossed = _fitted(setup, *_compared(setup, band, references, exchanged, params), shapes)
    order = matching(found.posterior, crossed.posterior, halves)
    agreed = _agreement(found.posterior, crossed.posterior, halves, order)
    second = torch.as_tensor(halves == 2)
    found, crossed = _reordered(found, second, order, 2), _reordered(crossed, ~second, order, 1)
    own = sum_folds(band, found.posterior, found.poses, params)
    told = sum_folds(band, crossed.posterior, crossed.poses, params)

    def makers(fold: int) -> list:
        return [*other_half(own, fold), *rest_of_half(told, fold)]

    shape, references = _shape(band, own), references_by_fold(band, own, makers)
    final = _fitted(setup, *_compared(setup, band, references, crossed, params), {(1, 2): shape})
    return final, {"halves_agree": agreed} | _evidence(final.gain)


def _evidence(gain: torch.Tensor) -> dict:
    """Mean and standard error of the gain (particle,), and whether it says that there are classes."""
    mean, error = float(gain.mean()), float(gain.std()) / len(gain) ** 0.5
    return {
        "likelihood_gain_per_particle": mean,
        "likelihood_gain_error": error,
        "confirmed": mean > max(_SURE * error, 0.0),
    }


def settle_together(
    setup: Setup, band: Band, state: Assignment, params: ClassifyParams, progress: Progress
) -> tuple[Assignment, list[float]]:
    """Averages and posteriors in turn, all particles together, each fold against all others, until they settle.

    Classes that the halves found are seldom exactly the same; here they become so. Only for classes that the halves
    have confirmed: from now on a particle has a part, through the assignments of others, in what it is compared with.
    """
    averaged, changes = state.posterior, []
    for number in range(1, params.iterations + 1):
        progress((number - 1) / params.iterations, f"together, iteration {number}")
        sums, before = sum_folds(band, averaged, state.poses, params), averaged
        shape = _shape(band, sums)
        references = references_by_fold(band, sums, partial(all_others, sums))
        state = _fitted(setup, *_compared(setup, band, references, state, params), {(1, 2): shape})
        averaged = 0.5 * (averaged + state.posterior)
        changes.append(_change(averaged, before))
        if changes[-1] < _STILL:
            break
    return state, changes


def _shape(band: Band, sums: Mapping[int, FoldSums]) -> torch.Tensor:
    """(class, shell) of ρ, from how the differences of the halves correlate."""
    references = references_by_fold(band, sums, partial(other_half, sums))
    return expected_shrinkage(references[min(references)], references[max(references)])


def matching(own: torch.Tensor, crossed: torch.Tensor, halves: np.ndarray) -> torch.Tensor:
    """(class,) for each class of half 1 the one of half 2 that shares most with it.

    own (particle, class): posteriors by references of the particle's own half; crossed: by those of the other half.
    """
    first, second = (torch.as_tensor(halves == half) for half in (1, 2))
    shared = own[first].T @ crossed[first] + crossed[second].T @ own[second]
    return torch.as_tensor(linear_sum_assignment(-shared.numpy())[1])


def _agreement(own: torch.Tensor, crossed: torch.Tensor, halves: np.ndarray, order: torch.Tensor) -> float:
    """Part of the particles for which both halves name the same class, once matched."""
    first = torch.as_tensor(halves == 1)
    back = order.argsort()
    number = torch.where(first, own.argmax(1), back[own.argmax(1)])
    other = torch.where(first, back[crossed.argmax(1)], crossed.argmax(1))
    return float((number == other).double().mean())


def in_order(state: Assignment, order: torch.Tensor) -> Assignment:
    """The same classes in another order."""
    rows = torch.ones(len(state.posterior), dtype=torch.bool)
    return _reordered(_reordered(state, rows, order, 1), ~rows, order, 2)


def _reordered(state: Assignment, rows: torch.Tensor, order: torch.Tensor, half: int) -> Assignment:
    """Classes of some rows, and of the mixture of a half, in another order."""

    def ordered(values: torch.Tensor) -> torch.Tensor:
        result = values.clone()
        result[rows] = values[rows][:, order]
        return result

    mixture = state.mixtures[half]
    mixture = replace(
        mixture,
        posterior=mixture.posterior[:, order],
        prior=mixture.prior[order],
        shrinkage=mixture.shrinkage[order],
    )
    return Assignment(
        posterior=ordered(state.posterior),
        mixtures={**state.mixtures, half: mixture},
        gain=state.gain,
        poses=ClassPoses(rotation=ordered(state.poses.rotation), shift=ordered(state.poses.shift)),
    )
