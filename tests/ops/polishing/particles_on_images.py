"""Particles of the scenes of tests/stages/particle_scene.py as blocks of the geometry take them."""

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[2] / "stages"))
from particle_scene import DIAMETER, PIXEL, scene  # noqa: E402

from tiltwise.ops.deformation import specimen_in_images  # noqa: E402
from tiltwise.ops.geometry import tilt_rotations  # noqa: E402
from tiltwise.ops.particles.chunks import CropSettings, ImageSource, initial_weights  # noqa: E402
from tiltwise.ops.particles.half_maps import accumulate_halves, maps_and_fsc, posed_particles  # noqa: E402
from tiltwise.ops.particles.half_sets import assign_half_sets  # noqa: E402
from tiltwise.ops.particles.references import alignment_reference, sphere_mask  # noqa: E402
from tiltwise.ops.polishing.species import Species  # noqa: E402

__all__ = ["BOX", "NAME", "PIXEL", "apart", "scene", "species_of"]
BOX, NAME = 32, "TS_1"


def species_of(made, members=slice(None)):
    """Particles at their true poses under the true geometry, with the half maps that these give."""
    particles = made.particles[members]
    settings = CropSettings(box_size=BOX, pixel_size=PIXEL, particle_radius=DIAMETER / 2, device="cpu")
    source = ImageSource(tilt_series=made.tilt_series, settings=settings, ready={})
    posed = replace(posed_particles(particles), half_set=assign_half_sets(particles, 60.0, 0))
    weights, mask = initial_weights(source, posed), sphere_mask(BOX, PIXEL, DIAMETER / 2)
    maps, fsc = maps_and_fsc(accumulate_halves(source, posed, weights=weights), mask)
    references = {half: alignment_reference(one, mask, fsc, PIXEL) for half, one in maps.items()}
    return Species.of(source, posed, references, weights=weights, resolution=25.0)


def apart(found, truth, particles):
    """Rms distance (Å) of images of particles from the true ones, a shift of each particle free."""
    difference = specimen_in_images(truth, particles)[0] - specimen_in_images(found, particles)[0]
    rows = tilt_rotations(truth.geometry).numpy()[:, :2].reshape(-1, 3)
    right = difference.transpose(0, 2, 1).reshape(-1, len(particles))
    rest = right - rows @ np.linalg.lstsq(rows, right, rcond=None)[0]
    return float(np.sqrt(2 * (rest**2).mean()))
