"""The geometry of a tilt series refined on its particles: one bundle adjustment, every block behind a gate.

With the quadratics of `ops.poses.terms` and y_pi = L_i q_p + J_pi θ, q_p the pose of particle p and θ the parameters of
`ops.polishing.geometry_blocks`, the log likelihood is quadratic in all. Poses are eliminated exactly (Schur
complement):

    g̃ = Σ Jᵀg - Σ_p C_pᵀ V_p⁻¹ l_p,    H̃ = Σ JᵀHJ - Σ_p C_pᵀ V_p⁻¹ C_p,
    l_p = Σ_i L_iᵀ g_pi,   V_p = Σ_i L_iᵀ H_pi L_i + prior,   C_p = Σ_i L_iᵀ H_pi J_pi,

so that g̃·θ - θ·H̃·θ / 2 is what the likelihood gains by θ once every pose has followed. The fit is (H̃ + 1) θ = g̃.

The gate: θ fitted on the particles of one half set must raise the likelihood of the other, both ways. Blocks are tried
in the order of `LADDER`, each together with those already taken, its prior at full and at a third of its width. What is
taken then has to prove itself on the images (`ops.polishing.geometry_on_images`).

What was taken is fitted again whenever references and poses are better, and judged against what the same half said the
time before. The joint fit of both is no judge: it knows the noise of the half that is asked. With the same information
in each half, the likelihood of one is on average 1 / 4 log unit below its top, for each number, at the joint fit, and 1
below it at the fit of the other, so that a refit of n numbers would begin 3 n / 4 behind. So the fits of either half go
along from one time to the next beside that of both (`GeometrySoFar`), all in changes since the geometry was given, and
priors are about that.

Two limits. What a refit must exceed is what chance gives to a first fit, so that one which is merely as good as the fit
before often passes; as all of them are the most probable under the references there are, none draws the geometry away.
And each half's reference holds the noise of its own particles as the joint geometry placed them, which draws its fit
towards that by the noise's part in the reference: the fits of the halves grow alike slowly, and with them the handicap
grows back.

Where images tell next to nothing, gains are small and of either sign; what a gain must exceed is `ops.held_out`.

Several species add their quadratics, if they help each other: one whose reference is its own noise finds its images
where they are, whatever is true, and would hold the geometry there. So the species that gains most by itself begins,
and each other one joins if, with it in the fit, the held-out half of those before gains more than without.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy.linalg import cho_factor, cho_solve
from scipy.linalg.lapack import dtrtri

from tiltwise.ops.held_out import BlockGate, chance_gain
from tiltwise.ops.polishing.geometry_blocks import Block, Seen, pose_derivatives
from tiltwise.ops.poses.terms import PoseTerms

LADDER = ("shift", "angles", "magnification", "sample", "warp")
"""Blocks from the fewest to the most numbers a tilt."""
AGAIN = "again"
"""In the place of a block: all that was taken before, fitted anew."""
_WIDTHS = (1.0, 0.3)
"""Of a block's prior, or of a step's, relative to its standard deviations."""
_TURN, _MOVE = np.radians(5.0), 20.0
"""Prior standard deviations of a pose, radians and Å: they only keep what no image tells from moving."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Reduced:
    """The likelihood as a quadratic of the geometry alone, all poses following."""

    gradient: np.ndarray
    """(parameter,) g̃."""
    information: np.ndarray
    """(parameter, parameter) H̃."""

    def __add__(self, other: "Reduced") -> "Reduced":
        return Reduced(gradient=self.gradient + other.gradient, information=self.information + other.information)

    def fit(self, width: np.ndarray, centre: np.ndarray | None = None) -> np.ndarray:
        """(parameter,) the most probable changes under priors of this width (parameter,) about centre (parameter,), or
        about 0; a width of 0 leaves a parameter at the centre."""
        centre = np.zeros(len(width)) if centre is None else centre
        free, change = np.flatnonzero(width), centre.copy()
        if len(free):
            factor = cho_factor(self.information[np.ix_(free, free)] + np.diag(1 / width[free] ** 2))
            change[free] += cho_solve(factor, (self.gradient - _product(self.information, centre))[free])
        return change

    def determined(self, width: np.ndarray) -> np.ndarray:
        """(parameter,) what part of each the images determine under these priors: the diagonal of (H̃ + P)⁻¹ H̃ =
        1 - (H̃ + P)⁻¹ P, P of the prior; 0 for those left out."""
        free, part = np.flatnonzero(width), np.zeros(len(width))
        if len(free):
            prior = 1 / width[free] ** 2
            root = np.linalg.cholesky(self.information[np.ix_(free, free)] + np.diag(prior))
            inverse = dtrtri(root, lower=1, overwrite_c=1)[0]  # (L Lᵀ)⁻¹ = L⁻ᵀ L⁻¹
            part[free] = 1 - np.einsum("ij,ij->j", inverse, inverse) * prior
        return part

    def about(self, change: np.ndarray) -> "Reduced":
        """The same likelihood as a quadratic of all changes since the geometry was given, of which it has had these."""
        return Reduced(gradient=self.gradient + _product(self.information, change), information=self.information)

    def gain(self, change: np.ndarray) -> float:
        """What the log likelihood gains by a change (parameter,), without the prior."""
        return float(self.gradient @ change - 0.5 * change @ self.information @ change)


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class GeometrySoFar:
    """What a series' geometry has become since it was given, in units of the blocks, and what each half alone says."""

    width: np.ndarray
    """(parameter,) of the priors about the geometry as given; 0 for blocks that were not taken."""
    joint: np.ndarray
    """(parameter,) fitted on both halves: what the series has."""
    by_half: Mapping[int, np.ndarray]
    """(parameter,) fitted on each half alone: what the other half judges."""
    telling: tuple[int, ...] = ()
    """Numbers of the species that made it; none where nothing was taken."""

    @staticmethod
    def as_given(number: int) -> "GeometrySoFar":
        """Nothing of so many parameters is changed."""
        none = np.zeros(number)
        return GeometrySoFar(width=none, joint=none, by_half={1: none, 2: none})


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class GeometryFit:
    """Changes of the geometry since it was given, and what they rest on."""

    found: GeometrySoFar
    """The fit; as before where no gate opened."""
    gates: tuple[BlockGate, ...]
    """In the order in which blocks were tried."""
    determined: Mapping[str, float]
    """By block, how many of its parameters the images determine."""

    @property
    def predicted_gain(self) -> tuple[float, float]:
        """Held-out log likelihood, by the quadratics, of half 1 and of half 2."""
        taken = [gate.gain for gate in self.gates if gate.accepted]
        return tuple(float(sum(g[half] for g in taken)) for half in (0, 1))


