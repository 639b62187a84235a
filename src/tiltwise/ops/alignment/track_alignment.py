"""A geometry fitted to tracks (beads, patches), and tested on tracks that took no part in it.

How much may vary from tilt to tilt is decided by a held-out half: the geometry is fitted to half of the points, the
others are placed in it, and each of their observations is compared with where its point would appear by all its other
observations. The geometry that was given is measured by the same points.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from tiltwise.data.tilt_series import TiltGeometry
from tiltwise.ops.alignment.bundle_adjustment import BundleFit, Freedom, Freedoms, adjust, triangulate
from tiltwise.ops.alignment.bundle_system import BundleState, Observations
from tiltwise.ops.alignment.comparison import remove_gauge

FIXED = Freedom(deviation=0.0)
NOTHING = Freedoms(shift=FIXED, tilt_axis_angle=FIXED)
ONE_AXIS = Freedoms(tilt_axis_angle=Freedom(deviation=2.0, step=0.001))
DRIFT = replace(ONE_AXIS, tilt_axis_angle=Freedom(deviation=2.0, step=0.05))
MODELS = {
    "one axis": ONE_AXIS,
    "drifting axis": DRIFT,
    "drifting axis, tilt angles": replace(DRIFT, tilt_angle=Freedom(deviation=0.3)),
}
"""From few parameters to many. Steps of 0.05° let an axis drift by a third of a degree over 40 tilts; a stage's angles
are good to a few tenths of a degree."""
_WORTH = 0.99
"""A model of more parameters must bring the held-out residual below this part of that of the simpler one."""
_OUTLIER = 0.25
"""Robust weight below which an observation counts as an outlier: four standard deviations for the Cauchy loss."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Tracks:
    """Points of the specimen followed over the tilts."""

    observations: Observations
    """Where each is seen; points are numbered without gaps."""
    points: np.ndarray
    """(point, 3) Å from the tomogram centre."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class TrackAlignment:
    """A geometry from tracks and what speaks for it."""

    geometry: TiltGeometry
    """In the gauge of the geometry that it came from."""
    model: str
    """Name of the model, as in MODELS."""
    fit: BundleFit
    """To all points, with its errors and held-out residuals."""
    observations: Observations
    """Of all points."""
    size: float
    """Of what was followed, Å: the diameter of the beads, the width of the patches."""
    held_out: float
    """Weighted mean residual of points that took no part in the fit, Å."""
    held_out_before: float
    """The same points and images with the geometry that was given, Å."""

    @property
    def outliers(self) -> np.ndarray:
        """(obs,) bool, observations that the fit does not believe."""
        return self.fit.robust_weight < _OUTLIER

    @property
    def better(self) -> bool:
        """Whether points that took no part in it lie better in the new geometry than in the given one."""
        return self.held_out < self.held_out_before

    def residual_by_tilt(self) -> np.ndarray:
        """(tilt,) mean length of the held-out residuals of believed observations, Å; NaN where there are none."""
        length, own = np.linalg.norm(self.fit.held_out_residual, axis=1), ~self.outliers
        number = len(self.geometry.tilt_angle)
        counts = np.bincount(self.observations.tilt[own], minlength=number).astype(float)
        total = np.bincount(self.observations.tilt[own], weights=length[own], minlength=number)
        return np.divide(total, counts, out=np.full(number, np.nan), where=counts > 0)


def align_to_tracks(
    tracks: Tracks,
    start: TiltGeometry,
    given: TiltGeometry,
    size: float,
    models: Mapping[str, Freedoms] = MODELS,
) -> TrackAlignment:
    """Fit the model that places held-out points best, from a start; given is the geometry that it must be better than.

    size as in TrackAlignment; models go from few parameters to many.
    """
    model, held_out = _choose(tracks, start, models)
    fit = fit_tracks(tracks.observations, start, models[model])
    return TrackAlignment(
        geometry=remove_gauge(fit.state.geometry, given),
        model=model,
        fit=fit,
        observations=tracks.observations,
        size=size,
        held_out=held_out,
        held_out_before=float(np.mean([_residual(part, given) for part in _halves(tracks)])),
    )


def fit_tracks(observations: Observations, geometry: TiltGeometry, freedoms: Freedoms) -> BundleFit:
    """Fit geometry and points, the points from where the geometry places them."""
    return adjust(observations, BundleState.undistorted(geometry, place_points(observations, geometry)), freedoms)


def place_points(observations: Observations, geometry: TiltGeometry) -> np.ndarray:
    """(point, 3) where a geometry places the points that are observed, Å."""
    return triangulate(observations, BundleState.undistorted(geometry, np.zeros((0, 3)))).points


def held_out_residual(tracks: Tracks, geometry: TiltGeometry, freedoms: Freedoms) -> float:
    """Weighted mean length (Å) of residuals of each half of the points in the geometry fitted to the other half."""
    first, second = _halves(tracks)
    errors = [
        _residual(other, fit_tracks(own, geometry, freedoms).state.geometry)
        for own, other in ((first, second), (second, first))
    ]
    return float(np.mean(errors))


def select_points(observations: Observations, chosen: np.ndarray) -> Observations:
    """The observations of the points chosen (point,) bool, numbered anew without gaps."""
    own = chosen[observations.point]
    return Observations(
        tilt=observations.tilt[own],
        point=(np.cumsum(chosen) - 1)[observations.point[own]],
        position=observations.position[own],
        weight=observations.weight[own],
    )


def keep_followed(tracks: Tracks, fewest: float) -> Tracks:
    """The tracks of points that are seen in two tilts and in at least so many, numbered anew without gaps."""
    seen = np.bincount(tracks.observations.point, minlength=len(tracks.points))
    enough = seen >= max(2, fewest)
    return Tracks(observations=select_points(tracks.observations, enough), points=tracks.points[enough])


def one_axis(geometry: TiltGeometry) -> TiltGeometry:
    """The geometry with the median axis in all tilts."""
    return replace(
        geometry, tilt_axis_angle=np.full_like(geometry.tilt_axis_angle, np.median(geometry.tilt_axis_angle))
    )


def _choose(tracks: Tracks, geometry: TiltGeometry, models: Mapping[str, Freedoms]) -> tuple[str, float]:
    best, error = "", np.inf
    for name, freedoms in models.items():
        held_out = held_out_residual(tracks, geometry, freedoms)
        if held_out < _WORTH * error:
            best, error = name, held_out
    return best, error


def _halves(tracks: Tracks) -> tuple[Observations, Observations]:
    even = np.arange(len(tracks.points)) % 2 == 0
    return select_points(tracks.observations, even), select_points(tracks.observations, ~even)


def _residual(observations: Observations, geometry: TiltGeometry) -> float:
    """Weighted mean length, each observation compared with its point placed by its other observations, Å."""
    fit = fit_tracks(observations, geometry, NOTHING)
    return float(np.average(np.linalg.norm(fit.held_out_residual, axis=1), weights=observations.weight))
