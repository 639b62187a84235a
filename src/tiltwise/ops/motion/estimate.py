"""Motion of one movie, estimated and put to the test: nothing is kept that fails where it was not fitted.

The patches are parted like a chessboard. Motion fitted on one half of the field, from the first search on, is applied
to the other half, and its log likelihood there compared with that of no motion: how much better every frame agrees with
the sum of the others.
(The correlation of the sums of odd and of even frames does not serve: steady drift blurs both alike, and they agree.)
Motion of the whole is kept if it gains anything and both halves show the same: noise gains a few nats on noise in every
other movie, but not by the same motion. Local motion is kept if it gains clearly more than that in both halves.
"""

from dataclasses import dataclass

import numpy as np

from tiltwise.data.motion import Motion
from tiltwise.ops.motion.fit import Fit, Signal, choose_patches, fit_field, gain_over_still
from tiltwise.ops.motion.model import centred, field_basis, frame_times, smooth_factor, whole_basis
from tiltwise.ops.motion.patches import Patches, WorkingFrames, cut_patches
from tiltwise.ops.motion.start import coarse_shifts

_CUT_AGAIN = 1.5
"""Samples; patches cut farther from their content than this are cut anew."""
_LEAST_FRAMES, _LEAST_PATCHES = 3, 4
_CHANCE = 20.0
"""Nats; in 40 movies of noise alone a half gained 17 at most, with a standard deviation of 6."""
_LOCAL_START = 4.0
"""Å²; the variance of the control values from which the evidence's is sought."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Exposures:
    """What hit the specimen."""

    before: np.ndarray
    """(frame,) exposure before each frame, e⁻/Å²."""
    during: np.ndarray
    """(frame,) exposure of each frame, e⁻/Å²."""
    voltage: float
    """kV."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class MotionEstimate:
    """Motion of one movie and how far it can be believed."""

    motion: Motion
    """What is to be corrected; zero where nothing stood the test."""
    kept: str
    """'none', 'whole' or 'local'."""
    gain: tuple[float, float]
    """Log likelihood over that of no motion, nats, on patches left out of the fit: motion of the whole, and local
    (nan where it was not tried)."""
    error: float
    """Standard error of the shift of a frame along one axis, median over the frames, Å; expected from the signal."""


@dataclass(frozen=True, slots=True, eq=False)
class _Half:
    """One half of the chessboard, on which motion is fitted, and the other, on which it is tested."""

    fitted: np.ndarray
    tested: np.ndarray
    start: np.ndarray


def estimate_motion(
    frames: WorkingFrames,
    exposures: Exposures,
    *,
    resolution: float,
    patch_size: float,
    controls: tuple[int, int, int] | None,
    limit: float,
) -> MotionEstimate:
    """Fit motion of the whole, then with `controls` (t, y, x) splines for local motion; None fits the whole alone.

    resolution: finest spacing used, Å. patch_size: side of a patch, Å. limit: farthest shift searched, Å.
    """
    time = frame_times(exposures.during)
    basis = whole_basis(len(time))
    patches, fit = _fit_whole(frames, exposures, basis, (resolution, min(patch_size, min(frames.extent) / 2.2), limit))
    halves = _chessboard(frames, patches.position, basis, limit)
    whole, same, halves = _test(patches, _everywhere(basis, patches), fit.signal, halves)
    local, full, smooth = np.full(len(halves), np.nan), None, None
    if controls is not None and len(time) >= _LEAST_FRAMES and patches.number >= _LEAST_PATCHES:
        smooth = smooth_factor(frames.extent, controls)
        bending = field_basis(time, patches.position, frames.extent, controls) @ smooth
        both = np.concatenate([_everywhere(basis, patches), bending], axis=2)
        free = slice(basis.shape[1], None)
        start = np.concatenate([fit.value, np.zeros((bending.shape[2], 2))])
        full = fit_field(patches, both, start, local=free, variance=_LOCAL_START)
        local, _, _ = _test(patches, both, fit.signal, halves, local=free)
    kept = _best(whole, local, same)
    shift = basis @ (full if kept == "local" else fit).value[: basis.shape[1]]
    coefficient = (smooth @ full.value[basis.shape[1] :]).reshape(*controls, 2) if kept == "local" else None
    shift, coefficient = centred(shift if kept != "none" else 0 * shift, coefficient, time)
    return MotionEstimate(
        motion=Motion(exposure=exposures.during, shift=shift, coefficient=coefficient, extent=frames.extent),
        kept=kept,
        gain=(float(whole.sum()), float(local.sum())),
        error=float(np.median(np.sqrt(basis**2 @ fit.error**2))),
    )


