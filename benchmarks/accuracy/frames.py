"""Frames placed by the particles of a tilt: what is left of their shifts, what the sums keep at 3 Å, what chance takes.

Five tilts of eight frames; a particle's image in a whole tilt tells its shift to 2 Å on either axis, from frequencies
to 6 Å, so an eighth of it to 5.7 Å. Frames are off by independent errors (`white`; motion correction leaves 0.05 Å on
each axis of usual simulated K3 movies, 0.23 Å of weak ones) or by walks (`walk`, as uncorrected motion is), rms in Å on
each axis, mean over the frames 0. `left_A` is what is left of it after the gate (their own rms where it refuses),
`kept_at_3A` the amplitude exp(-2π² σ² / 9) that sums keep before and after; the mean of two trials.
`taken_by_chance` counts trials out of 20 each, frames in their places, with 10 and 60 particles, and without signal.
"""

import numpy as np

from tiltwise.ops.frames.frame_gates import choose_motion, gather_evidence
from tiltwise.ops.frames.frame_images import FrameImages
from tiltwise.ops.particles.slices import band_points

TILTS, FRAMES, TRIALS, CHANCES = 5, 8, 2, 20
WIDTH, SCALE, ERROR = 120.0, 2000.0, 2.0
"""Of the box, and half the longer side of the image, Å; what an image tells of its shift, Å."""
CASES = (("white", 0.05), ("white", 0.23), ("walk", 0.3), ("walk", 1.0), ("walk", 3.0))
PARTICLES = (30, 200, 600)
POINTS = band_points(60, 20.0).numpy().astype(np.int64)
WIDTHS = {"shift": 1.0, "field": 0.3}
"""As the step has them by itself, Å a frame."""


def run() -> dict:
    rows = {f"{kind}_{rms:g}A": {str(number): row(kind, rms, number) for number in PARTICLES} for kind, rms in CASES}
    still = [
        sum(measure([seed, 9], "white", 0.0, number, signal)["taken"] for seed in range(CHANCES))
        for number, signal in ((10, 1.0), (60, 1.0), (60, 0.0))
    ]
    return rows | {"taken_by_chance": still}


def row(kind: str, rms: float, number: int) -> dict:
    """The means of some trials."""
    found = [measure([seed, number], kind, rms, number, 1.0) for seed in range(TRIALS)]
    left = float(np.sqrt(np.mean([one["left_A"] ** 2 for one in found])))
    before = float(np.sqrt(np.mean([one["rms_A"] ** 2 for one in found])))
    return {
        "left_A": round(left, 3),
        "kept_at_3A": [round(float(np.exp(-2 * np.pi**2 * sigma**2 / 9)), 3) for sigma in (before, left)],
        "taken": sum(one["taken"] for one in found),
    }


def measure(seed: list[int], kind: str, rms: float, number: int, signal: float) -> dict:
    """One trial."""
    rng = np.random.default_rng(seed)
    shifts = rng.normal(size=(TILTS, FRAMES, 2))
    shifts = np.cumsum(shifts, axis=1) if kind == "walk" else shifts
    shifts -= shifts.mean(axis=1, keepdims=True)
    shifts *= rms / np.sqrt((shifts**2).mean())
    tilts = [
        gather_evidence(images(rng, one, number, signal), tilt, scale=SCALE, widths=WIDTHS, shells=31)
        for tilt, one in enumerate(shifts)
    ]
    choice = choose_motion(tilts)
    if choice.trial is None:
        return {"rms_A": rms, "left_A": rms, "taken": False}
    found = np.array([tilt.trials[choice.trial].joint.coefficient[:, 0] for tilt in tilts])
    return {"rms_A": rms, "left_A": float(np.sqrt(((found - shifts) ** 2).mean())), "taken": True}


def images(rng: np.random.Generator, shift: np.ndarray, number: int, signal: float) -> FrameImages:
    """Of random models whose whole image tells Σ (2πk)² |m|² = 1 / ERROR² on either axis, in shifted frames (frame, 2),
    Å."""
    wave = 2 * np.pi / WIDTH * POINTS
    strength = 1 / (ERROR * np.sqrt(2 * (wave**2).sum(axis=0).mean()))
    place = rng.uniform(-SCALE, SCALE, (number, 2))
    model = (strength * complex_normal(rng, (number, len(POINTS)))).astype(np.complex64)
    phase = np.exp(-1j * (shift @ wave.T))
    data = complex_normal(rng, (FRAMES, number, len(POINTS)))
    data += signal / np.sqrt(FRAMES) * phase[:, None] * model
    return FrameImages(
        data=data.astype(np.complex64),
        model=model,
        other=model,
        share=np.full(FRAMES, 1 / FRAMES),
        place=place,
        half_set=1 + 2 * np.arange(number) // number,
        points=POINTS,
        width=WIDTH,
    )


def complex_normal(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """Variance 1 in either component."""
    return rng.normal(size=(*shape, 2)).view(np.complex128)[..., 0]
