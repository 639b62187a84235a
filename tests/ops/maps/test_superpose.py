"""A map moved by a known motion is brought back; the interpolation keeps the band."""

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from tiltwise.data.volume import Volume
from tiltwise.ops.filters import low_pass
from tiltwise.ops.fsc import fourier_shell_correlation
from tiltwise.ops.maps.superpose import RigidMotion, move_map, superpose
from tiltwise.ops.masks import soft_sphere

N, VOXEL = 32, 5.0


@pytest.fixture(scope="module")
def density() -> Volume:
    rng = np.random.default_rng(0)
    white = torch.from_numpy(rng.normal(size=(N, N, N)).astype(np.float32)) * soft_sphere((N, N, N), 8, 3)
    return Volume(data=low_pass(white, 12.0, VOXEL).numpy(), voxel_size=VOXEL)


def _motion() -> RigidMotion:
    return RigidMotion(
        rotation=Rotation.from_rotvec([4.0, -3.0, 5.0], degrees=True).as_matrix(), shift=np.array([4.0, -3.0, 5.0])
    )


def test_motions_compose():
    motion, points = _motion(), np.random.default_rng(1).normal(size=(5, 3))
    identity = motion.after(motion.inverse())
    assert np.allclose(identity.rotation, np.eye(3)) and np.allclose(identity.shift, 0)
    twice = motion.after(motion)
    once = points @ motion.rotation.T + motion.shift
    assert np.allclose(once @ motion.rotation.T + motion.shift, points @ twice.rotation.T + twice.shift)


def test_a_map_moved_and_moved_back_is_the_same(density):
    moved = Volume(data=move_map(density, _motion(), density).numpy(), voxel_size=VOXEL)
    back = move_map(moved, _motion().inverse(), density)
    mask = soft_sphere((N, N, N), 11, 3)
    fsc = fourier_shell_correlation(back * mask, torch.from_numpy(density.data) * mask)
    assert fsc[1 : N // 2 - 3].min() > 0.99


@pytest.mark.parametrize("noise", [0.0, 1.0])
def test_known_motion_is_found(density, noise):
    """The error of a rotation by least squares with voxel noise σ is σ / |∂f/∂ω|; half a degree is far above it."""
    moved = move_map(density, _motion(), density).numpy()
    rng = np.random.default_rng(2)
    moved = moved + noise * moved.std() * rng.normal(size=moved.shape).astype(np.float32)
    found = superpose(Volume(data=moved, voxel_size=VOXEL), density, soft_sphere((N, N, N), 11, 3))
    error = found.after(_motion())
    assert np.degrees(Rotation.from_matrix(error.rotation).magnitude()) < (0.05 if noise == 0 else 0.5)
    assert np.linalg.norm(error.shift) < (0.05 if noise == 0 else 0.3)


def test_other_box_and_voxel(density):
    fine = Volume(data=np.zeros((64, 64, 64), np.float32), voxel_size=4.0)
    moved = move_map(density, RigidMotion.identity(), fine)
    back = move_map(Volume(data=moved.numpy(), voxel_size=4.0), RigidMotion.identity(), density)
    fsc = fourier_shell_correlation(back, torch.from_numpy(density.data))
    assert fsc[1 : N // 2 - 3].min() > 0.99


def test_maps_with_nothing_in_common_stay_where_they_are(density):
    mask, start = soft_sphere((N, N, N), 11, 3), _motion()
    empty = Volume(data=np.zeros((N, N, N), np.float32), voxel_size=VOXEL)
    for moving, fixed in ((empty, density), (density, empty), (empty, empty)):
        found = superpose(moving, fixed, mask, start)
        assert np.array_equal(found.rotation, start.rotation) and np.array_equal(found.shift, start.shift)
    against = Volume(data=-density.data, voxel_size=VOXEL)  # every shell correlates with -1
    found = superpose(against, density, mask)
    assert np.isfinite(found.rotation).all() and np.isfinite(found.shift).all()
