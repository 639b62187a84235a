"""Particles through the lists of other programs and back; places and angles of each worked out by hand; real files."""

import json
import struct
from dataclasses import replace

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from tiltwise.data.errors import InputError
from tiltwise.data.particles import Particles
from tiltwise.data.volume import TomogramGrid
from tiltwise.io.dynamo import read_dynamo
from tiltwise.io.em import read_em
from tiltwise.io.imod_model import ImodObject, contour_at, write_model
from tiltwise.io.m_source import read_m_source
from tiltwise.io.particle_files import FORMATS, read_particle_files, tell_format, write_particle_files
from tiltwise.io.particle_list import match_series, read_tomogram_map
from tiltwise.io.peet import read_peet
from tiltwise.io.relion import read_particles, write_particles
from tiltwise.io.star import read_star, write_star
from tiltwise.io.stopgap import read_stopgap
from tiltwise.io.warp_particles import read_warp_particles

GRIDS = {
    "TS_03": TomogramGrid(shape=(101, 540, 541), voxel_size=7.1234),
    "TS_1": TomogramGrid(shape=(1000, 4001, 4000), voxel_size=1.35),
}
PIXELS = {"TS_03": 1.35, "TS_1": 2.1}
M_VOLUME = TomogramGrid(shape=(1001, 3710, 3838), voxel_size=1.35)
"""Of M's source: one volume for all series, odd along z."""
ONE = {"S": TomogramGrid(shape=(10, 20, 31), voxel_size=2.0)}
"""Its centre n // 2 is voxel x 15, y 10, z 5."""
TURN = (20.0, 40.0, 70.0)
# the angles of one and the same rotation A = Rz(70) Rx(40) Rz(20), its columns being where x, y and z go
TURNED = Rotation.from_matrix(
    Rotation.from_rotvec([0, 0, 70], degrees=True).as_matrix()
    @ Rotation.from_rotvec([40, 0, 0], degrees=True).as_matrix()
    @ Rotation.from_rotvec([0, 0, 20], degrees=True).as_matrix()
)


def make_particles(number=60, seed=0):
    """Poses all over the sphere, three where Euler angles are degenerate; far-off places; regions and halves."""
    rng = np.random.default_rng(seed)
    quaternions = Rotation.random(number, random_state=seed).as_quat()
    quaternions[:3] = Rotation.from_euler("zyx", [[30, 0, 0], [40, 180, 0], [-70, 0, 180]], degrees=True).as_quat()
    score = rng.normal(size=number)
    score[5] = np.nan
    return Particles(
        tilt_series=np.array(["TS_03", "TS_1"])[np.arange(number) % 2],
        position=rng.uniform(-1, 1, (number, 3)) * (1800, 1800, 340),
        rotation=Rotation.from_quat(quaternions),
        score=score,
        half_set=rng.integers(0, 3, number),
        region=rng.integers(-1, 3, number),
    )


def errors(first, second):
    """Largest difference of positions in Å and of rotations in degrees."""
    return (
        np.abs(first.position - second.position).max(),
        np.degrees((first.rotation.inv() * second.rotation).magnitude()).max(),
    )


def shared_regions(particles):
    """(particle, particle) whether two lie in the same region of one series; -1 is shared with none."""
    region = np.where(particles.region < 0, -1 - np.arange(len(particles)), particles.region)
    same_series = particles.tilt_series[:, None] == particles.tilt_series
    return same_series & (region[:, None] == region)


def write_source(path, names=("TS_03", "TS_1", "TS_10"), grid=M_VOLUME):
    """As M writes it (WarpLib/Sociology/DataSource.cs), the parameters that are read and one that is not."""
    values = {"Name": "data", "PixelSize": grid.voxel_size}
    values |= {f"Dimensions{axis}": size for axis, size in zip("ZYX", grid.shape, strict=True)}
    lines = [f'<Param Name="{name}" Value="{value}"/>' for name, value in values.items()]
    files = [f'<File Hash="hash_of_{name}" Name="{name}.tomostar" Weight="1"/>' for name in names]
    path.write_text(f"<DataSource>{''.join(lines)}<Files>{''.join(files)}</Files></DataSource>")
    return path


