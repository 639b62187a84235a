"""Import of tilt series: the real ones, every dialect of what lies beside, each fault flagged or said in one line."""

import shutil

import numpy as np
import pytest
import tifffile

from tiltwise.data.errors import InputError
from tiltwise.io.acquisition import read_acquisition, series_name
from tiltwise.io.mdoc import Mdoc, MdocSection, write_mdoc
from tiltwise.io.mrc import write_mrc
from tiltwise.io.relion import read_tilt_series_set

ANGLES = np.array([-6.0, -3.0, 0.0, 3.0, 6.0])
ORDER = np.array([4, 1, 0, 2, 3])  # 0, -3, 3, 6, -6
HEADER = {"PixelSpacing": "2.5", "Voltage": "200", "ImageFile": "TS_1.mrc"}
TITLE = "    Tilt axis angle = 84.7, binning = 1  spot = 6  camera = 0"


def sections(**changes):
    """(tilt,) keys of the sections, in the order of rising tilt; a changed key is a list, or None to leave it out."""
    keys = {
        "TiltAngle": ANGLES.tolist(),
        "ExposureDose": [2.0, 2.1, 2.2, 2.3, 2.4],
        "PixelSpacing": [2.5] * 5,
        "TargetDefocus": [-3.5] * 5,
        "DateTime": [f"28-Apr-18  11:38:{10 + order}" for order in ORDER],
        "SubFramePath": [
            f"D:\\frames\\TS_1_{order:03d}_{angle}.tif" for order, angle in zip(ORDER, ANGLES, strict=True)
        ],
    } | changes
    count = max(len(values) for values in keys.values() if values is not None)
    return [{key: str(values[i]) for key, values in keys.items() if values is not None} for i in range(count)]


def series(tmp_path, *, rows=None, header=HEADER, title=TITLE, rawtlt=True, images=5, voxel_size=2.5, numbers=None):
    """A stack with .rawtlt and .mdoc beside it; `rows` None leaves the .mdoc out."""
    write_mrc(
        tmp_path / "TS_1.mrc", np.arange(images * 12, dtype=np.int16).reshape(images, 3, 4), voxel_size, stack=True
    )
    if rawtlt:
        (tmp_path / "TS_1.rawtlt").write_text("".join(f"{angle:.2f}\n" for angle in ANGLES))
    if rows is not None:
        parts = [
            MdocSection(kind="ZValue", value=str(index if numbers is None else numbers[index]), keys=keys)
            for index, keys in enumerate(rows)
        ]
        titles = ("SerialEM: Krios", title) if title else ()
        write_mdoc(tmp_path / "TS_1.mrc.mdoc", Mdoc(header=header, titles=titles, sections=tuple(parts)))
    return tmp_path / "TS_1.mrc"


def test_a_stack_with_everything_beside_it(tmp_path):
    path = series(tmp_path, rows=sections())
    for given in (path, tmp_path / "TS_1.mrc.mdoc"):
        found = read_acquisition(given)
        tilts = found.tilt_series
        assert tilts.name == "TS_1" and isinstance(tilts.images, np.memmap) and tilts.images.shape == (5, 3, 4)
        assert tilts.image_names[1] == f"000002@{path}" and tilts.pixel_size == 2.5
        assert tilts.optics.voltage == 200 and tilts.nominal_tilt_axis_angle == 84.7
        assert tilts.stage_tilt_angle.tolist() == ANGLES.tolist() and tilts.acquisition_order.tolist() == ORDER.tolist()
        assert np.allclose(tilts.pre_exposure, [9.0, 2.2, 0.0, 4.3, 6.6])  # the image itself excluded
        assert tilts.nominal_defocus.tolist() == [35000.0] * 5 and tilts.use.all()
        assert tilts.geometry is None and tilts.ctf is None and tilts.defocus_handedness is None
        assert "order of acquisition from DateTime" in found.notes
        assert any("spherical aberration 2.7" in note for note in found.notes)


def test_what_is_given_goes_before_what_files_say(tmp_path):
    path = series(tmp_path, rows=sections())
    found = read_acquisition(
        path,
        pixel_size=3.0,
        tilt_axis_angle=-5.0,
        voltage=300,
        spherical_aberration=0.01,
        amplitude_contrast=0.1,
        exposure=3,
    )
    tilts = found.tilt_series
    assert tilts.pixel_size == 3.0 and tilts.nominal_tilt_axis_angle == -5.0 and tilts.optics.voltage == 300
    assert tilts.optics.spherical_aberration == 0.01 and tilts.optics.amplitude_contrast == 0.1
    assert tilts.exposure.tolist() == [3.0] * 5 and tilts.pre_exposure.tolist() == (3.0 * ORDER).tolist()
    assert not any("assumed" in note for note in found.notes)


