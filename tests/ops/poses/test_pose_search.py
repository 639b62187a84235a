"""The search over a grid: its posterior against brute force, what candidates hold of it, poses that cannot be told."""

import math

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from tiltwise.ops.particles.images import ParticleImages
from tiltwise.ops.particles.slices import SpectralGrid, band_points, empty_grid, extract_slices, volume_spectrum
from tiltwise.ops.poses.alignment import PoseBounds, SearchGrid, _refined_candidates
from tiltwise.ops.poses.refinement import held_in_ball, refine_poses
from tiltwise.ops.poses.search import (
    _GRID_LOSS,
    ParticleVectors,
    _gather_shifts,
    _gather_shifts_plain,
    _search_voxels,
    search_poses,
    shift_grid,
    shift_phases,
    turned_references,
)
from tiltwise.ops.rotations import geodesic_angle, held_in_cone, rotation_grid, rotation_vector_to_matrix

BOX, PIXEL, BAND, STEP = 24, 4.0, 5.0, 24.0
HALF_TURN = torch.as_tensor(Rotation.from_euler("z", 180, degrees=True).as_matrix())


def body(twofold=False):
    """Six balls about the centre, no two alike; or each with its partner across the z axis."""
    rng = np.random.default_rng(2)
    centre, height = rng.uniform(-0.25 * BOX, 0.25 * BOX, (6, 3)), rng.uniform(0.5, 1.5, 6)
    if twofold:
        centre, height = np.concatenate([centre, centre * [-1, -1, 1]]), np.tile(height, 2)
    z, y, x = np.meshgrid(*[np.arange(BOX) - BOX // 2] * 3, indexing="ij")
    square = sum((a - c[:, None, None, None]) ** 2 for a, c in zip((x, y, z), centre.T, strict=True))
    return torch.as_tensor((height[:, None, None, None] * np.exp(-square / (2 * 1.5**2))).sum(0)).float()


def empty_vectors():
    layout = SpectralGrid(values=empty_grid(BOX, BAND, torch.complex64, oversampling=1), step=1.0, box_size=BOX)
    voxels, _ = _search_voxels(layout, BAND)
    none = torch.zeros(0, len(voxels))
    return ParticleVectors(data=none.to(torch.complex64), weight=none, voxels=voxels, layout=layout, pixel_size=PIXEL)


def particles(volume, rotation, shift, strength, seed=0):
    """Data vectors W V + sqrt(W) noise of unit variance in each part, the greatest score near `strength`."""
    generator = torch.Generator().manual_seed(seed)
    vectors = empty_vectors()
    turned = turned_references(volume, rotation, vectors)
    phase = shift_phases(vectors.voxels, shift / (BOX * PIXEL)).conj()
    weight = torch.rand(turned.shape, generator=generator)
    scale = torch.as_tensor(strength) / (weight * turned.abs().square()).sum(1).sqrt()
    weight = weight * scale[:, None] ** 2
    noise = torch.randn(turned.shape, dtype=torch.complex64, generator=generator) * math.sqrt(2)
    return ParticleVectors(
        data=weight * turned * phase + weight.sqrt() * noise,
        weight=weight,
        voxels=vectors.voxels,
        layout=vectors.layout,
        pixel_size=PIXEL,
    )


@pytest.fixture(scope="module")
def tiny():
    """Three particles, one of them weak and one nothing but noise; 120 rotations and 27 or so shifts; and the log
    likelihood of every pose, (particle, rotation, shift), by the sums themselves."""
    volume, rotations, shifts = body(), rotation_grid(STEP)[::5], shift_grid(8.0, 4.0)
    vectors = particles(volume, rotations[[3, 40, 77]], shifts[[0, 9, 20]], [9.0, 5.0, 0.1])
    turned = turned_references(volume, rotations, vectors).to(torch.complex128)
    angle = 2 * np.pi / (BOX * PIXEL) * shifts @ vectors.voxels.double().T
    shifted = vectors.data[:, None].to(torch.complex128) * torch.exp(1j * angle)
    product = torch.einsum("psv,rv->prs", shifted, turned.conj()).real
    norm = (vectors.weight.double() @ turned.abs().square().T).sqrt()
    likelihood = 0.5 * (product / norm[..., None]).clamp_min(0) ** 2
    return volume, rotations, shifts, vectors, likelihood


def test_kernel_and_plain_twin_agree():
    generator = torch.Generator().manual_seed(0)
    product = 8 * torch.randn(3, 11, 300, generator=generator)
    product[0, :, 7] = -product[0, :, 7].abs()  # of no shift a positive score
    norm = 0.5 + torch.rand(3, 300, generator=generator)
    for fast, plain in zip(_gather_shifts(product, norm), _gather_shifts_plain(product, norm), strict=True):
        assert torch.allclose(fast, plain, rtol=1e-5, atol=1e-5)


def test_the_posterior_is_that_of_brute_force(tiny):
    volume, rotations, shifts, vectors, likelihood = tiny
    found = search_poses(vectors, volume, rotations, shifts, candidates=len(rotations))
    total = likelihood.flatten(1).logsumexp(1)
    # single precision: sums of 500 products of relative error 6e-8 each, squared
    assert torch.allclose(found.evidence.double(), total - math.log(likelihood[0].numel()), atol=1e-4)
    every = (likelihood.logsumexp(2) - total[:, None]).exp()
    order = likelihood.amax(2).argsort(dim=1, descending=True)
    assert torch.equal(found.rotation[:, 0], rotations[order[:, 0]])
    assert torch.allclose(found.mass.double(), every.gather(1, order), atol=1e-4)
    assert torch.allclose(found.mass.sum(1), torch.ones(3), atol=1e-5)


@pytest.mark.parametrize("held", [0.5, 0.999])
def test_candidates_hold_the_stated_part(tiny, held):
    """And no more are needed than the bound on what the grid may have missed says: the last one needed is one that
    those before it did not bring to the part."""
    volume, rotations, shifts, vectors, likelihood = tiny
    found = search_poses(vectors, volume, rotations, shifts, candidates=len(rotations), held=held)
    part = (found.mass * found.needed).sum(1)
    assert (part >= held - 1e-5).all()
    best = likelihood.amax(2)
    weight = likelihood.logsumexp(2)
    missed = weight + (1 / (1 - _GRID_LOSS) ** 2 - 1) * best
    order = best.argsort(dim=1, descending=True)
    inside, outside = weight.gather(1, order).exp(), missed.gather(1, order).exp()
    for p in range(3):
        rest = outside[p].sum() - outside[p].cumsum(0)
        short = torch.nonzero(held * rest <= (1 - held) * inside[p].cumsum(0)).flatten()
        assert int(found.needed[p].sum()) == int(short[0]) + 1
    assert found.needed[0].sum() < found.needed[2].sum()


def test_the_most_is_not_passed(tiny):
    volume, rotations, shifts, vectors, _ = tiny
    found = search_poses(vectors, volume, rotations, shifts, candidates=3, separation=30.0, held=0.999)
    assert found.needed.shape == (3, 3) and found.needed[2].all()
    between = geodesic_angle(found.rotation[:, :1], found.rotation[:, 1:])
    assert (between >= 30.0 - 1e-6).all()


def test_two_poses_that_cannot_be_told_hold_half_each():
    """A two-fold body, on a grid that holds both turns of every rotation; with its symmetry given they are one."""
    volume, some, shifts = body(twofold=True), rotation_grid(STEP)[::9], shift_grid(4.0, 4.0)
    rotations = torch.cat([some, some @ HALF_TURN])
    vectors = particles(volume, some[[5, 31]], shifts[[0, 3]], [14.0, 10.0])
    found = search_poses(vectors, volume, rotations, shifts, candidates=6, separation=36.0, held=0.999)
    assert torch.allclose(found.rotation[:, 1], found.rotation[:, 0] @ HALF_TURN)
    # the two spectra are read at mirrored places of the grid: equal but for single precision, L of 50 to 100 by 1e-5
    assert torch.allclose(found.mass[:, :2], torch.full((2, 2), 0.5), atol=0.02)
    one = search_poses(vectors, volume, rotations, shifts, candidates=6, separation=36.0, symmetry="C2", held=0.999)
    assert (one.mass[:, 0] > 0.95).all()


@pytest.fixture(scope="module")
def twofold_images():
    """Images of four two-fold particles in 11 tilts, and their poses."""
    generator = torch.Generator().manual_seed(4)
    points, grid = band_points(BOX, 9), volume_spectrum(body(twofold=True), 10)
    tilts = torch.as_tensor(Rotation.from_euler("y", np.arange(-50, 51, 10)[:, None], degrees=True).as_matrix())
    rotation = torch.as_tensor(Rotation.random(4, random_state=6).as_matrix())
    slices = extract_slices(grid, torch.einsum("tij,pjk->ptik", tilts, rotation).flatten(0, 1), points)
    transfer = torch.full((4, len(tilts), len(points)), 0.15)
    noise = torch.randn(transfer.shape, dtype=torch.complex64, generator=generator) * math.sqrt(2)
    images = ParticleImages(
        data=transfer * slices.reshape(transfer.shape) + noise,
        transfer=transfer,
        rotations=tilts,
        points=points,
        box_size=BOX,
        pixel_size=PIXEL,
    )
    return images, grid, rotation


def about(rotation, cone):
    """Bounds about rotations."""
    number = len(rotation)
    return PoseBounds(
        position=torch.zeros(number, 3, dtype=torch.float64),
        radius=torch.full((number,), 8.0, dtype=torch.float64),
        rotation=rotation,
        cone=cone,
    ).limits(torch.zeros(number, 3, dtype=torch.float64), np.arange(number))


def test_refined_candidates_share_the_posterior(twofold_images):
    """The true pose, its half turn, another start of the true pose, and one that is wrong by far: half, half, 0, 0."""
    images, grid, rotation = twofold_images
    off = rotation_vector_to_matrix(torch.tensor([[3.0, -2, 2], [-2, 3, 3], [-4, 0, 2], [90, 60, 0]]).double())
    starts = rotation[:, None] @ off
    starts[:, 1] = starts[:, 1] @ HALF_TURN
    steps = SearchGrid(rotations=starts[0], shifts=torch.zeros(1, 3), resolution=12.0, angular_step=10.0, symmetry="C1")
    needed = torch.ones(4, 4, dtype=torch.bool)
    limits = about(rotation, 180.0)
    shift = torch.zeros(4, 4, 3, dtype=torch.float64)
    found = _refined_candidates(images, starts, shift, needed, steps=8, spectrum=grid, grid=steps, limits=limits)
    # two maxima of one likelihood, each found to well within one unit of it
    assert ((found.part[:, :2] - 0.5).abs() < 0.1).all()
    assert (found.part[:, 2:] < 1e-3).all()
    assert (geodesic_angle(found.rotation[:, 0], rotation, "C2") < 5).all()
    needed[:, 1:3] = False
    alone = _refined_candidates(images, starts, shift, needed, steps=8, spectrum=grid, grid=steps, limits=limits)
    assert (alone.part[:, 0] > 0.999).all()


def test_a_direction_is_brought_to_the_edge_of_its_cone_by_the_least_turn():
    rotation = torch.as_tensor(Rotation.random(40, random_state=1).as_matrix())
    axis = torch.nn.functional.normalize(torch.as_tensor(np.random.default_rng(0).normal(size=(40, 3))), dim=1)
    axis[0] = -rotation[0, :, 2]  # opposite
    lean = torch.rad2deg(torch.acos((rotation[:, :, 2] * axis).sum(1).clamp(-1, 1)))
    cone = torch.cat([axis, torch.full((40, 1), math.cos(math.radians(60.0)), dtype=torch.float64)], 1)
    held = held_in_cone(rotation, cone)
    inside = lean <= 60
    assert 0 < inside.sum() < 40 and torch.equal(held[inside], rotation[inside])
    after = torch.rad2deg(torch.acos((held[:, :, 2] * axis).sum(1)))
    assert torch.allclose(after[~inside], torch.full_like(after[~inside], 60.0), atol=1e-6)
    assert torch.allclose(geodesic_angle(held, rotation)[~inside], (lean - 60)[~inside], atol=1e-5)


def test_refinement_keeps_to_the_cone_about_the_start(twofold_images):
    """Starts that lean by 8 and are turned by 6 degrees: within 3 degrees the turn is made good, the lean is not."""
    images, grid, rotation = twofold_images
    start = rotation @ rotation_vector_to_matrix(torch.tensor([[8.0, 0, 6.0]]).double())
    shift = torch.zeros(4, 3, dtype=torch.float64)
    free = refine_poses(images, grid, start, shift, steps=8, **about(start, 180.0))
    kept = refine_poses(images, grid, start, shift, steps=8, **about(start, 3.0))

    def lean(poses, of):
        return torch.rad2deg(torch.acos((poses[:, :, 2] * of[:, :, 2]).sum(1).clamp(-1, 1)))

    assert (lean(free.rotation, start) > 3.5).all()
    assert (lean(kept.rotation, start) <= 3.0 + 1e-6).all() and (lean(kept.rotation, start) > 2.5).all()
    assert (kept.likelihood > refine_poses(images, grid, start, shift, steps=0).likelihood).all()
    # a later refinement from where the first ended keeps to the cone about the first start
    again = refine_poses(images, grid, free.rotation, shift, steps=8, **about(start, 3.0))
    assert (lean(again.rotation, start) <= 3.0 + 1e-6).all()


def test_shifts_outside_the_ball_start_from_its_edge():
    ball = torch.tensor([[1.0, 0, 0, 2.0]]).double()
    shift = torch.tensor([[[1.0, 1, 0], [1, 0, 5], [-3, 0, 0]]]).double()
    assert torch.equal(
        held_in_ball(shift, ball[:, None]), torch.tensor([[[1.0, 1, 0], [1, 0, 2], [-1, 0, 0]]]).double()
    )
