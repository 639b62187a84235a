"""Averages with a point group: the turns that swap the grid's axes are those of the images inserted in every pose."""

from dataclasses import replace

import pytest
import torch
from scipy.spatial.transform import Rotation

from tiltwise.ops.particles.averaging import accumulate, average_map, empty_accumulator
from tiltwise.ops.particles.images import ParticleImages
from tiltwise.ops.particles.slices import band_points
from tiltwise.ops.symmetry import axis_turns, symmetry_rotations

BOX, RADIUS = 16, 6.0


@pytest.mark.parametrize(
    ("name", "number"), [("C1", 1), ("C6", 2), ("D4", 8), ("D7", 2), ("T", 12), ("O", 24), ("I", 12)]
)
def test_every_rotation_is_one_product(name, number):
    first, swaps = axis_turns(name)
    assert len(swaps) == number and len(first) * number == len(symmetry_rotations(name))
    products = torch.einsum("aij,bjk->abik", first, swaps).reshape(-1, 9)
    distance = torch.cdist(symmetry_rotations(name).reshape(-1, 9), products)
    assert float(distance.min(dim=1).values.max()) < 1e-6 and float(distance.min(dim=0).values.max()) < 1e-6


@pytest.fixture(scope="module")
def images() -> ParticleImages:
    generator = torch.Generator().manual_seed(1)
    points = band_points(BOX, RADIUS, "cpu")
    shape = (2, 3, len(points))
    angles = torch.tensor([[0.0, -40, 0], [0, 0, 0], [0, 55, 0]])
    return ParticleImages(
        data=torch.randn(shape, generator=generator, dtype=torch.complex64),
        transfer=torch.rand(shape, generator=generator),
        points=points,
        rotations=torch.as_tensor(Rotation.from_euler("xyz", angles.numpy(), degrees=True).as_matrix()),
        box_size=BOX,
        pixel_size=4.0,
    )


@pytest.mark.parametrize("name", ["C4", "C6", "D3", "D4", "T", "O", "I"])
def test_a_group_is_the_sum_over_all_its_poses(images, name):
    """Against the images inserted once for each element. Some 400 float32 sums in another order: 400 eps of the map's
    largest value would be the worst case, and their root is what is to be expected."""
    rotation = torch.as_tensor(Rotation.random(2, random_state=3).as_matrix())
    shift = torch.tensor([[3.0, -2.0, 5.0], [0.0, 1.0, -4.0]], dtype=torch.float64)
    grouped, plain = empty_accumulator(BOX, RADIUS, name), empty_accumulator(BOX, RADIUS)
    accumulate(grouped, images, rotation, shift)
    for element in symmetry_rotations(name):
        # a shift belongs to the tomogram, so it is the same for every element
        accumulate(plain, images, rotation @ element, shift)
    ssnr = torch.full((BOX // 2,), 2.0)
    expected, found = average_map(plain, ssnr), average_map(grouped, ssnr)
    assert float(expected.abs().max()) > 0
    assert torch.allclose(found, expected, atol=400 * 1.2e-7 * float(expected.abs().max()))
    other = average_map(replace(grouped, symmetry="C1"), ssnr)
    assert name == "C1" or not torch.allclose(other, expected, atol=0.01 * float(expected.abs().max()))