def test_a_stack_with_angles_alone(tmp_path):
    found = read_acquisition(series(tmp_path))
    tilts = found.tilt_series
    assert tilts.stage_tilt_angle.tolist() == ANGLES.tolist() and tilts.nominal_tilt_axis_angle is None
    assert not tilts.exposure.any() and not tilts.pre_exposure.any() and tilts.nominal_defocus is None
    assert any("order of acquisition is not stated" in note for note in found.notes)
    assert any("exposure is not stated" in note for note in found.notes)
    assert any("voltage 300" in note for note in found.notes)


@pytest.mark.parametrize(("angles", "said"), [((0, 20, 40, 60), True), ((-3, 20, 40, 60), True), ((-30, 0, 30), False)])
def test_tilts_of_one_side_are_said(tmp_path, angles, said):
    write_mrc(tmp_path / "A.mrc", np.ones((len(angles), 4, 4), np.float32), 2.0, stack=True)
    (tmp_path / "A.rawtlt").write_text("".join(f"{angle}\n" for angle in angles))
    assert any("all tilts are on one side" in note for note in read_acquisition(tmp_path / "A.mrc").notes) is said


def test_a_stack_with_an_mdoc_alone(tmp_path):
    assert read_acquisition(series(tmp_path, rows=sections(), rawtlt=False)).tilt_series.use.all()


@pytest.mark.parametrize("name", ["TS_1.mdoc", "TS_1.mrc.mdoc"])
def test_both_names_of_an_mdoc_are_found(tmp_path, name):
    path = series(tmp_path, rows=sections(), rawtlt=False)
    (tmp_path / "TS_1.mrc.mdoc").rename(tmp_path / name)
    for given in (path, tmp_path / name):
        assert read_acquisition(given).tilt_series.name == "TS_1"


def test_prior_record_dose_is_the_pre_exposure(tmp_path):
    prior = [9.0, 3.0, 0.5, 4.5, 7.0]
    tilts = read_acquisition(series(tmp_path, rows=sections(PriorRecordDose=prior, DateTime=None))).tilt_series
    assert tilts.pre_exposure.tolist() == prior and tilts.acquisition_order.tolist() == ORDER.tolist()


def test_exposure_from_the_steps_of_prior_record_dose(tmp_path):
    rows = sections(PriorRecordDose=[9.0, 3.0, 0.0, 4.0, 7.0], ExposureDose=[0] * 5)
    found = read_acquisition(series(tmp_path, rows=rows))
    assert found.tilt_series.exposure.tolist() == [2.5, 1.0, 3.0, 3.0, 2.0]  # the last taken: the median step
    assert any("step of PriorRecordDose" in note for note in found.notes)


def test_an_mdoc_in_another_order_than_the_stack_is_matched_by_angle(tmp_path):
    rows = sections()
    in_time = [rows[index] for index in np.argsort(ORDER)]
    found = read_acquisition(series(tmp_path, rows=in_time))
    assert found.tilt_series.stage_tilt_angle.tolist() == ANGLES.tolist()
    assert found.tilt_series.acquisition_order.tolist() == ORDER.tolist()
    assert any("matched by tilt angle" in note for note in found.notes)


def test_a_tilt_taken_twice_is_flagged_and_the_first_kept(tmp_path):
    angles = [-6.0, -3.0, -3.02, 3.0, 6.0]
    found = read_acquisition(series(tmp_path, rows=sections(TiltAngle=angles), rawtlt=False))
    tilts = found.tilt_series
    assert tilts.use.tolist() == [True, False, True, True, True]  # tilt 3 came first
    assert tilts.why_not[1] == "the angle -3.00° was taken before, in tilt 3"
    assert any(note.startswith("tilt 2 is left out") for note in found.notes)


def separate(tmp_path, *, leave_out=(), kind="tif", folder=None, rows=None):
    """An .mdoc with an image file for each section."""
    folder = folder or tmp_path
    folder.mkdir(exist_ok=True)
    rows = rows or sections()
    for index, keys in enumerate(rows):
        stem = keys["SubFramePath"].rpartition("\\")[2].removesuffix(".tif")
        image = np.full((3, 4), index, np.int16)
        if index not in leave_out and kind == "tif":
            tifffile.imwrite(folder / f"{stem}.tif", image)
        elif index not in leave_out:
            write_mrc(folder / f"{stem}.mrc", image, 2.5)
    mdoc = tmp_path / "TS_1.mdoc"
    parts = tuple(MdocSection(kind="ZValue", value=str(i), keys=keys) for i, keys in enumerate(rows))
    write_mdoc(mdoc, Mdoc(header=HEADER, titles=(TITLE,), sections=parts))
    return mdoc


