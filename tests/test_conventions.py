"""docs/conventions.md, line by line, in numbers written by hand. What each number follows from stands beside it."""

import math
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from tiltwise.data.optics import Ctf, Optics
from tiltwise.data.tilt_series import TiltGeometry
from tiltwise.data.units import Unit
from tiltwise.io.euler import euler_to_rotation
from tiltwise.ops.ctf import astigmatic_defocus, ctf, ctf_phase, electron_wavelength
from tiltwise.ops.exposure import critical_exposure, exposure_amplitude
from tiltwise.ops.fourier import fourier_rescale, frequency_grid_2d, shift_phase
from tiltwise.ops.fsc import first_crossing
from tiltwise.ops.geometry import defocus_at_depth, plane_depth, project_points, tilt_rotations
from tiltwise.ops.interpolate import centred_points, rotate_volume, sample_volume
from tiltwise.ops.masks import soft_sphere

ROOT = Path(__file__).parents[1]
C60, S60 = 0.5, math.sqrt(3) / 2


def geometry(tilt=0.0, axis=0.0, x_tilt=0.0, shift=(0.0, 0.0)):
    """The geometry of one image."""
    one = [np.array([value], dtype=float) for value in (tilt, axis, x_tilt)]
    return TiltGeometry(tilt_angle=one[0], tilt_axis_angle=one[1], x_tilt=one[2], shift=np.array([shift], dtype=float))


def project(point, known):
    """x, y from the image centre and depth of one point in one image."""
    position, depth = project_points(
        torch.tensor(np.array([point], dtype=float)), tilt_rotations(known), torch.as_tensor(known.shift)
    )
    return [float(position[0, 0, 0]), float(position[0, 0, 1]), float(depth[0, 0])]


# Units ----------------------------------------------------------------------------------------------------------------


def test_types_carry_no_unit_suffix():
    suffixes = ("_A", "_px", "_deg", "_nm", "_um", "_rad", "_kV", "_mm")
    for kind in (TiltGeometry, Ctf, Optics):
        assert not [field.name for field in fields(kind) if field.name.endswith(suffixes)]
    assert Unit("Å").symbol == "Å"


