"""The refinement without a reference: free particles, rotations unknown, their places known to some Å."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from particle_scene import DIAMETER, PIXEL, reference, scene
from scipy.spatial.transform import Rotation

from tiltwise.ops.particles.references import masked_reference, sphere_mask
from tiltwise.ops.poses.alignment import search_grid
from tiltwise.ops.poses.comparison import compare_poses, match_points
from tiltwise.ops.poses.map_search import find_map
from tiltwise.params.refine import RefineParams
from tiltwise.stages.refine import refine

LOWPASS, FINE = 60.0, 45.0  # Å: of the first references, of what is compared with the truth
PARAMS = RefineParams(
    box_size=32,
    particle_diameter=DIAMETER,
    reference_lowpass=LOWPASS,
    iterations=1,
    search_shift=10.0,
    duplicate_distance=60.0,
    refine_tilt_shifts=False,
)


@pytest.fixture(scope="module")
def made():
    return scene(noise=0.3)


@pytest.fixture(scope="module")
def refined(made):
    """From random rotations, and places off by up to 4 Å along each axis."""
    number = len(made.particles)
    start = replace(
        made.particles,
        rotation=Rotation.random(number, random_state=8),
        position=made.particles.position + np.random.default_rng(8).uniform(-4, 4, (number, 3)),
    )
    return refine(made.tilt_series, start, None, PARAMS)


def test_poses_are_found_without_a_reference(made, refined):
    true, found = made.particles, refined.particles
    assert len(found) == len(true)
    pairs = []
    for name in made.tilt_series:
        ours, theirs = (np.flatnonzero(p.tilt_series == name) for p in (found, true))
        rows, columns = match_points(found.position[ours], true.position[theirs], 40.0)
        pairs.append((ours[rows], theirs[columns]))
    ours, theirs = (np.concatenate(side) for side in zip(*pairs, strict=True))
    errors = compare_poses(found.position[ours], found.rotation[ours], true.position[theirs], true.rotation[theirs])
    # within a step of the search, as one round at 60 Å brings them; of random rotations 1 in 900 are (θ - sin θ) / π
    step = np.degrees(0.7 * LOWPASS / DIAMETER)
    assert (errors.angle < step).mean() > 0.75


def test_the_average_has_the_hand_of_the_tilts(made, refined):
    """A map that agrees with the truth by c, all else noise, agrees with its mirror image by c m, m that of the two."""
    mask = sphere_mask(32, PIXEL, DIAMETER / 2)
    halves = refined.half_maps
    average = masked_reference(torch.as_tensor(np.array(halves.half1.data + halves.half2.data)), mask)
    truth = masked_reference(torch.as_tensor(np.array(reference(made.centres, sigma=9.0).data)), mask)
    mirror = torch.roll(truth.flip(2), 1, 2)
    grid = search_grid(FINE, DIAMETER, 180.0, 20.0)
    right, wrong, of_mirror = (
        find_map(a, b, PIXEL, grid)[1] for a, b in ((average, truth), (average, mirror), (mirror, truth))
    )
    assert right > 0.7 and right - wrong > 0.5 * (1 - of_mirror)


def test_every_start_is_recorded(refined):
    record = refined.quality["first_reference"]
    assert record["attempts"] == 1 and record["correlation_of_halves"] > 0.9
    for half in record["halves"]:
        starts, trusted = half["starts"], half["trusted"]
        assert len(starts) == 4 and all(len(start["agreement_with_starts"]) == 3 for start in starts)
        likelihood = [start["held_out_log_likelihood"] for start in starts]
        assert trusted == int(np.argmax(likelihood)) and starts[trusted]["standard_errors_behind"] == 0
        assert starts[trusted]["agreement_with_other_half"] > 0.9
