"""How much signal each exposure holds, shell by shell: a smooth fit to amplitudes measured one by one.

Measured: the regression Â_ik = Σ Re(X* m) / Σ |m|² of the images X of tilt i in shell k on the slices m of a reference,
with the information I_ik = Σ |m|² (noise of 1 in each real component), both in units of the reference. Model:

    Â_ik ~ N(A_ik, 1 / I_ik),   A_ik = P_ik exp(c_k + f(k, N_i) + h(k, ℓ_i) + u_i + v_i κ²)

P is the expected amplitude (cosine of the tilt times the critical-exposure curve), N the exposure at the middle of the
image, ℓ = log(1 / cos θ) the log of the path, κ = k over the last shell that the reference resolves. Each exponent has
a Gaussian prior of mean 0, so that A falls back on P where the data are silent: f (damage unlike the curve) and h
(loss with path) are Gaussian processes of squared-exponential covariance, standard deviation τ, in their low-rank form
on knots; u and v (scale and blur of one image) are independent, of standard deviations τ_u and τ_v. c_k, the amplitude
of the reference's own shell, is free: the data cannot tell it from a factor common to all tilts, so the result is
brought to the gauge Σ_i A_ik = Σ_i P_ik. τ, τ_u and τ_v are those that maximise the marginal likelihood in Laplace's
approximation (empirical Bayes; MacKay 1992).

A is found by Gauss-Newton steps on the penalised likelihood; u and v of each tilt are eliminated (Schur complement), so
cost and memory grow linearly with the number of tilts. Standard errors are those of the posterior, gauge removed.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch

from tiltwise.ops.steady import one_thread

_KNOTS_EXPOSURE, _LENGTH_EXPOSURE = 5, 0.3  # of the whole exposure
_KNOTS_PATH, _LENGTH_PATH = 3, 0.5  # of log path
_SPACING_SHELL, _LENGTH_SHELL = 0.4, 0.5  # of the resolved band
_BEYOND = 2.0  # resolved bands out to which anything but the expected amplitude is thought possible
_FREE = 1.0  # standard deviation of log c_k
_STRENGTHS = (0.02, 0.05, 0.1, 0.2, 0.4, 0.8)  # of τ, τ_u, τ_v that are tried
_ROUNDS = 2  # of the climb
_STEPS, _SETTLED = 30, 1e-2
_LARGEST_STEP = 1.0  # of a log amplitude


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class MeasuredAmplitudes:
    """Amplitudes of the tilts of one series, as measured one by one."""

    amplitude: torch.Tensor
    """(tilt, shell) float64 Â."""
    information: torch.Tensor
    """(tilt, shell) float64 I, 0 where nothing was measured."""
    expected: torch.Tensor
    """(tilt, shell) float64 P."""
    exposure: torch.Tensor
    """(tilt,) float64 e⁻/Å² at the middle of each image."""
    path: torch.Tensor
    """(tilt,) float64 path through the specimen, thicknesses: 1 / cos θ."""


@dataclass(frozen=True, kw_only=True, slots=True)
class PriorStrength:
    """Standard deviations of log amplitude."""

    smooth: float = 0.2
    """τ, of f and h each."""
    scale: float = 0.2
    """τ_u."""
    blur: float = 0.1
    """τ_v, at the last shell resolved."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class ExposureFit:
    """Smooth amplitudes of all series, by position in the sequence that was given."""

    amplitude: list[torch.Tensor]
    """(tilt, shell) A, in the gauge."""
    error: list[torch.Tensor]
    """(tilt, shell) standard error of log A."""
    level: torch.Tensor
    """(shell,) what the gauge took out: the images are A · level of the reference as it was."""
    strength: PriorStrength
    """As the data chose it."""
    evidence: float
    """Log marginal likelihood, up to a constant of the data."""


