"""What polishing starts from: checked input, and how the particles of each kind are cut, masked and averaged."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch

from tiltwise.data.errors import InputError
from tiltwise.data.particles import Particles
from tiltwise.data.tilt_series import TiltSeries
from tiltwise.ops.particles.chunks import CropSettings, ImageSource, PosedParticles
from tiltwise.ops.particles.exposure_weights import ExposureWeighting
from tiltwise.ops.particles.half_maps import posed_particles
from tiltwise.ops.particles.references import sphere_mask
from tiltwise.ops.particles.setup import check_particles, good_box_size
from tiltwise.ops.poses.alignment import PoseBounds
from tiltwise.params.polish import PolishParams, SpeciesParams

_FEWEST = 4  # particles of a half
ONLY = ""
"""The name of the kind where there is but one."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Kind:
    """One kind of particles: everything of it that stays the same from the first cycle to the last."""

    source: ImageSource
    """Tilt series as given, and how crops are cut."""
    particles: PosedParticles
    """Starting poses with their half sets."""
    bounds: PoseBounds
    """How far a particle may go by itself from where it starts."""
    mask: torch.Tensor
    """(n, n, n) soft sphere."""
    symmetry: str
    """Point group imposed on the averages."""
    exposure_weighting: ExposureWeighting
    """What stands for the amplitude that exposure leaves."""

    @property
    def box_width(self) -> float:
        """Å."""
        return self.source.settings.box_size * self.source.settings.pixel_size


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Setup:
    """All kinds of particles that share the tilt series."""

    kinds: dict[str, Kind]
    """By name, in the order given; of a single kind the name is ONLY."""
    left_out: dict[str, str]
    """Kinds that take no part, with the reason."""


def prepare(
    tilt_series: Mapping[str, TiltSeries],
    particles: Particles | Mapping[str, Particles],
    params: PolishParams,
    device: str,
) -> Setup:
    """Check the input and resolve what follows from the data. Raises InputError with one line for each fault.

    Of several kinds, those with too few particles to be averaged in two halves take no part.
    """
    several = isinstance(particles, Mapping)
    given = dict(particles) if several else {ONLY: particles}
    unknown = [entry.name for entry in params.species if entry.name not in given]
    if unknown:
        known = ", ".join(given) if several else "only one kind"
        raise InputError(f"polish: species {unknown[0]!r}: no particles of this name are given ({known})")
    left_out = {name: few for name, own in given.items() if several and (few := _too_few(own))}
    for name, own in given.items():
        if name not in left_out:
            _check(tilt_series, own, f"{name}: " if several else "")
    if len(left_out) == len(given):
        raise InputError(f"polish: no kind has particles enough; {next(iter(left_out.values()))}")
    kinds = {
        name: _kind(tilt_series, own, params.of_kind(name), params, device)
        for name, own in given.items()
        if name not in left_out
    }
    return Setup(kinds=kinds, left_out=left_out)


def _check(tilt_series: Mapping[str, TiltSeries], particles: Particles, which: str) -> None:
    check_particles(tilt_series, particles, "polish")
    if np.any((particles.half_set != 1) & (particles.half_set != 2)):
        raise InputError(f"{which}particles: some are in no half set; run refine before polish")
    if few := _too_few(particles):
        raise InputError(which + few)


def _too_few(particles: Particles) -> str:
    """Why there are too few particles; empty if there are enough."""
    counts = [int((particles.half_set == half).sum()) for half in (1, 2)]
    assigned = sum(counts) == len(particles)
    if min(counts) >= _FEWEST or not assigned:
        return ""
    return f"particles: {counts[0]} and {counts[1]} in the halves, {_FEWEST} are needed in each"


def _kind(
    tilt_series: Mapping[str, TiltSeries], particles: Particles, own: SpeciesParams, params: PolishParams, device: str
) -> Kind:
    pixel_size = next(iter(tilt_series.values())).pixel_size
    box_size = own.box_size or good_box_size(2 * own.particle_diameter / pixel_size)
    settings = CropSettings(
        box_size=box_size, pixel_size=pixel_size, particle_radius=own.particle_diameter / 2, device=device
    )
    posed = posed_particles(particles, device)
    radius = torch.full((len(posed),), max(params.search_shift, 2 * pixel_size), dtype=torch.float64, device=device)
    return Kind(
        source=ImageSource(tilt_series=tilt_series, settings=settings, ready={}),
        particles=posed,
        bounds=PoseBounds(position=posed.position, radius=radius, rotation=posed.rotation, cone=180.0),
        mask=sphere_mask(box_size, pixel_size, own.particle_diameter / 2).to(device),
        symmetry=own.symmetry,
        exposure_weighting=params.exposure_weighting,
    )


def undivided(kinds: Mapping[str, Kind]) -> list[str]:
    """Names of the series in which no kind has particles of both halves: nothing that is fitted to them can be
    judged."""
    names = {name for kind in kinds.values() for name in kind.particles.tilt_series.tolist()}
    return sorted(
        name
        for name in names
        if not any(
            {1, 2} <= set(kind.particles.half_set[kind.particles.tilt_series == name].tolist())
            for kind in kinds.values()
        )
    )


def block_names(params: PolishParams) -> tuple[str, ...]:
    """The blocks of the geometry that are to be tried, from the fewest to the most numbers."""
    tilts = ("shift", "angles", "magnification") if params.refine_tilts else ()
    asked = tilts + (("sample", "warp") if params.refine_deformation else ())
    return tuple(name for name in asked if name in params.blocks)


def observations(kind: Kind, resolution: float) -> int:
    """Independent real numbers in the images of all particles down to a spacing, Å: what parameters are weighed by."""
    tilts = {name: int(np.count_nonzero(series.use)) for name, series in kind.source.tilt_series.items()}
    images = sum(tilts[name] for name in kind.particles.tilt_series.tolist())
    return round(images * np.pi * kind.source.settings.radius_of(resolution) ** 2)
