"""The compiled projection of points equals its plain twin, and keeps weight and place."""

import numpy as np
from scipy.spatial.transform import Rotation

from tiltwise.ops.point_projection import project_points_plain, project_points_to_slabs


def _points(number: int = 500):
    rng = np.random.default_rng(0)
    return rng.normal(0, 5, (number, 3)), rng.uniform(0.5, 1.5, (number, 2))


def test_compiled_equals_plain():
    point, weight = _points()
    rotation, offset = Rotation.random(3, random_state=1).as_matrix(), np.array([[0.2, -0.3], [0, 0], [20, 14.7]])
    args = (point, weight, rotation, offset, (3, 6.0), 48)
    fast, plain = project_points_to_slabs(*args), project_points_plain(*args)
    assert np.abs(fast - plain).sum() / np.abs(plain).sum() < 1e-4  # float32: a few points change pixel or slab


def test_weight_and_centroid_are_kept():
    point, weight = _points()
    rotation, offset = Rotation.random(1, random_state=2).as_matrix(), np.array([[0.25, -0.4]])
    image = project_points_plain(point, weight, rotation, offset, (1, 100.0), 64)[0, 0]
    assert np.allclose(image.sum(axis=(0, 1)), weight.sum(axis=0))
    axis = np.arange(64) - 32
    expected = np.average(point @ rotation[0].T, axis=0, weights=weight[:, 0])[:2] + offset[0]
    total = image[..., 0].sum()
    assert np.allclose(
        [(image[..., 0].sum(0) * axis).sum() / total, (image[..., 0].sum(1) * axis).sum() / total], expected
    )
