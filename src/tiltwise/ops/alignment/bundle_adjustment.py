"""One bundle adjuster for every kind of observation: beads, tracked patches, later particles.

Shifts, axis angles, tilt angles, x-tilts, magnifications and strains of all tilts and all 3D points are fitted together
to observed 2D places: Levenberg-Marquardt on a robust cost (iteratively reweighted least squares; Triggs et al. 2000),
with the points eliminated exactly (Schur complement). Each kind of parameter is free, fixed, or has a Gaussian prior.

Gauge: what the images cannot tell (translation; with free magnifications the scale; with free angles turns of the
specimen) is found at each step, and no step goes along it: the mean of such parameters stays as it was given.
"""

from dataclasses import dataclass, replace

import numpy as np
from scipy.linalg import LinAlgError, cho_factor, cho_solve

from tiltwise.ops.alignment.bundle_system import (
    KINDS,
    NUMBER,
    BundleState,
    Linearised,
    NormalEquations,
    Observations,
    couplings,
    eliminate_points,
    gauge_directions,
    linearise,
    move,
    normal_equations,
    point_steps,
    predict,
    tilt_parameters,
    views,
)

FREE, FIXED = np.inf, 0.0
_TUNING = {"squares": np.inf, "huber": 1.345, "cauchy": 2.385, "geman": 3.0}
"""Residuals in standard deviations at which a loss bends; 95 % efficiency on normal errors in one dimension."""
_STEPS, _ENOUGH = 20, 1e-7
"""Steps between two measurements of the scale, and the relative gain of the cost below which no more are taken: a
ten-millionth of some thousand observations' cost moves no parameter by a hundredth of its error."""
_MEDIAN_LENGTH = np.sqrt(2 * np.log(2))
"""Median length of a 2D normal residual of unit variance in x and in y (Rayleigh)."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Freedom:
    """How far one kind of parameter may go."""

    deviation: float = FREE
    """Standard deviation about the given value: 0 fixes it, infinity leaves it free; degrees, Å, or none."""
    step: float = FREE
    """Standard deviation of the change of that deviation between neighbours in tilt angle; infinity for no such tie."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Freedoms:
    """Freedom of each kind of parameter of a tilt."""

    shift: Freedom = Freedom()
    """Å."""
    tilt_axis_angle: Freedom = Freedom()
    """Degrees."""
    tilt_angle: Freedom = Freedom(deviation=FIXED)
    """Degrees."""
    x_tilt: Freedom = Freedom(deviation=FIXED)
    """Degrees."""
    magnification: Freedom = Freedom(deviation=FIXED)
    """Factor."""
    stretch: Freedom = Freedom(deviation=FIXED)
    """Strain of the specimen."""
    skew: Freedom = Freedom(deviation=FIXED)
    """Strain of the specimen."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class BundleFit:
    """A fitted state with its errors."""

    state: BundleState
    """Parameters and points."""
    residual: np.ndarray
    """(obs, 2) observed less predicted, Å."""
    held_out_residual: np.ndarray
    """(obs, 2) the same with this one observation left out of the fit (to first order), Å."""
    robust_weight: np.ndarray
    """(obs,) 0 to 1; what the loss leaves of an observation's weight."""
    scale: float
    """Standard deviation of a residual of weight 1 in x and in y, Å, from the median length."""
    tilt_error: np.ndarray
    """(tilt, 8) standard errors in the order of bundle_system.KINDS, angles in degrees; 0 where fixed."""
    point_error: np.ndarray
    """(point, 3) standard errors, Å."""
    parameters: int
    """Free parameters, points counted, gauge directions not."""
    gauge: int
    """Directions that the observations cannot tell and that were held."""
    converged: bool
    """False when the rounds ran out first."""


