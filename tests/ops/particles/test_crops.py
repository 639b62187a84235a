"""Crops of tilt images and their transforms: closed forms, and the compiled functions against their plain twins."""

import numpy as np
import pytest
import torch

from tiltwise.ops.particles.images import (
    crop_transforms,
    cut_windows,
    cut_windows_plain,
    read_points,
    read_points_plain,
    unit_phase,
)
from tiltwise.ops.particles.slices import band_points


@pytest.mark.parametrize("box_size", [16, 17])
def test_a_bright_pixel_turns_the_phase_by_its_distance_from_the_position(box_size):
    """The crop of a delta at pixel d about position q has the transform exp(-2πi k·(d - q) / n)."""
    images = torch.zeros(2, 40, 50)
    images[0, 21, 30], images[1, 18, 27] = 3.0, -2.0
    position = torch.tensor([[[29.3, 20.6], [33.9, 17.2]], [[26.5, 19.4], [28.0, 18.0]]], dtype=torch.float64)
    points = band_points(box_size, 6.5)
    found = crop_transforms(images, position, points, box_size)
    for tilt, (height, pixel) in enumerate([(3.0, (30, 21)), (-2.0, (27, 18))]):
        for particle in range(2):
            away = np.array(pixel) - position[tilt, particle].numpy()
            expected = height * np.exp(-2j * np.pi * (points.numpy() @ away) / box_size)
            # float32 throughout, sums of few terms: some ten roundings of 6e-8
            assert np.abs(found[particle, tilt].numpy() - expected).max() < 3e-6


def test_what_lies_beyond_the_image_is_nought():
    image = torch.arange(1.0, 31.0).reshape(5, 6)
    corner = torch.tensor([[-2, -1], [4, 3], [0, 0], [9, 1], [1, -7]])
    windows = cut_windows(image, corner, 4)
    padded = torch.nn.functional.pad(image, (10, 10, 10, 10))
    for window, (x, y) in zip(windows, corner.tolist(), strict=True):
        assert torch.equal(window, padded[y + 10 : y + 14, x + 10 : x + 14])
    assert torch.equal(windows, cut_windows_plain(image, corner, 4))


def test_points_are_read_as_by_the_plain_twin():
    generator = torch.Generator().manual_seed(0)
    spectrum = torch.randn(3, 12, 7, dtype=torch.complex64, generator=generator)
    points = band_points(12, 5.0)
    place = (points[:, 1].long() % 12, points[:, 0].long())
    phase = tuple(unit_phase(torch.rand(3, n, dtype=torch.float64, generator=generator) * 6) for n in (12, 6))
    compiled, plain = (torch.empty(3, len(points), dtype=torch.complex64) for _ in range(2))
    read_points(spectrum, place, phase, compiled)
    read_points_plain(spectrum, place, phase, plain)
    assert (compiled - plain).abs().max() < 1e-6 * spectrum.abs().max()
