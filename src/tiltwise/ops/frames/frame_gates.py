"""What the tilts of a series say together of the motion of their frames, and whether it is taken.

Each tilt is fitted by itself, on the particles of half 1, on those of half 2, and on all: uniform shifts of the frames
(`shift`), and with them what is linear and quadratic in the position (`field`), each with the prior's full width and a
third of it. What half 1 gives is tried on the images of half 2, and the other way round, by the likelihood itself, no
quadratic. Summed over the tilts, both gains must exceed what chance gives, of `field` those over `shift`; then the fit
on all particles is taken.

By chance: images without signal give to a step d the gain Σ Re(X* (m_d - m)), of mean 0 and variance Σ |m_d - m|²,
which is at most q = d·H·d. So 3 sqrt(q) is asked. The loss of q / 2 that `ops.held_out` sets against it is that of
images which hold the signal as modelled, and of quadratics; where likelihoods are looked at and nothing is there, it is
not to be had. Gain and bound go alike with the amplitude of the model, so that a wrong one decides nothing.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from tiltwise.ops.frames.frame_images import FrameImages
from tiltwise.ops.frames.frame_shifts import (
    MONOMIALS,
    ShiftFit,
    ShiftProblem,
    agreement,
    fit_shifts,
    shell_sums,
    shift_problem,
)
from tiltwise.ops.held_out import SIGNIFICANT, BlockGate

BLOCKS = ("shift", "field")
_FACTORS = (1.0, 0.3)
"""Of the prior's width."""
Trial = tuple[str, float] | None
"""A block and the factor of its width; None: the motion as it was."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class AmplitudeSums:
    """Of the particles of one half set in one tilt, under the reference of the other half."""

    cross: np.ndarray
    """(frame, shell) Σ Re(X* sqrt(s_f) m)."""
    model: np.ndarray
    """(shell,) Σ |m|² of the whole tilt."""

    def __add__(self, other: "AmplitudeSums") -> "AmplitudeSums":
        return AmplitudeSums(cross=self.cross + other.cross, model=self.model + other.model)


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class TiltTrial:
    """One trial of motion in one tilt."""

    joint: ShiftFit
    """Fitted on all particles."""
    by_half: Mapping[int, np.ndarray]
    """(frame, 6, 2) fitted on each half alone, Å."""
    gain: Mapping[int, float]
    """Log likelihood that the images of each half gain by the fit on the other."""
    sums: Mapping[int, AmplitudeSums]
    """Of each half, its frames placed by the fit on the other."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class TiltEvidence:
    """All that a tilt says, when its images are gone."""

    tilt: int
    """Row of the series."""
    share: np.ndarray
    """(frame,) part of the exposure."""
    information: Mapping[int, np.ndarray]
    """(12, 12) of each half, `ShiftProblem.information`."""
    number: int
    """Particles."""
    trials: Mapping[Trial, TiltTrial]
    """By block and factor; None of no further motion."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class MotionChoice:
    """What was taken."""

    trial: Trial
    """None: nothing."""
    gates: tuple[BlockGate, ...]
    """In the order in which blocks were tried."""


def gather_evidence(
    images: FrameImages, tilt: int, *, scale: float, widths: Mapping[str, float], shells: int
) -> TiltEvidence:
    """Try the blocks in widths (Å a frame; of `field` at `scale`, Å, from the centre) on one tilt. With no block only
    the amplitudes are looked at."""
    halves = {half: shift_problem(images.of(half), scale) for half in (1, 2)}
    still = np.zeros((len(images.share), MONOMIALS, 2))
    none = ShiftFit(coefficient=still, error=still)
    trials: dict[Trial, TiltTrial] = {None: _trial(halves, none, {1: still, 2: still}, shells)}
    whole = shift_problem(images, scale)
    for block in (name for name in BLOCKS if name in widths):
        for factor in _FACTORS:
            width = factor * _width(block, widths)
            by_half = {half: fit_shifts(problem, width).coefficient for half, problem in halves.items()}
            trials[block, factor] = _trial(halves, fit_shifts(whole, width), by_half, shells)
    return TiltEvidence(
        tilt=tilt,
        share=images.share,
        information={half: problem.information for half, problem in halves.items()},
        number=len(images.half_set),
        trials=trials,
    )


def choose_motion(tilts: Sequence[TiltEvidence]) -> MotionChoice:
    """Climb from no motion to shifts to fields, as far as both halves gain."""
    chosen: Trial = None
    gates: list[BlockGate] = []
    for block in BLOCKS:
        tried = [trial for trial in (tilts[0].trials if tilts else ()) if trial is not None and trial[0] == block]
        if not tried:
            continue
        found = [_gate(tilts, trial, chosen) for trial in tried]
        best = max(found, key=lambda gate: (gate.accepted, min(gate.gain)))
        gates.append(best)
        if not best.accepted:
            break
        chosen = (block, best.width)
    return MotionChoice(trial=chosen, gates=tuple(gates))


def _width(block: str, widths: Mapping[str, float]) -> np.ndarray:
    """(6,) Å a frame."""
    field = widths["field"] if block == "field" else 0.0
    return np.array([widths["shift"], *[field] * (MONOMIALS - 1)])


def _trial(
    halves: Mapping[int, ShiftProblem], joint: ShiftFit, by_half: Mapping[int, np.ndarray], shells: int
) -> TiltTrial:
    gain, sums = {}, {}
    for half, problem in halves.items():
        held_out = by_half[3 - half]
        gain[half] = agreement(problem, held_out)[0] - agreement(problem, np.zeros_like(held_out))[0]
        cross, model = shell_sums(problem, held_out, shells)
        sums[half] = AmplitudeSums(cross=cross, model=model)
    return TiltTrial(joint=joint, by_half=by_half, gain=gain, sums=sums)


def _gate(tilts: Sequence[TiltEvidence], trial: Trial, before: Trial) -> BlockGate:
    gain, chance = [], []
    for half in (1, 2):
        gain.append(sum(t.trials[trial].gain[half] - t.trials[before].gain[half] for t in tilts))
        chance.append(SIGNIFICANT * float(np.sqrt(sum(_square(t, trial, before, half) for t in tilts))))
    return BlockGate(block=trial[0], width=trial[1], gain=tuple(gain), chance=tuple(chance))


def _square(tilt: TiltEvidence, trial: Trial, before: Trial, half: int) -> float:
    """d·H·d in a half, d what a trial fitted on the other half adds to the one before."""
    step = tilt.trials[trial].by_half[3 - half] - tilt.trials[before].by_half[3 - half]
    flat = step.reshape(len(step), -1)
    return float(np.einsum("f,fa,ab,fb->", tilt.share, flat, tilt.information[half], flat))
