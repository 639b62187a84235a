"""Soft masks: where they are 1, where 0, and that the edge is a cosine."""

import numpy as np
import pytest
import torch

from tiltwise.ops.masks import cosine_edge, soft_mask, soft_mask_from_map, soft_sphere


@pytest.mark.parametrize("shape", [(32, 32, 32), (33, 31, 35), (40, 41)])
def test_sphere_about_the_centre(shape):
    mask = soft_sphere(shape, 6.0, 4.0)
    centre = [n // 2 for n in shape]
    for offset, value in [(0, 1.0), (6, 1.0), (8, 0.5), (10, 0.0), (7, 0.5 * (1 + np.cos(np.pi / 4)))]:
        for sign in (1, -1):
            index = list(centre)
            index[-1] += sign * offset
            assert float(mask[tuple(index)]) == pytest.approx(value, abs=1e-6)


def test_hard_edge():
    distance = torch.tensor([-1.0, 0.0, 0.1])
    assert cosine_edge(distance, 0.0).tolist() == [1, 1, 0]


def test_grown_core_keeps_its_euclidean_distance():
    core = np.zeros((21, 21, 21), bool)
    core[10, 10, 10] = True
    assert torch.allclose(soft_mask(core, 3.0, 4.0), soft_sphere((21, 21, 21), 3.0, 4.0), atol=1e-6)


def test_largest_body_is_kept_and_the_mask_ends_within_the_box():
    n = 40
    z, y, x = torch.meshgrid(*[torch.arange(n) - n // 2] * 3, indexing="ij")
    volume = ((x**2 + y**2 + z**2 < 49) | ((x - 12) ** 2 + (y - 4) ** 2 + z**2 < 4)).float()
    mask = soft_mask_from_map(volume, 0.5, 1.0, 3.0)
    assert mask[20, 20, 20] == 1 and mask[20, 24, 34] == 0
    whole = soft_mask_from_map(torch.ones(n, n, n), 0.5, 2.0, 4.0)
    assert whole[0].max() == 0 and whole[:, :, 0].max() == 0 and whole[20, 20, 20] == 1


def test_nothing_above_the_threshold_is_an_empty_mask():
    assert soft_mask_from_map(torch.zeros(16, 16, 16), 0.5, 1.0, 3.0).sum() == 0
