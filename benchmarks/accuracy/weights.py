"""Resolution to truth with each choice of exposure weights, at true poses: where the known curve holds, and elsewhere.

Two cases of 41 tilts of ±60° and 3 e⁻/Å² at 2.5 Å/px, an octahedral particle of 480 kDa. `curve_`: thin ice, motion
corrected, exposure as recorded: the critical-exposure curve that the simulator damages by is exactly the model's.
`real_`: ice of 2000 Å, uncorrected motion within each image that grows with the tilt and is worst in the first, and
recorded exposures two thirds of the true ones. Keys: resolution to truth (0.5), Å, mean over seeds, for `none`,
`critical`, `published` (W_k(f)) and `measured`; `gain_` of each over `critical` (Å, positive is finer) and its standard
error over seeds.
"""

import os
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from tiltwise.ops.particles.half_maps import measured_weights, weights_to_begin
from tiltwise.ops.particles.references import alignment_radius, alignment_reference
from tiltwise.params.microscope import CameraParams, MicroscopeParams, MotionParams, SchemeParams
from tiltwise.params.scene import IceParams, SceneParams
from tiltwise.params.session import SessionParams
from tiltwise.simulate.scene_session import SceneSeries

sys.path.insert(0, str(Path(__file__).parents[1]))
from scene_case import TARGET, Case, averaged, fsc_with_truth, make_case, mask_of, resolution_of, source_of  # noqa: E402

SEEDS = range(int(os.environ.get("TILTWISE_WEIGHTS_SEEDS", "3")))
SERIES, BOX = 2, 96
CASES = (("curve_", 500.0, 20, False), ("real_", 2000.0, 60, True))
"""Prefix of the figures, ice in Å, particles of a series (few, so that Nyquist is not reached), whether they move."""
CHOICES = ("none", "critical", "published", "measured")
MISCOUNT = 2 / 3  # of the exposure, where the recorded one is wrong


def session(seed: int, thickness: float, particles: int) -> SessionParams:
    return SessionParams(
        scene=SceneParams(target=TARGET.model_copy(update={"number": particles}), ice=IceParams(thickness=thickness)),
        microscope=MicroscopeParams(
            scheme=SchemeParams(frames=4, defocus_min=12000.0, defocus_max=25000.0),
            camera=CameraParams(pixel_size=2.5, image_size=640),
            motion=MotionParams(burst=0.1, local=1.0, deformation=0.0, magnification=0.0),
        ),
        seed=seed,
    )


def moving(whole: SceneSeries) -> SceneSeries:
    """Motion of each image in proportion to 0.5 + |sin θ| + what is drawn up to 0.5, and 2 more in the first."""
    series, frames = whole.series, whole.disturbances.frames
    draw = np.random.default_rng([*whole.seed, 9]).uniform(0, 0.5, series.number)
    size = 0.5 + np.abs(np.sin(np.radians(series.geometry.tilt_angle))) + draw + 2.0 * (series.acquisition_order == 0)
    moved = replace(
        frames, coefficient=frames.coefficient * size[:, None, None, None], blur=frames.blur * size[:, None, None]
    )
    return replace(whole, disturbances=replace(whole.disturbances, frames=moved))


def miscounted(case: Case) -> Case:
    """As if the exposures had been recorded too low."""
    series = {
        name: replace(one, exposure=one.exposure * MISCOUNT, pre_exposure=one.pre_exposure * MISCOUNT)
        for name, one in case.tilt_series.items()
    }
    return replace(case, tilt_series=series)


def measure(case: Case) -> dict[str, float]:
    """Resolution to truth by choice. Each is averaged twice: its weights are measured on a first average, as usual."""
    source, posed = source_of(case, BOX)
    truth, found, firsts = case.map_of_truth(BOX), {}, {}
    for choice in CHOICES:
        weights = weights_to_begin(source, posed, choice)
        begin = "none" if choice == "none" else "critical"
        if begin not in firsts:
            firsts[begin] = averaged(source, posed, weights)
        maps, fsc = firsts[begin]
        pixel_size = source.settings.pixel_size
        references = {half: alignment_reference(one, mask_of(source), fsc, pixel_size) for half, one in maps.items()}
        weights = measured_weights(
            source, posed, references, weights=weights, radius=alignment_radius(fsc), exposure_weighting=choice
        )
        found[choice] = resolution_of(fsc_with_truth(averaged(source, posed, weights)[0], truth, source), source)
    return found


def run() -> dict:
    torch.set_grad_enabled(False)
    figures: dict = {}
    for prefix, thickness, particles, real in CASES:
        found = []
        for seed in SEEDS:
            case = make_case(session(seed, thickness, particles), SERIES, frames=real, disturb=moving if real else None)
            found.append(measure(miscounted(case) if real else case))
        figures |= summary(prefix, {choice: [one[choice] for one in found] for choice in CHOICES})
    return figures


def summary(prefix: str, found: dict[str, list[float]]) -> dict:
    """Means, gains over the critical curve and their standard errors."""
    figures = {f"{prefix}{choice}_A": round(float(np.mean(values)), 3) for choice, values in found.items()}
    for choice in ("none", "published", "measured"):
        gain = np.array(found["critical"]) - np.array(found[choice])
        figures[f"{prefix}gain_{choice}_A"] = round(float(gain.mean()), 3)
        if len(gain) > 1:
            figures[f"{prefix}gain_{choice}_error_A"] = round(float(gain.std(ddof=1) / np.sqrt(len(gain))), 3)
    return figures
