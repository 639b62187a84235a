"""What polishing starts from: checked input, crops, the first half maps of the particles as they stand."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch

from tiltwise.data.errors import InputError
from tiltwise.data.particles import Particles
from tiltwise.data.tilt_series import TiltSeries
from tiltwise.ops.exposure_weights import ExposureWeighting
from tiltwise.ops.half_maps import posed_particles
from tiltwise.ops.particle_chunks import CropSettings, ImageSource, PosedParticles
from tiltwise.ops.particle_setup import check_particles, good_box_size
from tiltwise.ops.references import sphere_mask
from tiltwise.params.polish import PolishParams

_FEWEST = 4  # particles of a half


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Setup:
    """Everything that stays the same from the first cycle to the last."""

    source: ImageSource
    """Tilt series as given, and how crops are cut."""
    particles: PosedParticles
    """Starting poses with their half sets."""
    allowed: torch.Tensor
    """(particle, 4) starting position and the radius about it in which a particle stays, Å."""
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


def prepare(tilt_series: Mapping[str, TiltSeries], particles: Particles, params: PolishParams, device: str) -> Setup:
    """Check the input and resolve what follows from the data. Raises InputError with one line for each fault."""
    pixel_size = check_particles(tilt_series, particles, "polish")
    counts = [int((particles.half_set == half).sum()) for half in (1, 2)]
    if sum(counts) < len(particles):
        raise InputError("particles: some are in no half set; run refine before polish")
    if min(counts) < _FEWEST:
        raise InputError(f"particles: {counts[0]} and {counts[1]} in the halves, {_FEWEST} are needed in each")
    box_size = params.box_size or good_box_size(2 * params.particle_diameter / pixel_size)
    settings = CropSettings(
        box_size=box_size, pixel_size=pixel_size, particle_radius=params.particle_diameter / 2, device=device
    )
    posed = posed_particles(particles, device)
    radius = torch.full((len(posed), 1), max(params.search_shift, 2 * pixel_size), dtype=torch.float64, device=device)
    return Setup(
        source=ImageSource(tilt_series=tilt_series, settings=settings, ready={}),
        particles=posed,
        allowed=torch.cat([posed.position, radius], dim=1),
        mask=sphere_mask(box_size, pixel_size, params.particle_diameter / 2).to(device),
        symmetry=params.symmetry,
        exposure_weighting=params.exposure_weighting,
    )


def block_names(params: PolishParams) -> tuple[str, ...]:
    """The blocks of the geometry that are to be tried."""
    tilts = ("shift", "angles", "magnification") if params.refine_tilts else ()
    return tilts + (("sample", "warp") if params.refine_deformation else ())


def observations(setup: Setup, resolution: float) -> int:
    """Independent real numbers in the images of all particles down to a spacing, Å: what parameters are weighed by."""
    tilts = {name: int(np.count_nonzero(series.use)) for name, series in setup.source.tilt_series.items()}
    images = sum(tilts[name] for name in setup.particles.tilt_series.tolist())
    return round(images * np.pi * setup.source.settings.radius_of(resolution) ** 2)