def adjust(
    observations: Observations, start: BundleState, freedoms: Freedoms, *, loss: str = "cauchy", rounds: int = 10
) -> BundleFit:
    """Fit tilts and points to the observations, from a start near the answer.

    loss: squares, huber, cauchy or geman. Raises ValueError for an unknown loss, and for a point seen in fewer than two
    tilts, whose depth nothing tells.
    """
    if loss not in _TUNING:
        raise ValueError(f"no loss {loss!r}; there are {', '.join(_TUNING)}")
    seen = np.unique(np.stack([observations.point, observations.tilt]), axis=1)[0]
    if (np.bincount(seen, minlength=len(start.points)) < 2).any():
        raise ValueError("every point must be observed in two tilts or more")
    prior, active = _prior(observations, start, freedoms)
    problem = _Problem(observations, tilt_parameters(start), prior, active, loss)
    state, damping, converged, scale = start, 1e-4, False, problem.scale(start)
    for _ in range(rounds):
        for _ in range(_STEPS):
            before = problem.cost(state, scale)
            state, damping, gain = _improve(problem, state, scale, damping)
            if gain < _ENOUGH * before:
                break
        newer = problem.scale(state)
        converged = bool(gain < _ENOUGH * before and abs(newer - scale) < 0.01 * scale)
        if converged:
            break
        scale = newer
    return _finish(problem, state, scale, converged)


def triangulate(observations: Observations, state: BundleState) -> BundleState:
    """The state with its points at their least-squares places; they must be numbered without gaps.

    Unbiased but not robust; a direction that the tilts do not tell is zero.
    """
    rows = views(state)
    number = int(observations.point.max()) + 1
    points = np.zeros((number, 3))
    for i in range(number):
        own = observations.point == i
        design = rows[observations.tilt[own]].reshape(-1, 3)
        right = (observations.position[own] - state.geometry.shift[observations.tilt[own]]).ravel()
        root = np.sqrt(np.repeat(observations.weight[own], 2))
        points[i] = np.linalg.lstsq(design * root[:, None], right * root, rcond=None)[0]
    return replace(state, points=points)


@dataclass(frozen=True, slots=True, eq=False)
class _Problem:
    """Everything that stays the same during a fit."""

    observations: Observations
    start: np.ndarray
    prior: np.ndarray
    active: np.ndarray
    loss: str

    def residual(self, state: BundleState) -> np.ndarray:
        return self.observations.position - predict(state, self.observations.tilt, self.observations.point)

    def deviation(self, state: BundleState) -> np.ndarray:
        return (tilt_parameters(state) - self.start).ravel()

    def gauge(self, state: BundleState) -> np.ndarray:
        """(8 tilt, k) gauge directions of the tilts that are observed."""
        observed = np.bincount(self.observations.tilt, minlength=len(state.skew)) > 0
        directions = gauge_directions(state, ~self.active & np.repeat(observed, NUMBER), self.prior)
        return np.linalg.qr(directions * self.active[:, None])[0]

    def unknowns(self) -> int:
        return int(self.active.sum()) + 3 * (int(self.observations.point.max()) + 1)

    def scale(self, state: BundleState) -> float:
        """Standard deviation from the median length, degrees of freedom allowed for."""
        length = np.sqrt(self.observations.weight) * np.linalg.norm(self.residual(state), axis=1)
        number = 2 * len(length)
        freedom = max(number - self.unknowns(), 0.05 * number)
        typical = max(float(np.median(length)), 1e-12 * float(np.abs(self.observations.position).max()))
        return typical / _MEDIAN_LENGTH * float(np.sqrt(number / freedom))

    def squares(self, state: BundleState, scale: float) -> np.ndarray:
        return self.observations.weight * (self.residual(state) ** 2).sum(1) / scale**2

    def cost(self, state: BundleState, scale: float) -> float:
        deviation = self.deviation(state)
        return float(_robust_cost(self.squares(state, scale), self.loss).sum() + deviation @ self.prior @ deviation)


