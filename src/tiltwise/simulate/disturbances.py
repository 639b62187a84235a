"""What disturbs a session beyond the geometry of its tilts: motion, deformation, a dark beam, a grid bar in the way."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from tiltwise.data.deformation import ImageWarp, SampleDeformation
from tiltwise.data.motion import FrameMotion
from tiltwise.data.tilt_series import TiltSeries
from tiltwise.ops.deformation import CUBIC, QUADRATIC, warp_basis
from tiltwise.params.microscope import FaultParams, MotionParams

_KNOTS = 6  # of the deformation, over the exposure of the series
_WARP_CONTROLS, _WARP_LENGTH = 9, 0.2
"""Control values of a warp along each side; the length over which it is correlated, in sides of the image."""
_BAR_EDGE = 0.01  # of the field's side: width of a grid bar's shadow's edge
_BAR_LEAKS, _DARK_LEAKS = 0.002, 0.01  # of the beam: what still comes through a grid bar, a closed shutter
_HIDDEN_FROM, _HIDDEN_TO = 0.3, 0.6  # of the field, behind a grid bar
_TEST_STEP = 0.02  # e⁻/Å²; of the integration of the burst


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Disturbances:
    """All that the geometry of a series does not say; None where there is nothing of the kind."""

    deformation: SampleDeformation | None = None
    """Of the specimen, over the series."""
    warp: ImageWarp | None = None
    """Of each image, beside it."""
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
    deviation at the end is about `params.deformation`; it grows like the square root of the exposure. So does the part
    of third order, of `params.cubic_deformation`."""
    end = float((series.pre_exposure + series.exposure).max())
    steps = rng.normal(0, 1, (_KNOTS - 1, QUADRATIC, 3)) / math.sqrt((_KNOTS - 1) * (QUADRATIC - 1))
    steps[:, 0] = 0  # a shift of the whole is the stage's
    coefficient = params.deformation * _walk(steps) * math.sqrt(3)  # some three of nine are near 1 at the edge
    magnification = 1 + rng.normal(0, params.magnification, series.number)
    if params.cubic_deformation:
        beyond = rng.normal(0, 1, (_KNOTS - 1, CUBIC - QUADRATIC, 3)) / math.sqrt(_KNOTS - 1)
        beyond *= params.cubic_deformation / math.sqrt(2)  # some two of ten are near 1 at the edge
        coefficient = np.concatenate([coefficient, _walk(beyond)], axis=1)
    return SampleDeformation(
        exposure=np.linspace(0, end, _KNOTS),
        coefficient=coefficient,
        scale=max(series.image_shape) * series.pixel_size / 2,
        magnification=magnification,
    )


def _walk(steps: np.ndarray) -> np.ndarray:
    """(knot, ...) sums of steps (knot - 1, ...), from zero on."""
    return np.concatenate([np.zeros((1, *steps.shape[1:])), steps.cumsum(axis=0)])


def draw_warp(params: MotionParams, series: TiltSeries, rng: np.random.Generator) -> ImageWarp | None:
    """A smooth random warp of every image by itself: a Gaussian random field whose components have the standard
    deviation `params.warp` over the image, correlated by exp(-r² / 2l²), l a fifth of the longer side. None for 0."""
    if not params.warp:
        return None
    height, width = series.image_shape
    sides = np.array([width, height]) / max(width, height)
    place = (np.arange(_WARP_CONTROLS) - 1) / (_WARP_CONTROLS - 3) - 0.5
    along = [np.exp(-((side * (place[:, None] - place)) ** 2) / (2 * _WARP_LENGTH**2)) for side in sides[::-1]]
    value, vector = np.linalg.eigh(np.kron(*along))
    root = vector * np.sqrt(value.clip(0))
    extent = (width * series.pixel_size, height * series.pixel_size)
    grid = np.stack(np.meshgrid(*(np.linspace(-0.5, 0.5, 33) * side for side in extent)), axis=-1).reshape(-1, 2)
    spread = warp_basis(grid, extent, (_WARP_CONTROLS,) * 2) @ root
    root *= params.warp / math.sqrt((spread**2).sum(axis=1).mean())  # splines smooth what their control values are
    drawn = np.einsum("cm,tmd->tcd", root, rng.normal(0, 1, (series.number, root.shape[1], 2)))
    return ImageWarp(coefficient=drawn.reshape(series.number, _WARP_CONTROLS, _WARP_CONTROLS, 2), extent=extent)


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


def frame_motion_on_tracks(
    tracks: Sequence[np.ndarray], params: MotionParams, series: TiltSeries, frames: int, rng: np.random.Generator
) -> FrameMotion:
    """Each tilt moves on a measured track: (measured frame, 2) Å, where the frames of a movie, of equal exposure, lie.

    Between the middles of the measured frames, and half a frame beyond the first and the last, the way is straight. The
    frames simulated, fewer or more, have the exact mean of that way, and as blur what they end apart from where they
    began. Local motion of random shape, `params.local` at the edge, grows with the way that is covered.
    """
    coefficient, blur = np.zeros((series.number, frames, 6, 2)), np.zeros((series.number, frames, 2))
    for tilt, track in enumerate(tracks):
        time, place = _way(np.asarray(track, dtype=float))
        covered = np.concatenate([[0.0], np.linalg.norm(np.diff(place, axis=0), axis=1).cumsum()])
        shape = rng.normal(0, 1, (5, 2)) * params.local / math.sqrt(5)
        coefficient[tilt, :, 0] = _mean_of_frames(time, place, frames, len(track))
        course = _mean_of_frames(time, covered[:, None] / max(covered[-1], 1e-9), frames, len(track))
        coefficient[tilt, :, 1:] = course[:, :, None] * shape
        edges = np.linspace(0, 1, frames + 1)
        blur[tilt] = np.diff([[np.interp(e, time, axis) for axis in place.T] for e in edges], axis=0)
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


def _way(track: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(node,) part of the exposure, 0 to 1, and (node, 2) places, between which a track is straight."""
    number = len(track)
    time = np.concatenate([[0.0], (np.arange(number) + 0.5) / number, [1.0]])
    first, last = (track[:2], track[-2:]) if number > 1 else (track[[0, 0]], track[[0, 0]])
    ends = 1.5 * first[0] - 0.5 * first[1], 1.5 * last[1] - 0.5 * last[0]
    return time, np.concatenate([ends[0][None], track, ends[1][None]])


def _mean_of_frames(time: np.ndarray, values: np.ndarray, frames: int, measured: int) -> np.ndarray:
    """(frame, n) mean over each of so many frames of values (node, n) at time (node,), straight between: exact, since
    no step of the sum holds a node or the edge of a frame within it."""
    steps = math.lcm(2 * measured, frames)
    middle = (np.arange(steps) + 0.5) / steps
    sampled = np.stack([np.interp(middle, time, column) for column in values.T], axis=1)
    return sampled.reshape(frames, -1, sampled.shape[1]).mean(axis=1)


def _bar_shadow(series: TiltSeries, tilt: int, hidden: float) -> torch.Tensor:
    """(y, x) 1 in the open, near 0 behind a bar that lies along the tilt axis."""
    axis = math.radians(float(series.geometry.tilt_axis_angle[tilt]))
    y, x = (torch.arange(n, dtype=torch.float32) / n - 0.5 for n in series.image_shape)
    across = x[None, :] * math.cos(axis) + y[:, None] * math.sin(axis)
    return _BAR_LEAKS + (1 - _BAR_LEAKS) * torch.sigmoid((across + 0.5 - hidden) / _BAR_EDGE)
