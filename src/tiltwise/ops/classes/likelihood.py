"""Likelihood of particles under several classes, and the mixture that it implies.

The reference of class k is the consensus V, common to all, plus the class's own difference u_k, told only in the region
where classes may differ: V_k = V + u_k. With whitened images X and models m = A V, d_k = A u_k (A: slice, CTF, weights
and the phase of the shift, at the particle's pose for class k) the log likelihood of particle p, up to a constant, is

    L_pk = Σ Re(X* (m + d_k)) - |m + d_k|² / 2 = L⁰_pk + Σ_s C_pks - E_pks / 2,
    L⁰_pk = Σ Re(X* m) - |m|² / 2,    C_pks = Σ Re((X - m)* d_k),    E_pks = Σ |d_k|²,

sums over all tilts and one half plane; s numbers shells of |k|. Subtracting the consensus from the images is no step of
its own: it is how the likelihood comes apart, with CTF and weights.

A difference measured from few particles is mostly noise. Scaled by ρ_ks, 0 to 1 as a rule, the term of a shell becomes
ρ C - ρ² E / 2, and ρ is estimated with the mixture. Where u_k was made without particle p, the maximum of the
likelihood over ρ is the Wiener filter of u_k, and posteriors are calibrated: where the difference of two references
holds signal of power S and noise of power N, ρ = S / (S + N), and that of the two log likelihoods has the mean
± ρ S / 2 and the variance ρ² (S + N) = ρ S, as it has for exact references whose difference has the power ρ S.
"""

from dataclasses import dataclass, replace

import torch

from tiltwise.ops.particles.images import ParticleImages, spread_shells
from tiltwise.ops.particles.slices import SpectralGrid
from tiltwise.ops.particles.tilt_weights import model_images

