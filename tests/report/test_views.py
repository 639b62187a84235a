"""Pictures: which way up, what is dark, where circles land; and previews as files."""

import base64
import io
import re

import matplotlib.image
import numpy as np
import pytest
from report_project import align_quality, defocus_quality, density

from tiltwise.data.maps import HalfMaps
from tiltwise.data.volume import Volume
from tiltwise.report import views
from tiltwise.report.page import Html, png_bytes, table, tag
from tiltwise.report.previews import preview


def decode(png):
    """(y, x) 8-bit gray of a PNG, by another reader."""
    image = matplotlib.image.imread(io.BytesIO(png))
    return np.round(image * 255).astype(np.uint8)


def test_png_round_trip():
    gray = np.random.default_rng(0).integers(0, 256, (7, 13)).astype(np.uint8)
    assert np.array_equal(decode(png_bytes(gray)), gray)


def test_text_is_escaped_once():
    assert tag("p", "a < b & c", title='"x"') == '<p title="&quot;x&quot;">a &lt; b &amp; c</p>'
    assert tag("p", Html("<b>x</b>"), None) == "<p><b>x</b></p>"
    assert "<td>1 &lt; 2</td>" in table(["h"], [["1 < 2"]])


@pytest.mark.parametrize("n", [20, 21])
def test_slices_are_central_and_stand_upright(n):
    volume = np.zeros((n, n + 2, n + 4), np.float32)
    volume[n // 2, (n + 2) // 2 + 5, (n + 4) // 2 + 3] = 1.0  # above the centre and right of it
    image = views.slab(volume, "z")
    assert image.shape == (n + 2, n + 4) and image.max() == 1
    gray = views.to_gray(image, 0, 100)
    row, column = np.unravel_index(gray.argmax(), gray.shape)
    assert row == (n + 2) - 1 - ((n + 2) // 2 + 5) and column == (n + 4) // 2 + 3
    assert views.to_gray(image, 0, 100, dark=True)[row, column] == 0


def test_circles_land_on_what_they_mark():
    image = np.zeros((60, 80), np.float32)
    image[30 + 12, 40 - 15] = 1.0
    drawing = views.picture(image, 2.0, circles=np.array([[-30.0, 24.0, 10.0]]))
    png = base64.b64decode(re.search(r"base64,([^\"]+)", drawing)[1])
    row, column = np.unravel_index(decode(png).argmax(), image.shape)
    found = [float(re.search(rf'{key}="([^"]+)"', drawing)[1]) for key in ("cx", "cy", "r")]
    assert found == pytest.approx([column + 0.5, row + 0.5, 5.0])


def test_surface_of_a_ball():
    z, y, x = np.indices((32, 32, 32)) - 16
    ball = (10.0 - np.sqrt(x**2 + y**2 + z**2)).astype(np.float32)
    picture = views.surface(ball, 0.0, "z")
    drawn = (picture < 255).sum()
    assert drawn == pytest.approx(np.pi * 100, rel=0.06)
    rows, columns = np.nonzero(picture > 200 * (picture < 255))
    lit = (rows.mean(), columns.mean()) if len(rows) else (0, 0)
    left_top, right_bottom = picture[8:16, 8:16], picture[17:25, 17:25]
    assert left_top[left_top < 255].mean() > right_bottom[right_bottom < 255].mean() + 20
    assert lit is not None


def test_contour_level_parts_two_classes():
    rng = np.random.default_rng(1)
    values = np.concatenate([rng.normal(0, 1, 5000), rng.normal(10, 1, 3000)])
    assert 3 < views.contour_level(values) < 7


def test_previews(tmp_path):
    volume = Volume(data=density(), voxel_size=4.0)
    ones = Volume(data=np.ones((48, 48, 48), np.float32), voxel_size=4.0)
    items = {
        "align": ({}, align_quality()),
        "defocus": ({}, defocus_quality()),
        "reconstruct": ({"tomogram": Volume(data=density()[:20], voxel_size=4.0)}, {}),
        "pick": ({}, {"scores": [0.1, 0.4, 0.3]}),
        "refine": ({"half_maps": HalfMaps(half1=volume, half2=volume)}, {}),
        "postprocess": ({"map": volume, "mask": ones}, {}),
    }
    for stage, (outputs, quality) in items.items():
        path = tmp_path / f"{stage}.png"
        preview(stage, outputs, quality, path)
        assert matplotlib.image.imread(path).std() > 0
    preview("defocus", {}, {"determined": False}, tmp_path / "none.png")
    assert not (tmp_path / "none.png").exists()
