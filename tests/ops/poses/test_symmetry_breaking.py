"""First references without a model: a symmetric body found from its directions alone, and two maps brought together."""

import math

import numpy as np
import torch
from scipy.spatial.transform import Rotation

from tiltwise.ops.filters import low_pass
from tiltwise.ops.interpolate import centred_points, rotate_volume, sample_volume
from tiltwise.ops.particles.images import ParticleImages
from tiltwise.ops.particles.references import masked_reference, sphere_mask
from tiltwise.ops.particles.slices import band_points, extract_slices, volume_spectrum
from tiltwise.ops.poses.search import particle_vectors
from tiltwise.ops.poses.symmetry_breaking import BreakingSettings, first_reference, turned_onto

BOX, PIXEL, RESOLUTION = 32, 8.0, 40.0


def three_legs():
    """Three bodies about the z axis above a plate: C3, with nothing that tells the turn but the bodies."""
    x, y, z = centred_points((BOX, BOX, BOX)).unbind(-1)
    volume = torch.exp(-((z + 4) ** 2) / 4 - (x**2 + y**2) / 60)
    for turn in (10, 130, 250):
        cx, cy = 6 * math.cos(math.radians(turn)), 6 * math.sin(math.radians(turn))
        volume = volume + 2 * torch.exp(-((x - cx) ** 2 + (y - cy) ** 2 + (z - 2) ** 2) / 8)
    return volume


def vectors_of(volume, number, noise):
    """Particles whose frames are right but for the turn about z, shifted by up to 8 Å."""
    rng, generator = np.random.default_rng(2), torch.Generator().manual_seed(2)
    radius = BOX * PIXEL / RESOLUTION
    points = band_points(BOX, radius)
    tilts = torch.as_tensor(Rotation.from_euler("y", np.arange(-60, 61, 8)[:, None], degrees=True).as_matrix())
    frame = Rotation.random(number, random_state=3)
    turn = Rotation.from_euler("z", rng.uniform(0, 360, (number, 1)), degrees=True)
    pose = torch.as_tensor((frame * turn).as_matrix())
    slices = extract_slices(
        volume_spectrum(volume, radius + 1), torch.einsum("tij,pjk->ptik", tilts, pose).flatten(0, 1), points
    ).reshape(number, len(tilts), -1)
    shift = torch.as_tensor(rng.uniform(-5, 5, (number, 3)))
    place = torch.einsum("tij,pj->pti", tilts[:, :2], shift).float()
    angle = -2 * math.pi / (BOX * PIXEL) * torch.einsum("nc,ptc->ptn", points, place)
    data = slices * torch.polar(torch.ones_like(angle), angle)
    data = data + noise * torch.randn(data.shape, dtype=torch.complex64, generator=generator)
    images = ParticleImages(
        data=data,
        transfer=torch.ones(data.shape),
        rotations=tilts,
        points=points,
        box_size=BOX,
        pixel_size=PIXEL,
    )
    return particle_vectors(images, torch.as_tensor(frame.as_matrix()), radius)


def correlation(a, b):
    a, b = a.double() - a.double().mean(), b.double() - b.double().mean()
    return float((a * b).sum() / (a.norm() * b.norm()))


def test_a_symmetric_body_is_found_from_directions_alone():
    volume, mask = three_legs(), sphere_mask(BOX, PIXEL, 90.0)
    truth = masked_reference(low_pass(volume, RESOLUTION, PIXEL), mask)
    settings = BreakingSettings(resolution=RESOLUTION, diameter=180.0, cone=10.0, shift=14.0, symmetry="C3")
    vectors = vectors_of(volume, number=60, noise=6.0)
    first = first_reference(vectors, mask, settings, np.random.default_rng(0))
    found, starts = first.map, first.starts
    layers = sum(rotate_volume(truth.double(), turn) for turn in turns(24)) / 24
    placed, _ = turned_onto(found, truth, PIXEL, RESOLUTION, 30.0)
    assert correlation(placed, truth) > 0.9
    assert correlation(placed - layers, truth - layers) > 0.8  # not the layers alone: the legs themselves
    assert len(starts) == 3 and all(len(start.held_out) == 30 for start in starts)
    assert first.trusted == max(range(3), key=lambda i: starts[i].held_out.mean())


def turns(number):
    angle = np.arange(number)[:, None] * 360 / number
    return torch.as_tensor(Rotation.from_euler("z", angle, degrees=True).as_matrix())


def test_two_maps_are_brought_together():
    fixed = three_legs()
    turned = rotate_volume(fixed, torch.as_tensor(Rotation.from_euler("z", 47, degrees=True).as_matrix()))
    moved = sample_volume(turned, centred_points((BOX,) * 3) - torch.tensor([1.0, -2.0, 3.0]), method="cubic")
    placed, value = turned_onto(moved, fixed, PIXEL, RESOLUTION, 40.0)
    assert correlation(moved, fixed) < 0.5
    assert value > 0.97 and correlation(placed, fixed) > 0.97
