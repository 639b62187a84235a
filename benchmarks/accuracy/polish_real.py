"""The ladder on two real HIV-1 tilt series (EMPIAR-10164, 10 Å/px previews): what its gates say, what the map shows.

From stacks alone, as `real-hiv`, with the step polish after refine. `before` and `after` are figures of the half maps:
`fsc_at_23A` and `_wide_edge`, the FSC at 23 Å within a sphere of 120 Å radius whose edge is 3 or 4.8 voxels wide;
`fsc_corrected_at_23A`, in the map's own mask, corrected. `model_resolution_A`: of the map after, to the atomic model.
`cycles` has the resolution and the area under the FSC after each cycle. `gates`: for each series and block the part of
the tries that was taken, and the best held-out gain (log likelihood, the worse half) of all tries.
"""

import shutil
import sys
import tempfile
from pathlib import Path

from tiltwise import pipeline
from tiltwise.params.polish import PolishParams
from tiltwise.params.postprocess import PostprocessParams
from tiltwise.project import store
from tiltwise.project.create import find_recipe, new_project
from tiltwise.project.importing import import_tilt_series
from tiltwise.project.recipe import Recipe, Step
from tiltwise.project.recipe_text import write_recipe
from tiltwise.project.records import read_record
from tiltwise.project.run import run_project
from tiltwise.workflows.model_fit import fit_model

sys.path.insert(0, str(Path(__file__).parent))
from real_hiv import EDGES, MODEL, NAMES, SHARED, fsc_at, value_at  # noqa: E402

PARAMS = PolishParams(particle_diameter=240.0, symmetry="C6")


def prepare() -> Path | None:
    """A folder for the project; None where the real data are absent."""
    return Path(tempfile.mkdtemp(prefix="tiltwise-hiv-")) if SHARED.is_dir() else None


def run(folder: Path | None) -> dict:
    if folder is None:
        return {"skipped": f"{SHARED} is not here"}
    try:
        (folder / "recipe.toml").write_text(write_recipe(recipe()), encoding="utf-8")
        project = new_project(folder / "hiv", recipe=str(folder / "recipe.toml"))
        import_tilt_series(project, [SHARED / "stacks" / f"{name}.mrc" for name in NAMES])
        summary = run_project(project)
        if summary.failed:
            raise RuntimeError(f"failed: {summary.failed}")
        return measure(project)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def recipe() -> Recipe:
    """That of `spheres`, with polish, and the map measured before and after it."""
    *line, refine, last = find_recipe("spheres").steps
    before = Step(name="before", stage=pipeline.BY_NAME["postprocess"], params=PostprocessParams())
    return Recipe(
        steps=(*line, refine, before, Step(name="polish", stage=pipeline.BY_NAME["polish"], params=PARAMS), last)
    )


def measure(project: Path) -> dict:
    """The benchmark's figures of a finished project."""
    found = read_record(project / "polish" / "all")["quality"]
    return {
        "before": shown(project, "refine", "before"),
        "after": shown(project, "polish", "postprocess"),
        "model_resolution_A": fit_model(project, MODEL)[0].resolution,
        "cycles": [
            {key: record.get(key) for key in ("resolution_fsc_A", "fsc_area_shells", "kept")}
            for record in found["cycles"]
        ],
        "gates": gates(found),
        "shared_parameters_per_observation": found["shared_parameters_per_observation"],
        "particles": len(store.load("particles", project / "polish" / "all", project)),
    }


def shown(project: Path, averaged: str, measured: str) -> dict:
    """What the half maps of one step show."""
    half_maps = store.load("half_maps", project / averaged / "all", project)
    curves = read_record(project / measured / "all")["quality"]
    narrow, wide = (fsc_at(half_maps, edge) for edge in EDGES)
    return {
        "fsc_at_23A": narrow,
        "fsc_at_23A_wide_edge": wide,
        "fsc_corrected_at_23A": value_at(curves["frequency"], curves["fsc_corrected"]),
        "resolution_fsc_A": curves["resolution_fsc_A"],
    }


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
