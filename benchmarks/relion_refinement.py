"""RELION-5's refinement of the case of shared_case.py, where its programs are on the PATH. Nothing of it is part of
this project.

The poses go out by `write_particles` and come back by `read_particles`; the tilt series and the tomogram are the case's
own star files. One process, one thread, the faster of its two CPU paths (`--cpu`): relion_tomo_subtomo cuts 2D stacks,
relion_refine --auto_refine starts with local searches in steps of 3.75 degrees, as its manual has it for poses that are
nearly right, under a spherical mask of the same diameter, from the same reference with the same low-pass.
TILTWISE_RELION_LIMIT_S ends it after so many seconds of wall; what it had then is what is compared.
"""

import os
import re
import resource
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from shared_case import case_series

from tiltwise.data.particles import Particles
from tiltwise.io.relion import read_particles, write_particles

PROGRAMS = ("relion_tomo_subtomo", "relion_refine")
LIMIT = float(os.environ.get("TILTWISE_RELION_LIMIT_S", 3600))
_ORDER = 4  # of the HEALPix grid: 3.75 degrees, halved once more by oversampling


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class RelionRun:
    particles: Particles
    """As its last iteration has them, in its own order."""
    iterations: int
    cpu_seconds: float
    """User and system, of the refinement alone."""
    poses: int
    """Rotations times shifts of the grids it went through, all particles and iterations, both passes."""
    ended: bool
    """It came to its own end, and was not stopped."""


def relion_present() -> bool:
    return all(shutil.which(program) for program in PROGRAMS)


def refine_by_relion(
    case: Path, start: Particles, *, box: int, pixel_size: float, diameter: float, lowpass: float
) -> RelionRun:
    """Its refinement from the poses `start`. Lengths in Å, box in px of pixel_size."""
    folder = case / "relion"
    for old in ("Extract", "Refine3D"):
        shutil.rmtree(folder / old, ignore_errors=True)
        (folder / old).mkdir()
    write_particles(folder / "start.star", start, tilt_series={"TS1": case_series(case)})
    stacks = ["--p", "start.star", "--t", "tomograms.star", "--o", "Extract/", "--b", str(box), "--bin", "1"]
    _run(folder, "relion_tomo_subtomo", *stacks, "--stack2d", "--j", "1")
    before = _children()
    refined = ["--ios", "Extract/optimisation_set.star", "--o", "Refine3D/run", "--ref", "../ref64.mrc"]
    refined += ["--auto_refine", "--firstiter_cc", "--trust_ref_size", "--ini_high", str(lowpass)]
    refined += ["--particle_diameter", str(diameter), "--flatten_solvent", "--zero_mask", "--ctf", "--norm", "--scale"]
    refined += ["--sym", "C1", "--oversampling", "1", "--healpix_order", str(_ORDER)]
    refined += ["--auto_local_healpix_order", str(_ORDER), "--offset_range", "5", "--offset_step", "2"]
    text, ended = _run(folder, "relion_refine", *refined, "--pad", "2", "--j", "1", "--pool", "10", "--cpu")
    seconds = _children() - before
    written = sorted((folder / "Refine3D").glob("run_it*_data.star"))
    last = folder / "Refine3D" / "run_data.star"
    particles = read_particles(last if last.exists() else written[-1])
    (folder / "Refine3D" / "run.out").write_text(text)
    return RelionRun(
        particles=particles,
        iterations=len(written) - 1,
        cpu_seconds=seconds,
        poses=len(start) * sum(int(n) for n in re.findall(r"NrHiddenVariableSamplingPoints= *(\d+)", text)),
        ended=ended,
    )


def _run(folder: Path, *command: str) -> tuple[str, bool]:
    """Its output, and whether it came to its end; RuntimeError with its last lines where it failed."""
    single = os.environ | {"OMP_NUM_THREADS": "1"}
    try:
        done = subprocess.run(
            command, cwd=folder, env=single, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=LIMIT
        )
    except subprocess.TimeoutExpired as stopped:
        return (stopped.stdout or b"").decode(errors="replace"), False
    if done.returncode:
        raise RuntimeError(f"{command[0]}: {done.stdout[-2000:]}")
    return done.stdout, True


def _children() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime
