"""Local refinement: the kernel against its twin, gradients against differences, a displaced pose recovered."""

import math

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from tiltwise.ops.particles.images import ParticleImages
from tiltwise.ops.particles.slices import band_points, extract_slices, volume_spectrum
from tiltwise.ops.poses.refinement import _slice_terms_plain, likelihood_terms, refine_poses, slice_terms
from tiltwise.ops.poses.search import in_tomogram, particle_vectors, search_poses, shift_grid
from tiltwise.ops.rotations import geodesic_angle, rotation_grid, rotation_vector_to_matrix

BOX, PIXEL, PARTICLES, BAND = 32, 4.0, 6, 13


def blob_volume():
    rng = np.random.default_rng(1)
    direction = rng.normal(size=(8, 3))
    centre = direction / np.linalg.norm(direction, axis=1)[:, None] * rng.uniform(0, 0.28 * BOX, (8, 1))
    z, y, x = np.meshgrid(*[np.arange(BOX) - BOX // 2] * 3, indexing="ij")
    square = sum((a - c[:, None, None, None]) ** 2 for a, c in zip((x, y, z), centre.T, strict=True))
    return torch.as_tensor(np.exp(-square / (2 * 1.5**2)).sum(0)).float()


@pytest.fixture(scope="module")
def scene():
    """Images of six particles in 21 tilts at known poses, with noise of unit variance per component."""
    generator = torch.Generator().manual_seed(0)
    volume, points = blob_volume(), band_points(BOX, BAND)
    grid = volume_spectrum(volume, BAND)
    tilt = Rotation.from_euler("z", 85, degrees=True) * Rotation.from_euler(
        "y", np.arange(-60, 61, 6)[:, None], degrees=True
    )
    tilts = torch.as_tensor(tilt.as_matrix())
    rotation = torch.as_tensor(Rotation.random(PARTICLES, random_state=1).as_matrix())
    shift = 3 * torch.randn(PARTICLES, 3, dtype=torch.float64, generator=generator)
    slices = extract_slices(grid, torch.einsum("tij,pjk->ptik", tilts, rotation).flatten(0, 1), points)
    place = torch.einsum("tij,pj->pti", tilts[:, :2], shift)
    angle = -2 * math.pi / (BOX * PIXEL) * torch.einsum("nc,ptc->ptn", points.double(), place)
    transfer = 0.3 * torch.rand(PARTICLES, len(tilts), len(points), generator=generator)
    clean = transfer * slices.reshape(transfer.shape) * torch.exp(1j * angle).to(torch.complex64)
    noise = torch.randn(clean.shape, dtype=torch.complex64, generator=generator) * math.sqrt(2)
    images = ParticleImages(
        data=clean + noise, transfer=transfer, rotations=tilts, points=points, box_size=BOX, pixel_size=PIXEL
    )
    return images, volume, grid, rotation, shift


def test_kernel_and_plain_twin_agree(scene):
    images, _, grid, rotation, shift = scene
    plane = torch.einsum("tij,pj->pti", images.rotations[:, :2], shift)
    fast, plain = slice_terms(images, grid, rotation, plane), _slice_terms_plain(images, grid, rotation, plane)
    scale = plain.abs().amax((0, 1))
    assert ((fast - plain).abs() / scale).max() < 1e-4


def test_gradient_is_the_finite_difference(scene):
    images, _, grid, rotation, shift = scene
    turned = rotation @ rotation_vector_to_matrix(torch.tensor([[1.0, -1.5, 2.0]]).double())
    moved = shift + 0.5
    _, gradient, _, _ = likelihood_terms(images, grid, turned, moved)

    def value(change):
        trial = turned @ rotation_vector_to_matrix(torch.rad2deg(change[:3]))
        return likelihood_terms(images, grid, trial, moved + change[3:])[0]

    # trilinear slices have kinks at the cells' walls: the slope there jumps by a part of itself, crossed at random
    for axis, step in enumerate([1e-3] * 3 + [1e-2] * 3):
        change = torch.zeros(6, dtype=torch.float64)
        change[axis] = step
        difference = (value(change) - value(-change)) / (2 * step)
        assert (difference - gradient[:, axis]).abs().max() < 0.02 * gradient[:, axis].abs().max()


def test_displaced_poses_come_back_within_their_uncertainty(scene):
    images, _, grid, rotation, shift = scene
    rng = np.random.default_rng(3)
    off = torch.as_tensor(Rotation.from_rotvec(4 * rng.normal(size=(PARTICLES, 3)), degrees=True).as_matrix())
    found = refine_poses(
        images, grid, rotation @ off, shift + torch.as_tensor(rng.normal(size=(PARTICLES, 3))), steps=8
    )
    assert ((found.amplitude - 1).abs() < 0.2).all()
    spread = torch.diagonal(found.covariance, dim1=1, dim2=2)
    angle = geodesic_angle(found.rotation, rotation)
    assert (angle < 4 * spread[:, :3].sum(1).sqrt()).all()
    assert ((found.shift - shift).norm(dim=1) < 4 * spread[:, 3:].sum(1).sqrt()).all()


def test_a_forbidden_shift_is_not_taken(scene):
    images, _, grid, rotation, shift = scene
    start = shift + torch.tensor([4.0, 0.0, 0.0]).double()
    ball = torch.cat([start, torch.full((PARTICLES, 1), 0.5, dtype=torch.float64)], 1)
    found = refine_poses(images, grid, rotation, start, allowed_shift=ball)
    assert ((found.shift - start).norm(dim=1) <= 0.5 + 1e-9).all()


def test_search_finds_known_poses_in_any_frame(scene):
    images, volume, _, rotation, shift = scene
    frame = torch.as_tensor(Rotation.random(PARTICLES, random_state=5).as_matrix())
    vectors = particle_vectors(images, frame, 6.0)
    grid, shifts = rotation_grid(12.0), shift_grid(8.0, 4.0)
    found = in_tomogram(search_poses(vectors, volume, grid, shifts, candidates=4, separation=20.0), frame)
    assert (geodesic_angle(found.rotation[:, 0], rotation) < 12.0).all()
    assert ((found.shift[:, 0] - shift).norm(dim=1) < 4.0 * math.sqrt(3)).all()
    assert (found.score.diff(dim=1) <= 0).all()
    between = geodesic_angle(found.rotation[:, :1], found.rotation[:, 1:])
    assert (between >= 20.0 - 1e-6).all()
