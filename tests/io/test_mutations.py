"""Some hundred real files with something broken in each: what cannot be read is an InputError of one line, and no other
error."""

import random
import shutil
import warnings

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from tiltwise.data.errors import InputError
from tiltwise.data.particles import Particles
from tiltwise.data.tilt_series import TiltGeometry
from tiltwise.data.volume import TomogramGrid
from tiltwise.io.acquisition import read_acquisition
from tiltwise.io.alignment_files import read_alignment
from tiltwise.io.centres import read_centres
from tiltwise.io.images import ImageFile, read_image
from tiltwise.io.imod import read_tlt, read_xf
from tiltwise.io.imod_com import read_newst_com, read_tilt_com
from tiltwise.io.imod_model import ImodObject, contour_at, model_indices, read_model, write_model
from tiltwise.io.m_source import MSource, read_m_source
from tiltwise.io.mdoc import acquisition_order, read_mdoc, tilt_axis_angle
from tiltwise.io.model import read_atoms
from tiltwise.io.mrc import read_mrc, read_volume
from tiltwise.io.particle_files import read_particle_files, tell_format, write_particle_files
from tiltwise.io.particle_list import read_tomogram_map
from tiltwise.io.portal import to_portal, write_portal
from tiltwise.io.relion import read_optimisation_set, read_particles, read_tilt_series, read_tilt_series_set
from tiltwise.io.relion.alignment import read_relion_alignment
from tiltwise.io.session_folder import read_session
from tiltwise.io.shapes import read_shapes
from tiltwise.io.star import read_star
from tiltwise.io.warp import Tomostar, read_tomostar, write_tomostar


def every_meaning_of_an_mdoc(path):
    mdoc = read_mdoc(path)
    return acquisition_order(mdoc), tilt_axis_angle(mdoc)


def as_any_star(path):
    for reader in (read_star, read_particles, read_tilt_series, read_tilt_series_set, read_optimisation_set):
        attempt(reader, path)
    attempt(read_centres, path)


def as_an_alignment(path):
    geometry = read_alignment(path, "TS_03", **SIZES).geometry
    values = (geometry.tilt_angle, geometry.tilt_axis_angle, geometry.x_tilt, geometry.shift)
    assert all(np.isfinite(value).all() for value in values)


def as_a_command_file(path):
    attempt(read_tilt_com, path)
    attempt(read_newst_com, path)


def every_point_of_a_model(path):
    model = read_model(path)
    return [model_indices(model, contour) for one in model.objects for contour in one.contours]


def the_image(path):
    return np.asarray(read_image(ImageFile(path=path, section=0)))


def beside_a_stack(path):
    attempt(lambda path: read_session(path.parent), path)
    return read_acquisition(path.parent / "TS_03.mrc")


def as_particles(path):
    """In the format that the file itself shows, or its suffix; what is read has finite places and proper rotations."""
    form = tell_format(path)
    series = [f"TS_{number}" for number in range(9)]
    one = read_particle_files(path, form, series, lambda name: GRID)[0]
    assert np.isfinite(one.position).all() and np.isfinite(one.rotation.as_quat()).all()


def as_particles_of_many(path):
    attempt(as_particles, path)
    attempt(read_tomogram_map, path)


GRID = TomogramGrid(shape=(100, 200, 300), voxel_size=10.0)
SIZES = {"pixel_size": 2.0, "image_shape": (4096, 4096)}
TOKENS = (
    b"nan inf -inf 1e999 1e308 -1 0 99999999999999999999 , = [ ] # \" ' True loop_ data_ <a> { } null 1,5 _rlnX".split()
)
READERS = {
    "mdoc/*/*.mdoc": (every_meaning_of_an_mdoc, 4),
    "hiv_empiar10164/stacks/TS_03.mrc.mdoc": (beside_a_stack, 60),
    "hiv_empiar10164/stacks/TS_03.rawtlt": (beside_a_stack, 20),
    "hiv_empiar10164/relion5/Picks/job009/**/*.star": (as_any_star, 8),
    "hiv_empiar10164/relion5/Tomograms/job006/tomograms.star": (read_tilt_series_set, 20),
    "hiv_empiar10164/relion5/CtfRefine/job067/optimisation_set.star": (as_any_star, 10),
    "particle_tables/star/*.star": (as_any_star, 3),
    "particle_tables/dynamo/*.tbl": (as_particles_of_many, 20),
    "particle_tables/dynamo2m/relion_star_downgrade/*.star": (as_particles_of_many, 20),
    "hiv_empiar10164/relion5/AlignTiltSeries/job005/tilt_series/*.star": (as_an_alignment, 30),
    "alignment_text/*/*.aln": (as_an_alignment, 40),
    "alignment_text/warp2relion-tomo/test_data/*.xml": (as_an_alignment, 12),
    "alignment_text/warp2relion-tomo/test_data/*.com": (as_a_command_file, 40),
    "alignment_text/imod_bb/tilt.com": (as_a_command_file, 40),
    "microtubule/13pf_MT.tif": (the_image, 30),
    "alignment_text/*/*.xf": (read_xf, 4),
    "alignment_text/imod_bb/*.tlt": (read_tlt, 4),
    "maps/*3197.map": (read_volume, 40),
    "microtubule/beta-tubulin.mrc": (read_mrc, 40),
    "models/ca_sp1*.cif": (read_atoms, 8),
    "models/1bxn*.pdb": (read_atoms, 8),
}


