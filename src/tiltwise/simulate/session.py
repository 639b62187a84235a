"""A session at the simulated microscope: tilt series of one molecule, each with its own specimen, errors and noise."""

import math
from dataclasses import dataclass, replace

import numpy as np
from scipy.spatial.transform import Rotation

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
    series = acquire(params, series_name(number), errors)
    particles, surroundings = populate(scatterer, params, series, specimen)
    copies = [(scatterer, particles), (scatterer, surroundings)]
    images = image_specimen(copies, series, params, noise, progress=progress)
    truth = replace(series, images=images)
    recorded = replace(truth, geometry=None, ctf=None, defocus_handedness=None)
    return SimulatedSeries(recorded=recorded, truth=truth, particles=particles)


def series_name(number: int) -> str:
    """TS_01, TS_02 ..."""
    return f"TS_{number:02d}"


def populate(
    scatterer: Scatterer, params: SimulateParams, series: TiltSeries, rng: np.random.Generator
) -> tuple[Particles, Particles]:
    """The particles of the untilted field, and those around it that only tilted images see.

    The first lie wholly within the field, but for the microscope's shifts. The second, as dense, lie wholly outside,
    across the tilt axis: tilting by θ brings 1 / cos θ times as much of the specimen into view.
    """
    specimen, radius = params.specimen, scatterer.radius
    image = params.image_size * params.pixel_size / 2
    inner = image - radius - specimen.margin
    outer, begin = image / math.cos(math.radians(params.tilt_max)), image + radius
    around = round(specimen.particles * image * max(outer - begin, 0.0) / inner**2) if specimen.surroundings else 0
    axis = float(np.median(series.geometry.tilt_axis_angle))

    def in_field(rng: np.random.Generator) -> np.ndarray:
        """The field is a square of the image, which the tilt axis angle turns against the specimen."""
        centre = rng.uniform(-1, 1, 3) * (inner, inner, specimen.thickness / 2)
        return Rotation.from_euler("z", -axis, degrees=True).apply(centre)

    def beside_field(rng: np.random.Generator) -> np.ndarray:
        across = rng.choice([-1, 1]) * rng.uniform(begin, outer)
        return np.array([across, rng.uniform(-image, image), rng.uniform(-1, 1) * specimen.thickness / 2])

    regions = ((specimen.particles, in_field), (around, beside_field))
    thickness = specimen.thickness - 2 * specimen.margin
    placed = place_molecules(scatterer.position, regions, thickness, specimen.margin, rng)
    return tuple(_particles(series.name, position, rotation) for position, rotation in placed)


def _particles(name: str, position: np.ndarray, rotation: Rotation) -> Particles:
    number = len(position)
    return Particles(
        tilt_series=np.full(number, name),
        position=position,
        rotation=rotation,
        score=np.ones(number),
        half_set=np.zeros(number, dtype=np.int64),
        region=np.full(number, -1, dtype=np.int64),
    )