def reduce_over_poses(seen: Seen, terms: PoseTerms, blocks: Sequence[Block]) -> Reduced:
    """g̃ and H̃ of all blocks in a row, from terms and where their particles are seen."""
    number, where = sum(block.number for block in blocks), _places(blocks)
    gradient, information = np.zeros(number), np.zeros((number, number))
    coupling = np.zeros((len(terms), 6, number))
    for tilt in range(len(seen.rotations)):
        index, derivatives = _all_blocks(blocks, where, tilt)
        weighted = terms.information[:, tilt] @ derivatives
        flat = derivatives.reshape(-1, len(index))
        information[np.ix_(index, index)] += flat.T @ weighted.reshape(-1, len(index))
        gradient[index] += flat.T @ terms.gradient[:, tilt].reshape(-1)
        coupling[:, :, index] += np.einsum("ya,pyn->pan", pose_derivatives(seen, tilt), weighted)
    pull, curvature = pose_system(seen, terms)
    root = np.linalg.inv(np.linalg.cholesky(curvature))  # (particle, 6, 6): V⁻¹ = rootᵀ root
    solved = (root @ coupling).reshape(-1, number)
    return Reduced(
        gradient=gradient - solved.T @ (root @ pull[..., None]).reshape(-1),
        information=information - solved.T @ solved,
    )


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class _Trial:
    """A way to fit the geometry, the same for either half and for both."""

    name: str
    """The block that is tried, or AGAIN."""
    width: np.ndarray
    """(parameter,) of the priors about the geometry as given."""
    factor: float
    """Width of the block's prior, or of the step's, relative to its standard deviations."""
    step: bool = False
    """Whether to go a short way only from where each fit stood, priors narrower by the factor and about that."""

    def fit(self, reduced: Reduced, before: np.ndarray) -> np.ndarray:
        """(parameter,) the changes, after those before (parameter,)."""
        return reduced.fit(self.factor * self.width, before) if self.step else reduced.fit(self.width)

    def by_half(self, first: Reduced, second: Reduced, known: GeometrySoFar) -> dict[int, np.ndarray]:
        """(parameter,) the fit of each half."""
        return {half: self.fit(own, known.by_half[half]) for half, own in ((1, first), (2, second))}

    def gate(self, first: Reduced, second: Reduced, known: GeometrySoFar, after: Mapping[int, np.ndarray]) -> BlockGate:
        """What these fits gain in the other half over those before."""
        gain, chance = [], []
        for own, other in ((first, 2), (second, 1)):
            gain.append(own.gain(after[other]) - own.gain(known.by_half[other]))
            step = after[other] - known.by_half[other]
            chance.append(chance_gain(float(step @ own.information @ step)))
        return BlockGate(block=self.name, width=self.factor, gain=tuple(gain), chance=tuple(chance))