@pytest.mark.parametrize("form", FORMATS)
def test_round_trip(tmp_path, form):
    """To 1e-3 Å and 1e-4 degrees. Float32 holds a voxel's part to 3e-8, 180 degrees to 8e-6; ten digits do better."""
    before = make_particles()
    if form == "m":  # whose particles all belong to a half, and count on its own volume
        before = replace(before, half_set=1 + before.half_set % 2)
        source = read_m_source(write_source(tmp_path / "data.source"))
        files = write_particle_files(tmp_path, before, form, {}, PIXELS, source)
    elif form == "relion":
        write_particles(tmp_path / "particles.star", before)
        files = [tmp_path / "particles.star"]
    else:
        files = write_particle_files(tmp_path, before, form, GRIDS, PIXELS)
    source = tmp_path if form in ("copick", "peet") else files[0]
    assert tell_format(source) == form
    grid_of = GRIDS.__getitem__ if form != "m" else lambda name: M_VOLUME
    after, notes = read_particle_files(source, form, ["TS_03", "TS_1", "TS_10"], grid_of)
    assert notes == () and len(after) == len(before)
    # copick and PEET have a file for each tomogram, PEET a contour for each region
    columns = [before.region] * (form == "peet") + [before.tilt_series] * (form in ("peet", "copick"))
    before = before[np.lexsort(columns)] if columns else before
    position, angle = errors(before, after)
    assert position < 1e-3 and angle < 1e-4
    assert after.tilt_series.tolist() == before.tilt_series.tolist()
    assert np.allclose(after.score, before.score, atol=1e-6, equal_nan=True)
    assert np.array_equal(shared_regions(after), shared_regions(before))
    keeps_halves = form in ("relion", "warp", "m", "stopgap", "em")
    assert np.array_equal(after.half_set, before.half_set if keeps_halves else np.zeros(len(before)))


def read_one(path, form):
    return read_particle_files(path, form, ["S"], ONE.__getitem__)[0]


def is_turned(particles):
    return np.degrees((particles.rotation.inv() * TURNED).magnitude()).max() < 1e-4


def test_dynamo_counts_from_one_and_inverts_its_angles(tmp_path):
    """Voxel 16 of Dynamo is 15, the centre; shifts add. Dynamo's angles are those of the inverse: -70, -40, -20."""
    row = np.zeros(26)
    row[[0, 1, 19, 20, 23, 24, 25]] = [1, 1, 1, 4, 16, 11, 6]
    row[3:6], row[6:9] = [0.5, 0, -1], [-70, -40, -20]
    (tmp_path / "S.tbl").write_text(" ".join(map(str, row)) + "\n")
    one = read_one(tmp_path / "S.tbl", "dynamo")
    assert np.allclose(one.position, [[1.0, 0, -2]]) and one.region.tolist() == [3] and is_turned(one)


def test_stopgap_and_em_put_psi_before_theta(tmp_path):
    names = ["motl_idx", "tomo_num", "object", "subtomo_num", "halfset", "orig_x", "orig_y", "orig_z", "score"]
    names += ["x_shift", "y_shift", "z_shift", "phi", "psi", "the", "class"]
    row = "1 1 0 1 B 16 11 6 0.5 0.5 0 -1 20 70 40 1"
    text = "\n".join(["data_stopgap_motivelist", "", "loop_", *(f"_{name}" for name in names), row])
    (tmp_path / "m.star").write_text(text + "\n")
    assert tell_format(tmp_path / "m.star") == "stopgap"
    one = read_one(tmp_path / "m.star", "stopgap")
    assert np.allclose(one.position, [[1.0, 0, -2]]) and one.half_set.tolist() == [2] and is_turned(one)

    values = np.zeros(20)
    values[[0, 4, 6, 7, 8, 9, 10, 12]] = [0.5, 1, 2, 16, 11, 6, 0.5, -1]
    values[16:19] = [20, 70, 40]
    for order, machine in (("<", 6), (">", 3)):
        header = bytes([machine, 0, 0, 5]) + struct.pack(f"{order}3i", 20, 1, 1)
        (tmp_path / "m.em").write_bytes(header.ljust(512, b"\0") + values.astype(f"{order}f4").tobytes())
        one = read_one(tmp_path / "m.em", "em")
        assert np.allclose(one.position, [[1.0, 0, -2]]) and one.half_set.tolist() == [2] and is_turned(one)
        assert one.region.tolist() == [-1]


def test_peet_adds_the_offsets_of_its_csv(tmp_path):
    contours = (contour_at(np.array([[15.0, 10, 5]])), contour_at(np.array([[16.0, 10, 5], [15, 9, 5]])))
    write_model(tmp_path / "S.mod", [ImodObject(name="a", contours=contours)], size=(31, 20, 10), pixel_size=2.0)
    assert np.allclose(read_one(tmp_path / "S.mod", "peet").position, [[0, 0, 0], [2, 0, 0], [0, -2, 0]], atol=1e-5)
    row = "0.5,0,0,1,0,0,0,0,0,0,0.5,0,-1,0,0,0,20,70,40,0"
    (tmp_path / "S_MOTL.csv").write_text("CCC," + ",".join("x" * 19) + "\n" + f"{row}\n" * 3)
    one = read_one(tmp_path / "S.mod", "peet")
    assert np.allclose(one.position[0], [1, 0, -2], atol=1e-5) and one.region.tolist() == [0, 1, 1] and is_turned(one)
    (tmp_path / "S_MOTL.csv").write_text(row + "\n")
    with pytest.raises(InputError, match=r"S_MOTL\.csv: has 1 particles, but S\.mod has 3 points"):
        read_one(tmp_path / "S.mod", "peet")


