"""Half maps of particles at given poses, and the weights of the tilts that they imply."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Literal

import numpy as np
import torch
from scipy.spatial.transform import Rotation

from tiltwise.data.maps import HalfMaps
from tiltwise.data.particles import Particles
from tiltwise.data.tilt_series import TiltSeries
from tiltwise.data.volume import Volume
from tiltwise.ops.particles.averaging import Accumulator, accumulate, average_map, empty_accumulator
from tiltwise.ops.particles.chunks import CropSettings, ImageSource, PosedParticles, initial_weights, particle_chunks
from tiltwise.ops.particles.exposure_record import exposure_record
from tiltwise.ops.particles.exposure_weights import (
    ExposureCurves,
    ExposureWeighting,
    equal_decays,
    exposure_curves,
    fitted_exposures,
    with_decays,
)
from tiltwise.ops.particles.gated_weights import GatedWeights, WeightsSoFar, both_halves, gated_weights
from tiltwise.ops.particles.images import TiltWeights
from tiltwise.ops.particles.references import (
    alignment_radius,
    alignment_reference,
    half_map_fsc,
    signal_to_noise,
    sphere_mask,
)
from tiltwise.ops.particles.slices import band_points, volume_spectrum
from tiltwise.ops.particles.tilt_weights import AgreementSums, agreement_sums
from tiltwise.ops.particles.weight_blocks import Columns

_ALL = 0.1
"""Å, finer than any image."""


def accumulate_halves(
    source: ImageSource,
    particles: PosedParticles,
    *,
    weights: Mapping[str, TiltWeights],
    symmetry: str = "C1",
    halves: tuple[int, ...] = (1, 2),
) -> dict[int, Accumulator]:
    """The sums of half sets; a half is made of its own particles only."""
    settings = source.settings
    radius, device = settings.radius_of(_ALL), settings.device
    totals = {half: empty_accumulator(settings.box_size, radius, symmetry, device=device) for half in halves}
    own = replace(particles, half_set=np.where(np.isin(particles.half_set, halves), particles.half_set, 0))
    for _, half, index, images in particle_chunks(source, own, weights=weights):
        centred = torch.zeros(len(index), 3, dtype=torch.float64, device=images.data.device)
        accumulate(totals[half], images, particles.rotation[index], centred)
    return totals


def maps_and_fsc(totals: Mapping[int, Accumulator], mask: torch.Tensor) -> tuple[dict[int, torch.Tensor], torch.Tensor]:
    """Half maps weighted by the SSNR that their own FSC (within the mask) gives, and the FSC of the weighted maps."""
    maps = {half: average_map(total) for half, total in totals.items()}
    ssnr = signal_to_noise(half_map_fsc(maps[1], maps[2], mask))
    maps = {half: average_map(total, ssnr) for half, total in totals.items()}
    return maps, half_map_fsc(maps[1], maps[2], mask)


def gated_tilt_weights(
    source: ImageSource,
    particles: PosedParticles,
    references: Mapping[int, torch.Tensor],
    *,
    weights: Mapping[str, TiltWeights],
    radius: float,
    exposure_weighting: ExposureWeighting = "critical",
    known: WeightsSoFar | None = None,
) -> GatedWeights:
    """Amplitude and noise of every tilt against the reference (n, n, n) of the half to which a particle does not
    belong, so that none meets its own noise; changed where that holds on the other half.

    known: what the halves made of them before; None where `weights` are as given.
    """
    columns = _columns(source, radius)
    halves = _agreement(source, particles, references, weights, radius)
    return gated_weights(halves, weights, source.tilt_series, columns, exposure_weighting, known)


def measured_weights(
    source: ImageSource,
    particles: PosedParticles,
    references: Mapping[int, torch.Tensor],
    *,
    weights: Mapping[str, TiltWeights],
    radius: float,
    exposure_weighting: ExposureWeighting = "critical",
) -> dict[str, TiltWeights]:
    """What `gated_tilt_weights` comes to."""
    chosen = {"weights": weights, "radius": radius, "exposure_weighting": exposure_weighting}
    return gated_tilt_weights(source, particles, references, **chosen).weights


def measured_curves(
    source: ImageSource,
    particles: PosedParticles,
    references: Mapping[int, torch.Tensor],
    *,
    weights: Mapping[str, TiltWeights],
    radius: float,
) -> dict[str, ExposureCurves]:
    """Amplitude left by each exposure as measured, by the critical curve, and by the published formula; by series."""
    columns = _columns(source, radius)
    sums = both_halves(_agreement(source, particles, references, weights, radius))
    points, box_size = columns.points, columns.box_size
    fit = fitted_exposures(sums, weights, source.tilt_series, points, box_size=box_size, radius=radius)
    return exposure_curves(fit, sums, weights, source.tilt_series, points, box_size)


def exposure_numbers(
    source: ImageSource,
    particles: PosedParticles,
    references: Mapping[int, torch.Tensor],
    *,
    weights: Mapping[str, TiltWeights],
    radius: float,
) -> dict:
    """The same as numbers for the record (ops/particles/exposure_record.py)."""
    curves = measured_curves(source, particles, references, weights=weights, radius=radius)
    return exposure_record(curves, source.tilt_series, source.settings, radius)


def held_out_likelihood(
    source: ImageSource,
    particles: PosedParticles,
    references: Mapping[int, torch.Tensor],
    *,
    weights: Mapping[str, TiltWeights],
    resolution: float,
) -> tuple[float, float]:
    """Log likelihood of the particles of half 1 and of half 2 under the reference of the other half, Σ Re(X* m) -
    |m|² / 2 down to a spacing, Å."""
    radius = source.settings.radius_of(resolution)
    halves = _agreement(source, particles, references, weights, radius, resolution)
    return tuple(float(sum((s.cross - s.model / 2).sum() for s in halves[half].values())) for half in (1, 2))


def _columns(source: ImageSource, radius: float) -> Columns:
    settings = source.settings
    points = band_points(settings.box_size, settings.radius_of(_ALL), settings.device)
    return Columns(points=points, box_size=settings.box_size, radius=radius)


def _agreement(
    source: ImageSource,
    particles: PosedParticles,
    references: Mapping[int, torch.Tensor],
    weights: Mapping[str, TiltWeights],
    radius: float,
    resolution: float = _ALL,
) -> dict[int, dict[str, AgreementSums]]:
    """By half set and series, sums of the particles against the reference of the other half, which holds shells up to
    radius; resolution: finest spacing looked at, Å."""
    grids = {half: volume_spectrum(reference, radius + 1) for half, reference in references.items()}
    halves: dict[int, dict[str, AgreementSums]] = {1: {}, 2: {}}
    for name, half, index, images in particle_chunks(source, particles, weights=weights, resolution=resolution):
        centred = torch.zeros(len(index), 3, dtype=torch.float64, device=images.data.device)
        part, sums = agreement_sums(images, grids[3 - half], particles.rotation[index], centred), halves[half]
        sums[name] = sums[name] + part if name in sums else part
    return halves


def consensus_weights(
    source: ImageSource,
    particles: PosedParticles,
    mask: torch.Tensor,
    symmetry: str = "C1",
    exposure_weighting: ExposureWeighting = "critical",
) -> dict[str, TiltWeights]:
    """Amplitude and noise of every tilt against the half maps, within the mask, of the particles as they stand."""
    weights = weights_to_begin(source, particles, exposure_weighting)
    maps, fsc = maps_and_fsc(accumulate_halves(source, particles, weights=weights, symmetry=symmetry), mask)
    pixel_size = source.settings.pixel_size
    references = {half: alignment_reference(m, mask, fsc, pixel_size) for half, m in maps.items()}
    return measured_weights(
        source,
        particles,
        references,
        weights=weights,
        radius=alignment_radius(fsc),
        exposure_weighting=exposure_weighting,
    )


def weights_to_begin(
    source: ImageSource, particles: PosedParticles, exposure_weighting: ExposureWeighting
) -> dict[str, TiltWeights]:
    """Weights before any reference: choices that need one begin as the critical curve."""
    weights = initial_weights(source, particles)
    if exposure_weighting != "none":
        return weights
    series = {name: source.tilt_series[name] for name in weights}
    settings = source.settings
    return with_decays(weights, equal_decays(series, settings.box_size, settings.device))


def average_particles(
    tilt_series: Mapping[str, TiltSeries],
    particles: Particles,
    *,
    box_size: int,
    particle_diameter: float,
    symmetry: str = "C1",
    weighting: Literal["expected", "measured"] = "measured",
    exposure_weighting: ExposureWeighting = "critical",
    device: str = "cpu",
) -> HalfMaps:
    """Half maps of particles as they stand: poses, geometry, CTF and half_set are taken as true, nothing is refined.

    weighting: the amplitudes of the tilts as the cosine of the tilt lets expect, or measured on the maps themselves, as
    the refinement does; exposure_weighting: what stands for the amplitude that exposure leaves (the two that are
    measured need the former). box_size px; particle_diameter Å. Every particle must be of half_set 1 or 2.
    """
    pixel_size = next(iter(tilt_series.values())).pixel_size
    settings = CropSettings(
        box_size=box_size, pixel_size=pixel_size, particle_radius=particle_diameter / 2, device=device
    )
    source = ImageSource(tilt_series=tilt_series, settings=settings, ready={})
    chosen = {"weighting": weighting, "exposure_weighting": exposure_weighting}
    return average_posed(source, posed_particles(particles, device), symmetry=symmetry, **chosen)


def average_posed(
    source: ImageSource,
    posed: PosedParticles,
    *,
    symmetry: str = "C1",
    weighting: Literal["expected", "measured"] = "measured",
    exposure_weighting: ExposureWeighting = "critical",
) -> HalfMaps:
    """As `average_particles`, of particles on tensors, of which those of half_set 0 are left out."""
    settings = source.settings
    mask = sphere_mask(settings.box_size, settings.pixel_size, settings.particle_radius).to(settings.device)
    if weighting == "measured":
        weights = consensus_weights(source, posed, mask, symmetry, exposure_weighting)
    else:
        weights = weights_to_begin(source, posed, exposure_weighting)
    maps, _ = maps_and_fsc(accumulate_halves(source, posed, weights=weights, symmetry=symmetry), mask)
    return half_maps(maps, settings.pixel_size, symmetry)


def posed_particles(particles: Particles, device: str = "cpu") -> PosedParticles:
    """The same particles on tensors."""
    path = particles.trajectory
    return PosedParticles(
        tilt_series=particles.tilt_series,
        position=torch.as_tensor(particles.position, dtype=torch.float64, device=device),
        rotation=torch.as_tensor(particles.rotation.as_matrix(), dtype=torch.float64, device=device),
        half_set=np.asarray(particles.half_set),
        trajectory=None if path is None else torch.as_tensor(path, dtype=torch.float64, device=device),
    )


def particles_at_rest(given: Particles, posed: PosedParticles, score: np.ndarray, uncertainty: np.ndarray) -> Particles:
    """The given particles that are still in a half set, at the poses, scores (particle,) and uncertainties (particle,
    2) of those in flight. Where no uncertainty was found, no pose has changed, and what was known of them stays."""
    alive = np.flatnonzero(posed.half_set > 0)
    found = bool(np.isfinite(uncertainty[alive]).any())
    return replace(
        given[alive],
        position=posed.position[alive].cpu().numpy(),
        rotation=Rotation.from_matrix(posed.rotation[alive].cpu().numpy()),
        score=score[alive],
        half_set=posed.half_set[alive],
        trajectory=None if posed.trajectory is None else posed.trajectory[alive].cpu().numpy(),
        **({"uncertainty": uncertainty[alive]} if found else {}),
    )


def half_maps(maps: Mapping[int, torch.Tensor], voxel_size: float, symmetry: str) -> HalfMaps:
    """Maps 1 and 2, on which this symmetry was imposed, at rest."""
    first, second = (Volume(data=maps[half].cpu().numpy(), voxel_size=voxel_size) for half in (1, 2))
    return HalfMaps(half1=first, half2=second, symmetry=symmetry)
