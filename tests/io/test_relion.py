"""RELION-5 sets and our tilts.star: the real files, exact round trips, the total orientation, faults in one line."""

import dataclasses
import re
import shutil
import warnings

import numpy as np
import pytest
import starfile
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scipy.spatial import cKDTree
from scipy.spatial.transform import Rotation

from tiltwise.data.deformation import Deformation, ImageWarp, SampleDeformation
from tiltwise.data.errors import InputError
from tiltwise.data.particles import Particles
from tiltwise.io.mrc import read_mrc
from tiltwise.io.relion import (
    TomogramFile,
    read_optimisation_set,
    read_particles,
    read_tilt_series,
    read_tilt_series_set,
    write_optimisation_set,
    write_particles,
    write_tilt_series,
    write_tilt_series_set,
)
from tiltwise.io.star import numbers, read_star, write_star

NESTED = ("geometry", "beads", "ctf", "optics")
MAY_BE_UNKNOWN = [
    "geometry",
    "specimen_thickness",
    "beads",
    "ctf",
    "defocus_handedness",
    "nominal_defocus",
    "nominal_tilt_axis_angle",
]


def assert_same_series(found, expected, *, skip=()):
    """Every field bit by bit, images excepted."""
    for field in dataclasses.fields(expected):
        ours, theirs = getattr(found, field.name), getattr(expected, field.name)
        if field.name == "images" or field.name in skip:
            continue
        if field.name in NESTED and theirs is not None:
            for inner in dataclasses.fields(theirs):
                assert_equal(getattr(ours, inner.name), getattr(theirs, inner.name), inner.name)
        else:
            assert_equal(ours, theirs, field.name)


def assert_equal(found, expected, name):
    if isinstance(expected, np.ndarray):
        assert np.array_equal(found, expected, equal_nan=expected.dtype.kind == "f"), name
    else:
        assert found == expected, name


def test_a_deformation_is_kept_bit_by_bit_and_a_torn_one_is_named(tmp_path, make_tilt_series):
    rng, series = np.random.default_rng(0), make_tilt_series(seed=3)
    sample = SampleDeformation(
        exposure=np.array([0.0, 50.0, 120.0]),
        coefficient=rng.normal(0, 10, (3, 10, 3)),
        scale=2000.0,
        magnification=rng.normal(1, 1e-3, series.number),
    )
    image = ImageWarp(coefficient=rng.normal(0, 5, (series.number, 4, 5, 2)), extent=(4000.0, 3900.0))
    cubic = dataclasses.replace(sample, coefficient=rng.normal(0, 10, (3, 20, 3)))
    path = tmp_path / "tilts.star"
    for parts in ((sample, None), (None, image), (cubic, None), (sample, image)):
        write_tilt_series(path, dataclasses.replace(series, deformation=Deformation(sample=parts[0], image=parts[1])))
        found = read_tilt_series(path).deformation
        for ours, theirs in zip((found.sample, found.image), parts, strict=True):
            assert (ours is None) == (theirs is None)
            for field in dataclasses.fields(theirs) if theirs is not None else ():
                assert_equal(getattr(ours, field.name), getattr(theirs, field.name), field.name)
    blocks = read_star(path)
    blocks["image_warp"] = {column: values[:-1] for column, values in blocks["image_warp"].items()}
    write_star(path, blocks)
    with pytest.raises(InputError, match="tilts.star: data_image_warp does not list every tilt"):
        read_tilt_series(path)
    blocks["sample_deformation"] = {column: values[:-1] for column, values in blocks["sample_deformation"].items()}
    write_star(path, blocks)
    with pytest.raises(InputError, match="data_sample_deformation has 29 rows, which is not 10, nor 20, for each knot"):
        read_tilt_series(path)


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seed=st.integers(0, 2**31), unknown=st.sets(st.sampled_from(MAY_BE_UNKNOWN)))
def test_tilts_star_gives_everything_back_bit_by_bit(tmp_path, make_tilt_series, seed, unknown):
    series = make_tilt_series(seed=seed, **dict.fromkeys(unknown))
    write_tilt_series(tmp_path / "tilts.star", series)
    back = read_tilt_series(tmp_path / "tilts.star")
    assert_same_series(back, series)
    assert back.images.shape == (5, 8, 10) and isinstance(back.images, np.memmap)
    write_tilt_series(tmp_path / "again.star", back)
    assert (tmp_path / "again.star").read_bytes() == (tmp_path / "tilts.star").read_bytes()


