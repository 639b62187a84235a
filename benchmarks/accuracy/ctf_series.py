"""Defocus of whole series: slabs of protein in ice, 4096² at 2.1 Å/px, 2 and 4 µm, truths independent between tilts."""

import os
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

import numpy as np
from chosen import chosen

from tiltwise.project.threads import count_cores, prepare_process
from tiltwise.workflows.defocus_trials import Trial, measure

SIDE = int(os.environ.get("TILTWISE_CTF_SIDE", "4096"))
SEEDS = chosen("TILTWISE_CTF_SEEDS", 5)
MATTER = os.environ.get("TILTWISE_CTF_MATTER", "strips")
BASELINES = os.environ.get("TILTWISE_CTF_BASELINES", "1") == "1"
TARGETS = (20000.0, 40000.0)
DEEP = 600.0
"""Å of u - v from which the direction of astigmatism is judged."""


def run() -> dict:
    """Figures over all tilts of all series. The geometry is the true one: this is the fit alone."""
    trials = [
        Trial(seed=seed, defocus=target, image_size=SIDE, matter=MATTER, baselines=BASELINES)
        for seed in SEEDS
        for target in TARGETS
    ]
    context = get_context("spawn")
    with ProcessPoolExecutor(count_cores(), mp_context=context, initializer=prepare_process, initargs=(1,)) as pool:
        return figures_of(trials, list(pool.map(measure, trials)))


def figures_of(trials: list[Trial], rows: list[dict]) -> dict:
    """Figures over all tilts of the trials, from what was measured of each."""
    error = np.concatenate([row["error"] for row in rows])
    relative = np.abs(np.concatenate([row["error"] / row["sd"] for row in rows]))
    directions = [row["angle"] for row in rows if row["u_less_v"] >= DEEP]
    return {
        "series": len(rows),
        "defocus_median_A": round(float(np.median(np.abs(error))), 1),
        "defocus_rmse_A": round(float(np.sqrt(np.mean(error**2))), 1),
        "defocus_worst_A": round(float(np.abs(error).max()), 1),
        "defocus_rmse_by_target_A": {
            f"{target:g}": round(float(np.sqrt(np.mean(np.concatenate(own) ** 2))), 1)
            for target in TARGETS
            if (own := [row["error"] for row, case in zip(rows, trials, strict=True) if case.defocus == target])
        },
        **_compared(rows),
        "coverage_1sigma": round(float(np.mean(relative < 1)), 3),
        "coverage_2sigma": round(float(np.mean(relative < 2)), 3),
        "astigmatism_error_A": round(max(row["astigmatism"] for row in rows), 1),
        "astigmatism_angle_error_deg": round(max(directions), 2) if directions else None,
        "inclination_error_deg": round(max(row["inclination"] for row in rows), 3),
        "handedness_right": sum(row["hand"] for row in rows),
        "thickness_A": [row["thickness"] for row in rows],
        "thickness_error_A": [row["thickness_error"] for row in rows],
        "series_wall_s": round(max(row["seconds"] for row in rows), 1),
        "series_cpu_s": round(max(row["cpu_seconds"] for row in rows), 1),
    }


def _compared(rows: list[dict]) -> dict:
    """Rms over all tilts of the Cramér–Rao bound, and of the errors of the baselines where they were fitted."""
    bound = np.sqrt(np.mean(np.concatenate([row["bound"] for row in rows]) ** 2))
    figures = {"bound_A": round(float(bound), 1)}
    for name in ("alone_known", "alone_free", "strip"):
        if name in rows[0]:
            error = np.concatenate([row[name] for row in rows])
            figures[f"{name}_rmse_A"] = round(float(np.sqrt(np.mean(error**2))), 1)
            figures[f"{name}_median_A"] = round(float(np.median(np.abs(error))), 1)
            figures[f"{name}_worst_A"] = round(float(np.abs(error).max()), 1)
    return figures
