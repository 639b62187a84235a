"""The main job on two real HIV-1 tilt series (EMPIAR-10164): alignment against the published one, half-map FSC."""

import shutil
import tempfile
from pathlib import Path

import numpy as np

from tiltwise.io.relion.tilt_series import read_tilt_series_set
from tiltwise.ops.alignment_comparison import compare_alignments, kurtosis_ratio
from tiltwise.project import store
from tiltwise.project.create import new_project
from tiltwise.project.importing import import_tilt_series
from tiltwise.project.records import read_record
from tiltwise.project.run import run_project

SHARED = Path(__file__).parents[3] / "shared" / "data" / "hiv_empiar10164"
NAMES = ("TS_03", "TS_43")
SHAPE, VOXEL = (120, 540, 540), 10.0
"""The volume whose kurtosis is compared: voxels z, y, x, and their size in Å."""
FSC_AT = 23.0


def prepare() -> Path | None:
    """A folder for the project; None where the real data are absent."""
    return Path(tempfile.mkdtemp(prefix="tiltwise-hiv-")) if SHARED.is_dir() else None


def run(folder: Path | None) -> dict:
    if folder is None:
        return {"skipped": f"{SHARED} is not here"}
    try:
        project = new_project(folder / "hiv", recipe="spheres")
        import_tilt_series(project, [SHARED / "stacks" / f"{name}.mrc" for name in NAMES])
        summary = run_project(project)
        if summary.failed:
            raise RuntimeError(f"failed: {summary.failed}")
        return measure(project)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def measure(project: Path) -> dict:
    """The benchmark's figures of a finished project."""
    ours = {name: store.load("tilt_series", project / "align" / name, project) for name in NAMES}
    table = SHARED / "relion5" / "Tomograms" / "job006" / "tomograms.star"
    published = read_tilt_series_set(table, images={name: series.images for name, series in ours.items()})
    figures: dict = {"kurtosis_ratio": {}, "shift_rms_A": {}, "axis_error_deg": {}}
    for name in NAMES:
        comparison = compare_alignments(ours[name], published[name])
        ratio = kurtosis_ratio(ours[name], published[name], SHAPE, VOXEL)
        figures["kurtosis_ratio"][name] = round(ratio, 3)
        figures["shift_rms_A"][name] = round(comparison.shift_rms, 2)
        figures["axis_error_deg"][name] = round(comparison.axis_error, 3)
    refined, finished = (read_record(project / step / "all")["quality"] for step in ("refine", "postprocess"))
    particles = store.load("particles", project / "refine" / "all", project)
    return {
        **figures,
        "fsc_at_23A": _value_at(refined["fsc_frequency"], refined["fsc"]),  # in a soft sphere of 120 Å radius
        "fsc_corrected_at_23A": _value_at(finished["frequency"], finished["fsc_corrected"]),
        "resolution_fsc_A": finished["resolution_fsc_A"],
        "particles": len(particles),
    }


def _value_at(frequency: list, fsc: list) -> float:
    return round(float(np.interp(1 / FSC_AT, frequency, np.array(fsc, dtype=float))), 3)