def test_copick_counts_from_the_first_voxel_and_refuses_what_is_no_rotation(tmp_path):
    point = {"location": {"x": 31.0, "y": 20, "z": 8}, "transformation_": np.eye(4).tolist(), "instance_id": 2}
    point["transformation_"] = np.block([[TURNED.as_matrix(), np.zeros((3, 1))], [np.eye(4)[3:]]]).tolist()
    path = tmp_path / "ExperimentRuns" / "S" / "Picks" / "me_1_ribosome.json"
    path.parent.mkdir(parents=True)
    content = {"pickable_object_name": "ribosome", "user_id": "me", "session_id": "1", "points": [point]}
    path.write_text(json.dumps(content))
    one = read_one(tmp_path, "copick")
    assert np.allclose(one.position, [[1, 0, -2]]) and one.region.tolist() == [1] and is_turned(one)
    assert np.isnan(one.score).all()
    for row, fault in (([0, 0, 2, 0], "no rotation"), ([*TURNED.as_matrix()[2].tolist(), 5.0], "a translation")):
        point["transformation_"][2] = row
        path.write_text(json.dumps(content))
        with pytest.raises(InputError, match=fault):
            read_one(path, "copick")


def test_warp_counts_from_the_corner_to_half_the_size(tmp_path):
    """In Å the centre of 31 × 20 × 10 voxels of 2 Å is (31, 20, 10), half a voxel beyond ours along the odd axis."""
    angles = TURNED.inv().as_euler("ZYZ", degrees=True)
    columns = [f"wrpCoordinate{axis}1" for axis in "XYZ"] + [f"wrpAngle{end}1" for end in ("Rot", "Tilt", "Psi")]
    columns += ["wrpRandomSubset", "wrpSourceName"]
    row = " ".join(map(str, [32.0, 20, 8, *angles, 2, "S.mrc.tomostar"]))
    (tmp_path / "m.star").write_text("\n".join(["data_", "", "loop_", *(f"_{c}" for c in columns), row]) + "\n")
    one = read_one(tmp_path / "m.star", "warp")
    assert np.allclose(one.position, [[1, 0, -2]]) and one.half_set.tolist() == [2] and is_turned(one)


def test_m_counts_from_the_corner_of_its_sources_volume_and_knows_series_by_hash(tmp_path):
    """A particle 1, -2, 3 Å from the centre of 3838 × 3710 × 1001 px of 1.35 Å, which M has at 1919, 1855, 500.5 px.
    All that M asks of a table is there (MTools/Commands/CreateSpecies.cs)."""
    one = replace(make_particles()[:1], position=np.array([[1.0, -2, 3]]), half_set=np.array([2]))
    one = replace(one, rotation=Rotation.concatenate([TURNED]))
    source = read_m_source(write_source(tmp_path / "data.source"))
    (path,) = write_particle_files(tmp_path, one, "m", {}, PIXELS, source)
    table = read_star(path)[""]
    place = [float(table[f"wrpCoordinate{axis}1"][0]) for axis in "XYZ"]
    assert np.allclose(place, [1919 * 1.35 + 1, 1855 * 1.35 - 2, 500.5 * 1.35 + 3], atol=1e-9)
    angles = [float(table[f"wrpAngle{end}1"][0]) for end in ("Rot", "Tilt", "Psi")]
    assert np.allclose(angles, TURNED.inv().as_euler("ZYZ", degrees=True), atol=1e-9)
    said = {key: table[key] for key in ("wrpRandomSubset", "wrpSourceName", "wrpSourceHash")}
    assert said == {key: [value] for key, value in zip(said, ["2", "TS_03.tomostar", "hash_of_TS_03"], strict=True)}


