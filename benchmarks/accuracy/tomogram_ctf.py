"""CTF-corrected tomogram of a simulated series of 41 tilts, binned in one go; FSC to the truth within the wedge.

The case is tilt_series.py of the shared cases: 1024 × 1024 px of 4 Å to 512 × 512 × 256 voxels of 8 Å, scored as its
score.py does. `fsc_at_01_02_03_04` is of projections without CTF and noise, as the peers were scored; the others are of
the series with CTF and noise (signal-to-noise ratio 0.2).
"""

import importlib.util
import resource
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from shared_case import ABSENT, CASES, case_series, prepare

from tiltwise.io.mrc import read_mrc
from tiltwise.params.reconstruct import ReconstructParams
from tiltwise.project.threads import keep_freed_memory
from tiltwise.stages.reconstruct import reconstruct

__all__ = ["prepare", "run"]


def run(folder: Path | None) -> dict:
    if folder is None:
        return ABSENT
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
