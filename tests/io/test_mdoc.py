"""mdoc: every dialect of the real files, and the single meanings read out of them."""

from datetime import datetime

import mdocfile
import numpy as np
import pytest

from tiltwise.data.errors import InputError
from tiltwise.io.mdoc import (
    MdocSection,
    acquisition_order,
    date_time,
    file_numbers,
    image_name,
    image_numbers,
    number,
    read_mdoc,
    tilt_axis_angle,
    write_mdoc,
)

# images, tilt axis, what the order of acquisition comes from
REAL = {
    "mdoc/AreTomo3/L1_tgt_001.mrc.mdoc": (1, 94.0, "DateTime"),
    "mdoc/AreTomo3/L1_ts_001.mrc.mdoc": (41, 94.0, "DateTime"),
    "mdoc/Ot2Rec/Position_10.mdoc": (3, -171.35, "DateTime"),
    "mdoc/Ot2Rec/Position_1_2.mdoc": (3, -171.35, "DateTime"),
    "mdoc/cryoet-data-portal-backend/close-TS_run1.mdoc": (9, 84.7, "the number in the file names"),
    "mdoc/cryoet-data-portal-backend/foo-TS_run1.mdoc": (5, 84.7, "the number in the file names"),
    "mdoc/etspy/test_000.mdoc": (2, -90.0, "DateTime"),
    "mdoc/etspy/test_001.mdoc": (2, -90.0, "DateTime"),
    "mdoc/etspy/test_002.mdoc": (2, -90.0, "DateTime"),
    "mdoc/mdocfile/TS_01.mrc.mdoc": (41, 85.3, "DateTime"),
    "mdoc/mdocfile/frame_set_multiple.mdoc": (20, None, "PriorRecordDose"),
    "mdoc/mdocfile/frame_set_single.mdoc": (0, None, None),
    "mdoc/mdocfile/montage_section.mdoc": (62, -86.7, "DateTime"),
    "mdoc/mdocfile/tilt_series.mdoc": (41, 85.3, "DateTime"),
    "mdoc/pyserialem/gm.mrc.mdoc": (25, 90.6, "DateTime"),
    "mdoc/python-murfey/test.mdoc": (11, 83.8, "DateTime"),
    "mdoc/python-murfey/test_1.mdoc": (11, 83.8, "DateTime"),
    "hiv_empiar10164/mdoc/TS_01.mrc.mdoc": (41, 85.3, "DateTime"),
    "hiv_empiar10164/stacks/TS_03.mrc.mdoc": (40, 85.0, "DateTime"),
    "hiv_empiar10164/stacks/TS_43.mrc.mdoc": (41, 85.0, "DateTime"),
}


def test_the_table_names_every_real_file(shared_data):
    found = {str(path.relative_to(shared_data)) for path in shared_data.glob("**/*.mdoc")}
    assert {name for name in found if not name.startswith("alignment_text")} == set(REAL)


@pytest.mark.parametrize("name", REAL)
def test_every_real_file(shared_data, tmp_path, name):
    images, axis, source = REAL[name]
    mdoc = read_mdoc(shared_data / name)
    assert len(mdoc.images) == images and tilt_axis_angle(mdoc) == axis
    assert all("TiltAngle" in section.keys for section in mdoc.images)
    if images:
        assert acquisition_order(mdoc)[1] == source
    write_mdoc(tmp_path / "copy.mdoc", mdoc)
    copy = read_mdoc(tmp_path / "copy.mdoc")
    assert copy.header == mdoc.header and copy.titles == mdoc.titles
    assert [(s.kind, s.value, s.keys) for s in copy.sections] == [(s.kind, s.value, s.keys) for s in mdoc.sections]


def test_angles_agree_with_mdocfile_where_it_reads_the_file(shared_data):
    read = 0
    for name, (images, _, _) in REAL.items():
        try:
            theirs = mdocfile.read(shared_data / name)
        except Exception:  # it refuses some dialects outright
            continue
        if images and len(theirs) == images:
            angles = image_numbers(read_mdoc(shared_data / name), "TiltAngle")
            assert np.allclose(angles, theirs["TiltAngle"].to_numpy(float))
            read += 1
    assert read >= 8


def test_a_frame_set_is_no_tilt_image(shared_data):
    mdoc = read_mdoc(shared_data / "mdoc/mdocfile/frame_set_multiple.mdoc")
    assert mdoc.sections[0].kind == "FrameSet" and mdoc.images[0].keys["TiltAngle"] == "33"


@pytest.mark.parametrize(
    "text, value",
    [
        ("-176.73", -176.73),
        ("-176,73", -176.73),
        (" 1.5e-3 7", 0.0015),
        ("1,5 2,5", 1.5),
        ("", None),
        (None, None),
        ("NaN", None),
        ("abc", None),
    ],
)
def test_numbers_with_points_and_commas(text, value):
    assert number(text) == value