_Exponents = tuple[torch.Tensor, list[torch.Tensor]]
"""(coefficient,) shared by all tilts, and (tilt, 2) of u and v by series."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class _Design:
    """What the exponents of one series are linear in."""

    shared: torch.Tensor
    """(tilt, shell, coefficient) of c, f and h, whitened: the priors of f and h are τ² times the identity."""
    own: torch.Tensor
    """(shell, 2) of u and v."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class _Mode:
    """The most likely exponents for given strengths, with the curvature about them."""

    eta: list[torch.Tensor]
    """(tilt, shell) log A / P."""
    shared: torch.Tensor
    """(coefficient, coefficient) Cholesky factor of the curvature, u and v eliminated."""
    place: _Exponents
    """Where it is."""
    own: list[torch.Tensor]
    """(tilt, 2, 2) curvature of u, v."""
    coupling: list[torch.Tensor]
    """(tilt, 2, coefficient)."""
    evidence: float
    """Log marginal likelihood."""


@one_thread()
def fit_exposures(measured: Sequence[MeasuredAmplitudes], radius: float) -> ExposureFit:
    """Smooth amplitudes of all series together; shells up to `radius` were measured, those beyond are extrapolated."""
    start = _level(measured)
    measured = [replace(m, amplitude=m.amplitude / start, information=m.information * start**2) for m in measured]
    designs = _designs(measured, radius)
    strength, mode = _strongest(measured, designs)
    share = _gauge_share(measured)
    level = sum((w * torch.exp(eta)).sum(0) for w, eta in zip(share, mode.eta, strict=True))
    amplitude = [m.expected * torch.exp(eta) / level for m, eta in zip(measured, mode.eta, strict=True)]
    return ExposureFit(
        amplitude=amplitude,
        error=_errors(designs, mode, share),
        level=level * start,
        strength=strength,
        evidence=mode.evidence,
    )


def _strongest(measured: Sequence[MeasuredAmplitudes], designs: Sequence[_Design]) -> tuple[PriorStrength, _Mode]:
    """The strengths of greatest evidence, climbed to along one after the other, and the exponents they give."""
    strength = PriorStrength()
    mode = _mode(measured, designs, strength, None)
    for name in ("smooth", "scale", "blur") * _ROUNDS:
        for direction in (1, -1):
            place = _STRENGTHS.index(getattr(strength, name)) + direction
            moved = False
            while 0 <= place < len(_STRENGTHS):
                tried = replace(strength, **{name: _STRENGTHS[place]})
                found = _mode(measured, designs, tried, mode.place)
                if found.evidence <= mode.evidence:
                    break
                strength, mode, moved, place = tried, found, True, place + direction
            if moved:
                break
    return strength, mode


def _level(measured: Sequence[MeasuredAmplitudes]) -> torch.Tensor:
    """(shell,) factor of all expected amplitudes that fits best: where the search begins, in any units of a reference.

    Where a shell shows nothing (less than one standard deviation) it is that of all shells together.
    """
    cross = sum((m.information * m.expected * m.amplitude).sum(0) for m in measured)
    power = sum((m.information * m.expected**2).sum(0) for m in measured)
    whole = float(cross.sum() / power.sum().clamp_min(1e-30))
    start = torch.full_like(cross, whole if whole > 0 else 1.0)
    return torch.where(cross > power.sqrt(), cross / power.clamp_min(1e-30), start)


def _gauge_share(measured: Sequence[MeasuredAmplitudes]) -> list[torch.Tensor]:
    """(tilt, shell) P_ik / Σ_i P_ik: the weights with which log amplitudes must average to 0."""
    total = sum(m.expected.sum(0) for m in measured)
    return [m.expected / total for m in measured]


