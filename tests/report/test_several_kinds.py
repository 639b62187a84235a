"""The report of a project whose polishing took particles of several kinds."""

import numpy as np
import pytest
from report_project import density, fsc_quality, put
from scipy.spatial.transform import Rotation
from test_write import read

from tiltwise.data.maps import HalfMaps
from tiltwise.data.particles import Particles
from tiltwise.data.volume import Volume
from tiltwise.project.importing import import_tilt_series
from tiltwise.report.previews import preview
from tiltwise.report.write import write_report

RECIPE = """
[[step]]
name = "reconstruct"

[[step]]
name = "pick"

[[step]]
name = "refine"

[[step]]
name = "polish"
inputs = { particles = { ribosome = "refine", ferritin = "pick" } }

[[step]]
name = "postprocess"
inputs = { half_maps = "polish/ferritin" }
"""


def kinds():
    volume = {
        "ribosome": Volume(data=density(48), voxel_size=4.0),
        "ferritin": Volume(data=density(40), voxel_size=4.0),
    }
    return {name: HalfMaps(half1=own, half2=own) for name, own in volume.items()}


def particles(number):
    return Particles(
        tilt_series=np.full(number, "TS_01"),
        position=np.zeros((number, 3)),
        rotation=Rotation.identity(number),
        score=np.ones(number),
        half_set=1 + np.arange(number) % 2,
        region=np.full(number, -1),
    )


@pytest.fixture
def polished(imported, tmp_path):
    project = tmp_path / "p"
    project.mkdir()
    (project / "project.toml").write_text(RECIPE)
    import_tilt_series(project, [imported.parent / "raw"], tilt_axis_angle=85.0, exposure=3.0)
    figures = [{"ribosome": {"resolution_fsc_A": 9.0 - n}, "ferritin": {"resolution_fsc_A": 12.0 - n}} for n in (0, 1)]
    quality = {
        **figures[1]["ribosome"],
        "species": figures[1],
        "cycles": [
            {"cycle": n, "species": own, **own["ribosome"], "gates": {}, "kept": True} for n, own in enumerate(figures)
        ],
        "notes": ["gold took no part: particles: 2 and 1 in the halves, 4 are needed in each"],
    }
    held = {"ribosome": particles(30), "ferritin": particles(12)}
    put(project, "polish", "all", quality, {"particles": held, "half_maps": kinds()})
    finished = {"map": Volume(data=density(40), voxel_size=4.0)}
    put(project, "postprocess", "all", fsc_quality(), finished)
    return project


def test_each_kind_is_shown(polished):
    text, _ = read(write_report(polished))
    assert "Half maps of each kind at FSC 0.143 (particles): ribosome 8.0 Å (30), ferritin 11.0 Å (12)." in text
    assert "Gold took no part" in text
    assert "as given · ferritin" in text and "1 · ribosome" in text
    assert "42 particles averaged" in " ".join(text.split())


def test_a_preview_has_a_row_for_each_kind(tmp_path):
    """Beside tilt series by name, as steps of all series give them."""
    preview("polish", {"half_maps": kinds(), "tilt_series": {}}, {}, tmp_path / "p.png")
    assert (tmp_path / "p.png").stat().st_size > 1000
