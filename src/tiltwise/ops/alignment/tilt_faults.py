"""Tilts that tracks (beads, patches) tell to be unfit: distorted as by charge, at odds with the others, or not seen.

The held-out residuals r_p of a tilt, at places u_p, are parted into r = a + B (u - mean) + rest. A charged specimen is
a lens: it magnifies, stretches and turns what lies behind it, B, by per mille to per cent, where a sound tilt has 1e-4.
What B moves over the field (rms) is the score of charge, the rms of the rest that of a misfit, and the part of the
tracks that is recognised, against the tilts beside it, tells a tilt that shows something else.
"""

from dataclasses import dataclass

import numpy as np

from tiltwise.ops.alignment.track_alignment import TrackAlignment

_HARMFUL = 10.0
"""Å rms, 7 along each axis, which leaves half of a wave of 38 Å: exp(-2 π² 7² / 38²)."""
_STANDS_OUT = 5.0
"""Times the median of the tilts: where all are as bad, the tilts are not what is at fault."""
_RECOGNISED = 0.3
"""Of what the tilts beside it show: below this part a tilt shows something else."""
_FEWEST = 5
"""Observations in a tilt from which six numbers can be fitted and something be left."""
_BESIDE = 3
"""Tilts on either side."""
_ROUNDS, _TUNING, _MEDIAN_LENGTH = 8, 2.385, np.sqrt(2 * np.log(2))
"""Of reweighting; the Cauchy loss and the median length of a 2D normal residual as in
`ops.alignment.bundle_adjustment`."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class TiltScores:
    """How the tracks of each tilt disagree with the alignment, and what follows."""

    distortion: np.ndarray
    """(tilt,) rms displacement by the affine part, Å; NaN where too few are seen."""
    misfit: np.ndarray
    """(tilt,) rms of the rest, Å; NaN where too few are seen."""
    recognised: np.ndarray
    """(tilt,) number of tracks that are seen."""
    faults: tuple[str, ...]
    """(tilt,) why it is unfit, with the score; empty where it is fit."""


def score_tilts(tracks: TrackAlignment) -> TiltScores:
    """Scores and faults of the tilts of an alignment by tracks."""
    seen = tracks.observations
    angle = tracks.geometry.tilt_angle
    number = np.bincount(seen.tilt, minlength=len(angle))
    distortion, misfit = np.full(len(angle), np.nan), np.full(len(angle), np.nan)
    for tilt in np.flatnonzero(number >= _FEWEST):
        own = seen.tilt == tilt
        distortion[tilt], misfit[tilt] = _parts(seen.position[own], tracks.fit.held_out_residual[own])
    beside = _beside(number, angle)
    faults = [""] * len(angle)
    for tilt in range(len(angle)):
        if number[tilt] < _RECOGNISED * beside[tilt]:
            faults[tilt] = f"misfit: {number[tilt]} places recognised, {beside[tilt]:.0f} in the tilts beside it"
        elif _stands_out(distortion, tilt) and not misfit[tilt] > distortion[tilt]:
            faults[tilt] = f"charged: distorted by {distortion[tilt]:.0f} Å rms, others by {_typical(distortion):.1f} Å"
        elif _stands_out(misfit, tilt):
            faults[tilt] = f"misfit: {misfit[tilt]:.0f} Å rms from where it should be, others {_typical(misfit):.1f} Å"
    return TiltScores(distortion=distortion, misfit=misfit, recognised=number, faults=tuple(faults))


def _parts(place: np.ndarray, residual: np.ndarray) -> tuple[float, float]:
    """Rms displacement by the affine part of residuals (obs, 2) at places (obs, 2), shift left out, and the rms of the
    rest that its median stands for: a few tracks that went astray say nothing of the tilt (Cauchy, reweighted)."""
    around = place - place.mean(axis=0)
    size = max(float(np.sqrt((around**2).mean())), 1e-9)
    design = np.concatenate([np.ones((len(place), 1)), around / size], axis=1)
    weight = np.ones(len(place))
    for _ in range(_ROUNDS):
        root = np.sqrt(weight)[:, None]
        found, _, rank, _ = np.linalg.lstsq(root * design, root * residual, rcond=1e-3)
        length = np.linalg.norm(residual - design @ found, axis=1)
        rest = np.sqrt(2) * float(np.median(length)) / _MEDIAN_LENGTH
        weight = 1 / (1 + (length / max(_TUNING * rest / np.sqrt(2), 1e-9)) ** 2)
    bent = design[:, 1:] @ found[1:]
    free = np.sqrt(len(place) / max(len(place) - rank, 1))
    return float(np.sqrt((bent**2).sum(axis=1).mean())), rest * free


def _typical(score: np.ndarray) -> float:
    return float(np.nanmedian(score))


def _stands_out(score: np.ndarray, tilt: int) -> bool:
    return bool(score[tilt] > max(_HARMFUL, _STANDS_OUT * _typical(score)))


def _beside(number: np.ndarray, angle: np.ndarray) -> np.ndarray:
    """(tilt,) median number of the tilts beside each in angle."""
    order = np.argsort(angle, kind="stable")
    result = np.zeros(len(angle))
    for place, tilt in enumerate(order):
        near = order[max(0, place - _BESIDE) : place + _BESIDE + 1]
        result[tilt] = np.median(number[near[near != tilt]]) if len(near) > 1 else number[tilt]
    return result
