"""What a folder from the microscope holds: every fault that fills the trackers is named, all at once."""

import numpy as np
import pytest

from tiltwise.data.errors import InputError
from tiltwise.io.acquisition import read_acquisition
from tiltwise.io.mrc import write_mrc
from tiltwise.io.session_folder import read_session

ANGLES = (0.0, 3.0, -3.0, -6.0, 6.0)


def write_movies(folder, name="TS_1", frames=2, leave_out=()):
    folder.mkdir(parents=True, exist_ok=True)
    for index in range(len(ANGLES)):
        if index not in leave_out:
            write_mrc(folder / f"{name}_{index:03d}.mrc", np.zeros((frames, 4, 6), np.float32), 1.35, stack=True)


def mdoc_text(name="TS_1", angles=ANGLES, year="2024", axis="Tilt axis angle = 85.3,", **changes):
    keys = {"ExposureDose": "3.0", "RotationAngle": "175.3", "PixelSpacing": "1.35", "NumSubFrames": "2"} | changes
    sections = []
    for index, angle in enumerate(angles):
        lines = [f"[ZValue = {index}]", f"TiltAngle = {angle}", f"DateTime = 01-Feb-{year}  10:{index:02d}:00"]
        lines += [f"SubFramePath = D:\\frames\\{name}_{index:03d}.mrc"]
        sections.append("\n".join(lines + [f"{key} = {value}" for key, value in keys.items()]))
    return f"Voltage = 300\n\n[T = SerialEM]\n[T = {axis} binning = 1]\n\n" + "\n\n".join(sections) + "\n"


def only(folder):
    (one,), notes = read_session(folder)
    return one, notes


def test_a_sound_series_of_movies(tmp_path):
    write_movies(tmp_path / "frames")
    write_mrc(tmp_path / "gain_ref.mrc", np.ones((4, 6), np.float32), 1.35)
    (tmp_path / "TS_1.mdoc").write_text(mdoc_text())
    one, notes = only(tmp_path)
    assert (one.name, one.images, one.found, one.kind, one.scheme) == ("TS_1", 5, 5, "movies", "dose-symmetric")
    assert (one.tilt_axis_angle, one.tilt_step, one.exposure, one.total_exposure) == (85.3, 3.0, 3.0, 15.0)
    assert (one.pixel_size, one.voltage, one.gain) == (1.35, 300.0, "gain_ref.mrc")
    assert not one.faults and not one.warnings and not one.missing and not notes
    assert "5 images by name in frames" in one.matches and "tilt axis and RotationAngle" in one.matches
    assert any("the only one here" in line for line in one.assumed)


def test_what_is_wrong_is_named(tmp_path):
    write_movies(tmp_path, leave_out=(3,))
    text = mdoc_text(year="24", ExposureDose="0", GainReference="X:\\ref\\gain.dm4", PixelSpacing="1,35")
    (tmp_path / "TS_1.mdoc").write_text(text.replace("RotationAngle = 175.3", "RotationAngle = 85.3"))
    one, _ = only(tmp_path)
    assert one.found == 4 and one.missing == ["1 of 5 images: TS_1_003.mrc", "gain reference gain.dm4"]
    assert "years of two digits are read as 2024" in one.assumed
    assert "decimal commas (5 numbers) are read as points" in one.assumed and one.pixel_size == 1.35
    assert any("no exposure is stated" in line for line in one.warnings)
    assert "the axis is stated as 85.3°, but RotationAngle means -4.7°" in one.warnings


def test_two_series_in_one_file_and_import_refuses_it_too(tmp_path):
    write_movies(tmp_path, frames=1)
    second = mdoc_text("TS_2").partition("\n\n[ZValue")[2]
    (tmp_path / "TS_1.mdoc").write_text(mdoc_text() + "\n[ZValue" + second)
    one, _ = only(tmp_path)
    (fault,) = [line for line in one.faults if "two series" in line]
    assert "section 0 starts again after 5 images" in fault
    assert not any("angle taken twice" in line for line in one.warnings)
    with pytest.raises(InputError, match="holds two series"):
        read_acquisition(tmp_path / "TS_1.mdoc")


