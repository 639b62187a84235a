"""A project with every kind of record, written by hand."""

import mrcfile
import numpy as np
import pytest
from report_project import (
    NUMBER,
    TILTS,
    align_quality,
    aligned,
    defocus_quality,
    density,
    exposure_curves,
    fsc_quality,
    put,
    reconstruct_quality,
    with_ctf,
)
from scipy import ndimage
from scipy.spatial.transform import Rotation

from tiltwise.data.maps import HalfMaps
from tiltwise.data.particles import Particles
from tiltwise.data.volume import Volume
from tiltwise.project import store
from tiltwise.project.create import new_project
from tiltwise.project.importing import import_tilt_series
from tiltwise.project.layout import import_folder


@pytest.fixture(scope="session")
def imported(tmp_path_factory):
    """A project with two imported series and nothing run."""
    root = tmp_path_factory.mktemp("report")
    raw = root / "raw"
    raw.mkdir()
    rng = np.random.default_rng(0)
    for name in ("TS_01", "TS_02"):
        with mrcfile.new(raw / f"{name}.mrc") as stack:
            stack.set_data(rng.normal(100, 10, (NUMBER, 32, 48)).astype(np.float32))
            stack.voxel_size = 4.0
        (raw / f"{name}.rawtlt").write_text("".join(f"{angle:.1f}\n" for angle in TILTS))
    project = new_project(root / "lattice <1>")
    import_tilt_series(project, [raw / "TS_01.mrc", raw / "TS_02.mrc"], tilt_axis_angle=85.0, exposure=3.0)
    return project


@pytest.fixture(scope="session")
def finished(imported, tmp_path_factory):
    """The project with all steps done for one series, and defocus failed for the other."""
    project = imported.parent / "done <2>"
    new_project(project)
    import_tilt_series(project, [imported.parent / "raw"], tilt_axis_angle=85.0, exposure=3.0)
    rng = np.random.default_rng(3)
    for name in ("TS_01", "TS_02"):
        series = aligned(store.load("tilt_series", import_folder(project, name), project))
        put(project, "align", name, align_quality(), {"tilt_series": series})
        if name == "TS_02":
            put(project, "defocus", name, {}, {}, error="TS_02: no <rings> in any tilt")
            continue
        put(project, "defocus", name, defocus_quality(), {"tilt_series": with_ctf(series)})
        tomogram = Volume(data=rng.normal(size=(16, 40, 60)).astype(np.float32), voxel_size=10.0)
        put(project, "reconstruct", name, reconstruct_quality(), {"tomogram": tomogram})
        particles = Particles(
            tilt_series=np.full(40, name), position=rng.uniform(-60, 60, (40, 3)), score=rng.random(40),
            rotation=Rotation.random(40, random_state=1), half_set=np.arange(40) % 2 + 1, region=np.full(40, -1),
        )  # fmt: skip
        spheres = [{"x_A": 0.0, "y_A": 0.0, "z_A": 10.0, "radius_A": 120.0, "score": 3.0}]
        quality = {"scores": particles.score.tolist(), "particles": 40, "spheres": spheres}
        quality |= {
            "false_discovery": [0.001] * 30 + [0.04] * 10,
            "excluded": {"edges": 12, "gold": 3, "carbon": 0},
            "excluded_part": {"edges": 0.26, "gold": 0.0016, "carbon": 0.0},
            "notes": ["the reference is too wide"],
        }
        put(project, "pick", name, quality, {"particles": particles})
    iterations = [
        {
            "iteration": i,
            "resolution_fsc_A": 30 / i,
            "rotation_change_deg": 9 / i,
            "shift_change_A": 5 / i,
            "duplicates_removed": 1,
        }
        for i in (1, 2, 3)
    ]
    volume = Volume(data=density(), voxel_size=4.0)
    halves = HalfMaps(half1=volume, half2=volume)
    quality = {"iterations": iterations, "exposure_curves": exposure_curves()}
    put(project, "refine", "all", quality, {"particles": particles, "half_maps": halves})
    mask = Volume(data=(ndimage.gaussian_filter(density(), 3) > 1e-3).astype(np.float32), voxel_size=4.0)
    put(project, "postprocess", "all", fsc_quality(), {"map": volume, "mask": mask})
    return project