@pytest.mark.parametrize("kind", ["tif", "mrc"])
def test_separate_images_are_matched_by_stem_and_sorted_by_angle(tmp_path, kind):
    rows = sections()
    mdoc = separate(tmp_path, kind=kind, rows=[rows[index] for index in np.argsort(ORDER)])
    write_mrc(tmp_path / "TS_1_000_0.0_extra.mrc", np.zeros((9, 9)), 1.0)  # a longer name is another image
    tilts = read_acquisition(mdoc).tilt_series
    assert tilts.stage_tilt_angle.tolist() == ANGLES.tolist() and tilts.acquisition_order.tolist() == ORDER.tolist()
    assert np.asarray(tilts.images)[:, 0, 0].tolist() == ORDER.tolist() and tilts.images.shape == (5, 3, 4)
    assert tilts.image_names[2] == str(tmp_path / f"TS_1_000_0.0.{kind}") and tilts.use.all()


def test_separate_images_in_another_folder(tmp_path):
    mdoc = separate(tmp_path, folder=tmp_path / "frames")
    with pytest.raises(InputError, match="none of its 5 images is in"):
        read_acquisition(mdoc)
    assert read_acquisition(mdoc, images=tmp_path / "frames").tilt_series.use.all()


def test_images_that_are_there_but_of_no_format_read_here(tmp_path):
    mdoc = separate(tmp_path, leave_out=range(5))
    mdoc.write_text(mdoc.read_text().replace(".tif", ".dm4"))
    with pytest.raises(InputError, match="matched by stem"):
        read_acquisition(mdoc)
    (tmp_path / "TS_1_004_-6.0.dm4").write_bytes(b"")
    with pytest.raises(InputError, match="only MRC, TIFF and EER are read"):
        read_acquisition(mdoc)


def test_a_key_that_only_the_header_has_is_no_tilt_angle(tmp_path):
    with pytest.raises(InputError, match="lacks a TiltAngle"):
        read_acquisition(series(tmp_path, rows=sections(TiltAngle=None), header=HEADER | {"TiltAngle": "3"}))


def test_an_absent_image_flags_its_tilt(tmp_path):
    found = read_acquisition(separate(tmp_path, leave_out=(3,)))
    tilts = found.tilt_series
    assert tilts.use.tolist() == [True, True, True, False, True]
    assert tilts.why_not[3] == "its image TS_1_002_3.0.tif is absent" and not tilts.images[3].any()
    assert any("4 of 5 found" in note for note in found.notes)


def test_image_sections_name_their_files(tmp_path):
    mdoc = separate(tmp_path)
    text = mdoc.read_text()
    for index, keys in enumerate(sections()):
        text = text.replace(f"[ZValue = {index}]", f"[Image = {keys['SubFramePath'].rpartition(chr(92))[2]}]")
    mdoc.write_text("\n".join(line for line in text.splitlines() if "SubFramePath" not in line))
    assert read_acquisition(mdoc).tilt_series.use.all()


@pytest.mark.parametrize(
    "name", ["TS_03.mrc", "TS_03.mrc.mdoc", "TS_03.mdoc", "TS_03.st", "TS_03.st.mdoc", "a/b/TS_03.mrcs", "TS_03.MRC"]
)
def test_names_of_series(name):
    assert series_name(name) == "TS_03"


def test_a_pixel_size_of_1_in_the_mdoc_is_taken_and_doubted(tmp_path):
    found = read_acquisition(series(tmp_path, rows=sections(PixelSpacing=[1.0] * 5), voxel_size=1.0))
    assert found.tilt_series.pixel_size == 1.0 and any("never set" in note for note in found.notes)


def test_header_pixel_sizes_of_0_and_1_mean_nothing(tmp_path):
    for unstated in (0.0, 1.0):
        found = read_acquisition(series(tmp_path, rows=sections(), voxel_size=unstated))
        assert found.tilt_series.pixel_size == 2.5
        with pytest.raises(InputError, match="pixel size is stated nowhere"):
            header = {"Voltage": "300"}
            read_acquisition(series(tmp_path, rows=sections(PixelSpacing=None), header=header, voxel_size=unstated))
    (tmp_path / "TS_1.mrc.mdoc").unlink()
    assert read_acquisition(series(tmp_path, voxel_size=4.4)).tilt_series.pixel_size == 4.4


