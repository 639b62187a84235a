"""IMOD's text files, and the half pixel between its image centre and ours."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tiltwise.data.errors import InputError
from tiltwise.data.tilt_series import TiltGeometry
from tiltwise.io.imod import geometry_from_xf, geometry_to_xf, read_tlt, read_xf, write_tlt, write_xf, xf_distortion
from tiltwise.ops.geometry import project_points, tilt_rotations

XF_FILES = [
    "etomofiles/test_data/TS_001/TS_001.xf",
    "imod_bb/BBa.xf",
    "imod_bb/BBb.xf",
    "imod_bb/BBa_fid_simple-align.xf",
    "lil-aretomo/TS_121.xf",
    "yaimod/xf_file.xf",
]
TLT_FILES = [
    "etomofiles/test_data/TS_001/TS_001.tlt",
    "etomofiles/test_data/TS_001/TS_001.rawtlt",
    "etomofiles/test_data/TS_001/TS_001.xtilt",
    "imod_bb/BBa.tlt",
    "imod_bb/BBa.xtilt",
    "warp2relion-tomo/test_data/TS_02.mrc.tlt",
]


def words(path):
    return [line.split() for line in path.read_text().splitlines() if line.strip()]


@pytest.mark.parametrize("name", XF_FILES)
def test_real_transforms_come_back_from_writing(shared_data, tmp_path, name):
    path = shared_data / "alignment_text" / name
    transforms = read_xf(path)
    assert len(transforms) == len(words(path)) and transforms.shape[1:] == (2, 3)
    write_xf(tmp_path / "x.xf", transforms)
    assert np.array_equal(read_xf(tmp_path / "x.xf"), transforms)
    if "lil-aretomo" not in name:  # AreTomo writes fewer digits than IMOD
        assert words(tmp_path / "x.xf") == words(path)


@pytest.mark.parametrize("name", TLT_FILES)
def test_real_angles_come_back_from_writing(shared_data, tmp_path, name):
    path = shared_data / "alignment_text" / name
    angles = read_tlt(path)
    write_tlt(tmp_path / "x.tlt", angles)
    assert np.array_equal(read_tlt(tmp_path / "x.tlt"), angles) and len(angles) == len(words(path))


def imod_aligned(position, transform, shape):
    """IMOD's rule, written independently: coordinates from the outer edge of the first pixel, turned about n / 2."""
    middle = np.array(shape[::-1]) / 2
    edge = position + 0.5
    return transform[:, :2] @ (edge - middle) + transform[:, 2] + middle - 0.5