def _designs(measured: Sequence[MeasuredAmplitudes], radius: float) -> list[_Design]:
    number = measured[0].amplitude.shape[1]
    kappa = torch.arange(number, dtype=torch.float64) / radius
    last = float(kappa.max().clamp_max(_BEYOND))
    knots = torch.linspace(0, last, 1 + int(last / _SPACING_SHELL + 0.5), dtype=torch.float64)
    along_shell = _smooth_basis(kappa, knots, _LENGTH_SHELL)
    end = max(float(m.exposure.max()) for m in measured)
    longest = max(max(float(m.path.log().max()) for m in measured), 0.1)
    designs = []
    for m in measured:
        over = torch.linspace(0, 1, _KNOTS_EXPOSURE, dtype=torch.float64)
        damage = _smooth_basis(m.exposure / max(end, 1e-9), over, _LENGTH_EXPOSURE)
        through = torch.linspace(0, longest, _KNOTS_PATH, dtype=torch.float64)
        loss = _smooth_basis(m.path.log(), through, _LENGTH_PATH)
        both = torch.cat([damage, loss], 1)
        smooth = torch.einsum("ia,kb->ikab", both, along_shell).flatten(2)
        free = torch.eye(number, dtype=torch.float64).expand(len(both), -1, -1)
        own = torch.stack([torch.ones_like(kappa), kappa.clamp_max(_BEYOND) ** 2], 1)
        designs.append(_Design(shared=torch.cat([free, smooth], 2), own=own))
    return designs


