"""What disturbs a session beyond the geometry of its tilts: motion, deformation, a dark beam, a grid bar in the way."""

import math
from dataclasses import dataclass

import numpy as np
import torch

from tiltwise.data.deformation import SampleDeformation
from tiltwise.data.motion import FrameMotion
from tiltwise.data.tilt_series import TiltSeries
from tiltwise.params.microscope import FaultParams, MotionParams

_KNOTS = 6  # of the deformation, over the exposure of the series
_MONOMIALS = 10
_BAR_EDGE = 0.01  # of the field's side: width of a grid bar's shadow's edge
_BAR_LEAKS, _DARK_LEAKS = 0.002, 0.01  # of the beam: what still comes through a grid bar, a closed shutter
_HIDDEN_FROM, _HIDDEN_TO = 0.3, 0.6  # of the field, behind a grid bar
_TEST_STEP = 0.02  # e⁻/Å²; of the integration of the burst


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Disturbances:
    """All that the geometry of a series does not say; None where there is nothing of the kind."""

    deformation: SampleDeformation | None = None
    """Of the specimen, over the series."""
    frames: FrameMotion | None = None
    """From frame to frame; None images each tilt as one frame."""
    beam: np.ndarray | None = None
    """(tilt,) part of the beam that leaves the gun."""
    hidden: np.ndarray | None = None
    """(tilt,) part of the field, 0 to 1, behind a grid bar."""

    def frame_exposures(self, series: TiltSeries, tilt: int) -> np.ndarray:
        """(frame,) e⁻/Å²."""
        return series.exposure[tilt : tilt + 1] if self.frames is None else self.frames.exposure[tilt]

    def illumination(self, series: TiltSeries, tilt: int) -> torch.Tensor | float:
        """(y, x), or one number: the part of the beam that reaches each pixel."""
        beam = 1.0 if self.beam is None else float(self.beam[tilt])
        if self.hidden is None or self.hidden[tilt] == 0:
            return beam
        return beam * _bar_shadow(series, tilt, float(self.hidden[tilt]))


def draw_faults(params: FaultParams, series: TiltSeries, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """(tilt,) part of the beam that leaves the gun, and part of the field behind a bar: the highest tilts first."""
    beam, hidden = np.ones(series.number), np.zeros(series.number)
    beam[rng.permutation(series.number)[: params.dark]] = _DARK_LEAKS
    highest = np.argsort(-np.abs(series.stage_tilt_angle), kind="stable")[: params.blocked]
    hidden[highest] = rng.uniform(_HIDDEN_FROM, _HIDDEN_TO, len(highest))
    return beam, hidden


def draw_deformation(params: MotionParams, series: TiltSeries, rng: np.random.Generator) -> SampleDeformation:
    """A smooth random deformation, zero before the first electron. At the edge of the field every component's standard
    deviation at the end is about `params.deformation`; it grows like the square root of the exposure."""
    end = float((series.pre_exposure + series.exposure).max())
    exposure = np.linspace(0, end, _KNOTS)
    steps = rng.normal(0, 1, (_KNOTS - 1, _MONOMIALS, 3)) / math.sqrt((_KNOTS - 1) * (_MONOMIALS - 1))
    steps[:, 0] = 0  # a shift of the whole is the stage's
    walk = np.concatenate([np.zeros((1, _MONOMIALS, 3)), steps.cumsum(axis=0)])
    return SampleDeformation(
        exposure=exposure,
        coefficient=params.deformation * walk * math.sqrt(3),  # of nine monomials, some three are near 1 at the edge
        scale=max(series.image_shape) * series.pixel_size / 2,
        magnification=1 + rng.normal(0, params.magnification, series.number),
    )


def draw_frame_motion(params: MotionParams, series: TiltSeries, frames: int, rng: np.random.Generator) -> FrameMotion:
    """Each tilt starts with a burst along a direction of its own; local motion of random shape follows the same course.

    The speed is that measured by Himes and Grigorieff (2021) for a first exposure, times `params.burst`.
    """
    coefficient = np.zeros((series.number, frames, 6, 2))
    blur = np.zeros((series.number, frames, 2))
    for tilt in range(series.number):
        edges = np.linspace(0, float(series.exposure[tilt]), frames + 1)
        course, travelled = _course_of_frames(edges)
        angle = rng.uniform(0, 2 * np.pi)
        heading = params.burst * np.array([np.cos(angle), np.sin(angle)])
        shape = rng.normal(0, 1, (5, 2)) * params.local / math.sqrt(5)
        coefficient[tilt, :, 0] = course[:, None] * heading
        coefficient[tilt, :, 1:] = (course / max(travelled.sum(), 1e-9))[:, None, None] * shape
        blur[tilt] = travelled[:, None] * heading
    return FrameMotion(
        exposure=np.repeat(series.exposure[:, None] / frames, frames, axis=1),
        coefficient=coefficient - coefficient.mean(axis=1, keepdims=True),
        blur=blur,
        scale=max(series.image_shape) * series.pixel_size / 2,
    )


def burst_speed(exposure: np.ndarray) -> np.ndarray:
    """Å per e⁻/Å² at an exposure of the specimen: 14, 21, 24, 29 Å are covered in the first 1, 3, 5, 10 e⁻/Å².

    The fit of Himes and Grigorieff (2021, IUCrJ 8, 943), which is in Å per 0.33 e⁻/Å².
    """
    fast = 4.684 * np.exp(-(((exposure - 0.284) / 0.994) ** 2))
    return (fast + 0.514 * np.exp(-(((exposure - 3.21) / 7.214) ** 2))) / 0.33


def _course_of_frames(edges: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(frame,) mean place along the course of a burst, and (frame,) way covered within the frame, Å."""
    count = max(2, math.ceil((edges[-1] - edges[0]) / _TEST_STEP / (len(edges) - 1)))
    fine = np.linspace(edges[:-1], edges[1:], count + 1, axis=1)  # (frame, step)
    middle = (fine[:, 1:] + fine[:, :-1]) / 2
    step = burst_speed(middle) * np.diff(fine, axis=1)
    end = step.cumsum().reshape(step.shape)
    return (end - step / 2).mean(axis=1), step.sum(axis=1)


def _bar_shadow(series: TiltSeries, tilt: int, hidden: float) -> torch.Tensor:
    """(y, x) 1 in the open, near 0 behind a bar that lies along the tilt axis."""
    axis = math.radians(float(series.geometry.tilt_axis_angle[tilt]))
    y, x = (torch.arange(n, dtype=torch.float32) / n - 0.5 for n in series.image_shape)
    across = x[None, :] * math.cos(axis) + y[:, None] * math.sin(axis)
    return _BAR_LEAKS + (1 - _BAR_LEAKS) * torch.sigmoid((across + 0.5 - hidden) / _BAR_EDGE)
