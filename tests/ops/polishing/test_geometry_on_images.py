"""The geometry refined on images: shaken tilts come back, and a geometry that is right stays."""

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "stages"))
from particle_scene import DIAMETER, PIXEL, scene  # noqa: E402

from tiltwise.ops.deformation import specimen_in_images  # noqa: E402
from tiltwise.ops.geometry import tilt_rotations  # noqa: E402
from tiltwise.ops.particles.chunks import CropSettings, ImageSource, initial_weights  # noqa: E402
from tiltwise.ops.particles.half_maps import accumulate_halves, maps_and_fsc, posed_particles  # noqa: E402
from tiltwise.ops.particles.half_sets import assign_half_sets  # noqa: E402
from tiltwise.ops.particles.references import alignment_reference, sphere_mask  # noqa: E402
from tiltwise.ops.polishing.geometry_on_images import refine_geometry  # noqa: E402
from tiltwise.ops.polishing.species import Species  # noqa: E402

BOX, NAME = 32, "TS_1"


@pytest.fixture(scope="module")
def made():
    return scene(series=2, noise=0.5)


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


def shaken(series, shift=0.0, angle=0.0, seed=5):
    rng, g = np.random.default_rng(seed), series.geometry
    moved = replace(
        g,
        shift=g.shift + rng.normal(0, shift, g.shift.shape),
        tilt_angle=g.tilt_angle + rng.normal(0, angle, len(g.tilt_angle)),
    )
    return replace(series, geometry=moved)


def apart(found, truth, particles):
    """Rms distance (Å) of images of particles from the true ones, a shift of each particle free."""
    difference = specimen_in_images(truth, particles)[0] - specimen_in_images(found, particles)[0]
    rows = tilt_rotations(truth.geometry).numpy()[:, :2].reshape(-1, 3)
    right = difference.transpose(0, 2, 1).reshape(-1, len(particles))
    rest = right - rows @ np.linalg.lstsq(rows, right, rcond=None)[0]
    return float(np.sqrt(2 * (rest**2).mean()))


def test_shaken_shifts_come_back(made):
    """4 Å off on each axis, 5.7 Å in length; half a pixel's eighth of a pixel remains, of 8 Å and 12 particles."""
    kind, truth = species_of(made), made.tilt_series[NAME]
    wrong = shaken(truth, shift=4.0)
    position = made.particles.position[made.particles.tilt_series == NAME]
    found = refine_geometry([kind.with_series(wrong)], NAME)
    assert found.accepted and found.fit.gates[0].accepted
    again = refine_geometry(list(found.species), NAME, known=found.so_far)
    best = again if again.accepted else found
    assert apart(wrong, truth, position) > 4
    assert apart(best.tilt_series, truth, position) < 1.5
    assert found.record()["blocks"]["shift"]["accepted"]


def test_two_species_share_a_geometry(made):
    """Each half of the particles as a species of its own: as good as one of all, and both follow."""
    number = len(made.particles)
    kinds = [species_of(made, np.arange(number) % 2 == part) for part in (0, 1)]
    truth = made.tilt_series[NAME]
    wrong = shaken(truth, shift=4.0)
    found = refine_geometry([kind.with_series(wrong) for kind in kinds], NAME)
    position = made.particles.position[made.particles.tilt_series == NAME]
    assert found.accepted and apart(found.tilt_series, truth, position) < 2.5
    assert all(kind.source.tilt_series[NAME] is found.tilt_series for kind in found.species)


def test_what_is_right_stays_right(made):
    """Little is accepted, and what is moves images by less than the 1.5 Å that are found above."""
    found = refine_geometry([species_of(made)], NAME)
    position = made.particles.position[made.particles.tilt_series == NAME]
    assert apart(found.tilt_series, made.tilt_series[NAME], position) < 1.0


def test_a_series_without_both_halves_is_left_as_it_is(made):
    kind = species_of(made)
    alone = replace(kind, particles=replace(kind.particles, half_set=np.minimum(kind.particles.half_set, 1)))
    found = refine_geometry([alone], NAME)
    assert not found.accepted and found.tilt_series is made.tilt_series[NAME] and found.fit is None