def test_tilts_star_can_be_moved_with_its_root(tmp_path, make_tilt_series):
    series = make_tilt_series()
    write_tilt_series(tmp_path / "tilts.star", series, root=tmp_path)
    assert "@stacks/TS_1.mrc" in (tmp_path / "tilts.star").read_text()
    assert str(tmp_path) not in (tmp_path / "tilts.star").read_text()
    assert_same_series(read_tilt_series(tmp_path / "tilts.star", root=tmp_path), series)
    moved = tmp_path.parent / f"{tmp_path.name}_moved"
    shutil.copytree(tmp_path, moved)
    assert read_tilt_series(moved / "tilts.star", root=moved).image_names[0] == f"000001@{moved}/stacks/TS_1.mrc"


def test_an_absent_image_of_a_used_tilt_is_said(tmp_path, make_tilt_series):
    series = make_tilt_series()
    names = list(series.image_names)
    names[1] = "gone.mrc"  # tilt 2 is excluded: nothing is missed
    write_tilt_series(tmp_path / "tilts.star", dataclasses.replace(series, image_names=tuple(names)))
    assert not read_tilt_series(tmp_path / "tilts.star").images[1].any()
    names[0] = "lost.mrc"
    write_tilt_series(tmp_path / "tilts.star", dataclasses.replace(series, image_names=tuple(names)))
    with pytest.raises(InputError, match="the image lost.mrc is not there"):
        read_tilt_series(tmp_path / "tilts.star")


def test_the_relion_set_lists_the_used_tilts(tmp_path, make_tilt_series):
    one, two = make_tilt_series("TS_1", seed=1), make_tilt_series("TS_2", number=4, seed=2)
    write_tilt_series_set(tmp_path / "tilt_series.star", [one, two])
    back = read_tilt_series_set(tmp_path / "tilt_series.star")
    assert list(back) == ["TS_1", "TS_2"]
    for series in (one, two):
        found, used = back[series.name], series.use
        assert found.use.all() and found.number == used.sum()
        assert np.array_equal(found.pre_exposure, series.pre_exposure[used])
        assert np.array_equal(found.geometry.shift, series.geometry.shift[used])
        assert np.array_equal(found.ctf.defocus_u, series.ctf.defocus_u[used])
        assert np.allclose(found.nominal_defocus, series.nominal_defocus[used], rtol=1e-14)
        assert found.defocus_handedness == -1 and found.nominal_tilt_axis_angle == 85.3
        assert np.array_equal(found.images[0], np.asarray(read_images(series))[used][0])
    table = starfile.read(tmp_path / "tilt_series/TS_1.star")
    assert table["rlnMicrographName"].iloc[0] == "000001@stacks/TS_1.mrc:mrcs"
    assert np.allclose(table["rlnTomoZRot"], one.geometry.tilt_axis_angle[one.use])


def read_images(series):
    return read_mrc(series.image_names[0].split("@")[1])[0]


def test_tomograms_star_states_even_unbinned_sizes(tmp_path, make_tilt_series):
    series = make_tilt_series(defocus_handedness=None)
    tomogram = TomogramFile(path=tmp_path / "rec/TS_1.mrc", shape=(21, 40, 41), voxel_size=10.0)
    write_tilt_series_set(tmp_path / "tomograms.star", [series], tomograms={"TS_1": tomogram})
    table = read_star(tmp_path / "tomograms.star")["global"]
    assert [table[f"rlnTomoSize{axis}"] for axis in "XYZ"] == [["164"], ["160"], ["84"]]
    assert table["rlnTomoTomogramBinning"] == ["4.0"] and table["rlnTomoReconstructedTomogram"] == ["rec/TS_1.mrc"]
    assert "rlnTomoHand" not in table
    assert read_tilt_series_set(tmp_path / "tomograms.star")["TS_1"].defocus_handedness is None


RELION = "hiv_empiar10164/relion5"
SETS = {
    "Import/job001/tilt_series.star": (41, False, False),
    "CtfFind/job003/tilt_series_ctf.star": (41, False, True),
    "AlignTiltSeries/job005/aligned_tilt_series.star": (40, True, True),
    "Tomograms/job006/tomograms.star": (40, True, True),
    "CtfRefine/job067/tomograms.star": (40, True, True),
    "Polish/job070/tomograms.star": (40, True, True),
}


