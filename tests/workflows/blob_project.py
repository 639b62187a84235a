"""A project of tilt series of Gaussian blobs (tests/stages/particle_scene.py) whose steps before the refinement are
done, their records written by hand with the true geometry, CTF and poses: only what a test is about has to run."""

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np

from tiltwise.data.volume import Volume
from tiltwise.io.mrc import write_mrc
from tiltwise.project import store
from tiltwise.project.create import new_project
from tiltwise.project.importing import import_tilt_series
from tiltwise.project.layout import import_folder

for folder in ("stages", "report"):
    sys.path.append(str(Path(__file__).parents[1] / folder))
import particle_scene  # noqa: E402
from report_project import put  # noqa: E402

BOX, PIXEL = 32, particle_scene.PIXEL
REFINE = {"box_size": BOX, "particle_diameter": particle_scene.DIAMETER, "duplicate_distance": 60.0}


def picked_project(folder, scene, *, refine=None, **files):
    """A project of a scene, its series imported and all steps before refine done, and these series by name; refine:
    more of its parameters; files: of [inputs]."""
    raw = folder / "raw"
    raw.mkdir(parents=True)
    for name, series in scene.tilt_series.items():
        write_mrc(raw / f"{name}.mrc", series.images, series.pixel_size, stack=True)
        (raw / f"{name}.rawtlt").write_text("".join(f"{angle:.1f}\n" for angle in series.stage_tilt_angle))
    project = new_project(folder / "project", params={"refine": REFINE | (refine or {})}, **files)
    import_tilt_series(project, [raw], tilt_axis_angle=85.0, exposure=1.0)
    placed = {}
    for name, known in scene.tilt_series.items():
        imported = store.load("tilt_series", import_folder(project, name), project)
        placed[name] = replace(known, images=imported.images, image_names=imported.image_names)
        series = placed[name]
        put(project, "align", name, {"pixel_size_A": PIXEL, "tilt_axis_own_deg": None}, {"tilt_series": series})
        put(project, "defocus", name, {}, {"tilt_series": series})
        tomogram = Volume(data=np.zeros((30, 64, 64), np.float32), voxel_size=2 * PIXEL)
        put(project, "reconstruct", name, {}, {"tomogram": tomogram})
        own = scene.particles[scene.particles.tilt_series == name]
        put(project, "pick", name, {"particles": len(own)}, {"particles": own})
    return project, placed
