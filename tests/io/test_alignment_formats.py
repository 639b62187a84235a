"""Alignments of other programs: a 3D point is at the same pixel by our geometry and by an independent implementation of
what each program documents; files of real runs are read; what is written comes back."""

import struct
from dataclasses import replace

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from tiltwise.data.deformation import Deformation, ImageWarp, SampleDeformation
from tiltwise.data.errors import InputError
from tiltwise.data.tilt_series import TiltGeometry
from tiltwise.io.acquisition import read_acquisition
from tiltwise.io.alignment import Alignment, align_series
from tiltwise.io.alignment_files import FORMATS, find_alignment, read_aligned, write_alignments
from tiltwise.io.aretomo import (
    AretomoAlignment,
    LocalShifts,
    from_aretomo,
    local_shift,
    read_aln,
    to_aretomo,
    write_aln,
)
from tiltwise.io.imod import read_tlt, read_xf, write_tlt, write_xf
from tiltwise.io.imod_com import read_imod, read_newst_com, read_tilt_com
from tiltwise.io.imod_model import ImodObject, contour_at, model_indices, read_model, write_model
from tiltwise.io.portal import from_portal, read_portal
from tiltwise.io.relion.alignment import read_relion_alignment
from tiltwise.io.star import write_star
from tiltwise.io.warp import WarpSeries, from_warp, read_tomostar, read_warp, write_warp
from tiltwise.io.warp_grids import WarpGrid
from tiltwise.ops.deformation import specimen_in_images

PIXEL = 2.7
SHAPES = [(96, 128), (97, 127)]
TILTS = np.arange(-60.0, 61, 3)