def broken(raw: bytes, rng: random.Random, binary: bool) -> bytes:
    """Cut, doubled, shuffled or overwritten somewhere; half of the time near the beginning, where headers are."""
    end = len(raw) if rng.random() < 0.5 else min(len(raw), 1200)
    start = rng.randrange(max(end, 1))
    stop = min(len(raw), start + rng.choice((1, 4, 40, 400)))
    kind = rng.randrange(8)
    if kind == 0:
        return raw[:start]
    if kind == 1:
        return raw[:start] + raw[stop:]
    if kind == 2:
        return raw[:stop] + raw[start:]
    if kind == 3:
        return raw[:start] + bytes(rng.randrange(256) for _ in range(stop - start)) + raw[stop:]
    if kind == 4 or binary:
        return raw[:start] + rng.choice((b"\xff\xff\xff\x7f", b"\0\0\0\0", b"nan ", b"-1 ", b"\x00")) + raw[start + 4 :]
    if kind > 5:
        words = raw.split(b" ")
        words[rng.randrange(len(words))] = rng.choice(TOKENS)
        return b" ".join(words)
    lines = raw.split(b"\n")
    first, second = rng.randrange(len(lines)), rng.randrange(len(lines))
    lines[first], lines[second] = lines[second], lines[first]
    return b"\n".join(lines)


def attempt(reader, path):
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", RuntimeWarning)  # an overflow is a fault that was not named
            reader(path)
    except InputError as error:
        assert str(error) and "\n" not in str(error) and len(str(error)) < 600


@pytest.mark.parametrize("pattern", READERS)
def test_only_input_errors_of_one_line(shared_data, tmp_path, pattern):
    reader, times = READERS[pattern]
    rng = random.Random(pattern)
    files = sorted(shared_data.glob(pattern))
    assert files
    for path in files:
        if reader is beside_a_stack:
            for other in path.parent.glob("TS_03*"):
                shutil.copyfile(other, tmp_path / other.name)
        if reader is read_tilt_series_set:
            shutil.copytree(path.parent / "tilt_series", tmp_path / "Tomograms/job006/tilt_series")
        raw = path.read_bytes()
        for _ in range(times):
            (tmp_path / path.name).write_bytes(broken(raw, rng, binary=path.suffix in (".map", ".mrc", ".tif")))
            attempt(reader, tmp_path / path.name)


def write_made_particles(folder):
    """The same few particles in every format, a folder each."""
    particles = Particles(
        tilt_series=np.array(["TS_1", "TS_2"] * 4),
        position=np.arange(24.0).reshape(-1, 3) * 7,
        rotation=Rotation.random(8, random_state=0),
        score=np.linspace(0, 1, 8),
        half_set=np.array([1, 2] * 4),
        region=np.array([0, 0, 0, 0, 1, 1, 1, 1]),
    )
    grids = {"TS_1": GRID, "TS_2": GRID}
    source = MSource(path=folder, hashes={"TS_1.tomostar": "a", "TS_2.tomostar": "b"}, grid=GRID)
    for form in ("warp", "m", "dynamo", "stopgap", "em", "copick", "peet"):
        (folder / form).mkdir()
        write_particle_files(folder / form, particles, form, grids, {"TS_1": 2.0, "TS_2": 2.0}, source)