# Axes and centres -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(8, 10, 12), (9, 11, 13), (8, 11, 12)])
def test_arrays_are_zyx_vectors_xyz_and_the_centre_is_n_over_2(shape):
    volume = torch.zeros(shape, dtype=torch.float64)
    volume[shape[0] // 2 + 1, shape[1] // 2 + 2, shape[2] // 2 + 3] = 7.0
    point = torch.tensor([3.0, 2.0, 1.0], dtype=torch.float64)
    assert float(sample_volume(volume, point)) == 7.0
    assert centred_points(shape)[shape[0] // 2, shape[1] // 2, shape[2] // 2].tolist() == [0, 0, 0]
    assert float(soft_sphere(shape, 0.0, 0.0)[shape[0] // 2, shape[1] // 2, shape[2] // 2]) == 1.0


@pytest.mark.parametrize("n", [16, 17])
def test_rotations_are_right_handed_and_active(n):
    volume = torch.zeros(n, n, n, dtype=torch.float64)
    volume[n // 2, n // 2, n // 2 + 5] = 1.0  # on +x
    quarter = torch.tensor([[0.0, -1, 0], [1, 0, 0], [0, 0, 1]], dtype=torch.float64)  # +90° about z
    turned = rotate_volume(volume, quarter, method="linear")
    assert float(turned[n // 2, n // 2 + 5, n // 2]) == pytest.approx(1.0)  # x goes to +y


@pytest.mark.parametrize("b", [2, 3, 4])
@pytest.mark.parametrize("n", [24, 25, 26, 27, 36, 48])
def test_fourier_cropping_keeps_the_centre(n, b):
    delta = torch.zeros(n, dtype=torch.float64)
    delta[n // 2] = 1.0
    small = fourier_rescale(delta, (n // b,))
    m = n // b
    assert int(small.argmax()) == m // 2
    left, right = small[: m // 2].flip(0), small[m // 2 + 1 :]
    common = min(len(left), len(right))
    assert torch.allclose(left[:common], right[:common], atol=1e-12)  # it is even about m // 2: moved by nothing
    assert float(small.mean()) == pytest.approx(float(delta.mean()))


@pytest.mark.parametrize("b", [2, 3, 4])
def test_block_averages_move_the_centre_by_half_a_block(b):
    n = 24 * b
    position = torch.arange(n, dtype=torch.float64)
    blocks = position.reshape(-1, b).mean(1)  # where the samples of a block average lie, in unbinned pixels
    assert float(blocks[24 // 2]) - n // 2 == (b - 1) / 2


def test_positions_are_kept_by_cropping_off_the_centre_too():
    n, m = 48, 24
    x = torch.arange(n, dtype=torch.float64) - n // 2
    sigma = 3.2  # its transform is 3e-6 where it is cut, its tail 1e-7 at the border
    small = fourier_rescale(torch.exp(-((x - 6) ** 2) / (2 * sigma**2)), (m,))
    y = (torch.arange(m, dtype=torch.float64) - m // 2) * n / m
    assert torch.allclose(small, torch.exp(-((y - 6) ** 2) / (2 * sigma**2)), atol=1e-5)


def test_a_shift_moves_towards_plus():
    image = torch.zeros(16, 18, dtype=torch.float64)
    image[8, 9] = 1.0
    phase = shift_phase(frequency_grid_2d((16, 18), 2.0), torch.tensor([6.0, -4.0]))  # Å, at 2 Å a pixel
    moved = torch.fft.irfft2(torch.fft.rfft2(image) * phase, s=(16, 18))
    assert np.unravel_index(int(moved.argmax()), (16, 18)) == (8 - 2, 9 + 3)


# Geometry of a tilt ---------------------------------------------------------------------------------------------------


def test_order_and_signs_of_the_tilt_matrix():
    assert project((100, 200, 300), geometry()) == pytest.approx([100, 200, 300])
    # Ry(60): x' = x cos + z sin, z' = -x sin + z cos
    assert project((1000, 0, 500), geometry(tilt=60)) == pytest.approx(
        [1000 * C60 + 500 * S60, 0, -1000 * S60 + 500 * C60]
    )
    # Rx(10) comes first: y' = y cos - z sin, z' = y sin + z cos
    c, s = math.cos(math.radians(10)), math.sin(math.radians(10))
    x, y, z = 100.0, 200 * c - 300 * s, 200 * s + 300 * c
    expected = [x * C60 + z * S60, y, -x * S60 + z * C60]
    assert project((100, 200, 300), geometry(tilt=60, x_tilt=10)) == pytest.approx(expected)
    # Rz(85) comes last: what lay on y, the tilt axis, lies 85° further on from y, counter-clockwise
    a = math.radians(85)
    assert project((0, 1, 0), geometry(tilt=60, axis=85)) == pytest.approx([-math.sin(a), math.cos(a), 0])
    # the shift is added last, in the image
    assert project((0, 1, 0), geometry(tilt=60, axis=85, shift=(30, -20))) == pytest.approx(
        [-math.sin(a) + 30, math.cos(a) - 20, 0]
    )


def test_the_matrix_is_the_written_product():
    known = geometry(tilt=-33, axis=85, x_tilt=4)
    product = Rotation.from_euler("ZYX", [85, -33, 4], degrees=True).as_matrix()  # intrinsic: Rz · Ry · Rx
    assert np.allclose(tilt_rotations(known)[0].numpy(), product, atol=1e-12)


def test_the_gauge_of_tilt_offset_and_x_tilt():
    """A common turn of specimen and geometry changes no image."""
    offset = Rotation.from_euler("Y", 7, degrees=True)
    point = np.array([300.0, -200, 150])
    before = project(point, geometry(tilt=20, axis=85))
    after = project(offset.apply(point), geometry(tilt=20 - 7, axis=85))
    assert before == pytest.approx(after)


def test_the_gauge_of_the_half_turn():
    """(axis, h, X) and (axis + 180°, -h, -X) give the same images and the same CTFs.

    Rz(180°) takes x, y to -x, -y; -X takes x, y, z to their negatives: positions stay, depths and h change sign.
    """
    tilt, point = 35.0, np.array([420.0, -310.0, 260.0])
    one = project(point, geometry(tilt=tilt, axis=85, x_tilt=3, shift=(12, -7)))
    other = project(-point, geometry(tilt=tilt, axis=265, x_tilt=3, shift=(12, -7)))
    assert other[:2] == pytest.approx(one[:2])
    assert other[2] == pytest.approx(-one[2])
    depth = torch.tensor([[one[2]], [other[2]]], dtype=torch.float64)
    base = torch.tensor([30000.0], dtype=torch.float64)
    for h in (1, -1):
        assert float(defocus_at_depth(base, h, depth[:1])) == pytest.approx(
            float(defocus_at_depth(base, -h, depth[1:]))
        )


# Defocus --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("h", [1, -1])
@pytest.mark.parametrize(("axis", "shift"), [(0, (0, 0)), (85, (0, 0)), (85, (120, -340))])
def test_defocus_of_a_point(h, axis, shift):
    # theta = 60°, x = 1000 Å, z = 500 Å: depth = -1000 sin 60 + 500 cos 60 = -616.025 Å, whatever axis and shift
    depth = project((1000, 70, 500), geometry(tilt=60, axis=axis, shift=shift))[2]
    assert depth == pytest.approx(-616.0254037844386)
    value = defocus_at_depth(torch.tensor([30000.0]).double(), h, torch.tensor([[depth]]).double())
    assert float(value) == pytest.approx(30000 - h * 616.0254037844386)


def test_defocus_of_a_point_with_x_tilt():
    # Rx(10): z' = 70 sin 10 + 500 cos 10 = 504.5593..., then depth = -1000 sin 60 + z' cos 60
    z = 70 * math.sin(math.radians(10)) + 500 * math.cos(math.radians(10))
    assert project((1000, 70, 500), geometry(tilt=60, axis=85, x_tilt=10))[2] == pytest.approx(-1000 * S60 + z * C60)


def test_depth_of_a_plane_and_what_a_shift_costs():
    normal = tilt_rotations(geometry(tilt=60))[:, :, 2]  # m = R n with n = z
    seen = torch.tensor([[[0.0, 0.0], [270.0, 0.0]]], dtype=torch.float64)
    depth = plane_depth(normal, 0.0, seen)[0]
    assert float(depth[0]) == pytest.approx(0)
    assert abs(float(depth[1] - depth[0])) == pytest.approx(270 * math.tan(math.radians(60)))
    assert round(abs(float(depth[1]))) == 468
    assert float(depth[1]) < 0  # Ry(60) takes +x towards -z: the plane is lower on the right
    lifted = plane_depth(normal, 100.0, seen)[0]
    assert float(lifted[0]) == pytest.approx(100 / C60)  # H / cos theta, for u' = 0 and n = z only


def test_the_plane_formula_agrees_with_projection():
    known = geometry(tilt=-47, axis=85, x_tilt=6, shift=(40, 90))
    normal = np.array([0.1, -0.2, 0.97])
    normal /= np.linalg.norm(normal)
    height = 130.0
    along = np.cross(normal, [1.0, 0, 0])
    point = normal * height + 333 * along - 210 * np.cross(normal, along)
    x, y, depth = project(point, known)
    m = tilt_rotations(known) @ torch.tensor(normal)
    relative = torch.tensor([[[x - 40, y - 90]]], dtype=torch.float64)
    assert float(plane_depth(m, height, relative)) == pytest.approx(depth)


# Rotations ------------------------------------------------------------------------------------------------------------


def test_euler_adapters():
    z, x = (Rotation.from_rotvec(axis) for axis in ([0, 0, 1.0], [1.0, 0, 0]))
    y = Rotation.from_rotvec([0, 1.0, 0])
    one = np.degrees(1.0)
    # a turn by one angle at a time fixes each sign; the inverse turns the other way
    for axis, place in ((z, 0), (y, 1), (z, 2)):
        angles = np.zeros(3)
        angles[place] = one
        assert same(euler_to_rotation(angles, "relion"), axis.inv())
        assert same(euler_to_rotation(angles, "warp"), axis.inv())
    for axis, place in ((z, 0), (x, 1), (z, 2)):
        angles = np.zeros(3)
        angles[place] = one
        assert same(euler_to_rotation(angles, "stopgap"), axis)
        assert same(euler_to_rotation(angles, "dynamo"), axis.inv())
    # and the order: the reference's own z turn comes first (to the right)
    assert same(euler_to_rotation([one, 0, 0], "stopgap"), z)
    assert same(euler_to_rotation([one, one, 0], "stopgap"), x * z)
    assert same(euler_to_rotation([one, one, 0], "relion"), y.inv() * z.inv())
    assert same(euler_to_rotation([one, one, 0], "dynamo"), z.inv() * x.inv())


def same(a, b):
    return (a.inv() * b).magnitude() < 1e-12


def test_relions_direction_of_projection():
    # RELION: rot and tilt are azimuth and polar angle, in the reference, of the direction that comes to lie on z
    rot, tilt = 40.0, 70.0
    direction = euler_to_rotation([rot, tilt, -123.0], "relion").inv().apply([0, 0, 1])
    r, t = np.radians([rot, tilt])
    assert direction == pytest.approx([np.sin(t) * np.cos(r), np.sin(t) * np.sin(r), np.cos(t)])


# CTF ------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("voltage", "wavelength"), [(100, 0.0370144), (200, 0.0250793), (300, 0.0196875)])
def test_wavelength(voltage, wavelength):
    assert electron_wavelength(voltage) == pytest.approx(wavelength, abs=6e-8)


@pytest.mark.parametrize(
    ("voltage", "defocus", "spacing", "chi", "minus_sine"),
    [
        (300, 30000, 20, 4.7068, 1.0),
        (300, 30000, 10, 18.5927, 0.2540),
        (300, 30000, 5, 73.7723, 0.9985),
        (300, 10000, 10, 6.2227, 0.0604),
        (300, 50000, 10, 30.9627, 0.4378),
        (200, 30000, 20, 5.9751, 0.3033),
        (200, 30000, 10, 23.6399, 0.9970),
    ],
)
def test_phase_and_sign_of_the_ctf(voltage, defocus, spacing, chi, minus_sine):
    optics = Optics(voltage=voltage)
    k = torch.tensor(1 / spacing, dtype=torch.float64)
    dz = torch.tensor(float(defocus), dtype=torch.float64)
    assert float(ctf_phase(k, dz, optics)) == pytest.approx(chi, abs=6e-5)
    assert float(ctf(k, dz, optics)) == pytest.approx(minus_sine, abs=6e-5)


def test_density_is_dark_at_the_origin_and_underfocus_positive():
    zero, dz = torch.tensor(0.0).double(), torch.tensor(30000.0).double()
    assert float(ctf(zero, dz, Optics())) == pytest.approx(-0.07)
    low = torch.tensor(1 / 40).double()
    assert float(ctf(low, dz, Optics())) < -0.07  # underfocus adds to amplitude contrast ...
    assert float(ctf(low, -dz, Optics())) > 0.07  # ... overfocus reverses it
    assert float(ctf(zero, dz, Optics(), 90.0)) == pytest.approx(-math.sin(math.pi / 2 + math.asin(0.07)))


def test_zeros_of_the_ctf():
    for voltage, spacings in ((300, (24.574, 17.276, 14.077, 12.178)), (200, (27.735, 19.497, 15.887))):
        for number, spacing in enumerate(spacings, start=1):
            k = torch.tensor(1 / spacing).double()
            chi = float(ctf_phase(k, torch.tensor(30000.0).double(), Optics(voltage=voltage)))
            # spacings are given to 1e-3 Å, and chi goes as 1/d²: it is known to 2 · 1e-3 / d of itself
            assert chi == pytest.approx(number * math.pi, rel=2e-3 / spacing)


def test_astigmatism_runs_from_x_towards_y():
    u, v = torch.tensor(31000.0).double(), torch.tensor(29000.0).double()
    for azimuth, angle, expected in ((30, 30, 31000), (120, 30, 29000), (0, 0, 31000), (90, 0, 29000), (75, 30, 30000)):
        value = astigmatic_defocus(torch.tensor(math.radians(azimuth)).double(), u, v, torch.tensor(float(angle)))
        assert float(value) == pytest.approx(expected, abs=1e-3)
    swapped = astigmatic_defocus(torch.tensor(0.3).double(), v, u, torch.tensor(120.0).double())
    assert float(swapped) == pytest.approx(
        float(astigmatic_defocus(torch.tensor(0.3).double(), u, v, torch.tensor(30.0).double()))
    )


def test_other_programs_sign_is_the_negative():
    from torch_ctf import calculate_ctf_2d

    theirs = calculate_ctf_2d(
        defocus=3.0, astigmatism=0.0, astigmatism_angle=0.0, voltage=300.0, spherical_aberration=2.7,
        amplitude_contrast=0.07, phase_shift=0.0, pixel_size=4.0, image_shape=(32, 32), rfft=True, fftshift=False,
    )  # fmt: skip
    k = frequency_grid_2d((32, 32), 4.0).double().norm(dim=-1)
    ours = ctf(k, torch.tensor(30000.0).double(), Optics())
    assert float(theirs[..., 0, 0]) == pytest.approx(0.07, abs=1e-6)
    # theirs is computed in float32: chi up to 30 rad is known to about 30 · 6e-8 · a few operations
    assert torch.allclose(theirs.double().squeeze(), -ours, atol=1e-4)


# Exposure -------------------------------------------------------------------------------------------------------------


def test_critical_exposure():
    values = {3: 4.340, 4: 5.277, 5: 6.386, 6: 7.652, 8: 10.625, 10: 14.139, 15: 25.059, 20: 38.726, 40: 116.69}
    for spacing, expected in values.items():
        k = torch.tensor(1 / spacing).double()
        assert float(critical_exposure(k, 300)) == pytest.approx(expected, abs=6e-3 if spacing == 40 else 6e-4)
        assert float(critical_exposure(k, 200)) == pytest.approx(0.8 * expected, abs=6e-3)
        assert float(critical_exposure(k, 100)) == pytest.approx(0.532 * expected, abs=6e-3)


def test_amplitude_left_by_an_exposure():
    k = torch.tensor([0.0, 0.1]).double()
    before, during = torch.tensor(30.0).double(), torch.tensor(3.0).double()
    q = exposure_amplitude(k, before, during, 300)
    assert float(q[0]) == pytest.approx(1.0)
    ne = 0.24499 * 0.1**-1.6649 + 2.8141
    mean = 2 * ne * (math.exp(-30 / (2 * ne)) - math.exp(-33 / (2 * ne))) / 3
    assert float(q[1]) == pytest.approx(mean)
    instant = exposure_amplitude(k, before, torch.tensor(0.0).double(), 300)
    assert float(instant[1]) == pytest.approx(math.exp(-30 / (2 * ne)))
    fresh = exposure_amplitude(k, torch.tensor(0.0).double(), during, 300)  # pre_exposure excludes the image itself
    assert float(fresh[1]) == pytest.approx(2 * ne * (1 - math.exp(-3 / (2 * ne))) / 3)


# Resolution -----------------------------------------------------------------------------------------------------------


def test_resolution_is_the_first_crossing():
    k = torch.arange(5).double() / 100
    assert first_crossing(k, torch.tensor([1, 0.9, 0.1, 0.9, 0.9]).double(), 0.5) == pytest.approx(1 / 0.015)


# The page -------------------------------------------------------------------------------------------------------------


def test_the_page_is_there_and_names_what_is_tested_here():
    page = (ROOT / "docs" / "conventions.md").read_text(encoding="utf-8")
    for said in (
        "n // 2",
        "Rz(tilt_axis_angle) · Ry(tilt_angle) · Rx(x_tilt)",
        "defocus_i + h · depth",
        "468",
        "0.143",
    ):
        assert said in page, said
