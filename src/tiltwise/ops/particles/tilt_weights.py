"""Signal amplitude and noise spectrum of each tilt, measured against a reference."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch

from tiltwise.ops.particles.images import ParticleImages, TiltWeights, shell_mean
from tiltwise.ops.particles.slices import SpectralGrid, extract_slices
from tiltwise.ops.steady import phased, steady_sum

_PRIOR = 25.0  # information of the prior that a tilt's amplitude is what it was: a standard deviation of 0.2
_LEAST, _LARGEST = 0.2, 3.0  # change of an amplitude in one measurement


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


def updated_weights(
    weights: Mapping[str, TiltWeights],
    sums: Mapping[str, AgreementSums],
    points: torch.Tensor,
    box_size: int,
    radius: float,
) -> dict[str, TiltWeights]:
    """Amplitudes by regression within |k| <= radius, then noise from what the model leaves unexplained.

    The mean amplitude over all tilts of all series is kept: it belongs to the reference.
    """
    band = points.norm(dim=-1) <= radius
    result, before, after = {}, [], []
    for name, s in sums.items():
        information = s.model[:, band].sum(1)
        factor = (s.cross[:, band].sum(1) + _PRIOR) / (information + _PRIOR)
        factor = factor.clamp(_LEAST, _LARGEST)
        noise = noise_left(s, factor[:, None], weights[name].noise, points, box_size)
        result[name] = replace(weights[name], scale=weights[name].scale * factor, noise=noise)
        before.append(weights[name].scale)
        after.append(result[name].scale)
    gauge = torch.cat(before).mean() / torch.cat(after).mean()
    return {n: replace(w, scale=w.scale * gauge) for n, w in result.items()}


def noise_left(
    sums: AgreementSums, factor: torch.Tensor, noise: torch.Tensor, points: torch.Tensor, box_size: int
) -> torch.Tensor:
    """(tilt, shell) noise power that models times factor (tilt, point or 1) leave, from the noise assumed before."""
    residual = sums.observed - 2 * factor * sums.cross + factor**2 * sums.model
    count = 2 * sums.number.clamp_min(1)[:, None].expand_as(residual)
    change = shell_mean(residual, count, points, box_size)
    return noise * torch.where(sums.number[:, None] > 0, change, torch.ones_like(change))


def amplitude_ratio(sums: AgreementSums) -> float:
    """Factor by which the reference should be multiplied to fit the images best."""
    return float(steady_sum(sums.cross) / steady_sum(sums.model).clamp_min(1e-30))
