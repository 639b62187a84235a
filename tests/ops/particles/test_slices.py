"""Central slices: against the closed form of Gaussians, as an adjoint pair, and kernels against their plain twins."""

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from tiltwise.ops.particles import slices
from tiltwise.ops.particles.slices import (
    SpectralGrid,
    band_points,
    extract_slices,
    grid_to_volume,
    hermitian_complete,
    insert_slices,
    volume_spectrum,
)

SIGMA = 1.5


def gaussians(n, number=6, seed=1):
    rng = np.random.default_rng(seed)
    direction = rng.normal(size=(number, 3))
    centre = direction / np.linalg.norm(direction, axis=1)[:, None] * rng.uniform(0, 0.3 * n, (number, 1))
    z, y, x = np.meshgrid(*[np.arange(n) - n // 2] * 3, indexing="ij")
    square = sum((a - c[:, None, None, None]) ** 2 for a, c in zip((x, y, z), centre.T, strict=True))
    return centre, torch.as_tensor(np.exp(-square / (2 * SIGMA**2)).sum(0))


def rotations(number, seed=2):
    return torch.as_tensor(Rotation.random(number, random_state=seed).as_matrix())


def closed_form(centre, turned, points, n):
    """Transform of the projections: each Gaussian at (R c)_xy, exp(-2 pi² sigma² k²) exp(-2 pi i k·c)."""
    k = points.double().numpy() / n
    place = np.einsum("sij,cj->sci", turned.numpy()[:, :2], centre)
    envelope = (2 * np.pi) ** 1.5 * SIGMA**3 * np.exp(-2 * np.pi**2 * SIGMA**2 * (k**2).sum(1))
    return envelope * np.exp(-2j * np.pi * np.einsum("sci,ni->scn", place, k)).sum(1)


@pytest.mark.parametrize("n", [32, 33])
def test_slices_of_gaussians_match_their_closed_form(n):
    centre, volume = gaussians(n)
    points, turned = band_points(n, n / 2 - 1), rotations(8)
    found = extract_slices(volume_spectrum(volume, n / 2 - 1), turned, points).numpy()
    expected = closed_form(centre, turned, points, n)
    # trilinear interpolation on a grid of 2 n leaves copies at distance 2 n - r; (r / (2 n - r))² is 3 % at r = 0.3 n
    assert np.linalg.norm(found - expected) < 0.015 * np.linalg.norm(expected)


def test_points_are_one_half_of_the_plane_without_the_origin():
    points = band_points(16, 5.0).numpy().astype(int)
    both = {tuple(p) for p in points} | {tuple(-p) for p in points}
    disc = {(x, y) for x in range(-5, 6) for y in range(-5, 6) if 0 < x * x + y * y <= 25}
    assert both == disc and len(both) == 2 * len(points)
    assert (np.diff((points**2).sum(1)) >= 0).all()


def random_grid(n=20, radius=8, seed=0):
    volume = torch.randn(n, n, n, generator=torch.Generator().manual_seed(seed))
    return volume_spectrum(volume, radius)


def test_insertion_is_the_adjoint_of_extraction():
    grid, points, turned = random_grid(), band_points(20, 8), rotations(5)
    generator = torch.Generator().manual_seed(1)
    values = torch.randn(5, len(points), dtype=torch.complex64, generator=generator)
    inserted, _ = insert_slices(values, torch.ones(values.shape), turned, points, grid)
    read = extract_slices(grid, turned, points)
    left = (read.conj() * values).sum().real
    right = (grid.values.conj() * inserted).sum().real
    assert abs(left - right) < 1e-5 * read.norm() * values.norm()


def test_kernels_and_plain_twins_agree():
    grid, points, turned = random_grid(), band_points(20, 9), rotations(7)
    values = extract_slices(grid, turned, points)
    assert torch.allclose(values, slices._extract_plain(grid, turned, points), atol=1e-5 * float(values.abs().max()))
    weights = torch.rand(values.shape)
    fast, plain = (f(values, weights, turned, points, grid) for f in (insert_slices, slices._insert_plain))
    for a, b in zip(fast, plain, strict=True):
        assert torch.allclose(a, b, atol=1e-5 * float(b.abs().max()))


def test_a_plane_and_space_are_turned_alike():
    grid, points, turned = random_grid(), band_points(20, 8), rotations(3)
    in_space = torch.nn.functional.pad(points, (0, 1))
    assert torch.equal(extract_slices(grid, turned, points), extract_slices(grid, turned, in_space))


def test_dense_insertion_gives_the_volume_back():
    n = 24
    _, volume = gaussians(n)
    radius = (n - 1) // 2
    points, turned = band_points(n, radius), rotations(1500)
    values = extract_slices(volume_spectrum(volume, radius), turned, points)
    grid = volume_spectrum(volume, radius)
    numerator, denominator = insert_slices(values, torch.ones(values.shape), turned, points, grid)
    numerator, denominator = hermitian_complete(numerator), hermitian_complete(denominator)
    spectrum = numerator / denominator.clamp_min(1e-3)
    back = grid_to_volume(SpectralGrid(values=spectrum, step=grid.step, box_size=n)).double()
    inside = torch.zeros(n, n, n, dtype=torch.bool)
    inside[4:20, 4:20, 4:20] = True
    a, b = back[inside] - back[inside].mean(), volume[inside] - volume[inside].mean()
    assert (a * b).sum() / (a.norm() * b.norm()) > 0.995
