"""Handedness of 100 small series, both hands: right, undetermined or wrong; 20 of them ±40° or one-sided."""

from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

import numpy as np
from chosen import chosen

from tiltwise.project.threads import count_cores, prepare_process
from tiltwise.workflows.defocus_trials import HandTrial, find_hand

SERIES = chosen("TILTWISE_HAND_SERIES", 100)
SCHEMES = ("full",) * 8 + ("narrow", "one_sided")


def run() -> dict:
    """Figures over all series, and of each scheme. 1024² at 2.1 Å/px, 3 e⁻/Å² a tilt; the geometry is the true one."""
    trials = [HandTrial(seed=n, handedness=1 if n // 10 % 2 else -1, scheme=SCHEMES[n % len(SCHEMES)]) for n in SERIES]
    context = get_context("spawn")
    with ProcessPoolExecutor(count_cores(), mp_context=context, initializer=prepare_process, initargs=(1,)) as pool:
        answers = list(pool.map(find_hand, trials))
    verdicts = [
        "undetermined" if answer["found"] is None else "right" if answer["found"] == trial.handedness else "wrong"
        for trial, answer in zip(trials, answers, strict=True)
    ]
    figures: dict = {name: verdicts.count(name) for name in ("right", "undetermined", "wrong")}
    figures["series"] = len(trials)
    for scheme in dict.fromkeys(trial.scheme for trial in trials):
        own = [k for k, trial in enumerate(trials) if trial.scheme == scheme]
        evidence = [answers[k]["evidence"] * trials[k].handedness for k in own if answers[k]["determined"]]
        figures[scheme] = {
            "series": len(own),
            "right": sum(verdicts[k] == "right" for k in own),
            "least_evidence": round(float(np.min(evidence)), 1) if evidence else None,
        }
    return figures
