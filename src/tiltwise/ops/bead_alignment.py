"""An alignment improved with the series' gold beads, and tested on beads that took no part in it.

Beads are followed from the geometry given (`ops.beads`), tilts that lie far off are moved to where most beads agree,
and shifts, axis and tilt angles are fitted (`ops.bundle_adjustment`). How much may vary from tilt to tilt is decided by
the held-out half: the geometry is fitted to half of the beads, the others are placed in it, and each of their
observations is compared with where its bead would appear by all its other observations.
"""

from dataclasses import dataclass, replace

import numpy as np
from scipy.spatial import cKDTree

from tiltwise.data.tilt_series import TiltGeometry
from tiltwise.ops.alignment_comparison import remove_gauge
from tiltwise.ops.beads import Candidates, Tracks, match_beads, select_points, track_beads
from tiltwise.ops.bundle_adjustment import BundleFit, Freedom, Freedoms, adjust, triangulate
from tiltwise.ops.bundle_system import BundleState, Observations, predict

FIXED = Freedom(deviation=0.0)
NOTHING = Freedoms(shift=FIXED, tilt_axis_angle=FIXED)
_ONE_AXIS = Freedoms(tilt_axis_angle=Freedom(deviation=2.0, step=0.001))
_DRIFT = replace(_ONE_AXIS, tilt_axis_angle=Freedom(deviation=2.0, step=0.05))
MODELS = {
    "one axis": _ONE_AXIS,
    "drifting axis": _DRIFT,
    "drifting axis, tilt angles": replace(_DRIFT, tilt_angle=Freedom(deviation=0.3)),
}
"""From few parameters to many. Steps of 0.05° let an axis drift by a third of a degree over 40 tilts; a stage's angles
are good to a few tenths of a degree."""
_WORTH = 0.99
"""A model of more parameters must bring the held-out residual below this part of that of the simpler one."""
_FEWEST = 6
"""Beads below which no half can be held out."""
_OUTLIER = 0.25
"""Robust weight below which an observation counts as an outlier: four standard deviations for the Cauchy loss."""
_FAR = 600.0
"""Furthest (Å) that a tilt is looked for from where it was."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class BeadAlignment:
    """A geometry from beads and what speaks for it."""

    geometry: TiltGeometry
    """In the gauge of the geometry that it came from."""
    model: str
    """One of MODELS."""
    fit: BundleFit
    """To all beads, with its errors and held-out residuals."""
    observations: Observations
    """Of all beads."""
    diameter: float
    """Of the beads, Å."""
    held_out: float
    """Mean residual of beads that took no part in the fit, Å."""
    held_out_before: float
    """The same beads and images with the geometry that was given, Å."""

    @property
    def outliers(self) -> np.ndarray:
        """(obs,) bool, observations that the fit does not believe."""
        return self.fit.robust_weight < _OUTLIER

    def residual_by_tilt(self) -> np.ndarray:
        """(tilt,) mean length of the held-out residuals of believed observations, Å; NaN where there are none."""
        length, own = np.linalg.norm(self.fit.held_out_residual, axis=1), ~self.outliers
        number = len(self.geometry.tilt_angle)
        counts = np.bincount(self.observations.tilt[own], minlength=number).astype(float)
        total = np.bincount(self.observations.tilt[own], weights=length[own], minlength=number)
        return np.divide(total, counts, out=np.full(number, np.nan), where=counts > 0)


def align_to_beads(
    candidates: list[Candidates], geometry: TiltGeometry, diameter: float, depth: float
) -> BeadAlignment | None:
    """Follow beads of this diameter (Å) with |z| up to depth (Å) and fit to them; None where fewer than six are found.

    candidates has an entry a tilt of the geometry, which must be right for most tilts to half a diameter or 40 Å.
    The axis that is fitted starts as one for all tilts, the median.
    """
    tolerance = max(0.5 * diameter, 40.0)
    tracks = track_beads(candidates, geometry, diameter, depth, tolerance)
    if len(tracks.points) < _FEWEST:
        return None
    moved = replace(geometry, shift=geometry.shift + far_off(candidates, geometry, tracks.points, tolerance))
    tracks = match_beads(candidates, BundleState.undistorted(moved, tracks.points), tolerance)
    for _ in range(2):
        fit = _fit(tracks.observations, moved, _DRIFT)
        nearer = max(5 * fit.scale, 0.2 * diameter)
        tracks = match_beads(candidates, fit.state, nearer)
        if len(tracks.points) < _FEWEST:
            return None
        moved = fit.state.geometry
    axis = np.full_like(moved.tilt_axis_angle, np.median(moved.tilt_axis_angle))
    moved = replace(moved, tilt_axis_angle=axis)
    model, held_out = _choose(tracks, moved)
    fit = _fit(tracks.observations, moved, MODELS[model])
    return BeadAlignment(
        geometry=remove_gauge(fit.state.geometry, geometry),
        model=model,
        fit=fit,
        observations=tracks.observations,
        diameter=diameter,
        held_out=held_out,
        held_out_before=float(np.mean([_residual(part, geometry) for part in _halves(tracks)])),
    )


def far_off(candidates: list[Candidates], geometry: TiltGeometry, points: np.ndarray, tolerance: float) -> np.ndarray:
    """(tilt, 2) by how much a tilt must be moved for most beads to lie on candidates, Å; zero where nothing is gained.

    Each pair of a predicted bead and a candidate votes for its difference; the one with the most votes within the
    tolerance must have half of the beads, and half as many votes again as no move.
    """
    move = np.zeros((len(candidates), 2))
    state = BundleState.undistorted(geometry, points)
    for tilt, candidate in enumerate(candidates):
        place = predict(state, np.full(len(points), tilt), np.arange(len(points)))
        difference = (candidate.position[:, None] - place).reshape(-1, 2)
        difference = np.concatenate([np.zeros((1, 2)), difference[np.linalg.norm(difference, axis=1) < _FAR]])
        tree = cKDTree(difference)
        votes = np.array([len(near) for near in tree.query_ball_point(difference, tolerance / 2)])
        best = int(votes.argmax())
        if votes[best] > max(1.5 * votes[0], 0.5 * len(points)):
            move[tilt] = difference[tree.query_ball_point(difference[best], tolerance / 2)].mean(0)
    return move


def held_out_residual(tracks: Tracks, geometry: TiltGeometry, freedoms: Freedoms) -> float:
    """Mean length (Å) of residuals of each half of the beads in the geometry fitted to the other half."""
    first, second = _halves(tracks)
    errors = [
        _residual(other, _fit(own, geometry, freedoms).state.geometry)
        for own, other in ((first, second), (second, first))
    ]
    return float(np.mean(errors))


def _choose(tracks: Tracks, geometry: TiltGeometry) -> tuple[str, float]:
    best, error = "", np.inf
    for name, freedoms in MODELS.items():
        held_out = held_out_residual(tracks, geometry, freedoms)
        if held_out < _WORTH * error:
            best, error = name, held_out
    return best, error


def _halves(tracks: Tracks) -> tuple[Observations, Observations]:
    even = np.arange(len(tracks.points)) % 2 == 0
    return select_points(tracks.observations, even), select_points(tracks.observations, ~even)


def _fit(observations: Observations, geometry: TiltGeometry, freedoms: Freedoms) -> BundleFit:
    start = triangulate(observations, BundleState.undistorted(geometry, np.zeros((0, 3))))
    return adjust(observations, start, freedoms)


def _residual(observations: Observations, geometry: TiltGeometry) -> float:
    """Mean length, each observation compared with its bead placed by its other observations, Å."""
    fit = _fit(observations, geometry, NOTHING)
    return float(np.linalg.norm(fit.held_out_residual, axis=1).mean())
