"""Sampling between voxels: the centre n // 2, the order of axes, and how exact the two methods are."""

import numpy as np
import pytest
import torch
from scipy import ndimage
from scipy.spatial.transform import Rotation

from tiltwise.ops.interpolate import centred_points, rotate_volume, sample_volume

SHAPES = [(20, 24, 28), (21, 23, 27)]


def gaussian(shape, position, sigma):
    points = centred_points(shape)
    return torch.exp(-((points - torch.tensor(position).double()) ** 2).sum(-1) / (2 * sigma**2))


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("method", ["linear", "cubic"])
def test_samples_are_met_and_vectors_are_xyz(shape, method):
    volume = torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    point = torch.tensor([2.0, -3.0, 4.0])
    centre = [n // 2 for n in shape]
    value = sample_volume(volume, point, method=method)
    assert float(value) == pytest.approx(float(volume[centre[0] + 4, centre[1] - 3, centre[2] + 2]), abs=1e-9)
    everywhere = sample_volume(volume, centred_points(shape), method=method)
    assert torch.allclose(everywhere, volume, atol=1e-9)


def test_linear_is_scipys_linear():
    volume = torch.randn(9, 10, 11, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    points = torch.rand(200, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(2)) * 8 - 4
    index = points.numpy()[:, ::-1].T + np.array([4, 5, 5])[:, None]
    expected = ndimage.map_coordinates(volume.numpy(), index, order=1, mode="grid-constant")
    assert np.allclose(sample_volume(volume, points).numpy(), expected, atol=1e-9)


def test_cubic_is_scipys_periodic_spline():
    volume = torch.randn(9, 10, 11, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    points = torch.rand(200, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(4)) * 8 - 4
    index = points.numpy()[:, ::-1].T + np.array([4, 5, 5])[:, None]
    expected = ndimage.map_coordinates(volume.numpy(), index, order=3, mode="grid-wrap")
    assert np.allclose(sample_volume(volume, points, method="cubic").numpy(), expected, atol=1e-9)


@pytest.mark.parametrize("shape", [(32, 32, 32), (33, 33, 33)])
@pytest.mark.parametrize(("method", "tolerance"), [("linear", 0.05), ("cubic", 0.002)])
def test_rotation_is_active_about_the_centre(shape, method, tolerance):
    # Interpolation error of a Gaussian of sigma h: linear h''/8 per axis gives at most 3/(8·9) = 0.042 at sigma 3;
    # the cubic spline's error constant is below a twentieth of that.
    rotation = Rotation.from_euler("xyz", [20, -35, 70], degrees=True)
    start = np.array([5.0, -2.0, 3.0])
    turned = rotate_volume(gaussian(shape, start, 3.0), torch.tensor(rotation.as_matrix()), method=method)
    expected = gaussian(shape, rotation.apply(start), 3.0)
    assert (turned - expected).abs().max() < tolerance


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_kernel_and_its_plain_twin_give_the_same(dtype):
    # 64 products of O(1) weights and values are rounded some hundred times: 100 eps, with values up to 5.
    generator = torch.Generator().manual_seed(3)
    volume = torch.randn(9, 12, 10, generator=generator, dtype=dtype)
    points = (torch.rand(5000, 3, generator=generator, dtype=dtype) - 0.5) * 16
    fast = sample_volume(volume, points, method="cubic")
    plain = sample_volume(volume, points.clone().requires_grad_(), method="cubic").detach()
    assert fast.dtype == plain.dtype == dtype
    assert (plain == 0).any() and torch.equal(plain == 0, fast == 0)
    assert torch.allclose(fast, plain, rtol=0, atol=500 * torch.finfo(dtype).eps)


@pytest.mark.parametrize("shape", SHAPES)
def test_zero_outside(shape):
    volume = torch.ones(shape, dtype=torch.float64)
    far = torch.tensor([[40.0, 0, 0], [0, -40.0, 0], [0, 0, 40.0]])
    for method in ("linear", "cubic"):
        assert (sample_volume(volume, far, method=method) == 0).all()


def test_gradient_with_respect_to_points():
    volume = torch.randn(8, 9, 10, dtype=torch.float64, generator=torch.Generator().manual_seed(5))
    points = torch.tensor([[0.3, -1.2, 2.4], [1.7, 0.6, -0.9]], dtype=torch.float64, requires_grad=True)
    for method in ("linear", "cubic"):
        assert torch.autograd.gradcheck(lambda p, m=method: sample_volume(volume, p, method=m), (points,))
