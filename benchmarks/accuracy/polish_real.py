"""The ladder on two real HIV-1 tilt series (EMPIAR-10164, 10 Å/px previews): what its gates say, what the map shows.

From the other program's alignment, as it was before its own polishing, and its particles and poses: only polishing is
tried. `before` and `after`: FSC at 23 Å of the half maps within a sphere of 120 Å radius whose edge is 3 or 4.8 voxels
wide, and in the map's own mask, corrected (`postprocess`). `cycles` has the resolution and the area under the FSC after
each cycle. `gates`: for each series and block the part of the tries that was taken, and the best held-out gain of all
tries (log likelihood, the worse half). `moved_rms_A`: how far the images of particles moved in all, by series.
"""

import shutil
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np

from tiltwise.data.maps import HalfMaps
from tiltwise.data.tilt_series import TiltSeries
from tiltwise.ops.deformation import specimen_in_images
from tiltwise.ops.particles.half_maps import average_particles
from tiltwise.params.polish import PolishParams
from tiltwise.params.postprocess import PostprocessParams
from tiltwise.project import store
from tiltwise.project.create import new_project
from tiltwise.project.importing import import_tilt_series
from tiltwise.project.threads import keep_freed_memory
from tiltwise.stages.polish import PolishResult, polish
from tiltwise.stages.postprocess import postprocess

sys.path.insert(0, str(Path(__file__).parent))
from real_hiv import (  # noqa: E402
    BOX,
    DIAMETER,
    EDGES,
    NAMES,
    SHARED,
    fsc_at,
    published_alignment,
    published_particles,
    value_at,
)

PARAMS = PolishParams(box_size=BOX, particle_diameter=DIAMETER, symmetry="C6")


def prepare() -> Path | None:
    """A folder for the import; None where the real data are absent."""
    return Path(tempfile.mkdtemp(prefix="tiltwise-hiv-")) if SHARED.is_dir() else None


def run(folder: Path | None) -> dict:
    if folder is None:
        return {"skipped": f"{SHARED} is not here"}
    keep_freed_memory()
    try:
        return measure(aligned_as_published(folder / "hiv"))
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def aligned_as_published(project: Path) -> dict[str, TiltSeries]:
    """The stacks of 10 Å/px under the other program's alignment."""
    import_tilt_series(new_project(project), [SHARED / "stacks" / f"{name}.mrc" for name in NAMES])
    ours = {name: store.load("tilt_series", project / "import" / name, project) for name in NAMES}
    published = published_alignment({name: series.images for name, series in ours.items()})
    return {name: replace(ours[name], geometry=published[name].geometry) for name in NAMES}


def measure(series: dict[str, TiltSeries]) -> dict:
    """Polish, and what the map shows before and after."""
    particles = published_particles()
    before = average_particles(series, particles, box_size=BOX, particle_diameter=DIAMETER, symmetry="C6")
    result = polish(series, particles, PARAMS)
    return {
        "before": shown(before),
        "after": shown(result.half_maps),
        "cycles": [
            {key: record.get(key) for key in ("resolution_fsc_A", "fsc_area_shells", "kept")}
            for record in result.quality["cycles"]
        ],
        "gates": gates(result.quality),
        "moved_rms_A": {name: moved(series[name], result, name) for name in NAMES},
        "shared_parameters_per_observation": result.quality["shared_parameters_per_observation"],
        "particles": len(particles),
    }


def shown(half_maps: HalfMaps) -> dict:
    """What half maps show."""
    curves = postprocess(half_maps, PostprocessParams(local_resolution=False)).quality
    narrow, wide = (fsc_at(half_maps, edge) for edge in EDGES)
    return {
        "fsc_at_23A": narrow,
        "fsc_at_23A_wide_edge": wide,
        "fsc_corrected_at_23A": value_at(curves["frequency"], curves["fsc_corrected"]),
        "resolution_fsc_A": curves["resolution_fsc_A"],
    }


def moved(before, result: PolishResult, name: str) -> float:
    """Rms distance, Å, of the images of the particles, where they are now, under the new geometry and the old."""
    place = result.particles.position[result.particles.tilt_series == name]
    used = np.flatnonzero(before.use)
    now, then = (specimen_in_images(s, place, used)[0] for s in (result.tilt_series[name], before))
    return round(float(np.sqrt(((now - then) ** 2).sum(-1).mean())), 2)


def gates(quality: dict) -> dict:
    """By series and block."""
    tries: dict = {}
    for record in quality["cycles"]:
        for name, fits in record["gates"].items():
            for fit in [*fits.get("geometry", []), fits.get("defocus") or {}]:
                for block, gate in (fit.get("blocks") or {}).items():
                    taken = bool(gate["accepted"] and fit["accepted"])
                    tries.setdefault(name, {}).setdefault(block, []).append((taken, min(gate["gain"])))
    return {
        name: {
            block: {"taken": f"{sum(t for t, _ in rows)} of {len(rows)}", "gain": round(max(g for _, g in rows), 1)}
            for block, rows in blocks.items()
        }
        for name, blocks in tries.items()
    }
