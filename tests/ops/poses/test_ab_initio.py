"""A first map from particles of unknown rotation: the right one, of the right hand, and the measure that says so."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from tiltwise.ops.filters import low_pass
from tiltwise.ops.interpolate import centred_points
from tiltwise.ops.particles.images import ParticleImages
from tiltwise.ops.particles.references import masked_reference, sphere_mask
from tiltwise.ops.particles.slices import band_points, extract_slices, volume_spectrum
from tiltwise.ops.poses.ab_initio import AbInitioSettings, ab_initio_map, annealing
from tiltwise.ops.poses.alignment import search_grid
from tiltwise.ops.poses.map_search import find_map
from tiltwise.ops.poses.posterior import pose_likelihood, weigh_poses, weighed_average
from tiltwise.ops.poses.search import particle_vectors, search_poses

BOX, PIXEL, RESOLUTION, DIAMETER = 24, 10.0, 55.0, 180.0
SETTINGS = AbInitioSettings(
    resolution=RESOLUTION, diameter=DIAMETER, cone=180.0, shift=8.0, starts=3, annealed_rounds=6, more_rounds=2
)


def handed_body():
    """Five unequal bodies that no rotation takes to their mirror image."""
    points = centred_points((BOX, BOX, BOX))
    centres = [(6, 0, 0), (-5, 3, 1), (0, -5, 4), (1, 4, -6), (-3, -4, -4)]
    volume = torch.zeros(BOX, BOX, BOX, dtype=torch.float64)
    for size, centre in zip((2.0, 1.0, 1.4, 0.8, 1.2), centres, strict=True):
        volume += size * torch.exp(-(points - torch.tensor(centre)).square().sum(-1) / 7)
    return volume.float()


def mirrored(volume):
    """In x, about the centre n // 2."""
    return torch.roll(volume.flip(2), 1, 2)


def vectors_of(volume, number, noise, seed=2):
    """Particles in random rotations, seen in tilts to 60°, moved by up to 4 Å along each axis."""
    rng, generator = np.random.default_rng(seed), torch.Generator().manual_seed(seed)
    radius = BOX * PIXEL / RESOLUTION
    points = band_points(BOX, radius)
    tilts = torch.as_tensor(Rotation.from_euler("y", np.arange(-60, 61, 8)[:, None], degrees=True).as_matrix())
    pose = torch.as_tensor(Rotation.random(number, random_state=seed).as_matrix())
    turned = torch.einsum("tij,pjk->ptik", tilts, pose).flatten(0, 1)
    slices = extract_slices(volume_spectrum(volume, radius + 1), turned, points).reshape(number, len(tilts), -1)
    shift = torch.as_tensor(rng.uniform(-4, 4, (number, 3)))
    angle = torch.einsum("nc,ptc->ptn", points, torch.einsum("tij,pj->pti", tilts[:, :2], shift).float())
    data = slices * torch.polar(torch.ones_like(angle), -2 * math.pi / (BOX * PIXEL) * angle)
    data = (data + noise * torch.randn(data.shape, dtype=torch.complex64, generator=generator)) / noise
    images = ParticleImages(
        data=data,
        transfer=torch.full(data.shape, 1 / noise),
        rotations=tilts,
        points=points,
        box_size=BOX,
        pixel_size=PIXEL,
    )
    return particle_vectors(images, torch.eye(3, dtype=torch.float64).expand(number, 3, 3), radius)


@pytest.fixture(scope="module")
def truth():
    mask = sphere_mask(BOX, PIXEL, DIAMETER / 2)
    return masked_reference(low_pass(handed_body(), RESOLUTION, PIXEL), mask), mask


@pytest.fixture(scope="module")
def vectors():
    return vectors_of(handed_body(), number=24, noise=12.0)


@pytest.fixture(scope="module")
def found(vectors, truth):
    return ab_initio_map(vectors, truth[1], SETTINGS, np.random.default_rng(0))


def agreement(map_, other):
    return find_map(map_, other, PIXEL, search_grid(RESOLUTION, DIAMETER, 180.0, 30.0))[1]


def test_the_map_is_found_and_of_the_right_hand(found, truth):
    """Nothing but the tilts tells the hand: the mirror image fits the truth as badly as the truth's own does."""
    of_mirror = agreement(mirrored(truth[0]), truth[0])
    assert agreement(found.map, truth[0]) > 0.95
    assert agreement(mirrored(found.map), truth[0]) < 0.5 * (1 + of_mirror)


def test_the_mirror_image_is_less_likely(vectors, found):
    grid = SETTINGS.grid(RESOLUTION)
    difference = pose_likelihood(vectors, found.map, grid) - pose_likelihood(vectors, mirrored(found.map), grid)
    assert float(difference.mean() / difference.std()) * math.sqrt(len(difference)) > 5


def test_the_trusted_start_is_one_that_is_right(found, truth):
    right = [agreement(start.map, truth[0]) for start in found.starts]
    assert len(found.starts) == SETTINGS.starts and len(found.starts[0].held_out) == 6
    assert right[found.trusted] > 0.9


def test_annealing_ends_at_the_finest_spacing():
    rounds = annealing(SETTINGS)
    resolution, contrast = np.array(rounds).T
    assert resolution[0] == pytest.approx(DIAMETER / 2.2) and resolution[-1] == RESOLUTION
    assert (np.diff(resolution) <= 0).all() and (np.diff(contrast) > 0).all()


def test_the_likelihood_of_one_pose_is_that_of_the_search(vectors, truth):
    """With one pose in the grid L = a s - a² n² / 2 for the map scaled by a, at most s² / 2 n² = score² / 2."""
    grid = SETTINGS.grid(RESOLUTION)
    one = replace(grid, rotations=grid.rotations[7:8], shifts=grid.shifts[:1])
    score = search_poses(vectors, truth[0], one.rotations, one.shifts).score[:, 0].double()
    plus, minus = (pose_likelihood(vectors, a * truth[0], one).double() for a in (1.0, -1.0))
    along, power = (plus - minus) / 2, -(plus + minus)  # s and n²
    torch.testing.assert_close(along / power.sqrt(), score, rtol=1e-3, atol=1e-3)


def test_a_flat_posterior_averages_every_rotation(vectors, truth):
    """As the contrast goes to 0 all poses weigh the same, and the sums are the particles' own in every rotation."""
    grid = SETTINGS.grid(80.0)
    weighed = weigh_poses(vectors, truth[0], grid, contrast=1e-6)
    expected = vectors.weight.sum(0) / len(grid.rotations)
    torch.testing.assert_close(weighed.weight, expected.expand_as(weighed.weight), rtol=1e-3, atol=1e-4)


def test_the_average_has_the_scale_of_the_truth(vectors, truth):
    grid = SETTINGS.grid(RESOLUTION)
    average = weighed_average(weigh_poses(vectors, truth[0], grid), vectors, grid, truth[1], RESOLUTION)
    inside = (average * truth[0]).sum() / truth[0].square().sum()
    assert 0.7 < float(inside) < 1.05  # the denominator's penalty and the grid's steps lower it