@pytest.mark.parametrize("shape", [(64, 64), (63, 64), (64, 63), (63, 63)])
def test_a_point_on_imods_axis_is_on_ours(shape):
    """A specimen point appears where our geometry says; IMOD's transform of that pixel must give the projection of the
    same point about the centre of the aligned image, for even and odd sizes."""
    rng = np.random.default_rng(3)
    pixel_size, angle = 2.7, np.radians(84.3)
    turn = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    transforms = np.concatenate([np.tile(turn, (5, 1, 1)), rng.normal(size=(5, 2, 1)) * 20], axis=2)
    tilts = np.linspace(-60, 60, 5)
    geometry = geometry_from_xf(transforms, tilts, pixel_size=pixel_size, image_shape=shape)
    points = rng.normal(size=(4, 3)) * 30
    ours, _ = project_points(torch.as_tensor(points), tilt_rotations(geometry), torch.as_tensor(geometry.shift))
    centre = np.array([n // 2 for n in shape[::-1]])
    for tilt in range(5):
        c, s = np.cos(np.radians(tilts[tilt])), np.sin(np.radians(tilts[tilt]))
        aligned = np.stack([points[:, 0] * c + points[:, 2] * s, points[:, 1]], axis=1) / pixel_size
        for point in range(4):
            pixel = ours[tilt, point].numpy() / pixel_size + centre
            expected = aligned[point] + (np.array(shape[::-1]) - 1) / 2
            assert np.allclose(imod_aligned(pixel, transforms[tilt], shape), expected, atol=1e-9)


def test_the_half_pixel_is_there_for_even_sizes_only():
    identity = np.array([[[1.0, 0, 0], [0, 1, 0]]])
    even = geometry_from_xf(identity, [0.0], pixel_size=2.0, image_shape=(64, 64))
    odd = geometry_from_xf(identity, [0.0], pixel_size=2.0, image_shape=(63, 63))
    assert even.shift.tolist() == [[-1.0, -1.0]] and odd.shift.tolist() == [[0.0, 0.0]]


@given(st.lists(st.floats(-179, 179), min_size=1, max_size=4), st.integers(10, 11), st.integers(10, 11))
def test_geometry_comes_back_through_transforms(axes, height, width):
    rng = np.random.default_rng(0)
    count = len(axes)
    geometry = TiltGeometry(
        tilt_angle=rng.normal(size=count),
        tilt_axis_angle=np.array(axes),
        x_tilt=rng.normal(size=count),
        shift=rng.normal(size=(count, 2)) * 100,
    )
    sizes = {"pixel_size": 1.35, "image_shape": (height, width)}
    back = geometry_from_xf(geometry_to_xf(geometry, **sizes), geometry.tilt_angle, x_tilt=geometry.x_tilt, **sizes)
    assert np.allclose(back.tilt_axis_angle, geometry.tilt_axis_angle, atol=1e-9)
    assert np.allclose(back.shift, geometry.shift, atol=1e-9)
    assert np.array_equal(back.x_tilt, geometry.x_tilt)


def test_aretomos_own_numbers_agree_with_its_transforms(shared_data):
    """AreTomo's .aln states the axis ROT and the shift TX, TY that its .xf holds in other form, to three decimals."""
    folder = shared_data / "alignment_text/lil-aretomo"
    rows = np.loadtxt([line for line in (folder / "TS_121.aln").read_text().splitlines()[:34] if line[:1] != "#"])
    transforms = read_xf(folder / "TS_121.xf")
    geometry = geometry_from_xf(transforms[: len(rows)], rows[:, -1], pixel_size=1.0, image_shape=(7, 7))
    assert np.allclose(geometry.tilt_axis_angle, rows[:, 1], atol=0.1)
    assert np.allclose(geometry.shift, rows[:, 3:5], atol=0.15)


def test_stretch_is_measured_and_too_much_is_refused(shared_data):
    assert xf_distortion(read_xf(shared_data / "alignment_text/etomofiles/test_data/TS_001/TS_001.xf")).max() < 1e-6
    assert 0.01 < xf_distortion(read_xf(shared_data / "alignment_text/imod_bb/BBa.xf")).max() < 0.05
    sizes = {"pixel_size": 1.0, "image_shape": (8, 8)}
    with pytest.raises(InputError, match="tilt 2 departs from a rotation by 20 %"):
        geometry_from_xf(np.array([np.eye(2, 3), 1.2 * np.eye(2, 3)]), [0, 3], **sizes)
    with pytest.raises(InputError, match="departs from a rotation"):
        geometry_from_xf(np.array([[[1.0, 0, 0], [0, -1, 0]]]), [0], **sizes)
    with pytest.raises(InputError, match="2 transforms, 1 tilt angles"):
        geometry_from_xf(np.array([np.eye(2, 3)] * 2), [0], **sizes)


@pytest.mark.parametrize(
    "reader, text, fault",
    [
        (read_xf, "1 0 0 1 0\n", "line 1: expected 6"),
        (read_xf, "1 0 0 1 0 x\n", "line 1: '1 0 0 1 0 x' is not a number"),
        (read_tlt, "1.0\n\ntwo\n", "line 3: 'two' is not a number"),
        (read_tlt, "1.0 2.0\n", "line 1: expected 1"),
        (read_tlt, "nan\n", "line 1: expected 1 finite"),
        (read_tlt, "\n", "holds no numbers"),
    ],
)
def test_faulty_files_give_one_line(tmp_path, reader, text, fault):
    path = tmp_path / "x.txt"
    path.write_text(text)
    with pytest.raises(InputError, match=fault) as caught:
        reader(path)
    assert str(path) in str(caught.value)


def test_decimal_commas_in_angles(tmp_path):
    (tmp_path / "x.rawtlt").write_text("-57,00\r\n-54,5\r\n")
    assert read_tlt(tmp_path / "x.rawtlt").tolist() == [-57.0, -54.5]


@pytest.mark.parametrize("series", ["BBa", "BBb"])
def test_imods_own_bead_model_proves_tilt_sign_and_centre(shared_data, series):
    """A bundle adjustment solved by IMOD: its 3D beads, turned by its angles with our sign and taken back through its
    transforms, stand where it measured them, to its own residuals; the centre of the 512 px images is at 255.5."""
    folder = shared_data / "alignment_text/imod_bb"
    beads = np.array([line.split()[1:4] for line in (folder / f"{series}fid.xyz").read_text().splitlines()], float)
    measured = np.loadtxt(folder / f"{series}.resid", skiprows=1)
    view = measured[:, 2].astype(int)
    bead = np.concatenate([[0], np.cumsum(np.diff(view) <= 0)])
    transforms, angles = read_xf(folder / f"{series}.tltxf"), read_tlt(folder / f"{series}.tlt")
    unturned = TiltGeometry(
        tilt_angle=angles, tilt_axis_angle=0 * angles, x_tilt=0 * angles, shift=np.zeros((len(angles), 2))
    )
    points = torch.as_tensor(beads - [256, 256, 0])  # IMOD's model coordinates count from the outer edge of a pixel
    turned, _ = project_points(points, tilt_rotations(unturned), torch.zeros(len(angles), 2))
    expected = turned.numpy()[view, bead] + 255.5
    found = np.array([
        imod_aligned(point - 0.5, transforms[tilt], (512, 512))
        for point, tilt in zip(measured[:, :2], view, strict=True)
    ])  # fmt: skip
    matrix = transforms[view, :, :2]
    difference = np.linalg.solve(matrix, (found - expected)[:, :, None])[
        :, :, 0
    ]  # measured - predicted, in the raw image
    assert np.abs(difference.mean(axis=0)).max() < 0.01
    # IMOD's residual is predicted - measured. The angles, beads and residuals in the files carry two decimals.
    assert np.sqrt(((difference + measured[:, 3:5]) ** 2).sum(axis=1).mean()) < 0.2