def _smooth_basis(points: torch.Tensor, knots: torch.Tensor, length: float) -> torch.Tensor:
    """(point, knot) whitened basis of a Gaussian process of unit variance: B Bᵀ is its covariance through the knots."""

    def kernel(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        return torch.exp(-0.5 * ((a[:, None] - b) / length) ** 2)

    among = kernel(knots, knots) + 1e-6 * torch.eye(len(knots), dtype=torch.float64)
    root = torch.linalg.cholesky(among)
    return torch.linalg.solve_triangular(root, kernel(points, knots).T, upper=False).T


def _precision(designs: Sequence[_Design], strength: PriorStrength) -> tuple[torch.Tensor, torch.Tensor]:
    """Prior precision of the shared coefficients (coefficient,) and of u, v (2,)."""
    shells, number = designs[0].shared.shape[1:]
    shared = torch.full((number,), strength.smooth**-2, dtype=torch.float64)
    shared[:shells] = _FREE**-2
    return shared, torch.tensor([strength.scale**-2, strength.blur**-2], dtype=torch.float64)


def _mode(
    measured: Sequence[MeasuredAmplitudes],
    designs: Sequence[_Design],
    strength: PriorStrength,
    place: _Exponents | None,
) -> _Mode:
    """Gauss-Newton from a place, or from P; steps are halved until the penalised likelihood rises."""
    shared, own = _precision(designs, strength)
    if place is None:
        place = (torch.zeros_like(shared), [torch.zeros(len(m.amplitude), 2, dtype=torch.float64) for m in measured])
    value = _penalised(measured, designs, place, (shared, own))
    for _ in range(_STEPS):
        step, curvature = _step(measured, designs, place, (shared, own))
        scale = min(1.0, _LARGEST_STEP / max(_largest(designs, step), 1e-12))
        while scale > 1e-4:
            tried = (place[0] + scale * step[0], [a + scale * b for a, b in zip(place[1], step[1], strict=True)])
            reached = _penalised(measured, designs, tried, (shared, own))
            if reached >= value:
                break
            scale /= 2
        else:
            break
        gain, place, value = reached - value, tried, reached
        if gain < _SETTLED:
            break
    _, (root, blocks, coupling) = _step(measured, designs, place, (shared, own))
    tilts = sum(len(m.amplitude) for m in measured)
    evidence = value + 0.5 * (float(shared.log().sum()) + tilts * float(own.log().sum()))
    evidence -= float(root.diagonal().log().sum()) + 0.5 * sum(float(torch.logdet(b).sum()) for b in blocks)
    eta = [_exponent(d, place[0], e) for d, e in zip(designs, place[1], strict=True)]
    return _Mode(eta=eta, shared=root, place=place, own=blocks, coupling=coupling, evidence=evidence)


def _exponent(design: _Design, shared: torch.Tensor, own: torch.Tensor) -> torch.Tensor:
    """(tilt, shell)."""
    return design.shared @ shared + own @ design.own.T


def _largest(designs: Sequence[_Design], step: _Exponents) -> float:
    return max(float(_exponent(d, step[0], e).abs().max()) for d, e in zip(designs, step[1], strict=True))


def _penalised(
    measured: Sequence[MeasuredAmplitudes],
    designs: Sequence[_Design],
    place: _Exponents,
    precision: tuple[torch.Tensor, torch.Tensor],
) -> float:
    """Log likelihood and log prior, constants left out."""
    total = -0.5 * float((precision[0] * place[0] ** 2).sum())
    for m, design, own in zip(measured, designs, place[1], strict=True):
        model = m.expected * torch.exp(_exponent(design, place[0], own))
        total -= 0.5 * float((m.information * (m.amplitude - model) ** 2).sum())
        total -= 0.5 * float((precision[1] * own**2).sum())
    return total


def _step(
    measured: Sequence[MeasuredAmplitudes],
    designs: Sequence[_Design],
    place: _Exponents,
    precision: tuple[torch.Tensor, torch.Tensor],
) -> tuple[_Exponents, tuple[torch.Tensor, list[torch.Tensor], list[torch.Tensor]]]:
    """The Gauss-Newton step of (shared, own of each series), and the curvature: root of the shared part with own
    eliminated, own blocks, coupling."""
    normal = torch.diag(precision[0])
    right = -precision[0] * place[0]
    blocks, couplings, rights = [], [], []
    for m, design, own in zip(measured, designs, place[1], strict=True):
        model = m.expected * torch.exp(_exponent(design, place[0], own))
        weight = m.information * model**2
        pull = m.information * model * (m.amplitude - model)
        weighted = weight[..., None] * design.shared
        coupling = torch.einsum("kz,ikp->izp", design.own, weighted)
        block = torch.einsum("ik,kz,ky->izy", weight, design.own, design.own) + torch.diag(precision[1])
        residual = pull @ design.own - precision[1] * own
        normal = normal + torch.einsum("ikp,ikq->pq", weighted, design.shared)
        normal = normal - torch.einsum("izp,izq->pq", coupling, torch.linalg.solve(block, coupling))
        right = right + torch.einsum("ikp,ik->p", design.shared, pull)
        right = right - torch.einsum("izp,iz->p", coupling, torch.linalg.solve(block, residual[..., None])[..., 0])
        blocks.append(block)
        couplings.append(coupling)
        rights.append(residual)
    root = torch.linalg.cholesky(normal)
    shared = torch.cholesky_solve(right[:, None], root)[:, 0]
    each = [
        torch.linalg.solve(b, (r - c @ shared)[..., None])[..., 0]
        for b, c, r in zip(blocks, couplings, rights, strict=True)
    ]
    return (shared, each), (root, blocks, couplings)


def _errors(designs: Sequence[_Design], mode: _Mode, share: Sequence[torch.Tensor]) -> list[torch.Tensor]:
    """(tilt, shell) standard errors of log A with the mean over all tilts, weighted by share, taken out.

    With u, v = D⁻¹(b - C c) given the shared c, an exponent is ψ c + z ε, ψ = φ - zᵀ D⁻¹ C, ε of covariance D⁻¹.
    """
    psi, alone = [], []
    for design, block, coupling in zip(designs, mode.own, mode.coupling, strict=True):
        psi.append(design.shared - torch.einsum("kz,izp->ikp", design.own, torch.linalg.solve(block, coupling)))
        alone.append(torch.einsum("kz,izy,ky->ik", design.own, torch.linalg.inv(block), design.own))
    mean = sum(torch.einsum("ik,ikp->kp", w, p) for w, p in zip(share, psi, strict=True))
    common = sum((w**2 * a).sum(0) for w, a in zip(share, alone, strict=True))
    errors = []
    for w, p, a in zip(share, psi, alone, strict=True):
        flat = (p - mean).flatten(0, 1)
        along = torch.linalg.solve_triangular(mode.shared, flat.T, upper=False).square().sum(0).reshape(a.shape)
        errors.append((along + a * (1 - 2 * w) + common).clamp_min(0).sqrt())
    return errors
