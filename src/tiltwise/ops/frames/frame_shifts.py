"""Shifts of the frames of one tilt, from the images of its particles: Gauss-Newton steps with a smooth prior.

What lies at r in the sum lies at r + e_f(r) in frame f, once the motion so far is taken back; r and e in Å,

    e_f(r) = Σ_j c_fj p_j(r / scale),    p = 1, x, y, x², y², xy,    Σ_f c_fj = 0:

the mean belongs to particles and tilts. With the whitened images and models of `ops.frames.frame_images` a particle's
log likelihood is, for t = e_f(r_p), s_f the frame's share of the exposure,

    L_fp(t) = Σ_k Re(X* sqrt(s_f) m exp(-2πi k·t)) - s_f |m|² / 2,
    g_fp = ∂L/∂t = Σ_k 2πk sqrt(s_f) Im(X* m exp(-2πi k·t)),    H_fp = s_f Σ_k (2πk)(2πk)ᵀ |m|²,

H the Fisher information, which no shift changes. Each c_j is a walk over the frames, its steps of standard deviation
width_j Å from one frame of average exposure to the next. In cosines of zero mean over the frames, c = B γ,

    (Bᵀ S B ⊗ Σ_p p pᵀ ⊗ H_p + Bᵀ K B ⊗ diag(1 / width²)) δγ = Bᵀ g - Bᵀ K B γ / width²

is a step, K the precision of a walk of unit steps. L is then looked at anew under the phases of the shift (no image is
cut again): H, that of frames in their places, makes steps too short far from there. So a step is doubled while L with
its prior rises, halved until it does; where motion is small two suffice. Low frequencies come first, for motion may be
longer than the finest waves. The inverse of the matrix states errors.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from scipy.linalg import cho_factor, cho_solve

from tiltwise.ops.frames.frame_images import FrameImages
from tiltwise.ops.kernels.frames import shell_agreement, shifted_agreement, shifted_agreement_alone
from tiltwise.ops.motion.model import whole_basis

MONOMIALS = 6
_STEPS = 20
_SHORTEST, _LONGEST = 1 / 16, 8.0
"""Of a step."""
_BANDS = (0.25, 0.35, 0.5, 0.7)
"""Parts of the finest frequency up to which motion is sought first: where it is longer than the finest wave, the climb
would end beside the top."""
_AS_EXPECTED = 1.3
"""Of the gain that a step is expected to bring: with less it is long enough."""
_SETTLED = 0.05
"""Log likelihood; less than this is no reason for a further step."""
_LEVELS, _LEVEL_PRIOR, _SAME_LEVEL = 2, 25.0, 0.05
_LEAST_SHARE = 1e-6
_WORTH_THREADS = 300_000
"""Values, a millisecond's work: below that one thread is done before others have begun."""
Look = Callable[[np.ndarray], tuple[float, np.ndarray]]
"""Value and gradient at a place."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class ShiftProblem:
    """Particles of a tilt, of one half set or both, by which its frames are to be placed."""

    images: FrameImages
    """Their images."""
    monomials: np.ndarray
    """(particle, 6) p_j(r)."""
    information: np.ndarray
    """(12, 12) Σ_p p pᵀ ⊗ H_p of the whole tilt, 1/Å²; a frame has its share of it."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class ShiftFit:
    """Shifts of the frames."""

    coefficient: np.ndarray
    """(frame, 6, 2) c, Å; the mean over the frames is 0."""
    error: np.ndarray
    """(frame, 6, 2) standard deviations of the posterior, Å; 0 for what was not fitted."""


def position_monomials(place: np.ndarray, scale: float) -> np.ndarray:
    """(point, 6) values of 1, x, y, x², y², xy at places (point, 2), Å, over scale, Å."""
    x, y = (np.asarray(place, dtype=float) / scale).T
    return np.stack([np.ones_like(x), x, y, x * x, y * y, x * y], axis=-1)


def shift_problem(images: FrameImages, scale: float) -> ShiftProblem:
    """The problem that some particles pose; scale Å."""
    return _problem(images, position_monomials(images.place, scale))


def _problem(images: FrameImages, monomials: np.ndarray) -> ShiftProblem:
    power = np.abs(images.model).astype(np.float64) ** 2
    wave = 2 * np.pi / images.width * images.points
    own = np.einsum("pn,na,nb->pab", power, wave, wave, optimize=True)
    full = np.einsum("pj,pl,pab->jalb", monomials, monomials, own, optimize=True)
    return ShiftProblem(images=images, monomials=monomials, information=full.reshape(2 * MONOMIALS, 2 * MONOMIALS))


def _banded(problem: ShiftProblem, part: float) -> ShiftProblem:
    """The same up to a part of the finest frequency (points rise with |k|)."""
    images = problem.images
    radius = np.linalg.norm(images.points, axis=1)
    number = max(int((radius <= part * radius[-1]).sum()), 1)
    kept = {"data": images.data[..., :number], "model": images.model[:, :number], "points": images.points[:number]}
    return _problem(replace(images, **kept), problem.monomials)


def shifts_at(problem: ShiftProblem, coefficient: np.ndarray) -> np.ndarray:
    """(frame, particle, 2) e, Å."""
    return np.einsum("pj,fjc->fpc", problem.monomials, coefficient)


def agreement(problem: ShiftProblem, coefficient: np.ndarray) -> tuple[float, np.ndarray]:
    """Log likelihood under shifts, up to what no shift changes, and its gradient (frame, 6, 2) by the coefficients."""
    images = problem.images
    unit = 2 * np.pi / images.width
    terms = np.zeros((*images.data.shape[:2], 3))
    shifts = np.ascontiguousarray(unit * shifts_at(problem, coefficient))
    fill = shifted_agreement if images.data.size > _WORTH_THREADS else shifted_agreement_alone
    fill(images.data, images.model, images.points, shifts, terms)
    root = np.sqrt(images.share)
    gradient = np.einsum("f,fpc,pj->fjc", unit * root, terms[..., 1:], problem.monomials)
    return float(root @ terms[..., 0].sum(axis=1)), gradient