def test_a_gain_that_does_not_fit_the_frames_is_named(tmp_path):
    """Frames of 6 × 4 px. A gain may be turned, and frames may have 2 samples for each of its pixels."""
    write_movies(tmp_path)
    (tmp_path / "TS_1.mdoc").write_text(mdoc_text(GainReference="X:\\ref\\gain.mrc"))
    for shape, fits in (((4, 6), True), ((6, 4), True), ((2, 3), True), ((4, 5), False), ((1, 4, 6), True)):
        write_mrc(tmp_path / "gain.mrc", np.ones(shape, np.float32), 1.0)
        one, _ = only(tmp_path)
        assert ("gain reference gain.mrc" in one.matches) == fits and len(one.warnings) == (not fits)
    write_mrc(tmp_path / "gain.mrc", np.ones((4, 5), np.float32), 1.0)
    said = "gain reference gain.mrc is 5 × 4 px, but the frames are 6 × 4: motion correction will refuse it"
    assert only(tmp_path)[0].warnings == [said]
    (tmp_path / "TS_1.mdoc").write_text(mdoc_text())
    one, _ = only(tmp_path)
    assert one.warnings == [said] and one.gain is None
    (tmp_path / "TS_1.mdoc").write_text(mdoc_text(GainReference="gain.dm4"))
    (tmp_path / "gain.dm4").write_bytes(b"dm4")
    assert only(tmp_path)[0].warnings == [
        "gain reference gain.dm4 cannot be used: a gain reference is an MRC, TIFF or .gain file"
    ]


def refused(folder):
    """Whether import refuses what is in the folder."""
    try:
        read_acquisition(folder / "TS_1.mdoc", images=folder)
    except InputError:
        return True
    return False


@pytest.mark.parametrize("frames", [1, 2])
def test_files_that_are_cut_short_or_of_another_size_are_judged_as_import_does(tmp_path, frames):
    """A movie that is cut short costs its tilt; an image that is, the series."""
    (tmp_path / "TS_1.mdoc").write_text(mdoc_text(NumSubFrames=str(frames)))
    write_movies(tmp_path, frames=frames)
    first, second = tmp_path / "TS_1_000.mrc", tmp_path / "TS_1_001.mrc"
    assert not only(tmp_path)[0].faults and not refused(tmp_path)
    first.write_bytes(first.read_bytes()[:1050])
    one, _ = only(tmp_path)
    assert bool(one.faults) == refused(tmp_path) == (frames == 1)
    assert any("TS_1_000.mrc" in line and "cut short" in line for line in (*one.warnings, *one.faults))
    first.write_bytes(b"")
    one, _ = only(tmp_path)
    assert bool(one.faults) == refused(tmp_path) == (frames == 1)
    write_movies(tmp_path, frames=frames)
    write_mrc(second, np.zeros((frames, 4, 8), np.float32), 1.35, stack=True)
    one, _ = only(tmp_path)
    assert one.faults and "TS_1_001.mrc" in one.faults[0] and refused(tmp_path)
    for index in range(5):
        (tmp_path / f"TS_1_{index:03d}.mrc").write_bytes(b"")
    assert only(tmp_path)[0].faults and refused(tmp_path)


def test_the_option_for_images_in_a_folder_of_their_own_is_said(tmp_path):
    (tmp_path / "TS_1.mdoc").write_text(mdoc_text())
    write_movies(tmp_path / "frames")
    assert f"the images lie in a folder of their own: import with --images {tmp_path / 'frames'}" in (
        only(tmp_path)[0].assumed
    )
    (tmp_path / "more").mkdir()
    (tmp_path / "frames" / "TS_1_000.mrc").rename(tmp_path / "more" / "TS_1_000.mrc")
    assert any("more than one folder" in line for line in only(tmp_path)[0].warnings)


@pytest.mark.parametrize(
    ("angles", "warning"),
    [
        ((0, 3, -3, -6, -6.02), "angle taken twice: -6.0°"),
        ((0, 3, -3, -12, 6), "gap in the angles: -12.0° to -3.0°"),
    ],
)
def test_angles_that_are_missing_or_double(tmp_path, angles, warning):
    write_movies(tmp_path)
    (tmp_path / "TS_1.mdoc").write_text(mdoc_text(angles=angles))
    one, _ = only(tmp_path)
    assert any(warning in line for line in one.warnings)


@pytest.mark.parametrize(
    ("angles", "scheme"),
    [
        ((0, 3, -3, -6, 6, 9, -9), "dose-symmetric"),
        ((-6, -3, 0, 3, 6), "one direction"),
        ((0, 3, 6, 9, 12, -3, -6, -9, -12), "bidirectional"),
        ((9, -9, 3, 0, -3, 6, -6), "another order"),
    ],
)
def test_the_order_of_angles_in_time_has_a_name(tmp_path, angles, scheme):
    (tmp_path / "TS_1.mdoc").write_text(mdoc_text(angles=angles))
    one, _ = only(tmp_path)
    assert one.scheme == scheme


