"""References that drifted apart are brought into one frame, and no image notices."""

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

sys.path.insert(0, str(Path(__file__).parents[2] / "stages"))
from particle_scene import DIAMETER, PIXEL, scene  # noqa: E402

from tiltwise.ops.maps.superpose import RigidMotion  # noqa: E402
from tiltwise.ops.particles.chunks import CropSettings, ImageSource, initial_weights  # noqa: E402
from tiltwise.ops.particles.half_frames import average_halves, free_directions, in_frame  # noqa: E402
from tiltwise.ops.particles.half_maps import posed_particles  # noqa: E402
from tiltwise.ops.particles.half_sets import assign_half_sets  # noqa: E402
from tiltwise.ops.particles.references import sphere_mask  # noqa: E402

BOX = 48
DRIFT = RigidMotion(
    rotation=Rotation.from_rotvec([1.0, -2.0, 1.5], degrees=True).as_matrix(), shift=np.array([3.0, -2.0, 2.0])
)
"""2.7° and 4.1 Å."""


@pytest.fixture(scope="module")
def posed():
    """Twelve particles at true poses in two halves, and how they are averaged."""
    made = scene(series=1, noise=0.5)
    settings = CropSettings(box_size=BOX, pixel_size=PIXEL, particle_radius=DIAMETER / 2, device="cpu")
    source = ImageSource(tilt_series=made.tilt_series, settings=settings, ready={})
    particles = replace(posed_particles(made.particles), half_set=assign_half_sets(made.particles, 60.0, 0))
    mask = sphere_mask(BOX, PIXEL, DIAMETER / 2)
    return source, particles, {"weights": initial_weights(source, particles), "mask": mask}


@pytest.mark.parametrize(
    ("symmetry", "free"),
    [("C1", (1, 1, 1)), ("C6", (0, 0, 1)), ("H(20,30,5)", (0, 0, 1)), ("D3", (0, 0, 0)), ("I", (0, 0, 0))],
)
def test_a_symmetry_leaves_its_axis_free(symmetry, free):
    assert np.allclose(free_directions(symmetry), np.diag(free), atol=1e-9)


def test_points_of_a_particle_stay_where_they_are(posed):
    """R x + t is R' (Q x + d) + t' for half 2; half 1 is left alone."""
    _, particles, _ = posed
    moved = in_frame(particles, 2, DRIFT)
    x = torch.as_tensor(np.random.default_rng(0).normal(0, 50, 3))
    there = torch.as_tensor(DRIFT.rotation) @ x + torch.as_tensor(DRIFT.shift)
    before = particles.rotation @ x + particles.position
    after = moved.rotation @ there + moved.position
    second = particles.half_set == 2
    assert torch.allclose(after[second], before[second], atol=1e-9)
    assert torch.equal(moved.rotation[~second], particles.rotation[~second])


def test_halves_that_drifted_apart_are_averaged_in_one_frame(posed):
    """The motion is known to a tenth of what it was, and the half maps agree as if there had been none."""
    source, particles, how = posed
    still = average_halves(source, particles, **how, symmetry="C1")
    apart = in_frame(particles, 2, DRIFT)
    found = average_halves(source, apart, **how, symmetry="C1")
    rest = found.motion.after(DRIFT)
    assert rest.angle < 0.27 and rest.distance < 0.41
    assert float(found.fsc.sum()) == pytest.approx(float(still.fsc.sum()), rel=0.01)
    unmended = average_halves(source, apart, **how, symmetry="D2")  # which leaves nothing free
    assert unmended.motion.angle == 0
    second = particles.half_set == 2
    assert torch.equal(found.particles.rotation[~second], particles.rotation[~second])


def test_halves_in_one_frame_are_left_alone(posed):
    source, particles, how = posed
    found = average_halves(source, particles, **how, symmetry="C1")
    assert found.motion.angle < 0.3 and found.motion.distance < 0.5


def test_noise_is_not_laid_on_noise(posed):
    """Places and turns at random: what a motion lends the agreement of such maps stays below what is asked for."""
    source, particles, how = posed
    for seed in range(8):
        rng = np.random.default_rng(seed)
        nowhere = replace(
            particles,
            position=particles.position + torch.as_tensor(rng.uniform(-90, 90, (len(particles), 3))),
            rotation=torch.as_tensor(Rotation.random(len(particles), random_state=seed).as_matrix()),
        )
        assert average_halves(source, nowhere, **how, symmetry="C1").motion.angle == 0


def test_maps_of_nothing_do_not_move(posed):
    source, particles, how = posed
    empty = replace(particles, half_set=np.where(particles.half_set == 2, 0, particles.half_set))
    found = average_halves(source, empty, **how, symmetry="C1")
    assert found.motion.angle == 0 and torch.equal(found.particles.position, empty.position)