@pytest.mark.parametrize("name", SETS)
def test_real_sets(shared_data, name):
    count, aligned, fitted = SETS[name]
    series = read_tilt_series_set(shared_data / RELION / name)
    assert list(series) == ["TS_03", "TS_43"]
    one = series["TS_03"]
    assert one.number == count and (one.geometry is not None) == aligned and (one.ctf is not None) == fitted
    assert one.defocus_handedness == -1 and one.nominal_tilt_axis_angle == 85.0 and one.exposure[0] == 3.0
    assert one.nominal_defocus[0] == 15000.0 and one.pixel_size == (0.675 if "Import" in name else 1.35)
    assert not one.use.any() and one.why_not[0] == "its image file is absent"
    assert one.acquisition_order[np.abs(one.stage_tilt_angle).argmin()] == 0
    if aligned:
        assert np.all(np.abs(one.geometry.tilt_axis_angle - 85.3) < 0.5) and np.abs(one.geometry.shift).max() < 300
    if fitted:
        assert np.all((one.ctf.mean_defocus > 8e3) & (one.ctf.mean_defocus < 3e4))


def test_real_numbers_are_starfiles_numbers(shared_data):
    folder = shared_data / RELION / "CtfRefine/job067"
    ours = read_tilt_series_set(folder / "tomograms.star")["TS_43"]
    theirs = starfile.read(folder / "tilt_series/TS_43.star")
    assert np.array_equal(ours.geometry.tilt_angle, theirs["rlnTomoYTilt"])
    assert np.array_equal(ours.geometry.shift, theirs[["rlnTomoXShiftAngst", "rlnTomoYShiftAngst"]])
    assert np.array_equal(ours.ctf.astigmatism_angle, theirs["rlnDefocusAngle"])
    assert np.array_equal(ours.pre_exposure, theirs["rlnMicrographPreExposure"])


def test_images_can_be_given_to_a_set_that_has_none(shared_data):
    stack, _ = read_mrc(shared_data / "hiv_empiar10164/stacks/TS_03.mrc")
    path = shared_data / RELION / "AlignTiltSeries/job005/aligned_tilt_series.star"
    assert read_tilt_series_set(path, images={"TS_03": stack})["TS_03"].use.all()
    with pytest.raises(InputError, match="lists 40 tilts, but 39 images are given"):
        read_tilt_series_set(path, images={"TS_03": stack[1:]})


def test_a_real_set_comes_back_from_writing(shared_data, tmp_path):
    path = shared_data / RELION / "CtfRefine/job067/tomograms.star"
    stacks = {name: np.zeros((41 if name == "TS_43" else 40, 2, 2), np.float32) for name in ("TS_03", "TS_43")}
    series = read_tilt_series_set(path, images=stacks)
    write_tilt_series_set(tmp_path / "set.star", series.values())
    back = read_tilt_series_set(tmp_path / "set.star", images=stacks)
    for name, expected in series.items():
        assert_same_series(back[name], expected, skip=("image_names",))


def neighbours_at_75_angstrom(particles):
    near = []
    for name in np.unique(particles.tilt_series):
        points = particles.position[particles.tilt_series == name]
        near.append(cKDTree(points).query(points, k=2)[0][:, 1])
    return np.mean(np.abs(np.concatenate(near) - 75) < 5)


def test_the_centre_rule_gives_the_real_lattice(shared_data, tmp_path):
    """About 64 % of nearest neighbours lie within 75 ± 5 Å; 37 % if the rotation of the origin is forgotten."""
    path = shared_data / RELION / "Refine3D/job023/run_data.star"
    particles = read_particles(path)
    assert len(particles) == 4392 and set(np.unique(particles.half_set)) == {1, 2}
    assert neighbours_at_75_angstrom(particles) == pytest.approx(0.64, abs=0.01)
    table = read_star(path)["particles"]
    centred = np.stack([numbers(table, f"rlnCenteredCoordinate{axis}Angst", path) for axis in "XYZ"], axis=1)
    origin = np.stack([numbers(table, f"rlnOrigin{axis}Angst", path) for axis in "XYZ"], axis=1)
    forgotten = dataclasses.replace(particles, position=centred - origin)
    assert neighbours_at_75_angstrom(forgotten) == pytest.approx(0.37, abs=0.01)


def sixfold_order(particles):
    """|mean exp(6 i angle)| of the neighbours at 75 Å, in the particle's own frame."""
    angles = []
    for name in np.unique(particles.tilt_series):
        own = np.flatnonzero(particles.tilt_series == name)
        points = particles.position[own]
        for first, second in cKDTree(points).query_pairs(85, output_type="ndarray"):
            step = points[second] - points[first]
            if np.linalg.norm(step) > 65:
                x, y, _ = particles.rotation[own[first]].apply(step, inverse=True)
                angles.append(np.arctan2(y, x))
    return np.abs(np.exp(6j * np.array(angles)).mean())


def test_the_total_orientation_gives_the_real_hexagons(shared_data):
    """Seen from a particle its neighbours stand at the corners of a hexagon; with rlnAngle* alone they do not."""
    particles = read_particles(shared_data / RELION / "Refine3D/job074/run_data.star")
    some = particles[np.arange(0, 1500)]
    assert sixfold_order(some) > 0.8
    table = read_star(shared_data / RELION / "Refine3D/job074/run_data.star")["particles"]
    angles = np.stack([numbers(table, f"rlnAngle{name}", "") for name in ("Rot", "Tilt", "Psi")], axis=1)[:1500]
    alone = dataclasses.replace(some, rotation=Rotation.from_euler("ZYZ", angles, degrees=True).inv())
    assert sixfold_order(alone) < 0.3


def some_particles(count=20, seed=0, names=("TS_1", "007")):
    rng = np.random.default_rng(seed)
    return Particles(
        tilt_series=np.array([names[i % len(names)] for i in range(count)], dtype=str),
        position=rng.normal(size=(count, 3)) * 1000,
        rotation=Rotation.from_quat(rng.normal(size=(max(count, 1), 4)))[:count],
        score=rng.normal(size=count),
        half_set=rng.integers(0, 3, count),
        region=rng.integers(-1, 4, count),
    )


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seed=st.integers(0, 2**31), count=st.integers(0, 30))
def test_particles_come_back(tmp_path, seed, count):
    particles = some_particles(count, seed)
    write_particles(tmp_path / "a.star", particles)
    back = read_particles(tmp_path / "a.star")
    for field in ("tilt_series", "position", "score", "half_set", "region"):
        assert np.array_equal(getattr(back, field), getattr(particles, field)), field
    if count:
        assert (back.rotation.inv() * particles.rotation).magnitude().max() < 1e-10
    write_particles(tmp_path / "b.star", back)
    assert (tmp_path / "a.star").read_bytes() == (tmp_path / "b.star").read_bytes()


def test_at_the_poles_of_the_angles_the_rotation_still_comes_back_without_a_warning(tmp_path):
    angles = [[30, 0, 40], [30, 180, 40], [0, 0, 0], [-170, 1e-9, 20]]
    rotation = Rotation.from_euler("ZYZ", angles, degrees=True).inv()
    particles = dataclasses.replace(some_particles(4), rotation=rotation)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        write_particles(tmp_path / "a.star", particles)
        back = read_particles(tmp_path / "a.star")
    assert (back.rotation.inv() * rotation).magnitude().max() < 1e-8


def test_optics_groups_follow_the_settings(tmp_path, make_tilt_series):
    series = {"TS_1": make_tilt_series("TS_1"), "007": make_tilt_series("007", pixel_size=3.0)}
    write_particles(tmp_path / "a.star", some_particles(), tilt_series=series)
    blocks = starfile.read(tmp_path / "a.star")
    assert blocks["general"]["rlnTomoSubTomosAre2DStacks"] == 1
    assert blocks["optics"]["rlnTomoTiltSeriesPixelSize"].tolist() == [2.5, 3.0]
    assert blocks["particles"]["rlnOpticsGroup"].tolist() == [1, 2] * 10
    assert np.array_equal(read_particles(tmp_path / "a.star").position, some_particles().position)
    with pytest.raises(ValueError, match="tilt series 007"):
        write_particles(tmp_path / "a.star", some_particles(), tilt_series={"TS_1": series["TS_1"]})


def test_relions_picks_without_angles_are_unturned(shared_data):
    picks = read_particles(shared_data / RELION / "Picks/job019/particles.star")
    assert picks.rotation.magnitude().max() == 0 and np.isnan(picks.score).all() and (picks.region == -1).all()


