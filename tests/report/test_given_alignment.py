"""A report says who made an alignment: not this program, where it came with the import."""

import pytest
from report_project import NUMBER, align_quality, aligned, put

from tiltwise.project import store
from tiltwise.project.create import new_project
from tiltwise.project.importing import import_tilt_series
from tiltwise.project.layout import import_folder
from tiltwise.report.contents import read_contents
from tiltwise.report.overview_part import methods_part

OURS, TAKEN = "aligned without markers", "was made by another program and taken over at import."


@pytest.mark.parametrize(
    ("given", "said", "unsaid"),
    [
        ((), [OURS], TAKEN),
        (("TS_02",), [OURS, f"The alignment of TS_02 {TAKEN}"], "The alignment was"),
        (("TS_01", "TS_02"), [f"The alignment {TAKEN}"], OURS),
    ],
)
def test_the_methods_say_which_alignment_was_taken_over(imported, tmp_path, given, said, unsaid):
    project = new_project(tmp_path / "p")
    import_tilt_series(project, [imported.parent / "raw"], tilt_axis_angle=85.0, exposure=3.0)
    for name in ("TS_01", "TS_02"):
        series = aligned(store.load("tilt_series", import_folder(project, name), project))
        quality = {"given": True, "shift_x_A": [0.0] * NUMBER} if name in given else align_quality()
        put(project, "align", name, quality, {"tilt_series": series})
    text = str(methods_part(read_contents(project)))
    assert all(sentence in text for sentence in said) and unsaid not in text
