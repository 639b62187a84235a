"""One untilted micrograph of known defocus and astigmatism, 4096² at 1.35 Å/px; rms over ten seeds of signal and noise.

The recipe and its CTF are those of ctf_and_movie.py of the shared cases, on which the peers were measured: white
matter, B = 60 Å², with noise at a contrast of 0.3 (`high`) or counted at 5.5 e⁻/px and a contrast of 0.1 (`low`, these
figures with the suffix `_low_dose`). TILTWISE_CASES names the shared folder.
"""

import ast
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from chosen import chosen
from shared_case import CASES

from tiltwise.data.optics import Optics
from tiltwise.data.tilt_series import TiltGeometry, TiltSeries
from tiltwise.params.defocus import DefocusParams
from tiltwise.project.threads import keep_freed_memory
from tiltwise.stages.defocus import defocus

SEEDS = chosen("TILTWISE_CTF_SEEDS", 10)
SIDE, PIXEL = 4096, 1.35
TRUTH = {"dfu": 21000.0, "dfv": 19500.0, "ang": 30.0}


def run() -> dict:
    script = CASES / "ctf_and_movie.py"
    if not script.exists():
        return {"skipped": f"no case at {script}; set TILTWISE_CASES"}
    keep_freed_memory()
    transfer = torch.from_numpy(case_functions(script)["ctf"](SIDE, PIXEL, **TRUTH, B=60)[0])
    rows: dict[str, list] = {"": [], "_low_dose": []}
    for seed in SEEDS:
        random = np.random.default_rng([7, seed])
        white = torch.from_numpy(random.standard_normal((SIDE, SIDE), dtype=np.float32))
        signal = torch.fft.irfft2(torch.fft.rfft2(white) * transfer, s=(SIDE, SIDE)).numpy()
        signal /= signal.std()
        high = signal * 0.30 + random.standard_normal((SIDE, SIDE), dtype=np.float32)
        low = random.poisson(np.clip(5.5 * (1 + 0.10 * signal), 0.01, None)).astype(np.float32)
        for suffix, image in (("", high), ("_low_dose", low)):
            rows[suffix].append(errors_of(image))
    figures: dict = {}
    for suffix, values in rows.items():
        rms = np.sqrt(np.mean(np.square(values), axis=0))
        names = ("u_rmse_A", "v_rmse_A", "angle_rmse_deg")
        figures |= {f"{name}{suffix}": round(float(value), 3) for name, value in zip(names, rms[:3], strict=True)}
        figures[f"fit_cpu_s{suffix}"] = round(float(np.mean([row[3] for row in values])), 2)
        figures[f"error_over_sd{suffix}"] = round(float(rms[4]), 2)
    return figures


def errors_of(image: np.ndarray) -> tuple[float, float, float, float, float]:
    """Errors of u and v (Å) and of the angle (degrees), CPU seconds, and the error of (u + v) / 2 in its own sd."""
    before = time.process_time()
    result = defocus(micrograph(image), DefocusParams())
    seconds = time.process_time() - before
    ctf = result.tilt_series.ctf
    if ctf is None:
        raise RuntimeError(result.quality["reason"])
    turn = (float(ctf.astigmatism_angle[0]) - TRUTH["ang"] + 90) % 180 - 90
    u, v = float(ctf.defocus_u[0]) - TRUTH["dfu"], float(ctf.defocus_v[0]) - TRUTH["dfv"]
    return u, v, turn, seconds, (u + v) / 2 / float(ctf.defocus_error[0])


def micrograph(image: np.ndarray) -> TiltSeries:
    """A tilt series of one untilted image."""
    zero = np.zeros(1)
    return TiltSeries(
        name="micrograph",
        images=image[None],
        image_names=("micrograph.mrc",),
        pixel_size=PIXEL,
        optics=Optics(voltage=300.0, spherical_aberration=2.7, amplitude_contrast=0.07),
        stage_tilt_angle=zero,
        nominal_tilt_axis_angle=None,
        exposure=zero,
        pre_exposure=zero,
        acquisition_order=np.zeros(1, int),
        use=np.ones(1, bool),
        why_not=("",),
        geometry=TiltGeometry(tilt_angle=zero, tilt_axis_angle=zero, x_tilt=zero, shift=np.zeros((1, 2))),
    )


def case_functions(script: Path) -> dict[str, Callable]:
    """The functions of a case, without running the case."""
    tree = ast.parse(script.read_text())
    tree.body = [node for node in tree.body if isinstance(node, ast.Import | ast.ImportFrom | ast.FunctionDef)]
    names: dict = {}
    exec(compile(tree, str(script), "exec"), names)
    return names


torch.set_grad_enabled(False)
