"""Turns about an axis that leave a map as it is are found, and no others; closed form of their shares."""

import numpy as np
import pytest
import torch

from tiltwise.ops.interpolate import centred_points
from tiltwise.ops.maps.rotational_symmetry import find_rotational_symmetry

VOXEL, SIDE = 4.0, 32


def ring(amplitudes: dict[int, float], centre: tuple[float, float] = (0.0, 0.0)) -> torch.Tensor:
    """A soft ring of radius 32 Å about an axis along z, its density 1 + Σ a_m cos(m φ)."""
    x, y, z = (centred_points((SIDE,) * 3) * VOXEL).unbind(-1)
    x, y = x - centre[0], y - centre[1]
    rho, phi = (x**2 + y**2).sqrt(), torch.atan2(y, x)
    wave = 1 + sum(a * torch.cos(m * phi) for m, a in amplitudes.items())
    return torch.exp(-(((rho - 32) / 8) ** 2) - (z / 16) ** 2) * wave


def noisy(density: torch.Tensor, level: float) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(7)
    return tuple(density + level * torch.randn(density.shape, generator=generator) for _ in range(2))


def find(halves, **more):
    return find_rotational_symmetry(*halves, VOXEL, radius=52.0, height=56.0, resolution=16.0, **more)


def test_shares_are_those_of_the_harmonics():
    """p_m goes as a_m²: of a_2 = 0.6 and a_3 = 0.3, order 2 has 0.36 / 0.45 = 0.8 and order 3 has 0.2; 6 has nothing.
    Linear interpolation on 2 Å at features of 16 Å and more loses 1 - sinc²(1/8) = 5 % of an amplitude at most."""
    ring_map = ring({2: 0.6, 3: 0.3})
    found = find((ring_map, ring_map))
    assert found.order == 2
    assert found.share[2] == pytest.approx(0.8, abs=0.02)
    assert found.share[3] == pytest.approx(0.2, abs=0.02)
    assert abs(found.share[6]) < 0.01
    assert found.correlation[0] == pytest.approx(1.0, abs=1e-6)


@pytest.mark.parametrize("order", [1, 3, 6])
def test_the_order_of_noisy_halves_is_found_and_not_its_divisor(order):
    """Of C6 the orders 2 and 3 have a share of 1 as well. Without symmetry nothing exceeds its chance by much: here all
    harmonics up to 6 are alike, so that order 2 has 3/6, order 3 has 2/6, order 5 and 6 have 1/6. Half-way between the
    turns of Cn the correlation falls by 2 p_n = 0.25 / 1.13 = 0.22; three quarters of that are asked."""
    waves = dict.fromkeys(range(1, 7), 0.25) if order == 1 else {order: 0.5, 2 * order: 0.1}
    found = find(noisy(ring(waves), 0.3))
    if order == 1:
        assert max(found.share[n] - 1 / n for n in range(2, 9)) < 0.15
    else:
        assert found.order == order
        assert found.share[order] > 0.9
        turned = found.correlation[int(360 / order)]
        assert turned == pytest.approx(found.correlation[0], abs=0.05)
        assert found.correlation[int(180 / order)] < found.correlation[0] - 0.16


def test_an_axis_beside_the_middle_is_found():
    """The ring's axis stands 10 and -6 Å off; the simplex starts on a grid of 5 Å and must come within a voxel."""
    found = find(noisy(ring({6: 0.5}, centre=(10.0, -6.0)), 0.05), reach=14.0, orders=(5, 6))
    assert found.order == 6
    assert np.hypot(*(found.point - [10.0, -6.0])) < VOXEL / 2


def test_noise_has_no_symmetry():
    """Independent halves: nothing reaches the least correlation that counts, and no share comes near 1."""
    found = find(noisy(torch.zeros((SIDE,) * 3), 1.0))
    assert max(found.share.values()) < 0.5
