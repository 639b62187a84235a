"""The report: one file, nothing fetched, nothing unescaped, and plain words for what is missing."""

import html.parser
import json
import re
import subprocess
import sys

import pytest

from tiltwise.data.errors import InputError
from tiltwise.report.write import write_report

VOID = {"meta", "img", "br", "image", "circle", "line", "rect", "path", "use"}


class Reader(html.parser.HTMLParser):
    """Collects what a browser would fetch, and checks that elements close in order."""

    def __init__(self):
        super().__init__()
        self.open, self.fetched, self.text = [], [], []

    def handle_starttag(self, name, attributes):
        if name not in VOID:
            self.open.append(name)
        self.fetched += [
            value
            for key, value in attributes
            if key in ("src", "href", "xlink:href") and value and not value.startswith(("#", "data:"))
        ]

    def handle_startendtag(self, name, attributes):
        self.handle_starttag(name, attributes)
        if name not in VOID:
            self.open.pop()

    def handle_endtag(self, name):
        if name not in VOID:
            assert self.open.pop() == name

    def handle_data(self, data):
        self.text.append(data)


def read(path):
    reader = Reader()
    content = path.read_text(encoding="utf-8")
    reader.feed(content)
    assert reader.open == []
    assert reader.fetched == []
    assert "<script" not in content and "@import" not in content and not re.search(r"url\((?!#)", content)
    assert path.stat().st_size < 3_000_000
    return " ".join(reader.text), content


def test_the_defocus_comes_with_its_errors(finished, tmp_path):
    text, _ = read(write_report(finished, tmp_path / "report.html"))
    for said in (
        "Astigmatism 200 ± 14 Å along 30 ± 2°.",
        "tilts differ from it by 61 ± 17 Å (rms)",
        "Thickness of the ice 1494 ± 23 Å.",
        "Inclination against the alignment 0.03 ± 0.02° along x and -0.01 ± 0.04° along y.",
    ):
        assert said in text


def test_a_deformation_is_shown_with_what_speaks_for_it(finished, tmp_path):
    text, _ = read(write_report(finished, tmp_path / "report.html"))
    assert "Deformation kept (specimen): held-out tracks lie 2.04 Å off, 3.11 Å without it." in text
    assert "longest arrow 7.1 Å" in text


def test_the_tomogram_says_how_it_was_made(finished, tmp_path):
    text, _ = read(write_report(finished, tmp_path / "report.html"))
    for said in (
        "From 8 tilts; CTF correction: phase_flip by depth.",
        "of up to 17.3 Å, is undone",
        "odd and even frames",
        "13 beads are 1.54 times as long along the beam as across; the closed form for tilts of -64° to 56° is 1.55",
        "Tilt 5: the image is constant and was left out.",
    ):
        assert said in text
    assert "beads were erased" not in text


def test_a_finished_project(finished, tmp_path):
    path = write_report(finished, tmp_path / "new folder" / "report.html")
    text, content = read(path)
    assert path == tmp_path / "new folder" / "report.html"
    for said in (
        "done <2>", "12.5 Å", "Tilt axis 85.12°", "dark: mean below & beyond", "Median defocus 2.50 µm",
        "Handedness -1",
        "no <rings> in any tilt", "40 particles were picked",
        "30 of 40 picks would still be called at a false discovery rate of 1 %",
        "gold 0.2% of the tomogram and 3 places", "The reference is too wide.",
        "3 iterations; 3 duplicates", "not sharpened",
        "absolute hand of the map is not determined", "defocus of 1 tilt is not determined",
        "Fourier shell correlation",
        "Chen et al. 2013", "numpy 2.4", "1 is an even spread", "Signal left over the exposure",
    ):  # fmt: skip
        assert said in text, said
    assert content.count("<figure") >= 8
    assert content.count("<circle") > 5


def test_a_project_with_nothing_run(imported):
    path = write_report(imported)
    text, _ = read(path)
    assert path == imported / "report.html"
    for said in ("No particles have been averaged", "Not aligned", "Not reconstructed", "Nothing has been run yet"):
        assert said in text


def test_defocus_not_determined_is_said_with_its_reason(finished, tmp_path):
    record = finished / "defocus" / "TS_01" / "record.json"
    before = record.read_text(encoding="utf-8")
    content = json.loads(before)
    content["quality"] = {"determined": False, "reason": "no rings beyond 40 Å", "defocus_A": [None] * 9}
    try:
        record.write_text(json.dumps(content), encoding="utf-8")
        text, _ = read(write_report(finished, tmp_path / "r.html"))
    finally:
        record.write_text(before, encoding="utf-8")
    assert "Not determined:  no rings beyond 40 Å" in text
    assert "the defocus is not determined (no rings beyond 40 Å)" in text


def test_lost_files_and_foreign_numbers_do_not_stop_a_report(finished, tmp_path):
    moved = [finished / "reconstruct" / "TS_01" / "tomogram.mrc", finished / "postprocess" / "all" / "map.mrc"]
    record = finished / "align" / "TS_01" / "record.json"
    before = record.read_text(encoding="utf-8")
    content = json.loads(before)
    content["quality"] = {
        "shift_x_A": "none",
        "residual_A": None,
        "correlation": [1.0, 2.0],
        "tilt_axis_angle_deg": "?",
    }
    try:
        record.write_text(json.dumps(content), encoding="utf-8")
        for path in moved:
            path.rename(path.with_suffix(".hidden"))
        text, _ = read(write_report(finished, tmp_path / "r.html"))
    finally:
        record.write_text(before, encoding="utf-8")
        for path in moved:
            path.with_suffix(".hidden").rename(path)
    assert "Not reconstructed" in text


def test_no_project(tmp_path):
    with pytest.raises(InputError, match="not a tiltwise project"):
        write_report(tmp_path)


def test_the_same_project_gives_the_same_report(finished, tmp_path):
    first, second = (write_report(finished, tmp_path / name).read_text(encoding="utf-8") for name in "ab")
    assert first == second


def test_a_report_needs_no_torch(finished, tmp_path):
    code = (
        "import sys; from pathlib import Path; from tiltwise.report.write import write_report; "
        "write_report(Path(sys.argv[1]), Path(sys.argv[2])); assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code, str(finished), str(tmp_path / "r.html")], check=True)
