"""What the classification starts from: checked input, resolved numbers, images of a band."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace

import numpy as np
import torch

from tiltwise.data.errors import InputError
from tiltwise.data.particles import Particles
from tiltwise.data.tilt_series import TiltSeries
from tiltwise.data.volume import Volume
from tiltwise.ops.interpolate import centred_points, sample_volume
from tiltwise.ops.particles.chunks import CropSettings, ImageSource, PosedParticles, particle_chunks
from tiltwise.ops.particles.half_maps import posed_particles
from tiltwise.ops.particles.half_sets import assign_half_sets
from tiltwise.ops.particles.images import ParticleImages, TiltWeights, on_grid
from tiltwise.ops.particles.references import sphere_mask
from tiltwise.ops.particles.setup import check_particles, good_box_size
from tiltwise.ops.particles.slices import band_points
from tiltwise.params.classify import ClassifyParams

FOLDS = 4
"""Of each half set; a particle is compared with references made without its own fold."""
_FEWEST = 2  # particles of a fold
_RESOLUTION_PARTS = 12.0  # of the diameter: the finest spacing compared, where none is given
_FIRST_PARTS = 5.0  # of the diameter: the finest spacing of the random starts
_HELD_BYTES = 2**31  # of images kept between passes
_FREQUENCY_BYTES = 12  # data and transfer


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Setup:
    """Everything that stays the same from the first iteration to the last."""

    source: ImageSource
    """Tilt series and how crops are cut."""
    given: Particles
    """The particles with half sets, in an order that does not depend on that of the input."""
    place: np.ndarray
    """(particle,) where each particle of the input is in it."""
    particles: PosedParticles
    """The same on tensors."""
    fold: np.ndarray
    """(particle,) number of the fold, from 1."""
    mask: torch.Tensor
    """(n, n, n) soft sphere."""
    focus: torch.Tensor
    """(n, n, n) 0 to 1: where the classes may differ."""
    resolution: float
    """Finest spacing compared, Å."""
    first_resolution: float
    """The same in the random starts."""


def prepare(
    tilt_series: Mapping[str, TiltSeries],
    particles: Particles,
    focus: Volume | None,
    params: ClassifyParams,
    device: str,
) -> Setup:
    """Check the input and resolve what follows from the data. Raises InputError with one line for each fault."""
    pixel_size = check_particles(tilt_series, particles, "classify")
    order = np.lexsort((*particles.position.T[::-1], particles.tilt_series))
    particles = particles[order]
    if params.classes > len(particles):
        raise InputError(f"particles: {len(particles)} cannot make {params.classes} classes")
    diameter = params.particle_diameter
    box_size = params.box_size or good_box_size(2 * diameter / pixel_size)
    halves = assign_half_sets(particles, diameter / 2, params.seed)
    fold = deal_folds(halves, np.random.default_rng([params.seed, 0]))
    smallest = np.bincount(fold, minlength=2 * FOLDS + 1)[1:].min()
    if smallest < _FEWEST:
        raise InputError(
            f"particles: {len(particles)} are too few; each half needs {FOLDS * _FEWEST}, {_FEWEST} to a fold"
        )
    mask = sphere_mask(box_size, pixel_size, diameter / 2).to(device)
    return Setup(
        source=ImageSource(
            tilt_series=tilt_series,
            settings=CropSettings(
                box_size=box_size, pixel_size=pixel_size, particle_radius=diameter / 2, device=device
            ),
            ready={},
        ),
        given=replace(particles, half_set=halves),
        place=np.argsort(order),
        particles=replace(posed_particles(particles, device), half_set=halves),
        fold=fold,
        mask=mask,
        focus=mask if focus is None else _checked_focus(focus, box_size, pixel_size).to(device),
        resolution=max(params.resolution or diameter / _RESOLUTION_PARTS, 2.5 * pixel_size),
        first_resolution=max(params.resolution or 0.0, diameter / _FIRST_PARTS, 2.5 * pixel_size),
    )


def deal_folds(half_set: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """(particle,) fold 1 to 2 FOLDS at random, of equal numbers within each half set; none crosses the halves."""
    fold = np.zeros(len(half_set), dtype=np.int64)
    for half in (1, 2):
        own = np.flatnonzero(half_set == half)
        fold[rng.permutation(own)] = 1 + (half - 1) * FOLDS + np.arange(len(own)) % FOLDS
    return fold


def _checked_focus(focus: Volume, box_size: int, pixel_size: float) -> torch.Tensor:
    data = np.array(focus.data, dtype=np.float32)
    wanted = f"{box_size} × {box_size} × {box_size} voxels of {pixel_size:g} Å, as the maps of the classes"
    if data.shape != (box_size,) * 3 or abs(focus.voxel_size / pixel_size - 1) > 1e-3:
        found = " × ".join(map(str, data.shape[::-1]))
        raise InputError(f"focus: the mask has {found} voxels of {focus.voxel_size:g} Å; {wanted} are needed")
    if not np.isfinite(data).all() or data.min() < 0 or data.max() > 1 or data.max() == 0:
        raise InputError("focus: a mask holds values from 0 to 1, and not 0 alone")
    return torch.as_tensor(data)


Chunk = tuple[int, np.ndarray, ParticleImages]
"""Fold, particle indices, images."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Band:
    """The images of all particles in one band, and masks on the grid of its volumes; held where memory allows."""

    cut: Callable[[], Iterator[Chunk]]
    """Cuts all images anew."""
    held: tuple[Chunk, ...] | None
    """All images, where they are few enough."""
    radius: float
    """Largest |k|, in 1 / (box · pixel)."""
    box_size: int
    """Side of volumes that hold the band, px."""
    mask: torch.Tensor
    """(n, n, n) bounds of the consensus."""
    focus: torch.Tensor
    """(n, n, n) bounds of the differences."""

    def chunks(self) -> Iterator[Chunk]:
        """All images by fold."""
        return self.cut() if self.held is None else iter(self.held)


def cut_band(setup: Setup, weights: Mapping[str, TiltWeights], resolution: float) -> Band:
    """Images down to a spacing in Å."""
    settings, particles = setup.source.settings, replace(setup.particles, half_set=setup.fold)
    radius = settings.radius_of(resolution)
    box_size = min(settings.box_size, good_box_size(2 * radius + 8))

    def cut() -> Iterator[Chunk]:
        for _, fold, index, images in particle_chunks(setup.source, particles, weights=weights, resolution=resolution):
            yield fold, index, on_grid(images, box_size)

    tilts = {name: int(np.sum(series.use)) for name, series in setup.source.tilt_series.items()}
    crops = sum(tilts[name] for name in particles.tilt_series.tolist())
    size = crops * len(band_points(settings.box_size, radius)) * _FREQUENCY_BYTES
    return Band(
        cut=cut,
        held=tuple(cut()) if size <= _HELD_BYTES else None,
        radius=radius,
        box_size=box_size,
        mask=_on_box(setup.mask, box_size),
        focus=_on_box(setup.focus, box_size),
    )


def _on_box(mask: torch.Tensor, box_size: int) -> torch.Tensor:
    """The mask sampled on a grid as wide, of fewer voxels."""
    points = centred_points((box_size,) * 3, mask.device) * (len(mask) / box_size)
    return sample_volume(mask, points).float()