def test_a_stack_that_does_not_fit_its_files(tmp_path):
    write_mrc(tmp_path / "A.mrc", np.zeros((4, 5, 6), np.float32), 2.0, stack=True)
    (tmp_path / "A.mrc.mdoc").write_text(mdoc_text())
    (tmp_path / "A.rawtlt").write_text("0\n3\n")
    (tmp_path / "B.st").write_bytes((tmp_path / "A.mrc").read_bytes()[:1100])
    (tmp_path / "B.rawtlt").write_text("0\n")
    (tmp_path / "C.rawtlt").write_text("0\n")
    (first, second), notes = read_session(tmp_path)
    said = " | ".join(first.faults)
    for fault in (
        "A.mrc has 4 images, but the .mdoc describes 5",
        "1.35 Å in the .mdoc but 2 Å",
        "A.rawtlt has 2 angles",
    ):
        assert fault in said
    assert "odd image size 6 × 5 px" in " | ".join(first.warnings)
    assert second.name == "B" and "cut short" in second.faults[0] and second.missing == [".mdoc"]
    assert notes == ["C.rawtlt: lists angles, but no stack lies beside it"]


@pytest.mark.parametrize(
    ("leave_out", "kind", "said"),
    [
        ((), "matches", "the 5 movies that the .mdoc names are here too"),
        ((2,), "missing", "1 of 5 movies (the stack is whole): TS_1_002.mrc"),
        (range(5), "assumed", "the movies that the .mdoc names are not here; the stack's images are used"),
    ],
)
def test_a_stack_whose_movies_lie_beside_it(tmp_path, leave_out, kind, said):
    write_movies(tmp_path / "frames", leave_out=leave_out)
    write_mrc(tmp_path / "TS_1.mrc", np.zeros((5, 4, 6), np.float32), 1.35, stack=True)
    (tmp_path / "TS_1.mrc.mdoc").write_text(mdoc_text())
    one, _ = only(tmp_path)
    assert one.kind == "stack" and one.found == 5 and not one.faults and said in getattr(one, kind)


def test_a_pixel_size_that_was_never_set_is_doubted(tmp_path):
    (tmp_path / "TS_1.mdoc").write_text(mdoc_text(PixelSpacing="1.0"))
    one, _ = only(tmp_path)
    assert one.pixel_size == 1.0 and any("never set" in line for line in one.warnings)


def test_settings_that_differ_names_that_break_and_files_that_are_no_series(tmp_path):
    (tmp_path / "a b.mdoc").write_text(mdoc_text())
    (tmp_path / "TS_2.mdoc").write_text(mdoc_text(PixelSpacing="2.7"))
    (tmp_path / "TS_2_override.mdoc").write_text(mdoc_text())
    (tmp_path / "broken.mdoc").write_text("nothing")
    (tmp_path / "montage.mdoc").write_text("Montage = 1\n" + mdoc_text())
    series, notes = read_session(tmp_path)
    assert [one.name for one in series] == ["TS_2", "a b", "broken"]
    assert any("breaks star files" in line for line in series[1].faults) and "not an mdoc file" in series[2].faults[0]
    assert any("pixel sizes differ" in note for note in notes) and any("_override" in note for note in notes)
    assert any("montage.mdoc: describes a montage" in note for note in notes)


def test_no_folder_and_nothing_in_it(tmp_path):
    with pytest.raises(InputError, match="absent: no such folder"):
        read_session(tmp_path / "absent")
    with pytest.raises(InputError, match="holds no .mdoc, and no stack"):
        read_session(tmp_path)


def test_the_real_series_and_dialects(shared_data):
    series, _ = read_session(shared_data / "hiv_empiar10164/stacks")
    assert [(one.name, one.found, one.scheme) for one in series] == [
        ("TS_03", 40, "dose-symmetric"),
        ("TS_43", 41, "dose-symmetric"),
    ]
    assert not any(one.faults or one.missing for one in series) and series[0].pixel_size == 10.017
    series, notes = read_session(shared_data / "mdoc")
    assert len(series) == 13 and sum("passed over" in note for note in notes) == 4
    tomo5 = next(one for one in series if one.name == "Position_10")
    assert tomo5.tilt_axis_angle == -171.35 and any("Tomography 5" in line for line in tomo5.warnings)