def test_in_tomograms_of_odd_size_relions_points_lie_half_a_pixel_further(tmp_path):
    write_particles(tmp_path / "p.star", some_particles(names=("TS_1",)))
    tomogram = {"rlnTomoName": ["TS_1"], "rlnTomoTiltSeriesPixelSize": [2.0]}
    tomogram |= {"rlnTomoSizeX": [401], "rlnTomoSizeY": [400], "rlnTomoSizeZ": [201]}
    write_star(tmp_path / "t.star", {"global": tomogram})
    moved = read_particles(tmp_path / "p.star", tomograms=tmp_path / "t.star").position - some_particles().position
    assert np.allclose(moved, [1.0, 0.0, 1.0])
    write_particles(tmp_path / "p.star", some_particles())
    with pytest.raises(InputError, match="lacks the tomogram 007"):
        read_particles(tmp_path / "p.star", tomograms=tmp_path / "t.star")


def test_optimisation_sets(shared_data, tmp_path):
    for path in (shared_data / RELION).glob("**/*optimisation_set.star"):
        found = read_optimisation_set(path)
        assert found["particles"].endswith(".star") and found["tomograms"].endswith("tomograms.star")
    write_optimisation_set(tmp_path / "o.star", particles="p.star", tomograms="t.star")
    assert read_optimisation_set(tmp_path / "o.star") == {"particles": "p.star", "tomograms": "t.star"}
    with pytest.raises(ValueError, match="has no"):
        write_optimisation_set(tmp_path / "o.star", volumes="x")


def edited(path, pattern, replacement):
    text = path.read_text()
    changed = re.sub(pattern, replacement, text, count=1, flags=re.MULTILINE)
    assert changed != text
    path.write_text(changed)


FAULTS = [
    ("tilts", r"^data_tilts$", "data_tilt", "has no block data_tilts"),
    ("tilts", r"^data_series$", "data_serie", "has no block data_series"),
    ("tilts", r"_rlnTomoZRot", "_rlnTomoZRotation", "lacks the column _rlnTomoZRot"),
    ("tilts", r"_tiltwiseUse", "_tiltwiseUsed", "lacks the column _tiltwiseUse"),
    ("tilts", r"_rlnDefocusV", "_rlnDefocusW", "lacks the column _rlnDefocusV"),
    ("tilts", r"(_rlnTomoHand\s+)-1", r"\g<1>0", "rlnTomoHand is 0.0"),
    ("tilts", r"(_rlnVoltage\s+)\S+", r"\g<1>high", "_rlnVoltage in row 1 is 'high'"),
    ("set", r"^data_global$", "data_globe", "has no block data_global"),
    ("set", r"_rlnVoltage", "_rlnVolt", "lacks the column _rlnVoltage"),
    ("set", r"tilt_series/TS_1.star", "tilt_series/TS_9.star", "TS_9.star that it names is not found"),
    ("set/TS_1", r"^data_TS_1$", "data_TS_2", "has no block data_TS_1"),
    ("set/TS_1", r"_rlnMicrographPreExposure", "_rlnPreExposure", "lacks the column _rlnMicrographPreExposure"),
    ("particles", r"^data_particles$", "data_particle", "has no block data_particles"),
    ("particles", r"_rlnTomoName", "_rlnMicrographName", "lacks the column _rlnTomoName"),
    ("particles", r"_rlnCenteredCoordinateYAngst", "_rlnCoordinateY", "lacks the column _rlnCenteredCoordinateYAngst"),
    ("particles", r"_rlnAnglePsi", "_rlnAnglePhi", "lacks the column _rlnAnglePsi"),
]


@pytest.mark.parametrize("kind, pattern, replacement, fault", FAULTS)
def test_a_wrong_block_or_a_missing_column_gives_one_line(
    tmp_path, make_tilt_series, kind, pattern, replacement, fault
):
    write_tilt_series(tmp_path / "tilts.star", make_tilt_series())
    write_tilt_series_set(tmp_path / "set.star", [make_tilt_series()])
    write_particles(tmp_path / "particles.star", some_particles(), tilt_series=None)
    write_star(tmp_path / "particles.star", {"optics": {"x": [1]}} | read_star(tmp_path / "particles.star"))
    file = tmp_path / ("tilt_series/TS_1.star" if kind == "set/TS_1" else f"{kind}.star")
    edited(file, pattern, replacement)
    reader = {"tilts": read_tilt_series, "particles": read_particles}.get(kind, read_tilt_series_set)
    with pytest.raises(InputError, match=re.escape(fault)) as caught:
        reader(tmp_path / ("set.star" if kind == "set/TS_1" else f"{kind}.star"))
    assert file.name in str(caught.value) and "\n" not in str(caught.value)
