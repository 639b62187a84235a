"""CTF-corrected tomogram of a simulated series of 41 tilts, binned in one go; FSC to the truth within the wedge.

The case is tilt_series.py of the shared cases: 1024 × 1024 px of 4 Å to 512 × 512 × 256 voxels of 8 Å, scored as its
score.py does. `fsc_at_01_02_03_04` is of projections without CTF and noise, as the peers were scored; the others are of
the series with CTF and noise (signal-to-noise ratio 0.2). TILTWISE_CASES names the shared folder, TILTWISE_CASE_DATA
where the series lies or is to be made.
"""

import importlib.util
import os
import resource
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from tiltwise.data.optics import Ctf, Optics
from tiltwise.data.tilt_series import TiltGeometry, TiltSeries
from tiltwise.io.mrc import read_mrc
from tiltwise.params.reconstruct import ReconstructParams
from tiltwise.project.threads import keep_freed_memory
from tiltwise.stages.reconstruct import reconstruct

CASES = Path(os.environ.get("TILTWISE_CASES", Path(__file__).parents[2].parent / "shared" / "cases"))
DATA = Path(os.environ.get("TILTWISE_CASE_DATA", Path(tempfile.gettempdir()) / "tomo_case"))


def prepare() -> Path | None:
    """The folder of the case, made if need be; None where the shared cases are absent."""
    if not (CASES / "tilt_series.py").exists():
        return None
    if not (DATA / "truth_bin2.mrc").exists():
        subprocess.run(
            [sys.executable, str(CASES / "tilt_series.py"), str(DATA)], check=True, stdout=subprocess.DEVNULL
        )
    return DATA


def run(folder: Path | None) -> dict:
    if folder is None:
        return {"skipped": f"no case at {CASES}; set TILTWISE_CASES"}
    keep_freed_memory()
    plain = case_series(folder, "ts_clean_noctf.mrc")
    seen = case_series(folder, "ts.mrc")
    plain = replace(plain, images=-plain.images, ctf=None)  # the camera's sign, which this stack alone has not
    scores = {}
    bare = ReconstructParams(voxel_size=8.0, thickness=2048.0, exposure_weighting=False)
    for name, series, params in (
        ("", plain, bare),
        ("noisy_phase_flip_", seen, bare),
        ("noisy_wiener_", seen, bare.model_copy(update={"ctf_correction": "wiener"})),
    ):
        reconstruct(series, params) if not name else None  # compile
        before = cpu_seconds()
        volume = reconstruct(series, params).tomogram.data
        scores[f"{name}reconstruct_cpu_s"] = round(cpu_seconds() - before, 2)
        scores[f"{name}fsc_at_01_02_03_04"] = score(volume, folder)
    return scores


def case_series(folder: Path, stack: str) -> TiltSeries:
    """The case as a tilt series, its geometry and CTF the truth."""
    truth = np.load(folder / "truth.npz")
    tilts = truth["tilts"]
    n, zero = len(tilts), np.zeros(len(tilts))
    return TiltSeries(
        name="case",
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


def score(volume: np.ndarray, folder: Path) -> list[float]:
    """FSC to the truth at 0.1, 0.2, 0.3, 0.4 cycles/px, by the case's own score.py."""
    spec = importlib.util.spec_from_file_location("score", CASES / "score.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    truth = np.array(read_mrc(folder / "truth_bin2.mrc")[0])
    return [round(float(v), 3) for v in module.wedge_fsc(volume, truth)[[4, 8, 12, 16]]]


def cpu_seconds() -> float:
    """User and system time of this process, all threads."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


torch.set_grad_enabled(False)
