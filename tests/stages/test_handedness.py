"""The hand of defocus with depth, told by particles far above and below the middle, for either hand."""

from dataclasses import replace

import numpy as np
import particle_scene
import pytest
from particle_scene import DIAMETER, PIXEL, reference
from scipy.spatial.transform import Rotation

from tiltwise.ops.particles.chunks import CropSettings, ImageSource, initial_weights
from tiltwise.ops.particles.half_maps import posed_particles
from tiltwise.ops.particles.references import resampled_reference
from tiltwise.ops.polishing.handedness import decide_handedness, handedness_evidence

BOX, RESOLUTION = 32, 20.0


def thick_scene(hand):
    """Nine particles spread over 3000 Å of depth: at 20 Å the two hands differ by up to 0.5 rad of phase."""
    rng = np.random.default_rng(4)
    centres, series = particle_scene.blobs(), replace(particle_scene.tilts_of("TS_1", rng), defocus_handedness=hand)
    lattice = np.stack(np.meshgrid(*[np.arange(-1, 2) * 220.0] * 2, indexing="ij"), -1).reshape(-1, 2)
    position = np.concatenate([lattice, np.linspace(-1500, 1500, 9)[:, None]], axis=1)
    rotation = Rotation.random(9, random_state=1)
    clean = particle_scene.project_blobs(series, position, rotation, centres)
    images = particle_scene.with_noise(clean, 0.03, rng)
    particles = replace(particle_scene.put_together([("TS_1", position, rotation)]), half_set=1 + np.arange(9) % 2)
    return replace(series, images=images, defocus_handedness=None), posed_particles(particles), centres


@pytest.mark.parametrize("hand", [1, -1])
def test_particles_tell_the_hand(hand):
    series, particles, centres = thick_scene(hand)
    settings = CropSettings(box_size=BOX, pixel_size=PIXEL, particle_radius=DIAMETER / 2, device="cpu")
    source = ImageSource(tilt_series={"TS_1": series}, settings=settings, ready={})
    first = resampled_reference(reference(centres, sigma=particle_scene.SIGMA), BOX, PIXEL, RESOLUTION)
    weights = initial_weights(source, particles)
    scaled = {half: first * _scale(source, particles, first, weights) for half in (1, 2)}
    evidence = handedness_evidence(source, particles, scaled, weights=weights, resolution=RESOLUTION)
    assert decide_handedness(evidence) == hand
    without = replace(series, ctf=None)
    assert handedness_evidence(source.with_series({"TS_1": without}), particles, scaled, weights=weights,
                               resolution=RESOLUTION) == {}  # fmt: skip


def _scale(source, particles, first, weights):
    """Factor of the reference that explains the images best with no hand assumed."""
    from tiltwise.ops.particles.chunks import particle_chunks
    from tiltwise.ops.particles.slices import volume_spectrum
    from tiltwise.ops.particles.tilt_weights import agreement_sums, amplitude_ratio

    grid, total = volume_spectrum(first, source.settings.radius_of(RESOLUTION) + 1), None
    for _, _, index, images in particle_chunks(source, particles, weights=weights, resolution=RESOLUTION):
        part = agreement_sums(images, grid, particles.rotation[index], 0 * particles.position[index])
        total = part if total is None else total + part
    return amplitude_ratio(total)


def test_little_evidence_decides_nothing():
    assert decide_handedness({"a": 3.0, "b": -1.0}) is None
    assert decide_handedness({"a": 3.0, "b": 4.0}) == 1
    assert decide_handedness({}) is None