def _improve(problem: _Problem, state: BundleState, scale: float, damping: float) -> tuple[BundleState, float, float]:
    """One accepted step of Levenberg and Marquardt: the new state, the new damping, and what the cost lost."""
    equations, jacobian = _normal_equations(problem, state, scale)
    gauge = problem.gauge(state)
    before = problem.cost(state, scale)
    while damping < 1e8:
        try:
            tilt_step, point_step = _solve(jacobian, equations, problem.active, gauge, damping)
        except LinAlgError:
            damping *= 10
            continue
        tried = move(state, tilt_step.reshape(-1, NUMBER), point_step)
        gain = before - problem.cost(tried, scale)
        if gain >= 0:
            return tried, max(damping / 10, 1e-12), gain
        damping *= 10
    return state, 1e-4, 0.0


def _normal_equations(problem: _Problem, state: BundleState, scale: float) -> tuple[NormalEquations, Linearised]:
    observations = problem.observations
    jacobian = linearise(state, observations.tilt, observations.point)
    robust = _robust_weight(problem.squares(state, scale), problem.loss)
    weight = observations.weight * robust / scale**2
    pull = -problem.prior @ problem.deviation(state)
    return normal_equations(jacobian, problem.residual(state), weight, problem.prior, pull), jacobian


def _solve(
    jacobian: Linearised, equations: NormalEquations, active: np.ndarray, gauge: np.ndarray, damping: float
) -> tuple[np.ndarray, np.ndarray]:
    diagonal = np.einsum("paa->pa", equations.points)
    inverse = np.linalg.inv(equations.points + damping * diagonal[:, :, None] * np.eye(3))
    reduced, right = eliminate_points(jacobian, equations, inverse)
    reduced[np.diag_indices(len(reduced))] += damping * np.diag(equations.tilts)
    step = np.zeros(len(right))
    step[active] = cho_solve(_factor(reduced, active, gauge), right[active])
    step -= gauge @ (gauge.T @ step)
    return step, point_steps(jacobian, equations, inverse, step)


def _factor(reduced: np.ndarray, active: np.ndarray, gauge: np.ndarray) -> tuple:
    """Cholesky factor of the active part, made regular along the gauge, where it is zero and its value is no matter."""
    held = gauge * np.sqrt(np.diag(reduced)[active].mean() if active.any() else 1.0)
    return cho_factor((reduced + held @ held.T)[np.ix_(active, active)])


def _finish(problem: _Problem, state: BundleState, scale: float, converged: bool) -> BundleFit:
    observations, active = problem.observations, problem.active
    equations, jacobian = _normal_equations(problem, state, scale)
    gauge = problem.gauge(state)
    inverse = np.linalg.inv(equations.points)
    reduced, _ = eliminate_points(jacobian, equations, inverse)
    covariance = np.zeros_like(reduced)
    covariance[np.ix_(active, active)] = cho_solve(_factor(reduced, active, gauge), np.eye(int(active.sum())))
    across = np.eye(len(covariance)) - gauge @ gauge.T
    covariance = across @ covariance @ across
    leverage, point_error = _leverage(jacobian, equations, inverse, covariance)
    squares = problem.squares(state, scale)
    robust = _robust_weight(squares, problem.loss)
    weight = observations.weight * robust / scale**2
    residual = problem.residual(state)
    remaining = np.eye(2) - weight[:, None, None] * leverage
    units = np.where(np.isin(np.arange(NUMBER), (2, 3, 4)), 180 / np.pi, 1.0)
    return BundleFit(
        state=state,
        residual=residual,
        held_out_residual=np.linalg.solve(remaining, residual[:, :, None])[:, :, 0],
        robust_weight=robust,
        scale=scale,
        tilt_error=np.sqrt(np.diag(covariance).clip(0)).reshape(-1, NUMBER) * units,
        point_error=point_error,
        parameters=problem.unknowns() - gauge.shape[1],
        gauge=gauge.shape[1],
        converged=converged,
    )