def fit_geometry(
    first: Reduced, second: Reduced, blocks: Sequence[Block], known: GeometrySoFar | None = None
) -> GeometryFit:
    """Fit anew what is known, then climb the ladder: the blocks that hold on the other half, and their joint fit.

    first, second: quadratics of all changes since the geometry was given; blocks in the order of LADDER.
    """
    found, both, gates = known or GeometrySoFar.as_given(len(first.gradient)), first + second, []
    named = [(block.name, place) for block, place in zip(blocks, _places(blocks), strict=True)]
    for name, place in [(AGAIN, slice(0)), *named]:
        tried = []
        for trial in _trials(name, place, found.width):
            after = trial.by_half(first, second, found)
            tried.append((trial.gate(first, second, found, after), trial, after))
        if tried:
            gate, trial, after = max(tried, key=lambda one: (one[0].accepted, min(one[0].gain)))
            if gate.accepted or not found.width[place].any():  # a width refused to a block in use says nothing of it
                gates.append(gate)
            if gate.accepted:
                found = replace(found, width=trial.width, joint=trial.fit(both, found.joint), by_half=after)
    part = both.determined(found.width)
    return GeometryFit(
        found=found,
        gates=tuple(gates),
        determined={name: float(part[place].sum()) for name, place in named if found.width[place].any()},
    )


def _trials(name: str, place: slice, width: np.ndarray) -> list[_Trial]:
    """Ways to go on from priors of this width (parameter,), place the parameters of a block: all that is known fitted
    anew, or a short step of it; or a block with its prior at another width."""
    if name == AGAIN:
        whole, step = (_Trial(name=AGAIN, width=width, factor=f, step=f < 1) for f in (1.0, min(_WIDTHS)))
        return [whole, step] if width.any() else []
    trials = []
    for factor in _WIDTHS:
        if factor != width[place][0]:
            wider = width.copy()
            wider[place] = factor
            trials.append(_Trial(name=name, width=wider, factor=factor))
    return trials


def fit_kinds(
    kinds: Sequence[tuple[Reduced, Reduced]], blocks: Sequence[Block], known: GeometrySoFar | None = None
) -> tuple[GeometryFit, list[int]]:
    """The fit of the species that help each other, and which those are; all where none gains by itself.

    Which these are is settled when something is taken for the first time. Later, a species that finds its images where
    they are gains by drawing the fits of both halves there, and would pass for the one that tells most.
    """
    if known is not None and known.telling:
        fit = fit_geometry(*_together([kinds[number] for number in known.telling]), blocks, known)
        return fit, list(known.telling)
    fit, taken = _helping(kinds, blocks, known)
    return (fit if fit.found is known else replace(fit, found=replace(fit.found, telling=tuple(taken)))), taken


