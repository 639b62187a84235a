"""Rotations: Euler adapters, coverage of the grids, exponential and logarithm, distances."""

import numpy as np
import pytest
import torch
from scipy.spatial import cKDTree
from scipy.spatial.transform import Rotation

from tiltwise.io import euler
from tiltwise.ops import rotations
from tiltwise.ops.symmetry import symmetry_rotations


def distance_to_grid(grid, quaternions, symmetry="C1"):
    """Degrees from each rotation to the nearest grid point, modulo the group acting on the reference."""
    group = symmetry_rotations(symmetry).numpy()
    points = np.concatenate([Rotation.from_matrix(grid.numpy() @ g).as_quat() for g in group])
    chord = cKDTree(np.concatenate([points, -points])).query(quaternions)[0]
    return np.degrees(4 * np.arcsin(np.minimum(chord / 2, 1)))


@pytest.mark.parametrize("step", [30, 20, 15, 12, 10, 7.5])
def test_grid_covers_all_rotations_within_083_step(step):
    grid = rotations.rotation_grid(step)
    assert distance_to_grid(grid, Rotation.random(8000, random_state=1).as_quat()).max() <= 0.83 * step
    assert len(grid) <= 1.2 * 8 * np.pi**2 / np.radians(step) ** 3


@pytest.mark.parametrize("symmetry", ["C2", "C3", "C6", "C13", "D1", "D2", "D7", "T", "O", "I"])
def test_symmetry_limited_grid_has_no_holes(symmetry):
    grid = rotations.rotation_grid(10, symmetry)
    random = Rotation.random(3000, random_state=2).as_quat()
    assert distance_to_grid(grid, random, symmetry).max() <= 0.83 * 10
    full, order = len(rotations.rotation_grid(10)), len(symmetry_rotations(symmetry))
    assert full / order <= len(grid) <= 2.2 * full / order


def test_a_group_on_the_wrong_side_would_leave_holes():
    grid = rotations.rotation_grid(10, "C6").numpy()
    group = symmetry_rotations("C6").numpy()
    wrong = np.concatenate([Rotation.from_matrix(g @ grid).as_quat() for g in group])
    chord = cKDTree(np.concatenate([wrong, -wrong])).query(Rotation.random(2000, random_state=3).as_quat())[0]
    assert np.degrees(4 * np.arcsin(chord.max() / 2)) > 15


@pytest.mark.parametrize(("half_angle", "step", "symmetry"), [(20, 5, "C1"), (30, 10, "C6"), (180, 20, "C3")])
def test_cone_grid_covers_its_cone(half_angle, step, symmetry):
    grid = rotations.cone_rotation_grid(half_angle, step, symmetry)
    assert (grid[:, 2, 2] >= np.cos(np.radians(half_angle)) - 1e-9).all()
    random = Rotation.random(100_000, random_state=4)
    inside = random[random.as_matrix()[:, 2, 2] >= np.cos(np.radians(half_angle))][:3000]
    assert distance_to_grid(grid, inside.as_quat(), symmetry).max() <= 0.83 * step


def test_cone_of_zero_is_turns_about_z():
    grid = rotations.cone_rotation_grid(0, 10)
    assert len(grid) == 36
    assert torch.allclose(grid[:, 2, 2], torch.ones(36, dtype=torch.float64))


@pytest.mark.parametrize("convention", ["relion", "warp", "stopgap", "dynamo"])
def test_euler_round_trip(convention):
    random = Rotation.random(200, random_state=5)
    angles = euler.rotation_to_euler(random, convention)
    back = euler.euler_to_rotation(angles, convention)
    assert (random.inv() * back).magnitude().max() < 1e-9


def test_euler_of_the_identity_warns_of_nothing(recwarn):
    assert np.allclose(euler.rotation_to_euler(Rotation.identity(3)), 0)
    assert len(recwarn) == 0


def test_relion_matrix_is_the_transpose_of_its_textbook_rows():
    rot, tilt, psi = np.radians([30.0, 50.0, 70.0])
    (sa, sb, sg), (ca, cb, cg) = np.sin([rot, tilt, psi]), np.cos([rot, tilt, psi])
    rows = [  # Euler_angles2matrix as RELION's users know it: third row is the direction of projection
        [cg * cb * ca - sg * sa, cg * cb * sa + sg * ca, -cg * sb],
        [-sg * cb * ca - cg * sa, -sg * cb * sa + cg * ca, sg * sb],
        [sb * ca, sb * sa, cb],
    ]
    assert np.allclose(euler.euler_to_rotation([30.0, 50.0, 70.0]).as_matrix(), rows, atol=1e-12)


