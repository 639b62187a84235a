"""Particle images of many series, a bounded number at a time, in an order that the data fix."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from tiltwise.data.tilt_series import TiltSeries
from tiltwise.ops.particles.images import (
    ParticleImages,
    TiltWeights,
    critical_decay,
    crop_transforms,
    cut_under,
    image_positions,
    inside_image,
    noise_power,
    normalised_images,
)
from tiltwise.ops.particles.slices import band_points

_CHUNK_BYTES = 2**28  # of the transforms of one chunk and the tables made from them
_TABLES = 40  # bytes per frequency of a crop: data, transfer, and intermediates
_READY_BYTES = 2**29  # of normalised images kept between passes
_ENOUGH = 400  # particles that tell the noise of a series well enough


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class CropSettings:
    """How crops are cut."""

    box_size: int
    """px."""
    pixel_size: float
    """Å."""
    particle_radius: float
    """Å."""
    device: str
    """Where images are held: cpu or cuda."""

    def radius_of(self, resolution: float) -> float:
        """|k| in 1 / (box · pixel) of a spacing in Å, at most the last full shell."""
        return min(self.box_size * self.pixel_size / resolution, (self.box_size - 1) // 2)


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class PosedParticles:
    """Particles in flight: as data.particles.Particles, on tensors."""

    tilt_series: np.ndarray
    """(particle,) name of the tilt series."""
    position: torch.Tensor
    """(particle, 3) float64 x, y, z from the tomogram centre, Å."""
    rotation: torch.Tensor
    """(particle, 3, 3) float64 reference to tomogram."""
    half_set: np.ndarray
    """(particle,) 1 or 2, or the number of any other set; 0 for a particle that is left out."""
    trajectory: torch.Tensor | None = None
    """(particle, mode, 3) float64 path over the exposure, Å, as `ops.particles.trajectories` has it; None where all
    stay."""

    def __len__(self) -> int:
        return len(self.half_set)


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class ImageSource:
    """Tilt series and their images made ready for cropping; the ready images are kept while they fit in memory."""

    tilt_series: Mapping[str, TiltSeries]
    """By name."""
    settings: CropSettings
    """How crops are cut."""
    ready: dict[str, torch.Tensor]
    """(used tilt, y, x) normalised images by name; filled as they are asked for."""

    def images(self, name: str) -> torch.Tensor:
        """(used tilt, y, x) images as `normalised_images` makes them, background over two boxes."""
        if name in self.ready:
            return self.ready[name]
        background = 2 * self.settings.box_size * self.settings.pixel_size
        images = normalised_images(self.tilt_series[name], background, self.settings.device)
        if sum(i.nbytes for i in self.ready.values()) + images.nbytes <= _READY_BYTES:
            self.ready[name] = images
        return images

    def with_series(self, tilt_series: Mapping[str, TiltSeries]) -> "ImageSource":
        """The same images under another geometry or CTF."""
        return ImageSource(tilt_series=tilt_series, settings=self.settings, ready=self.ready)


def initial_weights(source: ImageSource, particles: PosedParticles) -> dict[str, TiltWeights]:
    """Weights before any reference: the signal follows the cosine of the tilt and the critical-exposure curve, the
    noise is the power of the crops."""
    settings = source.settings
    points = band_points(settings.box_size, settings.radius_of(0.1), settings.device)
    result = {}
    for name in sorted(set(particles.tilt_series.tolist())):
        own = np.flatnonzero(particles.tilt_series == name)
        own = own[:: max(1, len(own) // _ENOUGH)]
        series = source.tilt_series[name]
        place, _, rotations = image_positions(series, particles.position[own])
        radius = settings.particle_radius / series.pixel_size
        inside = inside_image(place, series.image_shape, radius).T
        data = crop_transforms(source.images(name), place, points, settings.box_size)
        noise = noise_power(data, inside, points, settings.box_size)
        decay = critical_decay(series, settings.box_size, settings.device)
        result[name] = TiltWeights(scale=rotations[:, 2, 2].abs(), decay=decay, noise=noise)
    return result


def particle_chunks(
    source: ImageSource,
    particles: PosedParticles,
    *,
    weights: Mapping[str, TiltWeights],
    resolution: float = 0.1,
) -> Iterator[tuple[str, int, np.ndarray, ParticleImages]]:
    """Yield (series, half set, particle indices, images) over series by name, then sets by number, then chunks.

    Particles of half set 0 are left out. resolution: finest spacing of the transforms, Å.
    """
    names = particles.tilt_series[particles.half_set > 0]
    for name in sorted(set(names.tolist())):
        variants = (source.tilt_series[name],)
        for half, index, cut in chunks_under(source, particles, variants, weights=weights[name], resolution=resolution):
            yield name, half, index, next(cut)


def chunks_under(
    source: ImageSource,
    particles: PosedParticles,
    variants: Sequence[TiltSeries],
    *,
    weights: TiltWeights,
    resolution: float,
) -> Iterator[tuple[int, np.ndarray, Iterator[ParticleImages]]]:
    """Yield (half set, particle indices, images under each variant) of one series, whose CTFs are the variants'.

    Each chunk is cut once for all of them.
    """
    settings, name = source.settings, variants[0].name
    points = band_points(settings.box_size, settings.radius_of(resolution), settings.device)
    names, halves = particles.tilt_series, particles.half_set
    images = source.images(name)
    size = max(1, _CHUNK_BYTES // (_TABLES * len(images) * len(points)))
    for half in np.unique(halves[(names == name) & (halves > 0)]).tolist():
        members = np.flatnonzero((names == name) & (halves == half))
        for first in range(0, len(members), size):
            index = members[first : first + size]
            cut = cut_under(
                images,
                variants,
                particles.position[index],
                points,
                trajectory=None if particles.trajectory is None else particles.trajectory[index],
                box_size=settings.box_size,
                particle_radius=settings.particle_radius,
                weights=weights,
            )
            yield half, index, cut