def _helping(
    kinds: Sequence[tuple[Reduced, Reduced]], blocks: Sequence[Block], known: GeometrySoFar | None
) -> tuple[GeometryFit, list[int]]:
    alone = [fit_geometry(*own, blocks, known) for own in kinds]
    promise = [sum(fit.predicted_gain) for fit in alone]
    if len(kinds) == 1 or max(promise) <= 0:
        fit = alone[0] if len(kinds) == 1 else fit_geometry(*_together(kinds), blocks, known)
        return fit, list(range(len(kinds)))
    first, *others = sorted(range(len(kinds)), key=lambda number: -promise[number])
    taken, best = [first], alone[first]
    for number in others:
        judges = _together([kinds[k] for k in taken])
        tried = fit_geometry(*_together([kinds[k] for k in (*taken, number)]), blocks, known)
        if _held_out(judges, tried) > _held_out(judges, best):
            taken, best = [*taken, number], tried
    return best, sorted(taken)


def _together(kinds: Sequence[tuple[Reduced, Reduced]]) -> tuple[Reduced, Reduced]:
    first, second = kinds[0]
    for own in kinds[1:]:
        first, second = first + own[0], second + own[1]
    return first, second


def _held_out(halves: tuple[Reduced, Reduced], fit: GeometryFit) -> float:
    """What each half gains by what was fitted on the other."""
    return sum(own.gain(fit.found.by_half[3 - half]) for half, own in enumerate(halves, start=1))


def follow_poses(seen: Seen, terms: PoseTerms, blocks: Sequence[Block], change: np.ndarray) -> np.ndarray:
    """(particle, 6) rotation vectors (radians) and shifts (Å) by which poses follow a change of the geometry."""
    pull, curvature = pose_system(seen, terms)
    where = _places(blocks)
    for tilt in range(len(seen.rotations)):
        index, derivatives = _all_blocks(blocks, where, tilt)
        moved = derivatives @ change[index]
        pull -= np.einsum("ya,pyz,pz->pa", pose_derivatives(seen, tilt), terms.information[:, tilt], moved)
    return np.linalg.solve(curvature, pull[..., None])[..., 0]


def left_by_poses(seen: Seen, terms: PoseTerms) -> float:
    """What the log likelihood still gains by moving poses alone, by the quadratics."""
    pull, curvature = pose_system(seen, terms)
    return float(0.5 * (pull * np.linalg.solve(curvature, pull[..., None])[..., 0]).sum())


def _all_blocks(blocks: Sequence[Block], where: Sequence[slice], tilt: int) -> tuple[np.ndarray, np.ndarray]:
    """Parameters of all blocks that touch a tilt, and the derivatives (particle, 5, n) of y by them."""
    found = [block.at_tilt(tilt) for block in blocks]
    index = np.concatenate([place.start + own for place, (own, _) in zip(where, found, strict=True)])
    return index, np.concatenate([derivatives for _, derivatives in found], axis=2)


def pose_system(seen: Seen, terms: PoseTerms) -> tuple[np.ndarray, np.ndarray]:
    """l (particle, 6) and V (particle, 6, 6)."""
    prior = np.diag([_TURN**-2] * 3 + [_MOVE**-2] * 3)
    pull, curvature = np.zeros((len(terms), 6)), np.repeat(prior[None], len(terms), axis=0)
    for tilt in range(len(seen.rotations)):
        pose = pose_derivatives(seen, tilt)
        pull += terms.gradient[:, tilt] @ pose
        curvature += np.einsum("ya,pyz,zb->pab", pose, terms.information[:, tilt], pose, optimize=True)
    return pull, curvature


def _product(matrix: np.ndarray, vector: np.ndarray) -> np.ndarray:
    """matrix @ vector, summed in one order: BLAS splits such sums among its threads, and bits would depend on them."""
    return np.einsum("ij,j->i", matrix, vector)


def _places(blocks: Sequence[Block]) -> list[slice]:
    """Where the parameters of each block stand in the row of all."""
    ends = np.cumsum([block.number for block in blocks])
    return [slice(int(end) - block.number, int(end)) for block, end in zip(blocks, ends, strict=True)]