def test_m_refuses_in_one_line(tmp_path):
    halves = replace(make_particles(), half_set=np.arange(60) % 2 + 1)
    source = read_m_source(write_source(tmp_path / "data.source", names=("TS_03", "TS_10")))
    for particles, given, fault in (
        (halves, None, "name its .source file"),
        (halves, source, "data.source: 0 of its files are called after the series TS_1"),
        (replace(halves, half_set=np.arange(60) % 2), source, "30 belong to none; run refine first"),
    ):
        with pytest.raises(InputError, match=fault):
            write_particle_files(tmp_path, particles, "m", {}, PIXELS, given)
    assert not (tmp_path / "particles.star").exists()
    (tmp_path / "other.source").write_text("<DataSource/>")
    with pytest.raises(InputError, match=r"other\.source: is no \.source of M"):
        read_m_source(tmp_path / "other.source")


def test_of_a_particle_that_m_lets_move_the_mean_is_taken(tmp_path):
    """Three samples in time, moved by -3, 0, 3 Å along x and turned by -2, 0, 2 degrees about their common axis."""
    columns = {"wrpSourceName": ["S.tomostar"], "wrpRandomSubset": [1]}
    for number, step in enumerate((-1, 0, 1), start=1):
        turn = TURNED * Rotation.from_rotvec([0, 2.0 * step, 0], degrees=True)
        angles = turn.inv().as_euler("ZYZ", degrees=True)
        columns |= {
            f"wrpCoordinate{axis}{number}": [x] for axis, x in zip("XYZ", (32.0 + 3 * step, 20, 8), strict=True)
        }
        columns |= {f"wrpAngle{end}{number}": [a] for end, a in zip(("Rot", "Tilt", "Psi"), angles, strict=True)}
    write_star(tmp_path / "m.star", {"": columns})
    one = read_one(tmp_path / "m.star", "m")
    assert np.allclose(one.position, [[1, 0, -2]]) and is_turned(one)


ONE_A_ROW = {"rlnHelicalTubeID": ([1, 1, 2], [0, 0, 1]), "rlnTomoManifoldIndex": ([0, 0, 1], [0, 0, 1])}


@pytest.mark.parametrize("kind", ["relion", "warp"])
@pytest.mark.parametrize("column", ONE_A_ROW)
def test_filaments_of_relion_are_regions(tmp_path, kind, column):
    """rlnHelicalTubeID counts from 1, rlnTomoManifoldIndex from 0; a list of ones says that there is no surface."""
    written, regions = ONE_A_ROW[column]
    stem = "rlnCenteredCoordinate{}Angst" if kind == "relion" else "rlnCoordinate{}"
    places = {stem.format(axis): [1.0, 2.0, 3.0] for axis in "XYZ"}

    def read(**columns):
        write_star(tmp_path / "p.star", {"particles": {"rlnTomoName": ["S"] * 3, **places, **columns}})
        if kind == "relion":
            return read_particles(tmp_path / "p.star").region.tolist()
        return read_warp_particles(tmp_path / "p.star").region.tolist()

    assert read(**{column: written}) == regions
    assert read(**{column: written, "tiltwiseRegion": [4, -1, 4]}) == [4, -1, 4]
    assert read(rlnHelicalTubeID=[3, 0, 3], rlnTomoManifoldIndex=[0, 1, 2]) == [2, -1, 2]
    assert read(rlnTomoManifoldIndex=[1, 1, 1]) == read() == [-1, -1, -1]
    assert read(rlnTomoManifoldIndex=[-1, 0, 0]) == [-1, 0, 0]
    with pytest.raises(InputError, match=f"_{column} in row 2 is 0.5, not a whole number"):
        read(**{column: [1, 0.5, 1]})


@pytest.mark.parametrize("form", ["relion", "warp", "m"])
def test_regions_are_tubes_to_relion_and_come_back_from_those_alone(tmp_path, form):
    """Every number is 1 or more, below which RELION's helical refinement stops; particles share one exactly where they
    share a region, and a program that drops our own column loses none of that."""
    before = replace(make_particles(), half_set=np.arange(60) % 2 + 1)
    path, block = tmp_path / "particles.star", "" if form == "m" else "particles"
    if form == "relion":
        write_particles(path, before)
    else:
        write_particle_files(tmp_path, before, form, GRIDS, PIXELS, read_m_source(write_source(tmp_path / "a.source")))
    table = read_star(path)[block]
    tubes = np.array(table["rlnHelicalTubeID"], dtype=int)
    assert tubes.min() >= 1 and np.array_equal(tubes[before.region >= 0], before.region[before.region >= 0] + 1)
    write_star(path, {block: {name: column for name, column in table.items() if name != "tiltwiseRegion"}})
    after, _ = read_particle_files(path, form, ["TS_03", "TS_1"], lambda name: GRIDS[name])
    assert np.array_equal(shared_regions(after), shared_regions(before))
    write_particles(path, replace(before, region=np.full(60, -1)))
    assert "rlnHelicalTubeID" not in read_star(path)["particles"]