def _leverage(
    jacobian: Linearised, equations: NormalEquations, inverse: np.ndarray, covariance: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """(obs, 2, 2) covariance of each prediction, and (point, 3) errors of the points.

    With Y = V⁻¹ Wᵀ: cov(points) = V⁻¹ + Y C Yᵀ and cov(tilts, points) = -C Yᵀ, C the covariance of the tilts.
    """
    number, (tilts, points) = len(jacobian.tilt), jacobian.shape
    result, error = np.zeros((number, 2, 2)), np.zeros((points, 3))
    blocks = covariance.reshape(tilts, NUMBER, tilts, NUMBER)[np.arange(tilts), :, np.arange(tilts), :]
    for chosen, block in couplings(jacobian, equations.coupling):
        part = np.einsum("cpa,pab->cpb", block, inverse[chosen])
        mixed = (covariance @ part.reshape(len(part), -1)).reshape(part.shape)
        own = inverse[chosen] + np.einsum("cpa,cpb->pab", part, mixed)
        error[chosen] = np.sqrt(np.einsum("paa->pa", own).clip(0))
        of = np.flatnonzero((jacobian.point >= chosen.start) & (jacobian.point < chosen.stop))
        tilt, point = jacobian.tilt[of], jacobian.point[of] - chosen.start
        a, b = jacobian.tilt_part[of], jacobian.point_part[of]
        cross = a @ -mixed.reshape(tilts, NUMBER, -1, 3)[tilt, :, point] @ b.transpose(0, 2, 1)
        result[of] = a @ blocks[tilt] @ a.transpose(0, 2, 1) + b @ own[point] @ b.transpose(0, 2, 1)
        result[of] += cross + cross.transpose(0, 2, 1)
    return result, error


def _prior(observations: Observations, start: BundleState, freedoms: Freedoms) -> tuple[np.ndarray, np.ndarray]:
    """Precision of all tilts' parameters (8 tilt, 8 tilt), radians for angles, and (8 tilt,) which may move at all.

    A tilt that is not observed moves only where a prior says whereto.
    """
    number = len(start.skew)
    observed = np.bincount(observations.tilt, minlength=number) > 0
    order = np.argsort(start.geometry.tilt_angle, kind="stable")
    ties = np.zeros((number - 1, number))
    ties[np.arange(number - 1), order[1:]], ties[np.arange(number - 1), order[:-1]] = 1, -1
    precision = np.zeros((number, NUMBER, number, NUMBER))
    active = np.zeros((number, NUMBER), bool)
    for place, kind in enumerate(KINDS):
        freedom = getattr(freedoms, kind.removesuffix("_x").removesuffix("_y"))
        unit = np.pi / 180 if place in (2, 3, 4) else 1.0
        if freedom.deviation == 0:
            continue
        precision[:, place, :, place] = np.eye(number) / (freedom.deviation * unit) ** 2
        precision[:, place, :, place] += ties.T @ ties / (freedom.step * unit) ** 2
        active[:, place] = observed | np.isfinite(min(freedom.deviation, freedom.step))
    return precision.reshape(NUMBER * number, NUMBER * number), active.ravel()


def _robust_cost(squares: np.ndarray, loss: str) -> np.ndarray:
    """rho(s) of s = (length / sd)², equal to s for small s."""
    c2 = _TUNING[loss] ** 2
    if loss == "huber":
        return np.where(squares <= c2, squares, 2 * np.sqrt(c2 * squares) - c2)
    if loss == "cauchy":
        return c2 * np.log1p(squares / c2)
    return squares / (1 + squares / c2)


def _robust_weight(squares: np.ndarray, loss: str) -> np.ndarray:
    """drho / ds, 0 to 1."""
    c2 = _TUNING[loss] ** 2
    if loss == "huber":
        return np.sqrt(c2 / squares.clip(c2))
    if loss == "cauchy":
        return 1 / (1 + squares / c2)
    return 1 / (1 + squares / c2) ** 2
