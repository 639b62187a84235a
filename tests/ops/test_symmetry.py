"""Point groups: order, closure, settings; the average of a map over one."""

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from tiltwise.data.errors import InputError
from tiltwise.ops.interpolate import rotate_volume
from tiltwise.ops.symmetry import symmetrise_volume, symmetry_operations, symmetry_rotations

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


RISE, TWIST = 24.0, 55.0
"""Å and degrees of a helix of Gaussians."""


def helix_blobs(first, last, seed=0):
    """(blob, 3) Å: five places of a subunit, 20 to 50 Å from the axis, in each place of the helix."""
    rng = np.random.default_rng(seed)
    angle, radius = rng.uniform(0, 2 * np.pi, 5), rng.uniform(20, 50, 5)
    unit = np.stack([radius * np.cos(angle), radius * np.sin(angle), rng.uniform(0, RISE, 5)], -1)
    places = range(first, last + 1)
    turned = [Rotation.from_euler("z", TWIST * i, degrees=True).apply(unit) + [0, 0, RISE * i] for i in places]
    return np.concatenate(turned)


def helix_map(box, pixel, sigma):
    """(z, y, x) the helix in closed form, long enough that the box does not see its ends."""
    axis = (np.arange(box) - box // 2) * pixel
    factors = [np.exp(-((axis[:, None] - c) ** 2) / (2 * sigma**2)) for c in helix_blobs(-12, 12).T]
    return torch.as_tensor(np.einsum("zb,yb,xb->zyx", *factors[::-1]).astype(np.float32))


def test_a_helix_stays_itself_and_what_is_none_becomes_one():
    truth = helix_map(32, 8.0, 14.0)
    name = f"H({RISE},{TWIST},7)"
    averaged = symmetrise_volume(truth, name, 8.0)
    inner = (slice(3, -3),) * 3  # a cubic spline takes the volume as periodic near its faces
    # cubic splines of order 3 leave (pixel / sigma)^4 / 720 or so of a Gaussian, 1.5e-4
    assert (averaged - truth)[inner].abs().max() < 0.01 * truth.max()
    noisy = truth + torch.randn(truth.shape, generator=torch.Generator().manual_seed(0)) * truth.std()
    left = (symmetrise_volume(noisy, name, 8.0) - truth)[10:-10, 8:-8, 8:-8].std() / truth.std()
    assert left < 1 / np.sqrt(7) * 1.1
    wrong = symmetrise_volume(truth, f"H({RISE},{-TWIST},7)", 8.0)
    assert (wrong - truth)[inner].abs().max() > 0.3 * truth.max()


def test_one_unit_of_a_helix_is_no_symmetry():
    volume = torch.randn(8, 8, 8)
    assert torch.equal(symmetrise_volume(volume, "H(10, 20, 1)"), volume)
    turns, shifts = symmetry_operations("h(10,20,1)")
    assert torch.equal(turns, torch.eye(3).double()[None]) and not shifts.any()
    assert torch.equal(symmetry_rotations("H(10,20,5)"), torch.eye(3).double()[None])
    assert symmetry_operations("H(10,20,4)")[1][:, 2].tolist() == [0, 10, -10, -20]


@pytest.mark.parametrize("name", ["H", "H(1,2)", "H(0,10,3)", "H(10,400,3)", "H(10,20,0)", "H(10,20,2.5)", "H(a,b,c)"])
def test_what_is_no_helix_is_said(name):
    with pytest.raises(InputError, match="symmetry 'H"):
        symmetry_operations(name)