@pytest.mark.parametrize(
    "text, expected",
    [
        ("28-Apr-18  11:38:54", datetime(2018, 4, 28, 11, 38, 54)),
        ("01-Aug-2022  18:58:35", datetime(2022, 8, 1, 18, 58, 35)),
        ("24-Mar-2023 12:13:13", datetime(2023, 3, 24, 12, 13, 13)),
        ("30-nov-99 01:02:03", datetime(1999, 11, 30, 1, 2, 3)),
        ("2023-03-24 12:13:13", datetime(2023, 3, 24, 12, 13, 13)),
        ("", None),
        ("31-Feb-20 11:11:11", None),
        ("24-Mär-2023 12:13:13", None),
    ],
)
def test_dates(text, expected):
    assert date_time(section(DateTime=text)) == expected


def section(value="0", kind="ZValue", **keys):
    return MdocSection(kind=kind, value=value, keys=keys)


def written(tmp_path, *sections, header="Voltage = 300\n"):
    path = tmp_path / "x.mdoc"
    lines = [header]
    for index, keys in enumerate(sections):
        lines.append(f"[ZValue = {keys.pop('ZValue', index)}]")
        lines += [f"{key} = {value}" for key, value in keys.items()]
    path.write_text("\n".join(lines))
    return read_mdoc(path)


FILES = ["D:\\a_003_x.tif", "a_001_x.tif", "/b/a_2_x.tif"]
TIMES = ["01-Jan-20 10:00:05", "01-Jan-20 10:00:01", "01-Jan-20 10:00:03"]


@pytest.mark.parametrize(
    "keys, order, source",
    [
        ({"DateTime": TIMES, "PriorRecordDose": [0, 1, 2]}, [2, 0, 1], "DateTime"),
        ({"DateTime": ["", *TIMES[1:]], "PriorRecordDose": [6, 3, 0]}, [2, 1, 0], "PriorRecordDose"),
        ({"PriorRecordDose": [0, 0, 0], "SubFramePath": FILES}, [2, 0, 1], "the number in the file names"),
        ({"ZValue": [2, 0, 1]}, [2, 0, 1], "the section number"),
        ({"ZValue": [0, 0, 0]}, [0, 1, 2], "the order of the sections"),
    ],
)
def test_order_of_acquisition_falls_back_in_the_stated_order(tmp_path, keys, order, source):
    rows = [{key: values[index] for key, values in keys.items()} for index in range(3)]
    found, how = acquisition_order(written(tmp_path, *rows))
    assert found.tolist() == order and how == source


def test_the_running_number_is_the_first_whole_field_that_differs():
    names = ["TS_01_000_0.0.mrc", "TS_01_001_3.0.mrc", "TS_01_002_-3.0.mrc"]
    assert file_numbers(names) == [0, 1, 2]
    assert file_numbers(["a_10_001.tif", "a_10_001.tif"]) == [None, None]
    assert file_numbers(["a_1.tif", None]) == [None, None]
    assert file_numbers([]) == []


def test_names_of_images_lose_windows_and_unix_folders():
    assert image_name(section(SubFramePath="\\\\10.0.0.1\\share\\f\\a_-0.0.mrc")) == "a_-0.0.mrc"
    assert image_name(section(SubFramePath="/data/f/a_3.0.tif")) == "a_3.0.tif"
    assert image_name(section(kind="Image", value="b_3.tif")) == "b_3.tif"
    assert image_name(section()) is None and image_name(section(SubFramePath="")) is None


@pytest.mark.parametrize(
    "line, axis",
    [
        ("[T =     Tilt axis angle = 84.7, binning = 1  spot = 6  camera = 0]", 84.7),
        ("[T = TiltAxisAngle = -171.35 Binning = 1 SpotSize = 5]", -171.35),
        ("[T = Tilt axis angle = 84,7, binning = 1]", 84.7),
        ("T = Tilt axis angle = 84.7, binning = 1", 84.7),
        ("RotationAngle = 178.55", None),
    ],
)
def test_tilt_axis_of_both_dialects(tmp_path, line, axis):
    assert tilt_axis_angle(written(tmp_path, {"TiltAngle": 0}, header=line + "\n")) == axis


def test_a_key_of_the_header_stands_in_for_a_missing_one(tmp_path):
    mdoc = written(tmp_path, {"PixelSpacing": 2}, {}, header="PixelSpacing = 1\n")
    assert image_numbers(mdoc, "PixelSpacing").tolist() == [2, 1] and image_numbers(mdoc, "TiltAngle") is None


@pytest.mark.parametrize("content", [b"", b"hello", b"\x00\xff\x80" * 50])
def test_what_is_no_mdoc_is_said_to_be_none(tmp_path, content):
    path = tmp_path / "x.mdoc"
    path.write_bytes(content)
    with pytest.raises(InputError, match="not an mdoc file"):
        read_mdoc(path)
