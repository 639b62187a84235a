"""The main job on two real HIV-1 tilt series (EMPIAR-10164): alignment against the published one, lattice, half-map FSC."""

import shutil
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from tiltwise.data.tilt_series import TiltSeries
from tiltwise.io.relion.tilt_series import read_tilt_series_set
from tiltwise.ops.alignment_comparison import compare_alignments, kurtosis, remove_gauge
from tiltwise.ops.geometry import tilt_rotations
from tiltwise.ops.projection import back_project, ramp_filter
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
    figures: dict = {"kurtosis_ratio": {}, "kurtosis_published": {}, "shift_rms_A": {}, "axis_error_deg": {}}
    for name in NAMES:
        comparison = compare_alignments(ours[name], published[name])
        ratio, reference = kurtosis_ratio(ours[name], published[name])
        figures["kurtosis_ratio"][name] = round(ratio, 3)
        figures["kurtosis_published"][name] = round(reference, 1)
        figures["shift_rms_A"][name] = round(comparison.shift_rms, 2)
        figures["axis_error_deg"][name] = round(comparison.axis_error, 3)
    quality = read_record(project / "postprocess" / "all").quality
    frequency, fsc = np.asarray(quality["frequency"]), np.asarray(quality["fsc_corrected"], float)
    particles = store.load("particles", project / "refine" / "all", project)
    return {
        **figures,
        "fsc_at_23A": round(float(np.interp(1 / FSC_AT, frequency, fsc)), 3),
        "resolution_fsc_A": quality["resolution_fsc_A"],
        "particles": len(particles),
    }


def kurtosis_ratio(ours: TiltSeries, published: TiltSeries) -> tuple[float, float]:
    """Kurtosis of the plain back projection with our alignment over that with the published one, and the latter.

    One function for both: the same tilts, the same gauge (ours is moved into theirs), the same filter, the same volume.
    """
    use = ours.use & published.use
    levelled = replace(ours, geometry=remove_gauge(ours.geometry, published.geometry, use), use=use)
    same_tilts = replace(published, use=use, pixel_size=ours.pixel_size)
    first, second = (back_projection_kurtosis(series) for series in (levelled, same_tilts))
    return first / second, second


def back_projection_kurtosis(series: TiltSeries) -> float:
    use, geometry = np.flatnonzero(series.use), series.geometry
    images = torch.as_tensor(np.array(series.images[use], dtype=np.float32))
    images = images - images.mean((1, 2), keepdim=True)
    filtered = ramp_filter(
        images / images.std((1, 2), keepdim=True),
        geometry.tilt_angle[use],
        geometry.tilt_axis_angle[use],
        series.pixel_size,
    )
    rotations, shift = tilt_rotations(geometry)[use], torch.as_tensor(geometry.shift[use])
    return kurtosis(back_project(filtered, rotations, shift, series.pixel_size, SHAPE, VOXEL))
