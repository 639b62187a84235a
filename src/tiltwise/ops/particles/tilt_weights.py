"""Signal amplitude and noise spectrum of each tilt, measured against a reference."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from tiltwise.ops.particles.images import ParticleImages, shell_mean
from tiltwise.ops.particles.slices import SpectralGrid, extract_slices
from tiltwise.ops.steady import phased, steady_sum

_PRIOR = 25.0  # information of the prior that a tilt's amplitude is as given: a standard deviation of 0.2
_LEAST, _LARGEST = 0.2, 3.0  # of an amplitude as given: one that looks dead is often only out of place


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class AgreementSums:
    """Sums over particles of whitened images X and models m, per tilt and point."""

    observed: torch.Tensor
    """(tilt, point) float64 Σ |X|²."""
    cross: torch.Tensor
    """(tilt, point) float64 Σ Re(X* m)."""
    model: torch.Tensor
    """(tilt, point) float64 Σ |m|²."""
    number: torch.Tensor
    """(tilt,) float64 images that count."""

    def __add__(self, other: "AgreementSums") -> "AgreementSums":
        return AgreementSums(
            observed=self.observed + other.observed,
            cross=self.cross + other.cross,
            model=self.model + other.model,
            number=self.number + other.number,
        )


def reference_images(
    images: ParticleImages, reference: SpectralGrid, rotation: torch.Tensor, shift: torch.Tensor
) -> torch.Tensor:
    """(particle, tilt, point) complex64 slices of the reference at rotation and shift (Å), before any transfer."""
    turned = torch.einsum("tij,pjk->ptik", images.rotations, rotation.double())
    slices = extract_slices(reference, turned.flatten(0, 1), images.points).reshape(images.data.shape)
    plane = torch.einsum("tij,pj->pti", images.rotations[:, :2], shift.double()).float()
    unit = -2 * torch.pi / (images.box_size * images.pixel_size) * images.points
    angle = torch.einsum("nc,ptc->ptn", unit, plane)
    return phased(slices, torch.polar(torch.ones_like(angle), angle))


def model_images(
    images: ParticleImages, reference: SpectralGrid, rotation: torch.Tensor, shift: torch.Tensor
) -> torch.Tensor:
    """(particle, tilt, point) complex64 whitened images that the reference predicts, for rotation and shift (Å)."""
    return images.transfer * reference_images(images, reference, rotation, shift)


def agreement_sums(
    images: ParticleImages, reference: SpectralGrid, rotation: torch.Tensor, shift: torch.Tensor
) -> AgreementSums:
    """Sums of one chunk of particles; those of several are added."""
    model = model_images(images, reference, rotation, shift)
    counted = (images.transfer.abs().amax(-1, keepdim=True) > 0).float()
    observed = images.data * counted
    return AgreementSums(
        observed=(observed.real**2 + observed.imag**2).double().sum(0),
        cross=(observed.real * model.real + observed.imag * model.imag).double().sum(0),
        model=(model.real**2 + model.imag**2).double().sum(0),
        number=counted[..., 0].double().sum(0),
    )


def common_amplitude(sums: Sequence[AgreementSums], points: torch.Tensor, radius: float) -> float:
    """The one factor of all models that fits images best within |k| <= radius; 1 where they show nothing."""
    band = points.norm(dim=-1) <= radius
    cross, model = (float(sum(v[:, band].sum() for v in values)) for values in _cross_and_model(sums))
    return cross / model if cross > 0 else 1.0


def common_level(sums: Sequence[AgreementSums], points: torch.Tensor, radius: float, box_size: int) -> torch.Tensor:
    """(shell,) the factor of all models that fits images best, shell by shell; where a shell shows less than one
    standard deviation, that of all of them."""
    band = (points.norm(dim=-1) <= radius).double()
    cross, model = (
        sum(over_shells(v * band, points, box_size) for v in values).sum(0) for values in _cross_and_model(sums)
    )
    whole = torch.full_like(cross, common_amplitude(sums, points, radius))
    return torch.where(cross > model.sqrt(), cross / model.clamp_min(1e-30), whole)


def tilt_factors(sums: AgreementSums, level: float, points: torch.Tensor, radius: float) -> tuple[torch.Tensor, float]:
    """(tilt,) factors of the models by regression within |k| <= radius, and how many of them the images determine.

    A factor is level times x with a prior of 1 ± 0.2 on x, which is the top of x level C - (x level)² M / 2.
    """
    band = points.norm(dim=-1) <= radius
    information = level**2 * sums.model[:, band].sum(1)
    relative = (level * sums.cross[:, band].sum(1) + _PRIOR) / (information + _PRIOR)
    return level * relative.clamp(_LEAST, _LARGEST), float((information / (information + _PRIOR)).sum())


def noise_left(sums: AgreementSums, noise: torch.Tensor, points: torch.Tensor, box_size: int) -> torch.Tensor:
    """(tilt, shell) noise power that the models leave, from the noise assumed before."""
    residual = sums.observed - 2 * sums.cross + sums.model
    count = 2 * sums.number.clamp_min(1)[:, None].expand_as(residual)
    change = shell_mean(residual, count, points, box_size)
    return noise * torch.where(sums.number[:, None] > 0, change, torch.ones_like(change))


def over_shells(values: torch.Tensor, points: torch.Tensor, box_size: int) -> torch.Tensor:
    """(tilt, shell) sums of values (tilt, point) over the points nearest to each shell."""
    shells = points.norm(dim=-1).round().long()
    size = (len(values), box_size // 2 + 1)
    return torch.zeros(size, dtype=torch.float64, device=values.device).index_add_(1, shells, values)


def _cross_and_model(sums: Sequence[AgreementSums]) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
    return [s.cross for s in sums], [s.model for s in sums]


def amplitude_ratio(sums: AgreementSums) -> float:
    """Factor by which the reference should be multiplied to fit the images best."""
    return float(steady_sum(sums.cross) / steady_sum(sums.model).clamp_min(1e-30))