def _fit_whole(
    frames: WorkingFrames, exposures: Exposures, basis: np.ndarray, lengths: tuple[float, float, float]
) -> tuple[Patches, Fit]:
    """Motion of the whole, and patches cut where it puts them; lengths: resolution, side of a patch, limit, Å."""
    resolution, side, limit = lengths
    weights = (exposures.before, exposures.during, exposures.voltage)
    shift = coarse_shifts(frames, limit)
    patches = cut_patches(frames, shift, side, weights, resolution)
    fit = fit_field(patches, _everywhere(basis, patches), basis.T @ shift)
    if np.abs(basis @ fit.value - patches.offset).max() > _CUT_AGAIN * max(frames.pixel_size):
        patches = cut_patches(frames, basis @ fit.value, side, weights, resolution)
        fit = fit_field(patches, _everywhere(basis, patches), fit.value)
    return patches, fit


def _everywhere(basis: np.ndarray, patches: Patches) -> np.ndarray:
    return np.broadcast_to(basis, (patches.number, *basis.shape))


def _test(
    patches: Patches, basis: np.ndarray, signal: Signal, halves: list[_Half], *, local: slice = slice(0, 0)
) -> tuple[np.ndarray, bool, list[_Half]]:
    """What motion fitted on one half gains on the other, both ways; whether both show the same motion; and the halves
    with the fits as starts for what follows. Nothing of the half that tests enters but the weights, those of all."""
    gains, after, places = [], [], []
    for half in halves:
        start = np.concatenate([half.start, np.zeros((basis.shape[2] - len(half.start), 2))])
        chosen = choose_patches(patches, half.fitted)
        part = fit_field(chosen, basis[half.fitted], start, local=local, variance=_LOCAL_START)
        weight = Signal(weight=signal.weight[half.tested], power=signal.power[half.tested])
        place = np.einsum("pfj,jc->pfc", basis, part.value)
        gains.append(gain_over_still(choose_patches(patches, half.tested), weight, place[half.tested]))
        after.append(_Half(half.fitted, half.tested, part.value))
        places.append(place)
    return np.array(gains), _same(places), after


def _same(places: list[np.ndarray]) -> bool:
    """Whether motions differ less from each other than they differ, on average, from none."""
    one, other = places[0], places[-1]
    return len(places) == 1 or ((one - other) ** 2).sum() < ((one**2).sum() + (other**2).sum()) / 2


def _chessboard(frames: WorkingFrames, position: np.ndarray, basis: np.ndarray, limit: float) -> list[_Half]:
    """Both halves, each with a first answer from its own part of the image. A single patch is tested on itself."""
    columns, rows = (np.unique(position[:, axis].round(3), return_inverse=True)[1] for axis in (0, 1))
    j, i = np.mgrid[: rows.max() + 1, : columns.max() + 1]
    halves = []
    for colour in (0, 1) if len(position) > 1 else (0,):
        fitted = (columns + rows) % 2 == colour
        tested = ~fitted if len(position) > 1 else fitted
        start = basis.T @ coarse_shifts(frames, limit, (i + j) % 2 == colour)
        halves.append(_Half(np.flatnonzero(fitted), np.flatnonzero(tested), start))
    return halves


def _best(whole: np.ndarray, local: np.ndarray, same: bool) -> str:
    """What is kept, of gains on either half. Fields of two halves need not be the same in corners that one of them does
    not hold; so local motion is told from chance by its gain alone, in both halves."""
    if (local > np.maximum(whole, 0.0) + _CHANCE).all():
        return "local"
    return "whole" if same and whole.sum() > 0 else "none"
