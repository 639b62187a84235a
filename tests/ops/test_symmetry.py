"""Point groups: order, closure, settings; the average of a map over one."""

import numpy as np
import pytest
import torch

from tiltwise.data.errors import InputError
from tiltwise.ops.interpolate import rotate_volume
from tiltwise.ops.symmetry import symmetrise_volume, symmetry_rotations

ORDERS = {"C1": 1, "C6": 6, "C13": 13, "D1": 2, "D2": 4, "D7": 14, "T": 12, "O": 24, "I": 60}


@pytest.mark.parametrize(("name", "order"), ORDERS.items())
def test_order_identity_first_and_closure(name, order):
    group = symmetry_rotations(name)
    assert group.shape == (order, 3, 3) and group.dtype == torch.float64
    assert torch.allclose(group[0], torch.eye(3).double())
    products = torch.einsum("aij,bjk->abik", group, group).reshape(-1, 9)
    nearest = torch.cdist(products, group.reshape(-1, 9)).min(dim=1).values
    assert nearest.max() < 1e-6
    assert torch.allclose(torch.linalg.det(group), torch.ones(order).double())


def contains(name, matrix):
    return bool((symmetry_rotations(name) - torch.tensor(matrix).double()).abs().amax((1, 2)).min() < 1e-9)


def test_settings_are_those_of_the_page():
    for name in ("D1", "D2", "D7", "T", "O", "I"):
        assert contains(name, np.diag([1, -1, -1]))
    for name in ("T", "O", "I", "D2"):
        assert contains(name, np.diag([-1, -1, 1]))
    assert contains("O", [[0, -1, 0], [1, 0, 0], [0, 0, 1]])
    five = np.array([0.85065081, 0, 0.52573111])
    turned = symmetry_rotations("I").numpy() @ five
    assert (np.linalg.norm(turned - five, axis=1) < 1e-6).sum() == 5


@pytest.mark.parametrize("name", ["C0", "X3", "C", "I3", "D0", ""])
def test_no_such_group(name):
    with pytest.raises(InputError, match="point group"):
        symmetry_rotations(name)


@pytest.mark.parametrize("n", [32, 33])
def test_symmetrised_volume_has_the_symmetry(n):
    z, y, x = torch.meshgrid(*[torch.arange(n, dtype=torch.float64) - n // 2] * 3, indexing="ij")
    volume = torch.exp(-((x - 6) ** 2 + (y - 1) ** 2 + (z - 2) ** 2) / 5)
    result = symmetrise_volume(volume, "C4")
    quarter = torch.tensor([[0.0, -1, 0], [1, 0, 0], [0, 0, 1]]).double()
    assert torch.allclose(rotate_volume(result, quarter), result, atol=1e-6)
    expected = sum(
        torch.exp(-((x - a) ** 2 + (y - b) ** 2 + (z - 2) ** 2) / 5) / 4
        for a, b in [(6, 1), (-1, 6), (-6, -1), (1, -6)]
    )
    assert torch.allclose(result, expected, atol=1e-6)