_ROUNDS = 200  # of the mixture's fit at most
_STILL = 1e-4  # mean change of the posteriors at which it has settled
_SPREAD = 2.0  # log odds of one standard deviation, where only the order of the particles is wanted


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class ClassReferences:
    """What particles are compared with."""

    consensus: SpectralGrid
    """Spectrum of the map common to all classes."""
    differences: tuple[SpectralGrid, ...]
    """Spectrum of each class's own difference from it."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class ClassAgreement:
    """The terms of the log likelihood of each particle under each class."""

    base: torch.Tensor
    """(particle, class) float64 L⁰, under the consensus."""
    cross: torch.Tensor
    """(particle, class, shell) float64 C."""
    power: torch.Tensor
    """(particle, class, shell) float64 E."""

    def of(self, index: torch.Tensor) -> "ClassAgreement":
        """Those of some particles."""
        return ClassAgreement(base=self.base[index], cross=self.cross[index], power=self.power[index])


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Mixture:
    """Classes of a population of particles, as fitted to these."""

    posterior: torch.Tensor
    """(particle, class) float64, rows of sum 1."""
    prior: torch.Tensor
    """(class,) float64 part of the particles."""
    shrinkage: torch.Tensor
    """(class, shell) float64 ρ."""


def class_agreement(
    images: ParticleImages, references: ClassReferences, rotation: torch.Tensor, shift: torch.Tensor
) -> ClassAgreement:
    """Agreement of particles with each class: rotation (particle, class, 3, 3), shift (particle, class, 3) in Å."""
    number = len(references.differences)
    alike = all(
        torch.equal(rotation[:, 0], rotation[:, k]) and torch.equal(shift[:, 0], shift[:, k]) for k in range(number)
    )
    base, cross, power = [], [], []
    for k, difference in enumerate(references.differences):
        pose = rotation[:, k], shift[:, k]
        if k == 0 or not alike:
            consensus = model_images(images, references.consensus, *pose)
            common = _inner(images.data, consensus).sum(1) - 0.5 * _inner(consensus, consensus).sum(1)
            residual = images.data - consensus
        model = model_images(images, difference, *pose)
        base.append(common)
        cross.append(_shell_sums(_inner(residual, model), images.points))
        power.append(_shell_sums(_inner(model, model), images.points))
    return ClassAgreement(base=torch.stack(base, 1), cross=torch.stack(cross, 1), power=torch.stack(power, 1))


def _inner(first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
    """(particle, point) float64 Re(first* second), summed over tilts."""
    return (first.real * second.real + first.imag * second.imag).sum(1, dtype=torch.float64)


def _shell_sums(values: torch.Tensor, points: torch.Tensor) -> torch.Tensor:
    """(particle, shell) sums over points (particle, point) of shell |k|, rounded; shell 0 is empty."""
    shell = points.norm(dim=-1).round().long()
    result = values.new_zeros(len(values), int(shell.max()) + 1)
    return result.index_add_(1, shell, values)


def class_spectrum(references: ClassReferences, k: int, shrinkage: torch.Tensor) -> SpectralGrid:
    """Spectrum of the reference of class k, its difference scaled by shrinkage (shell,), 0 beyond its last shell."""
    grid = references.consensus
    factor = spread_shells(torch.nn.functional.pad(shrinkage, (0, 1)), _grid_radius(grid)[..., None]).to(
        grid.values.real
    )
    return replace(grid, values=grid.values + factor * references.differences[k].values)


def _grid_radius(grid: SpectralGrid) -> torch.Tensor:
    """(z, y, x) |k| of the samples of a grid, in 1 / (box · pixel)."""
    centre = grid.values.shape[0] // 2
    axis = torch.arange(-centre, centre + 1, dtype=torch.float64) / grid.step
    half = torch.arange(grid.values.shape[2], dtype=torch.float64) / grid.step
    return (axis[:, None, None] ** 2 + axis[:, None] ** 2 + half**2).sqrt()


def log_likelihood(agreement: ClassAgreement, shrinkage: torch.Tensor) -> torch.Tensor:
    """(particle, class) float64 log likelihood with the differences scaled by shrinkage (class, shell).

    Shells that shrinkage does not reach have none.
    """
    shrinkage = _of_length(shrinkage, agreement.cross.shape[2])
    linear = torch.einsum("pks,ks->pk", agreement.cross, shrinkage)
    return agreement.base + linear - 0.5 * torch.einsum("pks,ks->pk", agreement.power, shrinkage**2)


def class_posterior(likelihood: torch.Tensor, prior: torch.Tensor) -> torch.Tensor:
    """(particle, class) posterior: softmax of log likelihood (particle, class) plus log prior (class,)."""
    return torch.softmax(likelihood + prior.clamp_min(1e-300).log(), dim=1)


def fit_mixture(agreement: ClassAgreement, start: torch.Tensor, shape: torch.Tensor | None = None) -> Mixture:
    """Maximum likelihood over priors and ρ from the posterior `start` (particle, class), by expectation-maximisation.

    Both steps are closed: π_k = <γ_k>, ρ_ks = Σ_p γ C / Σ_p γ E (not below 0), sums weighted 1/4, 1/2, 1/4 over
    neighbouring shells. With a shape (class, shell) only its scale is fitted: so many numbers as there are shells find
    a direction in which a few hundred particles of one kind look like two. The references stay as they are.
    """
    posterior = start
    for _ in range(_ROUNDS):
        prior, shrinkage = posterior.mean(0), _shrinkage(agreement, posterior, shape)
        previous, posterior = posterior, class_posterior(log_likelihood(agreement, shrinkage), prior)
        if float((posterior - previous).abs().mean()) < _STILL:
            break
    return Mixture(posterior=posterior, prior=prior, shrinkage=shrinkage)


def posterior_under(agreement: ClassAgreement, mixture: Mixture) -> torch.Tensor:
    """(particle, class) posterior of particles under a mixture, which may have been fitted to others."""
    return class_posterior(log_likelihood(agreement, mixture.shrinkage), mixture.prior)


def mixture_gain(agreement: ClassAgreement, mixture: Mixture) -> torch.Tensor:
    """(particle,) float64 log likelihood under the mixture over that under the consensus alone.

    The mixture may have been fitted to other particles: its prior and ρ are used, not its posteriors.
    """
    likelihood = log_likelihood(agreement, mixture.shrinkage) + mixture.prior.clamp_min(1e-300).log()
    return likelihood.logsumexp(1) - agreement.base.amax(1)


def _shrinkage(agreement: ClassAgreement, posterior: torch.Tensor, shape: torch.Tensor | None) -> torch.Tensor:
    cross = torch.einsum("pk,pks->ks", posterior, agreement.cross)
    power = torch.einsum("pk,pks->ks", posterior, agreement.power)
    if shape is None:
        return _ratio(_over_neighbours(cross), _over_neighbours(power)).clamp_min(0)
    shape = _of_length(shape, cross.shape[1])
    return shape * _ratio((shape * cross).sum(), (shape**2 * power).sum()).clamp_min(0)


def _ratio(upper: torch.Tensor, lower: torch.Tensor) -> torch.Tensor:
    return torch.where(lower > 0, upper / lower.clamp_min(1e-300), torch.zeros_like(lower))


def _of_length(shells: torch.Tensor, number: int) -> torch.Tensor:
    """(class, number) values of shells, 0 beyond the last that there is."""
    return torch.nn.functional.pad(shells, (0, number - shells.shape[1]))


def expected_shrinkage(first: ClassReferences, second: ClassReferences) -> torch.Tensor:
    """(class, shell) S / (S + N) of the mean of two independent differences: 2 F / (1 + F), F their correlation.

    F is taken over shells weighted 1/4, 1/2, 1/4, and is not below 0.
    """
    shell = _grid_radius(first.consensus).round().long()
    number = int(first.consensus.radius / first.consensus.step) + 1
    inside = shell < number
    rows = []
    for one, other in zip(first.differences, second.differences, strict=True):
        sums = [
            torch.zeros(number, dtype=torch.float64).index_add(
                0, shell[inside], (a.real * b.real + a.imag * b.imag)[inside].double()
            )
            for a, b in ((one.values, other.values), (one.values, one.values), (other.values, other.values))
        ]
        cross, left, right = _over_neighbours(torch.stack(sums))
        rows.append(_ratio(cross, (left * right).sqrt()).clamp(0, 1))
    correlation = torch.stack(rows)
    return 2 * correlation / (1 + correlation)


def _over_neighbours(values: torch.Tensor) -> torch.Tensor:
    padded = torch.nn.functional.pad(values, (1, 1))
    return 0.25 * padded[:, :-2] + 0.5 * padded[:, 1:-1] + 0.25 * padded[:, 2:]


def ranked_posterior(agreement: ClassAgreement) -> torch.Tensor:
    """(particle, class) soft assignment by the order of the particles alone, for a search from a random start.

    Of log likelihoods at ρ = 1 each class's mean is taken off, then all are scaled to a standard deviation of 2. What
    is common to all particles of a class, such as the noise power of its reference, and the scale say nothing yet.
    """
    ones = agreement.cross.new_ones(agreement.cross.shape[1:])
    score = log_likelihood(agreement, ones)
    score = score - score.mean(1, keepdim=True)
    score = score - score.mean(0)
    return torch.softmax(_SPREAD * score / score.square().mean().sqrt().clamp_min(1e-300), dim=1)
