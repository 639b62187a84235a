"""Sums and products are what they say, and the same bits with one thread and with eight."""

import numpy as np
import pytest
import torch

from tiltwise.ops.interpolate import spline_coefficients
from tiltwise.ops.particles.images import ParticleImages, _normalise
from tiltwise.ops.particles.references import masked_reference, sphere_mask
from tiltwise.ops.particles.slices import band_points
from tiltwise.ops.poses.search import particle_vectors, search_poses, shift_grid
from tiltwise.ops.rotations import rotation_grid
from tiltwise.ops.steady import one_thread, phased, steady_mean, steady_product, steady_rfftn, steady_sum


def with_threads(number, work):
    before = torch.get_num_threads()
    torch.set_num_threads(number)
    try:
        return work()
    finally:
        torch.set_num_threads(before)


def drawn(*shape, dtype=torch.float32, seed=0):
    return torch.randn(*shape, dtype=dtype, generator=torch.Generator().manual_seed(seed)) + 0.3


def searched():
    """Scores of six particles, for which the products of a search have few rows, and many."""
    points = band_points(32, 6)
    shape = (6, 3, len(points))
    images = ParticleImages(
        data=drawn(*shape, dtype=torch.complex64),
        transfer=drawn(*shape),
        rotations=torch.eye(3, dtype=torch.float64).expand(3, -1, -1),
        points=points,
        box_size=32,
        pixel_size=4.0,
    )
    vectors = particle_vectors(images, torch.eye(3, dtype=torch.float64).expand(6, -1, -1), 6.0)
    reference = drawn(32, 32, 32, seed=2) * sphere_mask(32, 4.0, 40.0)
    found = search_poses(vectors, reference, rotation_grid(24.0), shift_grid(8.0, 4.0), candidates=3, separation=30.0)
    return torch.cat([found.score.double(), found.shift.flatten(1)], 1)


CASES = {
    "image": lambda: _normalise(100 + 3 * drawn(301, 300), 65),
    "reference": lambda: masked_reference(drawn(48, 48, 48), sphere_mask(48, 4.0, 60.0)),
    "search": searched,
    "sum": lambda: steady_sum(drawn(300, 301).double() ** 3),
    "mean": lambda: steady_mean(drawn(3, 300, 301)),
    "volume": lambda: steady_rfftn(drawn(36, 32, 30)),
    "volumes": lambda: steady_rfftn(drawn(2, 36, 32, 30), 3),
    "spline": lambda: spline_coefficients(drawn(36, 32, 30)),
    "few rows": lambda: steady_product(drawn(6, 535), drawn(1070, 535, seed=1).T),
    "many rows": lambda: steady_product(drawn(900, 70), drawn(131, 70, seed=1).T),
    "many columns": lambda: steady_product(drawn(131, 70), drawn(900, 70, seed=1).T),
    "tall": lambda: steady_product(
        drawn(20000, 8, dtype=torch.float64).T, drawn(20000, 8, dtype=torch.float64, seed=1)
    ),
    "phases": lambda: phased(drawn(5, 1, 7001, dtype=torch.complex64), drawn(3, 7001, dtype=torch.complex64, seed=1)),
}


@pytest.mark.parametrize("name", CASES)
def test_bits_do_not_depend_on_threads(name):
    assert torch.equal(with_threads(1, CASES[name]), with_threads(8, CASES[name]))


def test_they_are_what_they_say():
    values, first, second = drawn(200, 301), drawn(600, 90), drawn(90, 130, seed=1)
    total = values.numpy().astype(np.float64).sum()
    assert abs(float(steady_sum(values)) - total) < 1e-12 * values.numel()
    exact = first.double() @ second.double()
    # of k products each is rounded to 2^-24 of itself: sqrt(k) of them on average, k at most
    assert ((steady_product(first, second) - exact).abs() < 90 * 2**-24 * first.abs() @ second.abs()).all()
    assert torch.equal(steady_product(first[:3], second[:, :4]), with_threads(1, lambda: first[:3] @ second[:, :4]))
    a, b = drawn(5, 1, 70, dtype=torch.complex64), drawn(3, 70, dtype=torch.complex64, seed=1)
    assert torch.allclose(phased(a, b), a * b, rtol=0, atol=1e-6 * float((a * b).abs().max()))
    boxes = drawn(2, 12, 10, 9, dtype=torch.float64)
    for found, expected in (
        (steady_rfftn(boxes, 3), np.fft.rfftn(boxes, axes=(1, 2, 3))),
        (steady_rfftn(boxes[0]), np.fft.rfftn(boxes[0])),
        (steady_rfftn(boxes, 2), np.fft.rfft2(boxes)),
    ):
        assert np.allclose(found.numpy(), expected, rtol=0, atol=1e-12 * np.abs(expected).max())


def test_threads_are_given_back_whatever_happens():
    def work():
        with pytest.raises(ValueError), one_thread():
            assert torch.get_num_threads() == 1
            raise ValueError
        steady_product(drawn(900, 70), drawn(131, 70).T)
        return torch.get_num_threads()

    assert with_threads(3, work) == 3