def test_real_files(shared_data):
    folder = shared_data / "particle_tables"
    table = read_dynamo(folder / "dynamo2m/dynamo2warp/example.tbl")
    raw = np.loadtxt(folder / "dynamo2m/dynamo2warp/example.tbl")
    assert np.allclose(table.place + 1, raw[:, 23:26] + raw[:, 3:6])
    matrix = Rotation.from_euler("zxz", raw[:, 6:9], degrees=True).as_matrix()
    assert np.allclose(table.rotation.as_matrix(), np.swapaxes(matrix, 1, 2))
    assert len(set(table.tomogram.tolist())) == len(set(raw[:, 19])) and table.region.min() == 0
    assert len(read_dynamo(folder / "dynamo/t_double.tbl").score) == 300
    m = read_warp_particles(folder / "dynamo2m/m2warp/example.star")
    assert m.unit == 1.0 and m.place[0].tolist() == [7663.728, 5644.008, 4851.24] and set(m.half_set) == {1, 2}
    warp = read_warp_particles(folder / "dynamo2m/warp2dynamo/example.star")
    assert np.allclose(warp.place[0], np.array([1512.353, 1126.5, 973.5]) * 5.0)
    relion = read_warp_particles(folder / "dynamo2m/relion_star_downgrade/relion3.1.star")
    assert relion.unit == 1.0 and len(relion.score) > 50
    pytom = read_warp_particles(folder / "star/CCDC147C_001_particles.star")
    assert pytom.unit is None and pytom.place[0].tolist() == [480, 272, 104] and pytom.score[0] == 0.20167


def test_tomograms_find_their_series(tmp_path):
    series = ["TS_1", "TS_10", "TS_1_b", "tomo_ts01"]
    assert match_series(r"F:\rec\TS_1_10.00Apx.mrc", series) == "TS_1"
    assert match_series("TS_10.tomostar", series) == "TS_10"
    assert match_series("TS_1_b.mrc", series) == "TS_1_b"
    assert match_series("tomo_ts01.mrc.tomostar", series) == "tomo_ts01"
    assert match_series("TS_100.mrc", series) is None
    (tmp_path / "a.doc").write_text("# tomograms\n7 /data/TS_10.rec\n12 TS_1\n")
    assert read_tomogram_map(tmp_path / "a.doc") == {"7": "/data/TS_10.rec", "12": "TS_1"}
    (tmp_path / "a.vll").write_text("/data/TS_10.rec\n/data/TS_1.rec\n")
    assert read_tomogram_map(tmp_path / "a.vll") == {"1": "/data/TS_10.rec", "2": "/data/TS_1.rec"}


def test_what_is_left_out_is_said_and_a_bare_number_is_no_name(tmp_path):
    write_particle_files(tmp_path, make_particles(), "dynamo", GRIDS, PIXELS)
    some, notes = read_particle_files(tmp_path / "particles.tbl", "dynamo", ["TS_1"], GRIDS.__getitem__)
    assert len(some) == 30 and notes == ("30 particles of 1 other tomograms are left out (1 ...)",)
    (tmp_path / "particles.doc").unlink()
    with pytest.raises(InputError, match="tomogram 1 is a number; name a file of 'number series' lines"):
        read_particle_files(tmp_path / "particles.tbl", "dynamo", ["TS_03", "TS_1"], GRIDS.__getitem__)
    write_particle_files(tmp_path, make_particles(), "warp", GRIDS, PIXELS)
    with pytest.raises(InputError, match=r"no tilt series of the project is called as its tomogram TS_03\.tomostar"):
        read_particle_files(tmp_path / "particles.star", "warp", ["A"], GRIDS.__getitem__)


@pytest.mark.parametrize(
    ("name", "reader", "text", "fault"),
    [
        ("a.tbl", read_dynamo, "1 2 3\n", "line 1: a row of a table has 26 columns or more, not 3"),
        ("a.tbl", read_dynamo, "\n", "holds no particle"),
        ("a.em", read_em, "not an EM file", "no EM file"),
        ("a.star", read_stopgap, "data_x\n_a 1\n", "has no block data_stopgap_motivelist"),
        ("a.star", read_warp_particles, "data_x\n_a 1\n", "holds no particles"),
        ("a.mod", read_peet, "imod 1", "an ASCII model"),
    ],
)
def test_faults_in_one_line(tmp_path, name, reader, text, fault):
    (tmp_path / name).write_text(text)
    with pytest.raises(InputError, match=fault):
        reader(tmp_path / name)