def pixels(geometry, points, shape, pixel_size=PIXEL):
    """(tilt, point, 2) array indices x, y of points in Å, from docs/conventions.md with scipy's rotations."""
    angles = np.stack([geometry.tilt_axis_angle, geometry.tilt_angle, geometry.x_tilt], axis=1)
    turned = np.einsum("tij,pj->tpi", Rotation.from_euler("ZYX", angles, degrees=True).as_matrix(), points)
    centre = np.array([n // 2 for n in shape[::-1]])
    return (turned[..., :2] + geometry.shift[:, None]) / pixel_size + centre


def made_points(seed=0, number=40, reach=500.0):
    return np.random.default_rng(seed).uniform(-reach, reach, (number, 3))


def made_geometry(seed=0, x_tilt=True):
    rng = np.random.default_rng(seed)
    count = len(TILTS)
    return TiltGeometry(
        tilt_angle=TILTS + 1.7 + rng.normal(size=count) * 0.2,
        tilt_axis_angle=85 + rng.normal(size=count) * 0.3,
        x_tilt=rng.normal(size=count) * 0.5 if x_tilt else np.zeros(count),
        shift=rng.normal(size=(count, 2)) * 200,
    )


@pytest.mark.parametrize("shape", SHAPES)
def test_aretomo_puts_points_where_we_do(tmp_path, shape):
    geometry, use = made_geometry(x_tilt=False), np.arange(len(TILTS)) != 4
    content = to_aretomo(geometry, use, np.arange(len(TILTS)), pixel_size=PIXEL, image_shape=shape, alpha_offset=1.7)
    write_aln(tmp_path / "a.aln", content)
    rows = np.loadtxt(tmp_path / "a.aln")
    points, ours = made_points(), pixels(geometry, made_points(), shape)
    for sec, rot, _, tx, ty, *_, tilt in rows:
        c, s, ca, sa = (f(np.radians(a)) for a in (tilt, rot) for f in (np.cos, np.sin))
        across = (points[:, 0] * c + points[:, 2] * s) / PIXEL
        along = points[:, 1] / PIXEL
        x, y = across * ca - along * sa + tx + shape[1] / 2, across * sa + along * ca + ty + shape[0] / 2
        assert np.abs(np.stack([x, y], axis=1) - ours[int(sec) - 1]).max() < 0.01
    assert len(rows) == use.sum()
    back = from_aretomo(read_aln(tmp_path / "a.aln"), pixel_size=PIXEL, image_shape=shape, path="a.aln")
    assert np.abs(pixels(back.geometry, points, shape)[back.use] - ours[use]).max() < 0.01
    assert back.section[~back.use].tolist() == [4]


def warp_matrix(rot, tilt, psi):
    """Matrix3.Euler of Warp, element by element, in radians."""
    ca, cb, cg, sa, sb, sg = (f(a) for f in (np.cos, np.sin) for a in (rot, tilt, psi))
    cc, cs, sc, ss = cb * ca, cb * sa, sb * ca, sb * sa
    first = [cg * cc - sg * sa, cg * cs + sg * ca, -cg * sb]
    return np.array([first, [-sg * cc - cg * sa, -sg * cs + cg * ca, sg * sb], [sc, ss, cb]])


@pytest.mark.parametrize("inverted", [True, False])
@pytest.mark.parametrize("shape", SHAPES)
def test_warp_puts_points_and_defocus_where_we_do(shape, inverted):
    """Position and defocus of Warp's GetPositionInAllTilts, with both of its matrices for the depth."""
    rng = np.random.default_rng(1)
    count = len(TILTS)
    series = WarpSeries(
        angle=-TILTS + rng.normal(size=count) * 0.1,
        axis_angle=84 + rng.normal(size=count),
        axis_offset=rng.normal(size=(count, 2)) * 200,
        movement=tuple(WarpGrid(values=rng.normal(size=(1, count, 1, 1)) * 9) for _ in range(2)),
        use=np.ones(count, dtype=bool),
        dose=np.zeros(count),
        angles_inverted=inverted,
        level_angle=(3.1, -2.3),
        volume_warp=tuple(WarpGrid(values=np.full((1, 1, 1, 1), value)) for value in (4.0, -7.0, 11.0)),
    )
    alignment = from_warp(series, pixel_size=PIXEL, image_shape=shape)
    points, ours = made_points(), pixels(alignment.geometry, made_points(), shape)
    lx, ly = np.radians(series.level_angle)
    angles = np.stack(
        [alignment.geometry.tilt_axis_angle, alignment.geometry.tilt_angle, alignment.geometry.x_tilt], axis=1
    )
    turns = Rotation.from_euler("ZYX", angles, degrees=True).as_matrix()
    level = np.array([[1, 0, 0], [0, np.cos(lx), -np.sin(lx)], [0, np.sin(lx), np.cos(lx)]])
    moved = np.stack([grid.values.ravel() for grid in series.movement], axis=1)
    for tilt in range(count):
        angle, axis = np.radians(series.angle[tilt]) + ly, np.radians(series.axis_angle[tilt])
        centred = points + [4.0, -7.0, 11.0]
        placed = centred @ (warp_matrix(0, angle, -axis) @ level).T
        position = placed[:, :2] + series.axis_offset[tilt] - moved[tilt] + np.array(shape[::-1]) * PIXEL / 2
        assert np.allclose(position / PIXEL, ours[tilt], atol=1e-9)
        depth = placed[:, 2]
        if inverted:
            depth = (centred * [1, 1, -1] @ (warp_matrix(0, -angle, -axis) @ level.T).T)[:, 2]
        assert np.allclose(depth, alignment.defocus_handedness * (centred @ turns[tilt].T)[:, 2], atol=1e-9)


@pytest.mark.parametrize("shape", SHAPES)
def test_the_portals_matrices_put_points_where_we_do(tmp_path, shape):
    angle = np.radians(-93.5)
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    entry = {"z_index": 3, "tilt_angle": -41.3, "volume_x_rotation": 1.4, "x_offset": 33.1, "y_offset": -7.9}
    text = str({"per_section_alignment_parameters": [entry | {"in_plane_rotation": turn.tolist()}]}).replace("'", '"')
    (tmp_path / "a.json").write_text(text)
    alignment = from_portal(read_portal(tmp_path / "a.json"), pixel_size=PIXEL, image_shape=shape, path="a.json")
    points = made_points()
    c, s, cx, sx = (f(np.radians(a)) for a in (-41.3, 1.4) for f in (np.cos, np.sin))
    x, y, z = points.T / PIXEL
    tilted = np.stack([x * c + (y * sx + z * cx) * s, y * cx - z * sx], axis=1)
    expected = tilted @ turn.T + [33.1 + shape[1] / 2, -7.9 + shape[0] / 2]
    assert np.allclose(pixels(alignment.geometry, points, shape)[0], expected, atol=1e-9)
    assert alignment.section.tolist() == [3]


@pytest.mark.parametrize("shape", SHAPES)
def test_relion_4_matrices_put_points_where_we_do(tmp_path, shape):
    size, rng = np.array([120, 131, 60]), np.random.default_rng(2)
    geometry = made_geometry()
    angles = np.stack([geometry.tilt_axis_angle, geometry.tilt_angle, geometry.x_tilt], axis=1)
    matrix = np.concatenate(
        [Rotation.from_euler("ZYX", angles, degrees=True).as_matrix(), rng.normal(size=(len(TILTS), 3, 1)) * 90], axis=2
    )
    columns = {
        f"rlnTomoProj{axis}": ["[" + ",".join(f"{v:.8f}" for v in row) + "]" for row in matrix[:, place]]
        for place, axis in enumerate("XYZ")
    }
    whole = {"rlnTomoName": ["TS_1"], "rlnTomoHand": [-1.0], "rlnTomoSizeX": [120], "rlnTomoSizeY": [131]}
    write_star(tmp_path / "tomograms.star", {"global": whole | {"rlnTomoSizeZ": [60]}, "TS_1": columns})
    alignment = read_relion_alignment(tmp_path / "tomograms.star", "TS_1", pixel_size=PIXEL, image_shape=shape)
    points = made_points()
    index = np.concatenate([points / PIXEL + size // 2, np.ones((len(points), 1))], axis=1)
    expected = np.einsum("tij,pj->tpi", matrix, index)[..., :2]
    assert np.abs(pixels(alignment.geometry, points, shape) - expected).max() < 1e-4
    assert alignment.defocus_handedness == -1


def imod_tilt(voxel, geometry_of_view, com, raw, aligned, width):
    """Where IMOD's tilt looks for voxel (i, j, l), 1-based with j the row of a slice, in the aligned image, 1-based:
    the equations of tilt.f90 as they stand there (even sizes)."""
    tlt, xtilt = geometry_of_view
    theta, alpha = np.radians(tlt + com["offset"][0]), np.radians(xtilt - com["xaxistilt"])
    sin_beta, cos_beta, sin_alpha, cos_alpha = -np.sin(theta), np.cos(theta), -np.sin(alpha), np.cos(alpha)
    x_middle = raw[0] / 2 + 0.5 - com["subset"][0]
    slice_middle = raw[1] / 2 + 0.5 - com["subset"][1]
    out_middle = width / 2 + 0.5 + com["offset"][1] + com["shift"][0] - (aligned[0] / 2 + com["subset"][0] - raw[0] / 2)
    row_middle = com["thickness"] / 2 + 0.5 + com["shift"][1]
    i, j, section = voxel.T
    zz, yy = j - row_middle, section - slice_middle
    x = (
        (i - out_middle) * cos_beta
        + yy * sin_alpha * sin_beta
        + zz * cos_alpha * sin_beta
        + x_middle
        + com["offset"][1]
    )
    return np.stack([x, yy * cos_alpha - zz * sin_alpha + slice_middle], axis=1)


def test_imods_tilt_and_newstack_put_voxels_where_we_do(tmp_path):
    """Voxels of IMOD's volume, through tilt.f90 into the aligned image and through the inverse .xf into the raw one."""
    raw, aligned, width, thickness = (128, 96), (96, 128), 96, 40
    com = {"offset": (1.3, 2.0), "xaxistilt": 1.76, "shift": (5.0, -3.5), "subset": (16, -16), "thickness": thickness}
    geometry, rng = made_geometry(), np.random.default_rng(3)
    xtilt = np.round(geometry.x_tilt, 2)
    turn = np.radians(geometry.tilt_axis_angle)
    matrix = np.stack([np.stack([np.cos(turn), np.sin(turn)], -1), np.stack([-np.sin(turn), np.cos(turn)], -1)], -2)
    transforms = np.concatenate([matrix, rng.normal(size=(len(TILTS), 2, 1)) * 30], axis=2)
    write_xf(tmp_path / "TS.xf", transforms)
    transforms = read_xf(tmp_path / "TS.xf")
    write_tlt(tmp_path / "TS.tlt", TILTS)
    write_tlt(tmp_path / "TS.xtilt", xtilt)
    (tmp_path / "tilt.com").write_text(
        "$tilt -StandardInput\nTILTFILE TS.tlt\nXTILTFILE TS.xtilt\nIMAGEBINNED 2\nFULLIMAGE 128 96\n"
        "SUBSETSTART 16 -16\nOFFSET 1.3 2.0\nXAXISTILT 1.76\nSHIFT 5.0 -3.5\nTHICKNESS 40\nEXCLUDELIST2 1,4-6\n"
    )
    (tmp_path / "newst.com").write_text(
        "$newstack -StandardInput\nInputFile TS.st\nSizeToOutputInXandY 48,64\nBinByFactor 2\n"
    )
    alignment = read_imod(tmp_path / "TS.xf", pixel_size=PIXEL, image_shape=raw[::-1])
    assert np.flatnonzero(~alignment.use).tolist() == [0, 3, 4, 5]
    voxel = np.random.default_rng(4).uniform(1, 96, (30, 3)) * [1, thickness / 96, 128 / 96]
    # trimvol -rx keeps the hand: x, y = slice, z = the rows downwards; from the middle of each, in Å
    middle = np.array([width, thickness, aligned[1]]) / 2 + 0.5
    points = ((voxel - middle)[:, [0, 2, 1]] * [1, 1, -1]) * PIXEL
    ours = pixels(alignment.geometry, points, raw[::-1])
    for view in range(len(TILTS)):
        found = imod_tilt(voxel, (TILTS[view], xtilt[view]), com, raw, aligned, width)
        from_middle = found - 0.5 - np.array(aligned) / 2 - transforms[view, :, 2]
        index = np.linalg.solve(transforms[view, :, :2], from_middle.T).T + np.array(raw) / 2 - 0.5
        assert np.abs(index - ours[view]).max() < 1e-4


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("shape", SHAPES)
def test_every_format_comes_back_to_a_fiftieth_of_a_pixel(make_tilt_series, tmp_path, form, shape):
    """Written and read again, points up to 2000 px from the centre are at the same pixel: the digits suffice."""
    count = len(TILTS)
    use = (np.arange(count) != 0) & (np.arange(count) != 7)
    geometry = made_geometry(x_tilt=form not in ("aretomo", "warp"))
    if form == "warp":
        geometry = replace(geometry, x_tilt=np.full(count, 1.234))
    series = make_tilt_series(
        number=count,
        images=np.zeros((count, *shape), np.float32),
        stage_tilt_angle=TILTS,
        geometry=geometry,
        use=use,
        why_not=tuple("" if used else "dark" for used in use),
        pixel_size=PIXEL,
    )
    files = write_alignments(tmp_path, [series], form)
    assert len([file for file in files if "stacks" not in str(file)]) >= 1
    bare = replace(series, geometry=None, use=np.ones(count, dtype=bool), why_not=("",) * count)
    again, notes = read_aligned(bare, find_alignment(tmp_path, series.name))
    points = made_points(reach=2000 * PIXEL)
    difference = pixels(again.geometry, points, shape)[use] - pixels(geometry, points, shape)[use]
    assert np.abs(difference).max() < 0.02
    left = ~again.use
    assert left.sum() == 2 or form == "warp"  # Warp keeps a row and a flag, which the others do not
    assert all("left out" in again.why_not[tilt] for tilt in np.flatnonzero(left))
    assert np.isfinite(again.geometry.shift).all() and "aligned by" in notes[0]


def test_the_local_part_becomes_a_warp_of_the_series(make_tilt_series):
    """Points of the specimen lie where AreTomo's own sentence puts them, to 0.1 px; a dark image is not warped."""
    rng = np.random.default_rng(2)
    series = replace(
        make_tilt_series(), images=np.zeros((5, 400, 512), np.float32), use=np.ones(5, bool), why_not=("",) * 5
    )
    shape, patches, pixel = series.image_shape, 9, series.pixel_size
    angle, kept = series.stage_tilt_angle, np.array([0, 1, 3, 4])
    side = np.array(shape[::-1])
    grid = np.stack(np.meshgrid([-0.3, 0.0, 0.3], [-0.3, 0.0, 0.3]), axis=-1).reshape(-1, 2) * side
    content = AretomoAlignment(
        section=kept,
        tilt_axis_angle=np.full(4, 85.0),
        magnification=np.ones(4),
        shift_px=rng.normal(0, 2, (4, 2)),
        tilt_angle=angle[kept],
        image_count=5,
        image_shape=shape,
        dark_section=np.array([2]),
        dark_tilt_angle=angle[2:3],
        local=LocalShifts(
            position=np.tile(grid, (4, 1, 1)),
            shift=rng.normal(0, 3, (4, patches, 2)),
            reliable=np.ones((4, patches), bool),
        ),
    )
    alignment = from_aretomo(content, pixel_size=pixel, image_shape=shape, path="a.aln")
    assert "9 patches" in alignment.notes[0]
    aligned = align_series(replace(series, geometry=None), alignment, "a.aln")
    points = rng.uniform(-0.4, 0.4, (50, 3)) * [*side, 4] * pixel
    whole = specimen_in_images(replace(aligned, deformation=None), points)[0]
    found = specimen_in_images(aligned, points)[0]
    for row, tilt in enumerate(kept):
        before = (whole[tilt] - aligned.geometry.shift[tilt]) / pixel
        expected = whole[tilt] + pixel * local_shift(content.local, row, before, shape)
        inside = (np.abs(whole[tilt]) < side * pixel / 2).all(axis=1)
        assert inside.sum() > 10
        assert np.linalg.norm(found[tilt] - expected, axis=1)[inside].max() < 0.1 * pixel
    assert not aligned.deformation.image.coefficient[2].any()


def test_the_local_part_is_aretomos_weighted_mean(tmp_path):
    rng, shape = np.random.default_rng(5), (96, 128)
    text = ["# AreTomo Alignment / Priims bprmMn", "# RawSize = 128 96 2", "# NumPatches = 3"]
    text += [f"    {tilt + 1} 85.0 1.0 3.0 4.0 1.0 1.0 1.0 0.0 {3 * tilt}.0" for tilt in range(2)]
    place, moved = rng.uniform(-60, 60, (2, 3, 2)).round(2), rng.uniform(-4, 4, (2, 3, 2)).round(2)
    good = np.array([[1, 1, 0], [1, 0, 0]])
    text.insert(4, "# SEC ROT ...")
    text.append("# Local Alignment")
    for tilt, patch in np.ndindex(2, 3):
        text.append(" ".join(map(str, (tilt, patch, *place[tilt, patch], *moved[tilt, patch], good[tilt, patch]))))
    (tmp_path / "a.aln").write_text("\n".join(text) + "\n")
    alignment = read_aln(tmp_path / "a.aln")
    for point in rng.uniform(-60, 60, (5, 2)):
        weight = [np.exp(-100 * ((point[0] - x) ** 2 / 128**2 + (point[1] - y) ** 2 / 96**2)) for x, y in place[0]]
        expected = (weight[0] * moved[0, 0] + weight[1] * moved[0, 1]) / (weight[0] + weight[1])
        assert np.allclose(local_shift(alignment.local, 0, point[None], shape)[0], expected, rtol=1e-9)
    assert np.allclose(local_shift(alignment.local, 1, np.array([[9e3, 0]]), shape), moved[1, 0])
    write_aln(tmp_path / "b.aln", alignment)
    assert np.array_equal(read_aln(tmp_path / "b.aln").local.shift, alignment.local.shift)
    notes = from_aretomo(alignment, pixel_size=1.0, image_shape=shape, path="a.aln").notes
    assert "3 patches" in notes[0]


@pytest.mark.parametrize(
    ("name", "count", "first", "size"),
    [
        ("lil-aretomo/TS_121.aln", 31, (83.8298, 4.792, -112.998, -42.0), None),
        ("lil-aretomo/example_v1_2_0.aln", 41, (-93.7196, 155.235, 708.75, -51.98), None),
        ("lil-aretomo/example_v1_3_0.aln", 41, None, (4092, 5760)),
        ("aretomo3/Position_5_4.aln", 31, (83.9394, -44.819, 49.542, -45.02), (4096, 4096)),
    ],
)
def test_real_aln_files_of_three_versions(shared_data, tmp_path, name, count, first, size):
    alignment = read_aln(shared_data / "alignment_text" / name)
    assert alignment.section.tolist() == list(range(count)) and alignment.image_shape == size
    if first:
        found = (alignment.tilt_axis_angle[0], *alignment.shift_px[0], alignment.tilt_angle[0])
        assert found == first
    write_aln(tmp_path / "a.aln", alignment)
    again = read_aln(tmp_path / "a.aln")
    for field in ("section", "tilt_axis_angle", "shift_px", "tilt_angle"):
        assert np.array_equal(getattr(again, field), getattr(alignment, field))


def test_a_real_warp_series_has_imods_angles_negated(shared_data):
    """TS_02 was aligned by IMOD (.tlt beside it, angles here and there off by degrees) and imported into Warp, which
    negates the angles on disk: with our sign they follow IMOD's, with the other they would be 90° off at the ends."""
    folder = shared_data / "alignment_text/warp2relion-tomo/test_data"
    series = read_warp(folder / "TS_02.mrc.xml")
    alignment = from_warp(series, pixel_size=1.701, image_shape=(5760, 4092))
    difference = alignment.geometry.tilt_angle - read_tlt(folder / "TS_02.mrc.tlt")
    assert len(difference) == 102 and np.abs(difference).max() < 5.1 and abs(np.median(difference)) < 0.2
    assert alignment.defocus_handedness == -1 and alignment.image_stems[0] == "TS_02_093_-45.0"
    assert alignment.geometry.shift[0].tolist() == [604.7649, 104.2494] and not alignment.notes


def test_real_command_files_of_imod(shared_data):
    folder = shared_data / "alignment_text"
    com = read_tilt_com(folder / "warp2relion-tomo/test_data/tilt.com")
    assert (com.full_image, com.subset_start, com.thickness, com.binning) == ((4092, 5760), (-2, 0), 2700, 8)
    assert com.local_file == "TS_05.mrclocal.xf" and com.excluded == ()
    newst = read_newst_com(folder / "warp2relion-tomo/test_data/newst.com")
    assert (newst.size, newst.binning, newst.transform_file) == ((512, 720), 8, "TS_05.mrc.xf")
    alignment = read_imod(folder / "imod_bb/BBa.xf", pixel_size=10.0, image_shape=(512, 512))
    xtilt, tlt = (read_tlt(folder / f"imod_bb/BBa{suffix}") for suffix in (".xtilt", ".tlt"))
    assert np.allclose(alignment.geometry.x_tilt, xtilt - 1.76) and np.array_equal(alignment.geometry.tilt_angle, tlt)
    assert np.flatnonzero(~alignment.use).tolist() == [0] and "BBalocal.xf" in alignment.notes[0]
    etomo = read_imod(folder / "etomofiles/test_data/TS_001/TS_001.xf", pixel_size=1.0, image_shape=(1000, 1000))
    assert (
        len(etomo.use) == 40
        and etomo.stage_tilt_angle is not None
        and abs(etomo.geometry.tilt_axis_angle[0] - 84.14) < 0.01
    )


@pytest.mark.parametrize("name", ["TS_03", "TS_43"])
@pytest.mark.parametrize("form", FORMATS)
def test_relions_alignment_of_the_real_series_through_every_format(shared_data, tmp_path, name, form):
    """RELION-5's alignment (shifts to 270 Å) onto the raw stacks, whose images it knows by stage angle only; then out
    in each format and in again: every projected point within 0.1 px of the unbinned 1.35 Å images."""
    hiv = shared_data / "hiv_empiar10164"
    series = read_acquisition(hiv / "stacks" / f"{name}.mrc").tilt_series
    aligned, _ = read_aligned(series, find_alignment(hiv / "relion5/AlignTiltSeries/job005", name))
    assert aligned.use.all() and abs(np.median(aligned.geometry.tilt_axis_angle) - 85.3) < 0.5
    assert 70 < np.abs(aligned.geometry.shift).max() < 300
    write_alignments(tmp_path, [aligned], form)
    again, _ = read_aligned(series, find_alignment(tmp_path, name))
    points = made_points(reach=2700.0)
    shape = series.image_shape
    apart = pixels(again.geometry, points, shape, 1.35) - pixels(aligned.geometry, points, shape, 1.35)
    assert np.abs(apart).max() < 0.1


def test_rows_find_their_images_or_the_fault_is_named(make_tilt_series):
    count = len(TILTS)
    changes = {"images": np.zeros((count, 8, 10), np.float32), "stage_tilt_angle": TILTS, "geometry": None}
    series = make_tilt_series(number=count, use=np.ones(count, bool), why_not=("",) * count, **changes)
    geometry = made_geometry()
    order = np.random.default_rng(0).permutation(count)
    shuffled = TiltGeometry(**{f: getattr(geometry, f)[order] for f in TiltGeometry.__slots__})
    base = {"program": "X", "use": np.ones(count, bool)}
    for known in ({"section": order}, {"stage_tilt_angle": TILTS[order] + 0.01}):
        again = align_series(series, Alignment(**base, geometry=shuffled, **known), "f")
        assert np.array_equal(again.geometry.shift, geometry.shift)
    with pytest.raises(InputError, match="f: its tilt angles are not those of TS_1: .* in another order"):
        align_series(series, Alignment(**base, geometry=shuffled), "f")
    mirrored = replace(geometry, tilt_angle=-geometry.tilt_angle)
    with pytest.raises(InputError, match="they agree with the opposite sign"):
        align_series(series, Alignment(**base, geometry=mirrored), "f")
    kept = align_series(series, Alignment(**base, geometry=mirrored, sign_known=False), "f")
    assert np.array_equal(kept.geometry.tilt_angle, mirrored.tilt_angle)
    with pytest.raises(InputError, match="in another order"):
        align_series(series, Alignment(**base, geometry=shuffled, sign_known=False), "f")
    # one image too far along is a constant offset of 3°, which only a stated offset betrays
    late = replace(geometry, tilt_angle=geometry.tilt_angle + 3)
    with pytest.raises(InputError, match="are not those of TS_1"):
        align_series(series, Alignment(**base, geometry=late, tilt_offset=1.7), "f")
    with pytest.raises(InputError, match="f: aligns image 959 of the stack"):
        align_series(series, Alignment(**base, geometry=geometry, section=np.arange(count) + 958), "f")
    with pytest.raises(InputError, match="two of its rows are about the same image"):
        align_series(series, Alignment(**base, geometry=geometry, section=np.zeros(count, int)), "f")
    fewer = TiltGeometry(**{f: getattr(geometry, f)[1:] for f in TiltGeometry.__slots__})
    with pytest.raises(InputError, match=f"aligns {count - 1} images, but TS_1 has {count}"):
        align_series(series, Alignment(program="X", use=np.ones(count - 1, bool), geometry=fewer), "f")


def test_views_that_etomo_took_out_of_the_stack_are_excluded(make_tilt_series, tmp_path):
    """The .xf of an edited stack is shorter; its .rawtlt tells which images are left."""
    count, kept = len(TILTS), np.delete(np.arange(len(TILTS)), [3, 20])
    changes = {"images": np.zeros((count, 8, 10), np.float32), "stage_tilt_angle": TILTS, "geometry": None}
    series = make_tilt_series(number=count, use=np.ones(count, bool), why_not=("",) * count, **changes)
    transforms = np.array([np.eye(2, 3)] * count)
    transforms[:, 0, 2] = np.arange(count)
    write_xf(tmp_path / "TS_1.xf", transforms[kept])
    write_tlt(tmp_path / "TS_1.tlt", TILTS[kept] + 1.0)
    with pytest.raises(InputError, match="tilt angles are not those of TS_1"):
        read_aligned(series, tmp_path / "TS_1.xf")
    write_tlt(tmp_path / "TS_1.rawtlt", TILTS[kept])
    aligned, _ = read_aligned(series, tmp_path / "TS_1.xf")
    assert np.flatnonzero(~aligned.use).tolist() == [3, 20] and "left out" in aligned.why_not[3]
    assert np.allclose(np.diff(aligned.geometry.shift[:, 0]), -series.pixel_size)


@pytest.mark.parametrize(
    ("dark", "numbers"),
    [
        ("2 3 3.00", (1, 2, 4)),  # AreTomo 3: place from 0, section from 1
        ("2 2 3.00", (0, 1, 3)),  # from 0
        ("2 0 3.00", (1, 2, 3)),  # a version that leaves the section 0 and numbers the rows anew
    ],
)
def test_dark_frames_of_aretomo_in_all_their_forms(tmp_path, dark, numbers):
    rows = [
        f"    {n} 85.0 1.0 0.0 0.0 1.0 1.0 1.0 0.0 {tilt}" for n, tilt in zip(numbers, (-3.0, 0.0, 6.0), strict=True)
    ]
    text = ["# AreTomo Alignment", "# RawSize = 10 8 4", f"# DarkFrame = {dark}", *rows]
    (tmp_path / "a.aln").write_text("\n".join(text))
    alignment = read_aln(tmp_path / "a.aln")
    assert (alignment.section.tolist(), alignment.dark_section.tolist()) == ([0, 1, 3], [2])
    assert alignment.tilt_angle.tolist() == [-3.0, 0.0, 6.0]
    (tmp_path / "a.aln").write_text("\n".join(text).replace("10 8 4", "10 8 9").replace(dark, "1 0 3.00"))
    with pytest.raises(InputError, match="contradict each other"):
        read_aln(tmp_path / "a.aln")


def test_a_model_file_is_read_as_the_specification_lays_it_out(tmp_path):
    """Bytes put together by hand from IMOD's specification, with chunks that are skipped, a subset and exchanged
    axes."""
    points = np.array([[10.5, 20.5, 3.0], [11.25, 21.0, 4.0]], dtype=">f4")
    header = b"made by hand".ljust(128, b"\0") + struct.pack(">iii", 128, 96, 41) + struct.pack(">i", 2)
    header += struct.pack(">I", 1 << 14 | 1 << 15) + b"\0" * (232 - len(header) - 4)
    first = b"OBJT" + b"gold".ljust(64, b"\0") + b"\0" * 112
    mesh = b"MESH" + struct.pack(">iiIhh", 2, 3, 0, 0, 0) + b"\7" * (2 * 12 + 3 * 4)
    contour = b"CONT" + struct.pack(">iIii", 2, 0, 0, 5) + points.tobytes()
    label = b"LABL" + struct.pack(">i", 6) + b"\1" * 6
    minx = struct.pack(">18f", 1, 1, 1, 100, 0, 0, 0, 0, 0, 5, 5, 5, 40, 0, 0, 0, 0, 0)
    raw = (
        b"IMODV1.2" + header + first + contour + label + mesh + first + b"MINX" + struct.pack(">i", 72) + minx + b"IEOF"
    )
    (tmp_path / "a.mod").write_bytes(raw)
    model = read_model(tmp_path / "a.mod")
    assert model.size == (128, 96, 41) and [one.name for one in model.objects] == ["gold", "gold"]
    (contour,) = model.objects[0].contours
    assert contour.surface == 5 and np.array_equal(contour.points, points)
    assert model.offset == (12.0, 0.0, 0.0)  # (otrans - ctrans) / cscale = (100 - 40) / 5
    assert np.allclose(model_indices(model, contour), points - [0.5, 0.5, 0] + [12, 0, 0])
    with pytest.raises(InputError, match="cut short"):
        (tmp_path / "b.mod").write_bytes(raw[:500])
        read_model(tmp_path / "b.mod")


def test_model_files_come_back(tmp_path):
    beads = np.random.default_rng(6).uniform(0, 40, (3, 5, 3)).astype(np.float32)
    objects = [ImodObject(name="beads", contours=tuple(contour_at(bead, surface=1) for bead in beads))]
    write_model(tmp_path / "a.mod", objects, size=(64, 48, 41), pixel_size=2.5)
    assert (tmp_path / "a.mod").read_bytes()[8 + 232 : 12 + 232] == b"OBJT"
    model = read_model(tmp_path / "a.mod")
    assert model.size == (64, 48, 41) and model.pixel_scale == (2.5, 2.5, 2.5) and not model.flipped
    found = [model_indices(model, contour) for contour in model.objects[0].contours]
    assert np.allclose(found, beads, atol=1e-5)


def test_warps_grids_decimal_commas_and_tomostar(shared_data, tmp_path):
    (tmp_path / "TS.xml").write_text(
        '<?xml version="1.0" encoding="utf-16"?><TiltSeries AreAnglesInverted="False" LevelAngleX="1,5">'
        "<Angles>3\n0\n-3</Angles><AxisAngle>-176,73\n85\n85</AxisAngle><AxisOffsetX>1\n2\n3</AxisOffsetX>"
        '<GridMovementX Width="1" Height="1" Depth="3"><Node X="0" Y="0" Z="2" Value="7"/>'
        '<Node X="0" Y="0" Z="0" Value="5"/><Node X="0" Y="0" Z="1" Value="6"/></GridMovementX>'
        '<GridMovementY Width="2" Height="1" Depth="1"><Node X="0" Value="1"/><Node X="1" Value="3"/></GridMovementY>'
        "</TiltSeries>",
        encoding="utf-16",
    )
    series = read_warp(tmp_path / "TS.xml")
    assert series.axis_angle[0] == -176.73 and series.level_angle == (1.5, 0.0)
    assert series.movement[0].values.tolist() == [[[[5]], [[6]], [[7]]]]
    assert series.movement[1].values.tolist() == [[[[1, 3]]]]
    alignment = from_warp(series, pixel_size=1.0, image_shape=(8, 8))
    assert alignment.geometry.shift.tolist() == [[-4, -2], [-4, -2], [-4, -2]] and "movements" in alignment.notes[0]
    assert alignment.defocus_handedness == 1
    write_warp(tmp_path / "back.xml", series, image_size=(8.0, 8.0), pixel_size=1.0)
    back = from_warp(read_warp(tmp_path / "back.xml"), pixel_size=1.0, image_shape=(8, 8))
    assert np.array_equal(back.geometry.shift, alignment.geometry.shift)
    (tmp_path / "TS.tomostar").write_text(
        "\ndata_\n\nloop_\n_wrpMovieName #1\n_wrpAngleTilt #2\n_wrpDose #3\n a.eer -3.0 1.5\n"
    )
    tomostar = read_tomostar(tmp_path / "TS.tomostar")
    assert tomostar.movie_names == ("a.eer",) and tomostar.angle.tolist() == [-3.0] and tomostar.dose.tolist() == [1.5]


def natural_spline(values, at):
    """Between values at 0, 1, 2 ...: each piece of a spline whose second derivative is zero at the ends, solved as the
    textbook does, at places counted in nodes."""
    n = len(values)
    matrix, right = np.eye(n), np.zeros(n)
    for i in range(1, n - 1):
        matrix[i, i - 1 : i + 2], right[i] = [1, 4, 1], 6 * (values[i - 1] - 2 * values[i] + values[i + 1])
    second = np.linalg.solve(matrix, right)
    i = min(int(at), n - 2)
    a, b = i + 1 - at, at - i
    bent = ((a**3 - a) * second[i] + (b**3 - b) * second[i + 1]) / 6
    return a * values[i] + b * values[i + 1] + bent


def test_warps_movements_within_the_image_become_a_warp(make_tilt_series, tmp_path):
    """Points lie where Warp's formula puts them, to 0.1 px: tilt matrices, then movements between the nodes of 4 × 5
    for each image, then the mean over the volume of its warp, at each image's exposure between three."""
    rng, count, shape, pixel = np.random.default_rng(3), 5, (400, 512), 2.5
    size = np.array(shape[::-1]) * pixel
    movement = tuple(WarpGrid(values=rng.normal(0, 6, (1, count, 4, 5))) for _ in range(2))
    volume = tuple(WarpGrid(values=rng.normal(0, 9, (3, 2, 2, 2))) for _ in range(3))
    tilts, dose = np.linspace(-60, 60, count), rng.permutation(count) * 3.0
    content = WarpSeries(
        angle=-tilts,
        axis_angle=np.full(count, 84.0),
        axis_offset=rng.normal(0, 30, (count, 2)),
        movement=movement,
        volume_warp=volume,
        use=np.ones(count, bool),
        dose=dose,
    )
    write_warp(tmp_path / "TS_1.xml", content, image_size=tuple(size), pixel_size=pixel)
    series = make_tilt_series(number=count, images=np.zeros((count, *shape), np.float32), stage_tilt_angle=tilts)
    series = replace(series, geometry=None, use=np.ones(count, bool), why_not=("",) * count)
    aligned, notes = read_aligned(series, tmp_path / "TS_1.xml")
    assert any("GridVolumeWarpX, GridVolumeWarpY, GridVolumeWarpZ: only means" in note for note in notes)
    points = rng.uniform(-0.45, 0.45, (40, 3)) * [*size, 100]
    found = specimen_in_images(aligned, points)[0]
    compared = 0
    for tilt in range(count):
        part = 2 * dose[tilt] / dose.max()
        low = min(int(part), 1)
        means = [np.array([w.mean() for w in grid.values]) for grid in volume]
        moved = points + [(low + 1 - part) * m[low] + (part - low) * m[low + 1] for m in means]
        turn = warp_matrix(0, np.radians(content.angle[tilt]), -np.radians(84.0))
        place = (moved @ turn.T)[:, :2] + content.axis_offset[tilt] + size / 2
        for point, (x, y) in enumerate(place):
            if not (0 < x < size[0] and 0 < y < size[1]):
                continue
            at = x / size[0] * 4, y / size[1] * 3
            off = [natural_spline([natural_spline(row, at[0]) for row in g.values[0, tilt]], at[1]) for g in movement]
            expected = [x, y] - np.array(off) - size / 2
            assert np.linalg.norm(found[tilt, point] - expected) < 0.1 * pixel
            compared += 1
    assert compared > 150


def test_a_warp_of_the_images_and_their_magnification_go_to_warp_and_come_back(make_tilt_series, tmp_path):
    rng, count, shape = np.random.default_rng(4), 5, (401, 512)
    series = make_tilt_series(
        number=count, images=np.zeros((count, *shape), np.float32), stage_tilt_angle=np.linspace(-60, 60, count)
    )
    geometry = replace(series.geometry, tilt_angle=series.stage_tilt_angle + 0.3, x_tilt=np.full(count, 1.0))
    extent = (shape[1] * series.pixel_size, shape[0] * series.pixel_size)
    sample = SampleDeformation(
        exposure=np.array([0.0, 20.0]),
        coefficient=np.zeros((2, 10, 3)),
        scale=500.0,
        magnification=1 + rng.normal(0, 0.003, count),
    )
    bent = ImageWarp(coefficient=rng.normal(0, 5, (count, 5, 6, 2)), extent=extent)
    use = np.ones(count, bool)
    series = replace(
        series, geometry=geometry, deformation=Deformation(sample=sample, image=bent), use=use, why_not=("",) * count
    )
    files = write_alignments(tmp_path, [series], "warp")
    assert tmp_path / "deformation_left_out.txt" not in files
    again, _ = read_aligned(replace(series, geometry=None, deformation=None), tmp_path / f"{series.name}.xml")
    points = rng.uniform(-0.4, 0.4, (60, 3)) * [*extent, 100]
    places = [specimen_in_images(one, points)[0] for one in (series, again)]
    inside = (np.abs(places[0]) < np.array(extent) / 2 - 10).all(axis=-1)
    assert inside.sum() > 200
    assert np.linalg.norm(places[0] - places[1], axis=-1)[inside].max() < 0.1 * series.pixel_size
    moving = replace(series, deformation=Deformation(sample=replace(sample, coefficient=np.ones((2, 10, 3)))))
    write_alignments(tmp_path, [moving], "warp")
    assert "specimen is left out" in (tmp_path / "deformation_left_out.txt").read_text()


def test_what_a_format_cannot_hold_is_refused(make_tilt_series, tmp_path):
    count = len(TILTS)
    changes = {"images": np.zeros((count, 8, 10), np.float32), "stage_tilt_angle": TILTS}
    series = make_tilt_series(number=count, geometry=made_geometry(), **changes)
    for form, fault in (("aretomo", "holds no x-tilt"), ("warp", "holds one x-tilt for a series")):
        with pytest.raises(InputError, match=f"TS_1: .*{fault}"):
            write_alignments(tmp_path, [series], form)
    with pytest.raises(InputError, match="TS_1: is not aligned yet"):
        write_alignments(tmp_path, [replace(series, geometry=None)], "imod")
    (tmp_path / "x").mkdir()
    for name in ("TS_1.aln", "TS_1.xf"):
        (tmp_path / "x" / name).touch()
    with pytest.raises(InputError, match="several alignments of TS_1, name one of them"):
        find_alignment(tmp_path / "x", "TS_1")
    with pytest.raises(InputError, match="holds no alignment of TS_2"):
        find_alignment(tmp_path / "x", "TS_2")


@pytest.mark.parametrize("form", FORMATS)
def test_an_export_says_whose_deformation_it_leaves_out(make_tilt_series, tmp_path, form):
    series = make_tilt_series(use=np.ones(5, bool), why_not=("",) * 5, acquisition_order=np.arange(5))
    series = replace(series, geometry=replace(series.geometry, x_tilt=np.zeros(5)))
    write_alignments(tmp_path, [series], form)
    assert not (tmp_path / "deformation_left_out.txt").exists()
    warp = ImageWarp(coefficient=np.ones((5, 4, 4, 2)), extent=(25.0, 20.0))
    sample = SampleDeformation(
        exposure=np.array([0.0, 9.0]), coefficient=np.ones((2, 10, 3)), scale=10.0, magnification=np.ones(5)
    )
    deformation = Deformation(image=warp, sample=sample)
    files = write_alignments(tmp_path, [replace(series, deformation=deformation)], form)
    assert tmp_path / "deformation_left_out.txt" in files
    assert series.name in (tmp_path / "deformation_left_out.txt").read_text()
