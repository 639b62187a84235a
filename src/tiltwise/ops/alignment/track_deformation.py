"""A smooth deformation fitted to tracks (beads, patches), kept where it places tracks better that took no part in it.

Observation u of point p in tilt i leaves the residual r = u - (R_i X_p)_xy - shift_i in the rigid geometry, and is
fitted by r = J_pi θ + (R_i)_xy q_p: the point moves by q_p, and θ are parameters of `ops.polishing.geometry_blocks`, in
units of their Gaussian priors: magnification of each tilt, deformation of the specimen over the exposure, warp of each
image. With rows weighted by what noise and outliers leave of them (Cauchy, reweighted), and points projected out by a
QR of their rows, θ = (JᵀJ + 1)⁻¹ Jᵀ r.

J is taken less its mean over all points, so that a deformation moves no image as a whole: the shifts stay. What else in
it is rigid, turns of the specimen or the image and their scale, is moved into the geometry by `take_out_rigid`.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy.interpolate import CubicSpline
from scipy.spatial.transform import Rotation

from tiltwise.data.deformation import Deformation
from tiltwise.data.tilt_series import TiltGeometry, TiltSeries
from tiltwise.ops.alignment.bundle_adjustment import BundleFit
from tiltwise.ops.alignment.bundle_system import Observations, rotations_of
from tiltwise.ops.alignment.track_alignment import NOTHING, fit_tracks, place_points, select_points
from tiltwise.ops.deformation import QUADRATIC, middle_exposure, specimen_in_images, warp_basis
from tiltwise.ops.polishing.geometry_blocks import Block, Seen
from tiltwise.ops.polishing.geometry_change import change_geometry, geometry_blocks

WIDTHS = (3.0, 1.0, 0.3)
"""Of a block's prior, relative to its standard deviations."""
_WORTH = 0.98
"""A block must bring the held-out residual below this part of what it was."""
_FEWEST = 10
"""Points below which a half cannot hold a deformation."""
_ROUNDS = 2
"""Of reweighting."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class TrackDeformation:
    """What tracks say of a deformation."""

    tilt_series: TiltSeries
    """With the deformation, and what is rigid in it in the geometry; as given where nothing was kept."""
    widths: dict[str, float]
    """Of the priors of the blocks kept, by name."""
    held_out: float
    """Weighted mean residual of points that took no part in the fit, Å."""
    held_out_before: float
    """The same in the rigid geometry, Å."""
    moved: float
    """Root mean square displacement of the tracks by the deformation, Å."""


@dataclass(frozen=True, slots=True, eq=False)
class _Problem:
    """A rigid series, what was observed, and the derivatives that all fits share."""

    series: TiltSeries
    observations: Observations
    seen: Seen
    blocks: dict[str, Block]
    """By name, in the order in which they are tried."""
    derivatives: dict[str, np.ndarray]
    """By block: (obs, 2, parameter), less the mean over all points."""

    @property
    def geometry(self) -> TiltGeometry:
        """Of the used tilts."""
        return used_geometry(self.series)


def deform_to_tracks(
    series: TiltSeries, observations: Observations, names: Sequence[str] = ("magnification", "sample", "warp")
) -> TrackDeformation | None:
    """Try the blocks of these names in turn, each with priors of several widths; None where points are too few.

    Tilts of the observations count the used ones of the series, which is aligned and rigid.
    """
    number = int(observations.point.max()) + 1
    if number < _FEWEST:
        return None
    problem = _prepare(series, observations, names)
    held_out = before = _held_out(problem, {})
    widths: dict[str, float] = {}
    for name in names:
        tried = {width: _held_out(problem, widths | {name: width}) for width in WIDTHS}
        best = min(tried, key=tried.get)
        if tried[best] < _WORTH * held_out:
            widths, held_out = widths | {name: best}, tried[best]
    change, _ = _fit(problem, np.ones(number, bool), widths)
    moved = np.sqrt((_displacement(problem, change) ** 2).sum(1).mean()) if widths else 0.0
    deformed = _apply(problem, change) if widths else series
    return TrackDeformation(
        tilt_series=deformed, widths=widths, held_out=held_out, held_out_before=before, moved=float(moved)
    )


def used_geometry(series: TiltSeries) -> TiltGeometry:
    """The geometry of the used tilts alone."""
    own = series.geometry
    return TiltGeometry(
        tilt_angle=own.tilt_angle[series.use],
        tilt_axis_angle=own.tilt_axis_angle[series.use],
        x_tilt=own.x_tilt[series.use],
        shift=own.shift[series.use],
    )


def take_out_rigid(series: TiltSeries) -> TiltSeries:
    """The series whose deformation holds no turn and no scale of specimen or image: these are in geometry and
    magnification, to first order in the deformation.

    Of a specimen, the linear part of D at N_i is A_i X: its antisymmetric part is a turn, R_i → R_i (1 + [ω]×), a third
    of its trace a scale s, m → m (1 + s), shift → shift / (1 + s). Of an image, w = a + B r + rest over the field.
    """
    deformation = series.deformation or Deformation()
    if deformation.sample is not None:
        series = _without_specimen_turn(series)
    if deformation.image is not None:
        series = _without_image_turn(series)
    return series


def _prepare(series: TiltSeries, observations: Observations, names: Sequence[str]) -> _Problem:
    points = place_points(observations, used_geometry(series))
    used = np.flatnonzero(series.use)
    seen = Seen(
        rotations=rotations_of(used_geometry(series)),
        axis=series.geometry.tilt_axis_angle[used],
        place=specimen_in_images(series, points, used)[0],
        position=points,
        rotation=np.broadcast_to(np.eye(3), (len(points), 3, 3)),
        exposure=middle_exposure(series)[used],
    )
    derivatives, blocks = {}, {}
    for block in geometry_blocks(series, seen, names, QUADRATIC):
        table = np.zeros((len(observations.tilt), 2, block.number))
        for tilt in range(len(used)):
            own = np.flatnonzero(observations.tilt == tilt)
            index, values = block.at_tilt(tilt)
            values = values[:, 3:] - values[:, 3:].mean(axis=0)
            table[np.ix_(own, [0, 1], index)] = values[observations.point[own]]
        derivatives[block.name], blocks[block.name] = table, block
    return _Problem(series, observations, seen, blocks, derivatives)


def _held_out(problem: _Problem, widths: dict[str, float]) -> float:
    """Weighted mean length (Å) of residuals of each half of the points, deformed as the other half says."""
    number = int(problem.observations.point.max()) + 1
    first = np.arange(number) % 2 == 0
    errors = []
    for own in (first, ~first):
        change, _ = _fit(problem, own, widths)
        fit = _rigid_fit(problem, ~own, change)
        weight = problem.observations.weight[~own[problem.observations.point]]
        errors.append(np.average(np.linalg.norm(fit.held_out_residual, axis=1), weights=weight))
    return float(np.mean(errors))


def _fit(problem: _Problem, chosen: np.ndarray, widths: dict[str, float]) -> tuple[dict[str, np.ndarray], BundleFit]:
    """(parameter,) by block, fitted to the points chosen (point,); and the fit of the points that goes with it."""
    change = {name: np.zeros(problem.derivatives[name].shape[2]) for name in widths}
    fit = _rigid_fit(problem, chosen, change)
    if not widths:
        return change, fit
    rows = chosen[problem.observations.point]
    design = np.concatenate([width * problem.derivatives[name][rows] for name, width in widths.items()], axis=2)
    own = select_points(problem.observations, chosen)
    views = problem.seen.rotations[own.tilt, :2]
    for _ in range(_ROUNDS):
        root = np.sqrt(own.weight * fit.robust_weight) / fit.scale
        residual = fit.residual + _displacement(problem, change)[rows]
        solved = _solve(design * root[:, None, None], residual * root[:, None], views * root[:, None, None], own.point)
        ends = np.cumsum([len(values) for values in change.values()])[:-1]
        change = {
            name: width * part for (name, width), part in zip(widths.items(), np.split(solved, ends), strict=True)
        }
        fit = _rigid_fit(problem, chosen, change)
    return change, fit


def _solve(design: np.ndarray, residual: np.ndarray, views: np.ndarray, point: np.ndarray) -> np.ndarray:
    """(parameter,) of unit priors, from weighted rows (obs, 2, ...); the moves of the points are projected out."""
    design, residual = design.copy(), residual.copy()
    for p in range(int(point.max()) + 1):
        own = point == p
        basis = np.linalg.qr(views[own].reshape(-1, 3))[0]
        for rows in (design, residual):
            flat = rows[own].reshape(len(basis), -1)
            rows[own] = (flat - basis @ (basis.T @ flat)).reshape(rows[own].shape)
    design = design.reshape(-1, design.shape[2])
    return np.linalg.solve(design.T @ design + np.eye(design.shape[1]), design.T @ residual.ravel())


def _displacement(problem: _Problem, change: dict[str, np.ndarray]) -> np.ndarray:
    """(obs, 2) Å by which a change moves the observations."""
    none = np.zeros_like(problem.observations.position)
    return sum((problem.derivatives[name] @ values for name, values in change.items()), none)


def _rigid_fit(problem: _Problem, chosen: np.ndarray, change: dict[str, np.ndarray]) -> BundleFit:
    """The points chosen placed in the rigid geometry by their observations less what the change moves them by."""
    moved = problem.observations.position - _displacement(problem, change)
    return fit_tracks(select_points(replace(problem.observations, position=moved), chosen), problem.geometry, NOTHING)


def _apply(problem: _Problem, change: dict[str, np.ndarray]) -> TiltSeries:
    """The series with the change: its mean displacement of the points taken off the shifts, rigid parts moved."""
    series, seen = problem.series, problem.seen
    used = np.flatnonzero(series.use)
    blocks = [problem.blocks[name] for name in change]
    deformed = change_geometry(series, seen, blocks, np.concatenate(list(change.values())))
    mean = (specimen_in_images(deformed, seen.position, used)[0] - seen.place).mean(axis=1)
    shift = series.geometry.shift.astype(float)
    shift[used] -= mean
    return take_out_rigid(replace(deformed, geometry=replace(deformed.geometry, shift=shift)))


def _without_specimen_turn(series: TiltSeries) -> TiltSeries:
    sample, geometry = series.deformation.sample, series.geometry
    linear = sample.coefficient[:, 1:4].transpose(0, 2, 1) / sample.scale  # (knot, component, x y z)
    scale = np.trace(linear, axis1=1, axis2=2) / 3
    turn = (linear - linear.transpose(0, 2, 1)) / 2
    rigid = turn + scale[:, None, None] * np.eye(3)
    coefficient = sample.coefficient.copy()
    coefficient[:, 1:4] -= sample.scale * rigid.transpose(0, 2, 1)
    within = np.clip(middle_exposure(series), sample.exposure[0], sample.exposure[-1])
    at_tilt = CubicSpline(sample.exposure, rigid)(within)
    factor = 1 + np.trace(at_tilt, axis1=1, axis2=2) / 3
    omega = np.stack([at_tilt[:, 2, 1] - at_tilt[:, 1, 2], at_tilt[:, 0, 2] - at_tilt[:, 2, 0]], axis=1)
    omega = np.concatenate([omega, (at_tilt[:, 1, 0] - at_tilt[:, 0, 1])[:, None]], axis=1) / 2
    turned = Rotation.from_matrix(rotations_of(geometry)) * Rotation.from_rotvec(omega)
    axis, tilt, x_tilt = turned.as_euler("ZYX", degrees=True).T
    geometry = TiltGeometry(
        tilt_angle=tilt,
        tilt_axis_angle=geometry.tilt_axis_angle + (axis - geometry.tilt_axis_angle + 180) % 360 - 180,
        x_tilt=x_tilt,
        shift=geometry.shift / factor[:, None],
    )
    sample = replace(sample, coefficient=coefficient, magnification=sample.magnification * factor)
    return replace(series, geometry=geometry, deformation=replace(series.deformation, sample=sample))


def _without_image_turn(series: TiltSeries) -> TiltSeries:
    """Shift and turn go into the geometry; a scale stays where no magnification is kept beside the warp."""
    warp, geometry = series.deformation.image, series.geometry
    controls = warp.coefficient.shape[1:3]
    along = [np.linspace(-0.5, 0.5, 16) * side for side in warp.extent]
    grid = np.stack(np.meshgrid(*along), axis=-1).reshape(-1, 2)
    basis = warp_basis(grid, warp.extent, controls)
    field = basis @ warp.coefficient.reshape(series.number, -1, 2)
    terms = np.concatenate([np.ones((len(grid), 1)), grid], axis=1)
    affine = np.linalg.lstsq(terms, field.transpose(1, 0, 2).reshape(len(grid), -1), rcond=None)[0]
    affine = affine.reshape(3, series.number, 2).transpose(1, 0, 2)  # (tilt; 1, x, y; component)
    omega = (affine[:, 1, 1] - affine[:, 2, 0]) / 2
    rigid = np.zeros_like(affine)
    rigid[:, 0], rigid[:, 1, 1], rigid[:, 2, 0] = affine[:, 0], omega, -omega
    places = np.linalg.lstsq(basis, terms, rcond=None)[0]  # control values of 1, x, y, which splines hold exactly
    coefficient = warp.coefficient - (places @ rigid).reshape(warp.coefficient.shape)
    magnification = 1.0 if series.deformation.sample is None else series.deformation.sample.magnification[:, None]
    turned = geometry.shift + omega[:, None] * np.stack([-geometry.shift[:, 1], geometry.shift[:, 0]], axis=1)
    geometry = replace(
        geometry,
        tilt_axis_angle=geometry.tilt_axis_angle + np.degrees(omega),
        shift=turned + affine[:, 0] / magnification,
    )
    image = replace(warp, coefficient=coefficient)
    return replace(series, geometry=geometry, deformation=replace(series.deformation, image=image))