@pytest.mark.parametrize(
    "name",
    [
        "warp/particles.star",
        "m/particles.star",
        "dynamo/particles.tbl",
        "dynamo/particles.doc",
        "stopgap/particles.star",
        "em/particles.em",
        "copick/ExperimentRuns/TS_1/Picks/tiltwise_0_particle.json",
        "peet/TS_1.mod",
        "peet/TS_1.csv",
    ],
)
def test_made_particles_of_the_other_formats(tmp_path, name):
    write_made_particles(tmp_path)
    path, rng = tmp_path / name, random.Random(name)
    raw, lead = path.read_bytes(), {".doc": ".tbl", ".csv": ".mod"}.get(path.suffix, path.suffix)
    as_particles(path.with_suffix(lead))
    for _ in range(150):
        path.write_bytes(broken(raw, rng, binary=path.suffix in (".mod", ".em")))
        attempt(as_particles, path.with_suffix(lead))


def write_made_files(folder):
    """One file of each format of which no real one is at hand."""
    rng, angles = np.random.default_rng(0), np.arange(-60.0, 61, 3)
    beads = tuple(contour_at(rng.uniform(0, 99, (9, 3))) for _ in range(4))
    write_model(folder / "beads.mod", [ImodObject(name="b", contours=beads)] * 2, size=(100, 100, 41))
    shift = rng.normal(size=(41, 2)) * 50
    geometry = TiltGeometry(tilt_angle=angles, tilt_axis_angle=angles * 0 + 85, x_tilt=angles * 0, shift=shift)
    write_portal(folder / "portal.json", to_portal(geometry, np.ones(41, bool), np.arange(41), **SIZES))
    names = tuple(f"{index}.eer" for index in range(41))
    write_tomostar(folder / "a.tomostar", Tomostar(movie_names=names, angle=angles, axis_angle=angles, dose=angles))
    size = [f"_rlnTomoSize{axis} 100" for axis in "XYZ"]
    columns = [f"_rlnTomoProj{axis}" for axis in "XYZ"]
    rows = ["[1,0,0,5.5] [0,1,0,-3] [0,0,1,0]", "[0,1,0,5.5] [-1,0,0,-3] [0,0,1,0]"]
    lines = ["data_global", "", *size, "_rlnTomoName TS_03", "", "data_TS_03", "", "loop_", *columns, *rows]
    (folder / "relion4.star").write_text("\n".join(lines) + "\n")
    local = "".join(f"{tilt} {patch} 1.0 2.0 3.0 4.0 1.0\n" for tilt in range(3) for patch in range(2))
    global_rows = "".join(f"{tilt + 1} 85.0 1.0 3.0 4.0 1.0 1.0 1.0 0.0 {3 * tilt}.0\n" for tilt in range(3))
    header = "# RawSize = 4096 4096 4\n# NumPatches = 2\n# DarkFrame = 3 4 9.0\n"
    clicks = "".join(f"TS_03 mt{n % 2} {n}.5 {2 * n} -{n}\n" for n in range(20))
    (folder / "clicks.txt").write_text(clicks)
    sizes = "".join(f'<Param Name="{name}" Value="1400" />\n' for name in ("DimensionsX", "DimensionsY", "DimensionsZ"))
    files = '<Files>\n<File Hash="zwJUr_iwZ" Name="TS_1.tomostar" Weight="1" />\n</Files>'
    (folder / "a.source").write_text(
        f'<DataSource>\n<Param Name="PixelSize" Value="1.35" />\n{sizes}{files}</DataSource>'
    )
    (folder / "local.aln").write_text(header + global_rows + local)


@pytest.mark.parametrize(
    ("name", "reader", "times"),
    [
        ("beads.mod", every_point_of_a_model, 300),
        ("beads.mod", lambda path: read_shapes(path, "TS_03"), 100),
        ("clicks.txt", lambda path: read_shapes(path, "TS_03"), 150),
        ("portal.json", as_an_alignment, 150),
        ("a.tomostar", read_tomostar, 150),
        ("a.source", read_m_source, 150),
        ("relion4.star", lambda path: read_relion_alignment(path, "TS_03", **SIZES), 200),
        ("local.aln", as_an_alignment, 300),
    ],
)
def test_made_files_of_the_other_formats(tmp_path, name, reader, times):
    write_made_files(tmp_path)
    raw, rng = (tmp_path / name).read_bytes(), random.Random(name)
    reader(tmp_path / name)
    for _ in range(times):
        (tmp_path / name).write_bytes(broken(raw, rng, binary=name.endswith(".mod")))
        attempt(reader, tmp_path / name)
