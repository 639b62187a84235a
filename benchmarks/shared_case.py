"""The tilt series on which other programs were measured: cases/tilt_series.py of the shared folder, made on first use.

100 particles of 60 Gaussians, 41 tilts of 1024 × 1024 px of 4 Å, with CTF, signal-to-noise ratio 0.2. TILTWISE_CASES
names the shared folder, TILTWISE_CASE_DATA where the series lies or is to be made.
"""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from scipy.spatial.transform import Rotation

from tiltwise.data.optics import Ctf, Optics
from tiltwise.data.particles import Particles
from tiltwise.data.tilt_series import TiltGeometry, TiltSeries
from tiltwise.data.volume import Volume
from tiltwise.io.mrc import read_mrc
from tiltwise.io.relion import read_particles

CASES = Path(os.environ.get("TILTWISE_CASES", Path(__file__).parents[2] / "shared" / "cases"))
DATA = Path(os.environ.get("TILTWISE_CASE_DATA", Path(tempfile.gettempdir()) / "tomo_case"))
ABSENT = {"skipped": f"no case at {CASES}; set TILTWISE_CASES"}
BOX, DIAMETER = 64, 190.0
"""px; Å: the Gaussians reach 24 px from the centre."""


def prepare() -> Path | None:
    """The folder of the case, made if need be; None where the shared cases are absent."""
    if not (CASES / "tilt_series.py").exists():
        return None
    if not (DATA / "truth_bin2.mrc").exists():
        subprocess.run(
            [sys.executable, str(CASES / "tilt_series.py"), str(DATA)], check=True, stdout=subprocess.DEVNULL
        )
    return DATA


def case_series(folder: Path, stack: str = "ts.mrc") -> TiltSeries:
    """The case as a tilt series, its geometry and CTF the truth. Density is dark, as a camera has it."""
    truth = np.load(folder / "truth.npz")
    tilts = truth["tilts"]
    n, zero = len(tilts), np.zeros(len(tilts))
    return TiltSeries(
        name="TS1",
        images=np.array(read_mrc(folder / stack)[0]),
        image_names=("",) * n,
        pixel_size=4.0,
        optics=Optics(),
        stage_tilt_angle=tilts,
        nominal_tilt_axis_angle=0.0,
        exposure=np.full(n, 3.0),
        pre_exposure=truth["pre"],
        acquisition_order=np.argsort(np.argsort(truth["pre"])),
        use=np.ones(n, bool),
        why_not=("",) * n,
        geometry=TiltGeometry(tilt_angle=tilts, tilt_axis_angle=zero, x_tilt=zero, shift=np.zeros((n, 2))),
        ctf=Ctf(
            defocus_u=truth["df"],
            defocus_v=truth["df"],
            astigmatism_angle=zero,
            phase_shift=zero,
            defocus_error=zero,
            fit_resolution=zero,
        ),
        defocus_handedness=-1,
    )


def case_particles(folder: Path) -> Particles:
    """The true poses, from the star file that the other programs read."""
    return read_particles(folder / "relion" / "particles.star")


def case_reference(folder: Path) -> Volume:
    """The particle, as a map of 64 voxels of 4 Å."""
    return Volume(data=np.array(read_mrc(folder / "ref64.mrc")[0]), voxel_size=4.0)


def perturbed(particles: Particles, angle: float, shift: float, seed: int) -> Particles:
    """Poses off by rotation vectors of sd `angle` (degrees) and positions of sd `shift` (Å) along each axis."""
    random = np.random.default_rng(seed)
    turn = Rotation.from_rotvec(random.normal(0, np.radians(angle), (len(particles), 3)))
    return _moved(particles, turn * particles.rotation, random.normal(0, shift, (len(particles), 3)))


def anywhere(particles: Particles, shift: float, seed: int) -> Particles:
    """Random rotations, and positions off by up to `shift` Å along each axis."""
    random = np.random.default_rng(seed)
    turns = Rotation.random(len(particles), random_state=seed)
    return _moved(particles, turns, random.uniform(-shift, shift, (len(particles), 3)))


def _moved(particles: Particles, rotation: Rotation, shift: np.ndarray) -> Particles:
    return Particles(
        tilt_series=particles.tilt_series,
        position=particles.position + shift,
        rotation=rotation,
        score=np.zeros(len(particles)),
        half_set=np.zeros(len(particles), dtype=int),
        region=np.full(len(particles), -1),
    )
