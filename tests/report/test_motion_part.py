"""The panel on motion shows tracks, lengths and the gate, and says how the gain reference lay."""

from tiltwise.report.contents import Entry
from tiltwise.report.motion_part import motion_part

QUALITY = {
    "gain_reference": "mirrored in x, counts multiplied by it (correlation 0.812)",
    "kept": ["local", None, "whole"],
    "gain_whole": [0.2, None, 0.1],
    "gain_local": [0.05, None, -0.01],
    "path": [30.0, None, 20.0],
    "local_rms_A": [4.0, None, 0.0],
    "track_A": [[[0.0, 0.0], [10.0, 5.0]], None, [[0.0, 0.0], [-3.0, 4.0]]],
}


def test_the_panel_says_what_the_stage_recorded(tmp_path):
    record = {"state": "done", "quality": QUALITY}
    entry = Entry(step="motion", stage="motion", item="TS_1", state="done", record=record, folder=tmp_path)
    text = str(motion_part(entry, None))
    assert "mirrored in x, counts multiplied by it (correlation 0.812)" in text
    assert "local for 1, whole for 1." in text
    assert "a path of 25.0 Å" in text and "differ by 2.0 Å rms" in text
    assert text.count("<svg") == 1


def test_a_series_without_movies_has_no_panel():
    assert str(motion_part(None, None)) == ""