FAULTS = {
    "has 5 angles, but TS_1.mrc has 4 images": {"images": 4},
    "describes 4 images, but TS_1.mrc has 5": {"rows": sections()[:4]},
    "repeated section: [ZValue = 0] occurs twice": {
        "rows": sections(),
        "numbers": [0, 1, 2, 0, 1],
    },
    "PixelSpacing is 2.5 Å in TS_1.mrc.mdoc but 5 Å in TS_1.mrc": {"rows": sections(), "voxel_size": 5.0},
    "PixelSpacing differs between the images": {"rows": sections(PixelSpacing=[2.5, 2.5, 5, 5, 5])},
    "differ from those of the .rawtlt by up to 30.0°": {"rows": sections(TiltAngle=[-36, -3, 0, 3, 6])},
    "lacks a TiltAngle that is a number": {"rows": sections(TiltAngle=["x"] * 5)},
    "describes a montage": {"rows": sections(), "header": HEADER | {"Montage": "1"}},
    "neither a .rawtlt nor an .mdoc": {"rawtlt": False},
    "a tilt angle of 366° makes no sense": {"rows": sections(TiltAngle=[-6, -3, 0, 3, 366]), "rawtlt": False},
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_said_in_one_line(tmp_path, fault):
    with pytest.raises(InputError) as caught:
        read_acquisition(series(tmp_path, **FAULTS[fault]))
    assert fault in str(caught.value) and "TS_1" in str(caught.value) and "\n" not in str(caught.value)


def test_faults_of_paths_and_options(tmp_path):
    path = series(tmp_path, rows=sections())
    for given, options, fault in [
        (tmp_path / "none.mrc", {}, "No such file"),
        (tmp_path / "none.mdoc", {}, "No such file"),
        (tmp_path / "TS_1.rawtlt", {}, "expected a stack"),
        (path, {"pixel_size": -1.0}, "makes no sense"),
        (path, {"pixel_size": float("nan")}, "makes no sense"),
        (tmp_path / "TS_1.mrc.mdoc", {"images": tmp_path / "nowhere"}, "nowhere: cannot be read"),
    ]:
        with pytest.raises(InputError, match=fault):
            read_acquisition(given, **options)


def test_the_real_series_as_the_deposit_knows_them(shared_data):
    folder = shared_data / "hiv_empiar10164"
    published = read_tilt_series_set(folder / "relion5/AlignTiltSeries/job005/aligned_tilt_series.star")
    for name, count in (("TS_03", 40), ("TS_43", 41)):
        tilts = read_acquisition(folder / "stacks" / f"{name}.mrc").tilt_series
        assert tilts.images.shape == (count, 517, 500) and tilts.pixel_size == 10.017 and tilts.use.all()
        assert tilts.optics.voltage == 300 and tilts.nominal_tilt_axis_angle == 85.0
        assert np.allclose(tilts.stage_tilt_angle, published[name].stage_tilt_angle, atol=1e-3)
        assert np.allclose(tilts.pre_exposure, published[name].pre_exposure) and (tilts.exposure == 3.0).all()
        assert tilts.acquisition_order[np.abs(tilts.stage_tilt_angle).argmin()] == 0


def test_every_real_mdoc_is_imported_or_refused_in_one_line(shared_data, tmp_path):
    """With a stack of the right size made for each; those refused are montages, frame sets and repeated angles."""
    refused = {}
    for number, path in enumerate(sorted(shared_data.glob("**/mdoc/**/*.mdoc"))):
        folder = tmp_path / str(number)
        folder.mkdir()
        shutil.copy(path, folder / "TS.mrc.mdoc")
        count = max(path.read_text(errors="replace").count("[ZValue"), 1)
        write_mrc(folder / "TS.mrc", np.zeros((count, 2, 2), np.int16), 0.0, stack=True)
        try:
            tilts = read_acquisition(folder / "TS.mrc").tilt_series
        except InputError as error:
            refused[path.name] = str(error)
        else:
            assert tilts.number == count and np.isfinite(tilts.pre_exposure).all()
            assert (np.diff(tilts.pre_exposure[np.argsort(tilts.acquisition_order)]) >= 0).all()
    assert set(refused) == {"montage_section.mdoc", "gm.mrc.mdoc", "frame_set_single.mdoc", "frame_set_multiple.mdoc"}
