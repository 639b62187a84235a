"""The record of the refinement of frames: gates, shifts and their errors, weights."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from tiltwise.ops.frames.frame_gates import MotionChoice, TiltEvidence
from tiltwise.ops.frames.frame_shifts import position_monomials
from tiltwise.ops.frames.frame_weights import WeightChoice
from tiltwise.stages.frames.setup import Setup


def quality_record(
    setup: Setup, tilts: Sequence[TiltEvidence], moved: MotionChoice, weighed: WeightChoice | None, scale: float
) -> dict[str, Any]:
    """Figures of the series; lists by tilt hold None where nothing was taken or told."""
    weighting = weighed.weighting if weighed is not None else None
    taken = [gate.block for gate in moved.gates if gate.accepted]
    taken += [weighting] if weighting is not None else []
    gates = {gate.block: gate.record() for gate in (*moved.gates, *(weighed.gates if weighed else ()))}
    rms, error = _shifts(setup, tilts, moved, scale)
    return {
        "taken": taken,
        "gates": gates,
        "resolution_A": setup.resolution,
        "particles": [tilt.number for tilt in tilts],
        "weighting": weighting or setup.movies.motions.weighting,
        "moved_rms_A": rms,
        "shift_error_A": error,
        "frame_amplitude": _course(setup, tilts, weighed, 0),
        "frame_b_factor_A2": _course(setup, tilts, weighed, 1),
        "notes": [] if tilts else ["no tilt shows particles of both halves"],
        "said": f"taken: {', '.join(taken)}" if taken else "nothing taken: images as they were",
    }


def _shifts(
    setup: Setup, tilts: Sequence[TiltEvidence], moved: MotionChoice, scale: float
) -> tuple[list[float | None], list[float | None]]:
    """By tilt, how far frames were moved (rms over frames and over the image), and the standard error of a frame's
    shift at the image centre along one axis, Å."""
    rms: list[float | None] = [None] * setup.series.number
    error = list(rms)
    height, width = (n * setup.series.pixel_size for n in setup.series.image_shape)
    y, x = np.meshgrid(np.linspace(-0.5, 0.5, 5) * height, np.linspace(-0.5, 0.5, 5) * width, indexing="ij")
    monomials = position_monomials(np.stack([x.ravel(), y.ravel()], axis=-1), scale)
    for tilt in tilts if moved.trial is not None else ():
        fit = tilt.trials[moved.trial].joint
        field = np.einsum("pj,fjc->fpc", monomials, fit.coefficient)
        rms[tilt.tilt] = float(np.sqrt((field**2).sum(-1).mean()))
        error[tilt.tilt] = float(np.sqrt((fit.error[:, 0] ** 2).mean()))
    return rms, error


def _course(setup: Setup, tilts: Sequence[TiltEvidence], weighed: WeightChoice | None, column: int) -> list:
    """By tilt, A or B of each frame where they were measured."""
    course: list[list[float] | None] = [None] * setup.series.number
    if weighed is not None and weighed.fit is not None:
        for tilt, own in zip(tilts, weighed.fit.amplitude, strict=True):
            course[tilt.tilt] = own[:, column].round(4).tolist()
    return course
