"""A session at the simulated microscope: tilt series of one molecule, each with its own specimen, errors and noise."""

from dataclasses import dataclass, replace

import numpy as np

from tiltwise.data.particles import Particles
from tiltwise.data.progress import Progress, no_progress
from tiltwise.data.tilt_series import TiltSeries
from tiltwise.params.simulate import SimulateParams
from tiltwise.simulate.acquisition import acquire
from tiltwise.simulate.microscope import image_specimen
from tiltwise.simulate.placement import place_molecules
from tiltwise.simulate.potential import Scatterer


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class SimulatedSeries:
    recorded: TiltSeries
    """Images and what the microscope writes down: no geometry, no CTF."""
    truth: TiltSeries
    """The same images with the true geometry, CTF and handedness."""
    particles: Particles
    """The true particles of the field."""


def simulate_tilt_series(
    scatterer: Scatterer, params: SimulateParams, number: int, *, progress: Progress = no_progress
) -> SimulatedSeries:
    """Tilt series `number` (1, 2, ...) of a session. The same params, seed among them, give the same bits."""
    errors, specimen, noise = (
        np.random.default_rng(s) for s in np.random.SeedSequence([params.seed, 2, number]).spawn(3)
    )
    series = acquire(params, f"TS_{number:02d}", errors)
    particles = populate(scatterer, params, series.name, specimen)
    images = image_specimen(scatterer, series, particles, params, noise, progress=progress)
    truth = replace(series, images=images)
    recorded = replace(truth, geometry=None, ctf=None, defocus_handedness=None)
    return SimulatedSeries(recorded=recorded, truth=truth, particles=particles)


def populate(scatterer: Scatterer, params: SimulateParams, name: str, rng: np.random.Generator) -> Particles:
    """Particles wholly within the ice, and within the untilted field but for the microscope's shifts."""
    specimen = params.specimen
    field = params.image_size * params.pixel_size - 2 * (scatterer.radius + specimen.margin)
    extent = (field, field, specimen.thickness - 2 * specimen.margin)
    position, rotation = place_molecules(scatterer.position, specimen.particles, extent, specimen.margin, rng)
    number = len(position)
    return Particles(
        tilt_series=np.full(number, name),
        position=position,
        rotation=rotation,
        score=np.ones(number),
        half_set=np.zeros(number, dtype=np.int64),
        region=np.full(number, -1, dtype=np.int64),
    )
