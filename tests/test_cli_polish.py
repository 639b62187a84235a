"""`tiltwise polish` on a project of two small series: what lies in its folder is what the stage gives, all of it."""

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

for folder in ("stages", "report"):
    sys.path.insert(0, str(Path(__file__).parent / folder))
from particle_scene import DIAMETER, PIXEL, SIZE, scene  # noqa: E402
from report_project import put  # noqa: E402

from tiltwise.cli import main  # noqa: E402
from tiltwise.data.deformation import Deformation, ImageWarp  # noqa: E402
from tiltwise.data.maps import HalfMaps  # noqa: E402
from tiltwise.data.volume import Volume  # noqa: E402
from tiltwise.io.mrc import write_mrc  # noqa: E402
from tiltwise.params.polish import PolishParams  # noqa: E402
from tiltwise.project import store  # noqa: E402
from tiltwise.project.create import new_project  # noqa: E402
from tiltwise.project.importing import import_tilt_series  # noqa: E402
from tiltwise.project.layout import import_folder  # noqa: E402
from tiltwise.project.records import read_record  # noqa: E402
from tiltwise.stages.polish import polish  # noqa: E402

PARAMS = PolishParams(box_size=32, particle_diameter=DIAMETER, cycles=1, refine_deformation=False)
RECIPE = f"""
[run]
threads = 1

[[step]]
name = "align"

[[step]]
name = "reconstruct"

[[step]]
name = "pick"

[[step]]
name = "refine"

[[step]]
name = "polish"
params = {{ box_size = 32, particle_diameter = {DIAMETER}, cycles = 1, refine_deformation = false }}
"""


@pytest.fixture
def project(tmp_path):
    """Refinement done: geometry off by 4 Å on each axis, a warp known, particles in halves."""
    made, rng = scene(noise=0.5), np.random.default_rng(2)
    raw, folder = tmp_path / "raw", new_project(tmp_path / "p")
    (folder / "project.toml").write_text(RECIPE)
    raw.mkdir()
    for name, series in made.tilt_series.items():
        write_mrc(raw / f"{name}.mrc", series.images, PIXEL, stack=True)
        (raw / f"{name}.rawtlt").write_text("".join(f"{angle:.1f}\n" for angle in series.stage_tilt_angle))
    import_tilt_series(folder, [raw], tilt_axis_angle=85.0, exposure=3.0)
    refined = {}
    for name, series in made.tilt_series.items():
        geometry = replace(series.geometry, shift=series.geometry.shift + rng.normal(0, 4, (series.number, 2)))
        warp = ImageWarp(coefficient=rng.normal(0, 0.3, (series.number, 4, 4, 2)), extent=(SIZE * PIXEL, SIZE * PIXEL))
        known = {"geometry": geometry, "ctf": series.ctf, "deformation": Deformation(image=warp)}
        known |= {"defocus_handedness": -1, "exposure": series.exposure, "pre_exposure": series.pre_exposure}
        refined[name] = replace(store.load("tilt_series", import_folder(folder, name), folder), **known)
    particles = replace(made.particles, half_set=1 + np.arange(len(made.particles)) % 2)
    blank = Volume(data=np.ones((8, 8, 8), np.float32), voxel_size=PIXEL)
    values = {"particles": particles, "half_maps": HalfMaps(half1=blank, half2=blank), "tilt_series": refined}
    put(folder, "refine", "all", {}, values)
    return folder


def test_what_is_stored_is_what_the_stage_gives(project):
    """Geometry, deformation, defoci, poses, scores and maps of the same call here, from the same files."""
    with pytest.raises(SystemExit) as left:
        main(["polish", str(project), "--executor", "serial"])
    assert not left.value.code
    given, done = project / "refine" / "all", project / "polish" / "all"
    series, particles = (store.load(kind, given, project) for kind in ("tilt_series", "particles"))
    expected = polish(series, particles, PARAMS)
    found = store.load("tilt_series", done, project)
    for name, one in expected.tilt_series.items():
        assert np.abs(one.geometry.shift - series[name].geometry.shift).max() > 1  # it was worth the while
        for field in ("shift", "tilt_angle", "tilt_axis_angle", "x_tilt"):
            assert np.allclose(getattr(found[name].geometry, field), getattr(one.geometry, field), atol=2e-4), field
        for field in ("defocus_u", "defocus_v", "astigmatism_angle"):
            assert np.allclose(getattr(found[name].ctf, field), getattr(one.ctf, field), atol=0.01), field
        assert np.allclose(found[name].deformation.image.coefficient, one.deformation.image.coefficient, atol=1e-4)
        assert (found[name].deformation.sample is None) == (one.deformation.sample is None)
    posed = store.load("particles", done, project)
    assert np.allclose(posed.position, expected.particles.position, atol=1e-2)
    assert np.degrees((posed.rotation * expected.particles.rotation.inv()).magnitude()).max() < 1e-2
    assert np.array_equal(posed.half_set, expected.particles.half_set)
    maps = store.load("half_maps", done, project)
    assert np.allclose(maps.half1.data, expected.half_maps.half1.data, atol=1e-4)
    assert read_record(done)["quality"]["shared_parameters"] == pytest.approx(expected.quality["shared_parameters"])
