"""What the refinement starts from: checked input, resolved numbers."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import torch

from tiltwise.data.errors import InputError
from tiltwise.data.particles import Particles
from tiltwise.data.tilt_series import TiltSeries
from tiltwise.ops.particles.chunks import CropSettings, ImageSource, PosedParticles
from tiltwise.ops.particles.half_maps import posed_particles
from tiltwise.ops.particles.half_sets import assign_half_sets
from tiltwise.ops.particles.references import sphere_mask
from tiltwise.ops.particles.setup import check_particles, good_box_size
from tiltwise.ops.poses.alignment import PoseBounds
from tiltwise.ops.tilt_schemes import on_one_side
from tiltwise.params.refine import RefineParams

_FEWEST = 4  # particles of a half


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Setup:
    """Everything that stays the same from the first iteration to the last."""

    source: ImageSource
    """Tilt series and how crops are cut."""
    particles: PosedParticles
    """Starting poses with their half sets."""
    bounds: PoseBounds
    """How far position and direction may go from where they start."""
    mask: torch.Tensor
    """(n, n, n) soft sphere."""
    diameter: float
    """Å."""
    duplicate_distance: float
    """Å."""
    notes: tuple[str, ...]
    """What to know of the data, however well they are refined."""


def prepare(tilt_series: Mapping[str, TiltSeries], particles: Particles, params: RefineParams, device: str) -> Setup:
    """Check the input and resolve what follows from the data. Raises InputError with one line for each fault."""
    pixel_size = check_particles(tilt_series, particles, "refine")
    distance = params.duplicate_distance
    distance = params.particle_diameter / 2 if distance is None else distance
    box_size = params.box_size or good_box_size(2 * params.particle_diameter / pixel_size)
    settings = CropSettings(
        box_size=box_size, pixel_size=pixel_size, particle_radius=params.particle_diameter / 2, device=device
    )
    if len(particles) < 2 * _FEWEST:
        raise InputError(f"particles: {len(particles)} in all, {_FEWEST} are needed in each half")
    posed = posed_particles(particles, device)
    halves = assign_half_sets(particles, distance, params.seed)
    if min((halves == 1).sum(), (halves == 2).sum()) < _FEWEST:
        raise InputError(f"particles: {len(halves)} in all, {_FEWEST} are needed in each half")
    return Setup(
        source=ImageSource(tilt_series=tilt_series, settings=settings, ready={}),
        particles=replace(posed, half_set=halves),
        bounds=_bounds(posed, params, 2 * pixel_size),
        mask=sphere_mask(box_size, pixel_size, params.particle_diameter / 2).to(device),
        diameter=params.particle_diameter,
        duplicate_distance=distance,
        notes=_data_notes({name: tilt_series[name] for name in sorted(set(particles.tilt_series.tolist()))}),
    )


def _bounds(start: PosedParticles, params: RefineParams, least: float) -> PoseBounds:
    """As far as is searched, and no less than what moves the particle, or its edge, by `least` Å."""
    radius = torch.full_like(start.position[:, 0], max(params.search_shift, least))
    lean = np.degrees(2 * least / params.particle_diameter)
    return PoseBounds(
        position=start.position, radius=radius, rotation=start.rotation, cone=max(params.search_cone, float(lean))
    )


def _data_notes(tilt_series: Mapping[str, TiltSeries]) -> tuple[str, ...]:
    """What neither the halves nor their FSC can tell of the series that hold particles."""
    notes = []
    if len(tilt_series) == 1:
        notes.append(
            f"all particles come from one tilt series ({next(iter(tilt_series))}): both halves share the errors of its "
            "alignment and its defocus, and their FSC cannot see these"
        )
    ranges = {name: series.geometry.tilt_angle[series.use] for name, series in tilt_series.items()}
    one_sided = {name: angles for name, angles in ranges.items() if on_one_side(angles)}
    if one_sided:
        wedge = 180 - max(float(np.ptp(angles)) for angles in one_sided.values())
        named = [f"{name} ({angles.min():.0f}° to {angles.max():.0f}°)" for name, angles in one_sided.items()]
        notes.append(
            f"all used tilts are on one side in {', '.join(named[:3])}{' ...' if len(named) > 3 else ''}: a wedge of "
            f"{wedge:.0f}° or more is missing from each particle there, and the map is smeared along it unless they "
            "lie turned every way"
        )
    return tuple(notes)
