"""The main job on two real HIV-1 tilt series (EMPIAR-10164): alignment against the published one, half-map FSC.

No symmetry is given: the refinement begins in C1 and takes what its average shows (`symmetry`). Of that C1 average
`c1_order` is the n of Cn that it shows about an axis near z, `c1_share` what n-fold turns leave of all that varies
about it (ops/maps/rotational_symmetry.py), and `c1_correlation` that of the half maps with one of them turned by 60° or
30°, not at all, and on average over all turns.
`model_` is the FSC with the atomic model that was built into the published map (0.5), within the map's mask and within
the model's own; `model_fsc_own_mask` its values at some spacings, Å, down to Nyquist's 20, where no CTF is corrected.
"""

import shutil
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from tiltwise.data.maps import HalfMaps
from tiltwise.data.particles import Particles
from tiltwise.data.tilt_series import TiltSeries
from tiltwise.io.relion import read_particles
from tiltwise.io.relion.tilt_series import read_tilt_series_set
from tiltwise.ops.alignment.comparison import compare_alignments, kurtosis_ratio
from tiltwise.ops.masks import soft_sphere
from tiltwise.ops.particles.half_maps import average_particles
from tiltwise.ops.particles.half_sets import assign_half_sets, distinct_particles
from tiltwise.ops.particles.references import half_map_fsc
from tiltwise.project import store
from tiltwise.project.create import new_project
from tiltwise.project.importing import import_tilt_series
from tiltwise.project.records import read_record
from tiltwise.project.run import run_project
from tiltwise.workflows.model_fit import fit_model

SHARED = Path(__file__).parents[3] / "shared" / "data" / "hiv_empiar10164"
MODEL = SHARED.parent / "models" / "ca_sp1_from_empiar10164.cif"
NAMES = ("TS_03", "TS_43")
SHAPE, VOXEL = (120, 540, 540), 10.0
"""The volume whose kurtosis is compared: voxels z, y, x, and their size in Å."""
FSC_AT = 23.0
MODEL_AT = (60.0, 50.0, 40.0, 36.0, 30.0, 28.0, 25.0, 23.0)
"""Å."""
RADIUS, EDGES = 120.0, (3.0, 4.8)
"""The sphere of the FSC, Å, and the widths of its soft edge, voxels: the narrow one of the target's recipe, and the
one that the refinement uses. A narrow edge raises the FSC by itself, which is why both are said."""
BOX, DIAMETER, LINK, SAME = 48, 240.0, 110.0, 50.0
"""How the other program's particles are averaged: box, px; diameter, Å; particles nearer than LINK (Å) are of one patch
of lattice and stay in one half; nearer than SAME they are one."""


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
    published = published_alignment({name: series.images for name, series in ours.items()})
    figures: dict = {"kurtosis_ratio": {}, "shift_rms_A": {}, "axis_error_deg": {}}
    for name in NAMES:
        comparison = compare_alignments(ours[name], published[name])
        ratio = kurtosis_ratio(ours[name], published[name], SHAPE, VOXEL)
        figures["kurtosis_ratio"][name] = round(ratio, 3)
        figures["shift_rms_A"][name] = round(comparison.shift_rms, 2)
        figures["axis_error_deg"][name] = round(comparison.axis_error, 3)
    refined, finished = (read_record(project / step / "all")["quality"] for step in ("refine", "postprocess"))
    particles = store.load("particles", project / "refine" / "all", project)
    half_maps = store.load("half_maps", project / "refine" / "all", project)
    narrow, wide = (fsc_at(half_maps, edge) for edge in EDGES)
    theirs = published_average({n: replace(ours[n], geometry=published[n].geometry) for n in NAMES})
    return {
        **figures,
        "fsc_at_23A": narrow,
        "fsc_at_23A_wide_edge": wide,
        "fsc_corrected_at_23A": value_at(finished["frequency"], finished["fsc_corrected"]),
        "published_poses_fsc_at_23A": fsc_at(theirs, EDGES[0]),
        "published_poses_fsc_at_23A_wide_edge": fsc_at(theirs, EDGES[1]),
        "resolution_fsc_A": finished["resolution_fsc_A"],
        "particles": len(particles),
        **without_symmetry(refined),
        **against_model(project),
        "tilt_shifts_accepted": [
            name for i in refined["iterations"] for name, fit in i.get("tilt_shifts", {}).items() if fit["accepted"]
        ],
    }


