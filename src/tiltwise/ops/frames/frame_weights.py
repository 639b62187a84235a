"""What each frame has left of the signal, and the weights of the frames in the sum.

Against the reference of the other half, with the sums C_f(k) = Σ Re(X* sqrt(s_f) m) and M(k) = Σ |m|² of a tilt's
particles over a shell, the log likelihood of an amplitude a_f(k), relative to that of the tilt, is a C - a² s_f M / 2;

    log a_f(k) = log q_f(k) + α_f - B_f k² / 4,    Σ_f α_f = Σ_f B_f = 0,

q the critical-exposure curve: α and B are what it does not tell, such as the blur of the first frames. Either is the
sum of a course that all tilts share and of each tilt's own, walks over the frames (`ops.frames.frame_shifts`) with
steps of 0.1 and 10 Å² a frame (standard deviation; three times and a third are tried too) for what is shared, half or a
tenth as much for a tilt's own: a frame in which all drifts by s loses sin(πks) / πks, B = 2π² s² / 3, 26 Å² at 2 Å.
Gauss-Newton steps find them; a tilt's own is eliminated (Schur complement). What is common to all frames of a tilt is
the tilt's: before anything is tried, models are multiplied by one level for each shell and one for each tilt, which fit
all frames and both halves best.

The gate: `critical`, where the sum so far was plain, then `measured` must raise the likelihood of both halves, each
under what the other gave, by more than chance gives; a is brought to a mean of 1 over the frames in any case. Frames
are then weighted by w_f(k) = a_f / sqrt(mean a²), which leaves the noise as in the plain sum (`ops.motion.frame_sum`).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from tiltwise.data.motion import Weighting
from tiltwise.ops.exposure import exposure_amplitude
from tiltwise.ops.frames.frame_gates import AmplitudeSums
from tiltwise.ops.frames.frame_shifts import frame_walk
from tiltwise.ops.held_out import BlockGate, chance_gain

_SHARED = np.array([0.1, 10.0])
"""Standard deviations of a frame's step, α and B (Å²), of what all tilts share."""
_TRIED = ((3.0, 0.1), (1.0, 0.5), (1.0, 0.1), (0.3, 0.5))
"""Factors of these, and the part of that which each tilt's own steps have."""
_STEPS, _HALVINGS, _SETTLED = 8, 5, 0.05
_PRIOR, _LEAST, _LARGEST = 25.0, 0.2, 3.0
"""Of a tilt's level: 1 ± 0.2, and its bounds."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class TiltAmplitudes:
    """What the frames of one tilt show."""

    sums: Mapping[int, AmplitudeSums]
    """By half set."""
    share: np.ndarray
    """(frame,) part of the exposure."""
    critical: np.ndarray
    """(frame, shell) q."""
    square: np.ndarray
    """(shell,) k², 1/Å²."""
    before: np.ndarray
    """(frame, shell) a as the sum so far was weighted."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class AmplitudeFit:
    """A and B of each frame of each tilt."""

    amplitude: tuple[np.ndarray, ...]
    """(tilt,) of (frame, 2) A = exp(α), and B in Å²."""
    error: tuple[np.ndarray, ...]
    """(tilt,) of (frame, 2) standard deviations of α and B of the posterior."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class WeightChoice:
    """What was taken."""

    weighting: Weighting | None
    """None: the weights as they were."""
    fit: AmplitudeFit | None
    """Of measured weights."""
    gates: tuple[BlockGate, ...]
    """In the order in which they were tried."""


@dataclass(frozen=True, slots=True, eq=False)
class _Problem:
    """One tilt and one half set, or both: C (frame, shell), s_f M (frame, shell), log q, and what γ does."""

    cross: np.ndarray
    model: np.ndarray
    log_critical: np.ndarray
    design: np.ndarray
    """(frame, shell, 2 (frame - 1)) of log a by γ."""
    walk: np.ndarray
    """Precision of γ for unit steps of α and B."""


def critical_amplitudes(before: np.ndarray, during: np.ndarray, frequency: np.ndarray, voltage: float) -> np.ndarray:
    """(frame, shell) q of frames of exposures before and during (frame,), e⁻/Å², at frequency (shell,), 1/Å."""
    k, first, dose = (torch.as_tensor(np.asarray(v, dtype=float)) for v in (frequency, before, during))
    return exposure_amplitude(k, first[:, None], dose[:, None], voltage).numpy()


def relative_amplitude(critical: np.ndarray, square: np.ndarray, amplitude: np.ndarray | None) -> np.ndarray:
    """(frame, shell) q A exp(-B k² / 4) over its mean over the frames; amplitude (frame, 2) A and B, or None."""
    if amplitude is not None:
        critical = critical * amplitude[:, :1] * np.exp(-amplitude[:, 1:] / 4 * square)
    return critical / critical.mean(axis=0)


def levelled(tilts: Sequence[TiltAmplitudes]) -> list[TiltAmplitudes]:
    """The same under models of the amplitude that the frames of all tilts show together; where a shell shows less than
    one standard deviation, that of all shells."""
    cross = sum(one.cross.sum(axis=0) for tilt in tilts for one in tilt.sums.values())
    model = sum(one.model for tilt in tilts for one in tilt.sums.values())
    whole = max(float(cross.sum() / max(model.sum(), 1e-30)), 0.0)
    level = np.where(cross > np.sqrt(model), cross / np.maximum(model, 1e-30), whole)
    return [_times(_times(tilt, level), _own_level(_times(tilt, level))) for tilt in tilts]


def _times(tilt: TiltAmplitudes, level: np.ndarray | float) -> TiltAmplitudes:
    """For models times a level (shell,)."""
    sums = {half: AmplitudeSums(cross=level * s.cross, model=level**2 * s.model) for half, s in tilt.sums.items()}
    return replace(tilt, sums=sums)


def _own_level(tilt: TiltAmplitudes) -> float:
    cross, model = (float(sum(v.sum() for v in values)) for values in zip(*_parts(tilt), strict=True))
    return float(np.clip((cross + _PRIOR) / (model + _PRIOR), _LEAST, _LARGEST))


def _parts(tilt: TiltAmplitudes) -> list[tuple[np.ndarray, np.ndarray]]:
    return [(one.cross, one.model) for one in tilt.sums.values()]


def choose_weights(tilts: Sequence[TiltAmplitudes], weighting: Weighting) -> WeightChoice:
    """Try the critical curve, where the frames were summed plainly, and what is measured."""
    tilts = levelled(tilts)
    gates: list[BlockGate] = []
    chosen: Weighting | None = None
    best = [tilt.before for tilt in tilts]
    if weighting == "plain":
        curve = [relative_amplitude(tilt.critical, tilt.square, None) for tilt in tilts]
        gates.append(_gate(tilts, "critical", 1.0, {1: curve, 2: curve}, best))
        if gates[-1].accepted:
            chosen, best = "critical", curve
    found = []
    for widths in _TRIED:
        held_out = {half: _relative(tilts, fit_amplitudes(tilts, (3 - half,), widths)) for half in (1, 2)}
        found.append((_gate(tilts, "measured", widths[0], held_out, best), widths))
    gate, widths = max(found, key=lambda one: (one[0].accepted, min(one[0].gain)))
    gates.append(gate)
    fit = fit_amplitudes(tilts, (1, 2), widths) if gate.accepted else None
    return WeightChoice(weighting="measured" if fit else chosen, fit=fit, gates=tuple(gates))


def fit_amplitudes(
    tilts: Sequence[TiltAmplitudes], halves: tuple[int, ...], widths: tuple[float, float]
) -> AmplitudeFit:
    """A and B by the particles of some half sets. Tilts of other numbers of frames share nothing with each other.

    widths: factor of the prior's standard deviations, and the part of that which a tilt's own course has.
    """
    amplitude: list[np.ndarray] = [np.zeros((0, 2))] * len(tilts)
    error = list(amplitude)
    for frames in sorted({len(tilt.share) for tilt in tilts}):
        members = [number for number, tilt in enumerate(tilts) if len(tilt.share) == frames]
        problems = [_problem(tilts[number], halves) for number in members]
        basis = frame_walk(tilts[members[0]].share)[0]
        for number, (place, spread) in zip(members, _solve(problems, widths), strict=True):
            course = basis @ place.reshape(basis.shape[1], 2)
            blocks = spread.reshape(basis.shape[1], 2, basis.shape[1], 2)
            amplitude[number] = np.stack([np.exp(course[:, 0]), course[:, 1]], axis=-1)
            error[number] = np.sqrt(np.einsum("fa,fb,ajbj->fj", basis, basis, blocks))
    return AmplitudeFit(amplitude=tuple(amplitude), error=tuple(error))


def _relative(tilts: Sequence[TiltAmplitudes], fit: AmplitudeFit) -> list[np.ndarray]:
    return [relative_amplitude(t.critical, t.square, own) for t, own in zip(tilts, fit.amplitude, strict=True)]


def _gate(
    tilts: Sequence[TiltAmplitudes],
    name: str,
    factor: float,
    after: Mapping[int, Sequence[np.ndarray]],
    before: Sequence[np.ndarray],
) -> BlockGate:
    """Gain in each half by the amplitudes `after` of it over those before."""
    gain, chance = [], []
    for half in (1, 2):
        gained = square = 0.0
        for tilt, new, old in zip(tilts, after[half], before, strict=True):
            model = tilt.share[:, None] * tilt.sums[half].model
            gained += float(((new - old) * tilt.sums[half].cross - 0.5 * (new**2 - old**2) * model).sum())
            square += float(((new - old) ** 2 * model).sum())
        gain.append(gained)
        chance.append(chance_gain(square))
    return BlockGate(block=name, width=factor, gain=tuple(gain), chance=tuple(chance))


def _problem(tilt: TiltAmplitudes, halves: tuple[int, ...]) -> _Problem:
    basis, walk = frame_walk(tilt.share)
    shape = np.stack([np.ones_like(tilt.square), -tilt.square / 4], axis=-1)
    level = tilt.critical.mean(axis=0)
    return _Problem(
        sum(tilt.sums[half].cross for half in halves),
        tilt.share[:, None] * sum(tilt.sums[half].model for half in halves),
        np.log(tilt.critical / level),
        np.einsum("fa,kj->fkaj", basis, shape).reshape(*tilt.critical.shape, -1),
        np.kron(walk, np.diag(_SHARED**-2.0)),
    )


def _solve(problems: Sequence[_Problem], widths: tuple[float, float]) -> list[tuple[np.ndarray, np.ndarray]]:
    """γ of each tilt, shared and own together, and its covariance."""
    size = problems[0].design.shape[2]
    own_prior = [problem.walk / (widths[0] * widths[1]) ** 2 for problem in problems]
    shared_prior = problems[0].walk / widths[0] ** 2
    shared, own = np.zeros(size), [np.zeros(size) for _ in problems]
    value = _penalised(problems, shared, own, shared_prior, own_prior)
    for _ in range(_STEPS):
        step, steps, _ = _step(problems, shared, own, shared_prior, own_prior)
        before = value
        for halving in range(_HALVINGS):
            scale = 0.5**halving
            tried = shared + scale * step, [a + scale * b for a, b in zip(own, steps, strict=True)]
            reached = _penalised(problems, *tried, shared_prior, own_prior)
            if reached > value:
                (shared, own), value = tried, reached
                break
        if value - before < _SETTLED:
            break
    covariance = _step(problems, shared, own, shared_prior, own_prior)[2]
    return [(shared + one, spread) for one, spread in zip(own, covariance, strict=True)]


def _log_amplitude(problem: _Problem, place: np.ndarray) -> np.ndarray:
    return problem.log_critical + problem.design @ place


def _penalised(
    problems: Sequence[_Problem],
    shared: np.ndarray,
    own: Sequence[np.ndarray],
    shared_prior: np.ndarray,
    own_prior: Sequence[np.ndarray],
) -> float:
    total = -0.5 * float(shared @ shared_prior @ shared)
    for problem, one, prior in zip(problems, own, own_prior, strict=True):
        a = np.exp(_log_amplitude(problem, shared + one))
        total += float((a * problem.cross - 0.5 * a**2 * problem.model).sum()) - 0.5 * float(one @ prior @ one)
    return total


def _step(
    problems: Sequence[_Problem],
    shared: np.ndarray,
    own: Sequence[np.ndarray],
    shared_prior: np.ndarray,
    own_prior: Sequence[np.ndarray],
) -> tuple[np.ndarray, list[np.ndarray], list[np.ndarray]]:
    """Gauss-Newton steps of what is shared and of each tilt's own, and the covariance of their sum in each tilt.

    Own steps are u = D⁻¹ (b - H c), D = H + P; the sum c + u has the covariance D⁻¹ + (D⁻¹ P) S⁻¹ (D⁻¹ P)ᵀ.
    """
    normal, right, parts = shared_prior.copy(), -shared_prior @ shared, []
    for problem, one, prior in zip(problems, own, own_prior, strict=True):
        a = np.exp(_log_amplitude(problem, shared + one))
        pull = np.einsum("fkp,fk->p", problem.design, a * (problem.cross - a * problem.model))
        weighted = problem.design * (a**2 * problem.model)[..., None]
        information = np.tensordot(weighted, problem.design, ((0, 1), (0, 1)))
        inverse = np.linalg.inv(information + prior)
        residual = pull - prior @ one
        normal += information - information @ inverse @ information
        right += pull - information @ inverse @ residual
        parts.append((inverse, information, residual, inverse @ prior))
    step, spread = np.linalg.solve(normal, right), np.linalg.inv(normal)
    steps = [inverse @ (residual - information @ step) for inverse, information, residual, _ in parts]
    return step, steps, [inverse + passed @ spread @ passed.T for inverse, _, _, passed in parts]