def test_stopgap_is_rz_psi_rx_theta_rz_phi_and_dynamo_its_reverse():
    phi, theta, psi = 25.0, 60.0, -110.0
    c, s = np.cos(np.radians([phi, theta, psi])), np.sin(np.radians([phi, theta, psi]))
    rz_phi, rz_psi = (np.array([[c[i], -s[i], 0], [s[i], c[i], 0], [0, 0, 1]]) for i in (0, 2))
    rx_theta = np.array([[1, 0, 0], [0, c[1], -s[1]], [0, s[1], c[1]]])
    stopgap = euler.euler_to_rotation([phi, theta, psi], "stopgap")
    dynamo = euler.euler_to_rotation([-psi, -theta, -phi], "dynamo")
    assert np.allclose(stopgap.as_matrix(), rz_psi @ rx_theta @ rz_phi, atol=1e-12)
    assert np.allclose(dynamo.as_matrix(), stopgap.as_matrix(), atol=1e-12)


def test_exponential_and_logarithm():
    vectors = torch.tensor(Rotation.random(500, random_state=6).as_rotvec(degrees=True))
    matrices = rotations.rotation_vector_to_matrix(vectors)
    assert np.allclose(matrices.numpy(), Rotation.from_rotvec(vectors.numpy(), degrees=True).as_matrix(), atol=1e-12)
    assert torch.allclose(rotations.matrix_to_rotation_vector(matrices), vectors, atol=1e-6)
    tiny = vectors * 1e-7
    assert torch.allclose(
        rotations.matrix_to_rotation_vector(rotations.rotation_vector_to_matrix(tiny)), tiny, atol=1e-12
    )
    half_turn = torch.tensor([[180.0, 0, 0], [0, 180.0, 0], [0, 0, 180.0]], dtype=torch.float64)
    back = rotations.matrix_to_rotation_vector(rotations.rotation_vector_to_matrix(half_turn))
    assert torch.allclose(back.abs(), half_turn, atol=1e-6)


@pytest.mark.parametrize("scale", [0.0, 1e-6, 0.5, 0.6, 40.0])
def test_gradient_of_the_exponential_is_smooth_at_zero(scale):
    vector = (scale * torch.tensor([0.6, -0.3, 0.7], dtype=torch.float64)).requires_grad_()
    assert torch.autograd.gradcheck(rotations.rotation_vector_to_matrix, (vector,), atol=1e-7)
    if scale < 1:
        matrix = rotations.rotation_vector_to_matrix(vector)
        (gradient,) = torch.autograd.grad(rotations.matrix_to_rotation_vector(matrix)[0], vector)
        assert torch.allclose(gradient, torch.tensor([1.0, 0, 0], dtype=torch.float64), atol=1e-6)


def test_geodesic_angle():
    a, b = (torch.tensor(Rotation.random(100, random_state=i).as_matrix()) for i in (7, 8))
    exact = np.degrees((Rotation.from_matrix(a.numpy()).inv() * Rotation.from_matrix(b.numpy())).magnitude())
    assert np.allclose(rotations.geodesic_angle(a, b).numpy(), exact, atol=1e-6)
    small = rotations.rotation_vector_to_matrix(torch.tensor([1e-6, 0, 0], dtype=torch.float64))
    assert float(rotations.geodesic_angle(a[0] @ small, a[0])) == pytest.approx(1e-6, rel=1e-6)


def test_geodesic_angle_forgets_the_symmetry_of_the_reference():
    a = torch.tensor(Rotation.random(50, random_state=9).as_matrix())
    turn = rotations.rotation_vector_to_matrix(torch.tensor([0.0, 0, 123.0], dtype=torch.float64))
    assert torch.allclose(rotations.geodesic_angle(a @ turn, a, "C6"), torch.full((50,), 3.0).double(), atol=1e-6)
    assert rotations.geodesic_angle(turn @ a, a, "C6").max() > 10