def without_symmetry(refined: dict) -> dict:
    """What the average showed before any symmetry was imposed, and what was imposed then."""
    shown = refined["rotational_symmetry"]
    correlation = np.array(shown["correlation"])
    return {
        "symmetry": refined["symmetry"],
        "c1_order": shown["order"],
        "c1_share": {n: round(value, 3) for n, value in shown["share"].items()},
        "c1_correlation": {
            "0": round(correlation[0], 3),
            "60": round(correlation[60], 3),
            "30": round(correlation[30], 3),
            "mean": round(float(correlation[:-1].mean()), 3),
        },
        "c1_axis_A": round(float(np.hypot(*shown["point_A"])), 1),
        "c1_halves_start": refined["first_reference"]["correlation_of_halves"],
    }


def against_model(project: Path) -> dict:
    """The atomic model against the map."""
    found, _ = fit_model(project, MODEL)
    return {
        "model_resolution_A": found.resolution,
        "model_resolution_own_mask_A": found.resolution_own_mask,
        "model_resolution_expected_A": found.resolution_expected,
        "model_resolution_mirrored_A": found.resolution_mirrored,
        "model_fsc_own_mask": {
            f"{spacing:g}": round(float(np.interp(1 / spacing, found.frequency, found.fsc_own_mask)), 3)
            for spacing in MODEL_AT
        },
        "model_overlap": round(found.overlap, 3),
    }


def published_average(tilt_series: dict[str, TiltSeries]) -> HalfMaps:
    """Half maps at the other program's alignment and poses, made as ours are: the ceiling that ours is held against."""
    own = published_particles()
    return average_particles(tilt_series, own, box_size=BOX, particle_diameter=DIAMETER, symmetry="C6")


def published_particles() -> Particles:
    """The other program's refined particles of the two series, each once, halves by patch of lattice."""
    every = read_particles(SHARED / "relion5" / "Refine3D" / "job023" / "run_data.star")
    own: Particles = every[np.flatnonzero(np.isin(every.tilt_series, NAMES))]
    own = own[np.flatnonzero(distinct_particles(own.tilt_series, own.position, np.ones(len(own)), SAME))]
    own = replace(own, half_set=np.zeros(len(own), dtype=int), region=np.full(len(own), -1))
    return replace(own, half_set=assign_half_sets(own, LINK, 0))


def published_alignment(images: dict[str, np.ndarray]) -> dict[str, TiltSeries]:
    """The other program's alignment of the two series, with these images."""
    return read_tilt_series_set(SHARED / "relion5" / "Tomograms" / "job006" / "tomograms.star", images=images)


def fsc_at(half_maps: HalfMaps, edge: float) -> float:
    """FSC at FSC_AT of half maps within the sphere, its edge (voxels) outside of RADIUS."""
    first, second = (torch.as_tensor(np.array(volume.data)) for volume in (half_maps.half1, half_maps.half2))
    voxel_size = half_maps.half1.voxel_size
    fsc = half_map_fsc(first, second, soft_sphere(tuple(first.shape), RADIUS / voxel_size, edge))
    return value_at(np.arange(len(fsc)) / (len(first) * voxel_size), fsc.tolist())


def value_at(frequency: list, fsc: list) -> float:
    return round(float(np.interp(1 / FSC_AT, frequency, np.array(fsc, dtype=float))), 3)