def shell_sums(problem: ShiftProblem, coefficient: np.ndarray, shells: int) -> tuple[np.ndarray, np.ndarray]:
    """(frame, shell) Σ Re(X* sqrt(s_f) m) under shifts and (shell,) Σ |m|², m under the reference of the other half."""
    images = problem.images
    shell = np.rint(np.linalg.norm(images.points, axis=1)).astype(np.int64)
    shifts = np.ascontiguousarray(2 * np.pi / images.width * shifts_at(problem, coefficient))
    cross = np.zeros((len(images.data), shells))
    shell_agreement(images.data, images.other, images.points, shell, shifts, cross)
    power = (np.abs(images.other).astype(np.float64) ** 2).sum(axis=0)
    return np.sqrt(images.share)[:, None] * cross, np.bincount(shell, power, minlength=shells)


def frame_walk(share: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """B (frame, frame - 1), and Bᵀ K B (frame - 1, frame - 1) of a walk whose steps have variance 1 from one frame of
    average exposure to the next."""
    basis = whole_basis(len(share))
    steps = np.diff(basis, axis=0)
    variance = len(share) * np.maximum(share[1:] + share[:-1], _LEAST_SHARE) / 2
    return basis, steps.T @ (steps / variance[:, None])


def fit_shifts(problem: ShiftProblem, width: np.ndarray) -> ShiftFit:
    """The most probable shifts; width (6,) Å a frame, of the steps of each monomial's walk; 0 leaves it out.

    Low frequencies come first. Models are of the amplitude that the sum so far shows, which motion has blurred; shifts
    are fitted once more with that which the frames show in their new places.
    """
    share, free = problem.images.share, np.flatnonzero(width)
    basis, walk = frame_walk(share)
    axes = (2 * free[:, None] + np.arange(2)).ravel()
    prior = np.kron(walk, np.diag(np.repeat(width[free] ** -2.0, 2)))

    def informed(own: ShiftProblem) -> np.ndarray:
        return np.kron(basis.T @ (share[:, None] * basis), own.information[np.ix_(axes, axes)])

    place, level = np.zeros(len(prior)), 1.0
    for coarse in (_banded(problem, part) for part in _BANDS):
        place = _climb(_looked_at(coarse, basis, free, prior, level), informed(coarse) + prior, place)
    information = informed(problem)
    for _ in range(_LEVELS):
        place = _climb(_looked_at(problem, basis, free, prior, level), level**2 * information + prior, place)
        before, level = level, _level(problem, _spread(basis, place, free))
        if abs(level - before) < _SAME_LEVEL:
            break
    spread = np.linalg.inv(level**2 * information + prior)
    spread = spread.reshape(basis.shape[1], len(axes), basis.shape[1], len(axes))
    error = np.zeros((len(basis), MONOMIALS, 2))
    error[:, free] = np.sqrt(np.einsum("fa,fb,ajbj->fj", basis, basis, spread)).reshape(len(basis), -1, 2)
    return ShiftFit(coefficient=_spread(basis, place, free), error=error)


def _looked_at(problem: ShiftProblem, basis: np.ndarray, free: np.ndarray, prior: np.ndarray, level: float) -> Look:
    """Log likelihood with its prior, for models times a level, and its gradient."""

    def look(place: np.ndarray) -> tuple[float, np.ndarray]:
        value, gradient = agreement(problem, _spread(basis, place, free))
        pulled = (basis.T @ gradient[:, free].reshape(len(basis), -1)).ravel()
        return level * value - 0.5 * place @ prior @ place, level * pulled - prior @ place

    return look


def _level(problem: ShiftProblem, coefficient: np.ndarray) -> float:
    """The factor by which the models fit best, with a prior of 1 ± 0.2."""
    power = float((np.abs(problem.images.model).astype(np.float64) ** 2).sum())
    return float(np.clip((agreement(problem, coefficient)[0] + _LEVEL_PRIOR) / (power + _LEVEL_PRIOR), 0.5, 3.0))


def _climb(look: Look, normal: np.ndarray, place: np.ndarray) -> np.ndarray:
    """The top, from a place; a step is doubled while that helps, halved until the value rises.

    Where the matrix is c times too large the unit step gains 2 - c of what it should, and is 1 / c too short.
    """
    factor = cho_factor(normal)
    value, gradient = look(place)
    for _ in range(_STEPS):
        step = cho_solve(factor, gradient)
        expected = 0.5 * float(step @ gradient)
        if expected < _SETTLED:
            break
        before, best, scale = value, 0.0, 1.0
        while _SHORTEST <= scale <= _LONGEST and (best == 0 or best >= 1):
            reached, slope = look(place + scale * step)
            if reached > value:
                best, value, gradient = scale, reached, slope
                if value - before < _AS_EXPECTED * expected:
                    break
            elif best:
                break
            scale = 2 * scale if best else scale / 2
        if not best:
            break
        place = place + best * step
    return place


def _spread(basis: np.ndarray, place: np.ndarray, free: np.ndarray) -> np.ndarray:
    """(frame, 6, 2) coefficients from those of the basis; 0 where they are not free."""
    coefficient = np.zeros((len(basis), MONOMIALS, 2))
    coefficient[:, free] = (basis @ place.reshape(basis.shape[1], -1)).reshape(len(basis), len(free), 2)
    return coefficient
