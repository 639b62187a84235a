"""Sums of frames with their motion taken back: of the odd and of the even frames, plain or weighted by exposure.

Motion of the whole is taken back exactly, by the phase exp(2πi k·d) of each frame's transform. Local motion is taken
back in real space, (frame f)(r + d_f(r)), by cubic B-splines whose prefilter is exact in the same transform. Content
that leaves on one side comes in on the other: a rim as wide as the motion holds nothing.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace

import numpy as np
import torch

from tiltwise.data.motion import Motion
from tiltwise.ops.exposure import exposure_amplitude
from tiltwise.ops.fourier import fourier_rescale, frequency_norm
from tiltwise.ops.kernels.warp import add_warped
from tiltwise.ops.motion.model import grid_displacement

_NODE_STEP = 64
"""Pixels between the nodes on which the local field is evaluated."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class FrameSums:
    """Sums of the frames; their own sum is that of all frames."""

    odd: np.ndarray
    """(y, x) float32 of the first, third, fifth ... frame."""
    even: np.ndarray
    """(y, x) float32 of the second, fourth ..."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class ExposureWeights:
    """a_f(k) / sqrt(Σ a_f²), a_f = q_f(k) A_f exp(-B_f k² / 4): the best sum of frames whose signal fades and whose
    noise does not. q_f is the critical-exposure curve; A_f = 1 and B_f = 0 unless they were measured."""

    before: np.ndarray
    """(frame,) exposure before each frame, e⁻/Å²."""
    during: np.ndarray
    """(frame,) exposure of each frame, e⁻/Å²."""
    voltage: float
    """kV."""
    amplitude: np.ndarray | None = None
    """(frame, 2) A and B, Å²; None where they were not measured."""


def sum_frames(
    frames: Iterable[torch.Tensor], motion: Motion, pixel_size: float, weights: ExposureWeights | None = None
) -> FrameSums:
    """Sum frames (y, x) float32 one by one as they come; pixel_size Å. Without weights the sums are plain.

    With weights each frame is multiplied by a_f(k) / sqrt(mean over the frames of a_f²), which leaves the noise as it
    is in the plain sum.
    """
    totals, norm, amplitude = [None, None], None, None
    local = motion.coefficient is not None
    for number, frame in enumerate(frames):
        shape = tuple(frame.shape)
        spectrum = torch.fft.rfft2(frame)
        if weights is not None:
            amplitude = _amplitude(shape, pixel_size, weights, number)
            norm = amplitude**2 if norm is None else norm.add_(amplitude**2)
            spectrum *= amplitude
        spectrum = take_back(spectrum, motion.shift[number], shape, pixel_size, prefilter=local)
        half = number % 2
        if local:
            totals[half] = np.zeros(shape, np.float32) if totals[half] is None else totals[half]
            _add_local(torch.fft.irfft2(spectrum, s=shape), motion, number, pixel_size, totals[half])
        else:
            totals[half] = spectrum if totals[half] is None else totals[half].add_(spectrum)
    if norm is not None:
        norm = (norm / motion.frames).sqrt_()
    odd, even = (_finished(total, shape, norm) for total in totals)
    return FrameSums(odd=odd, even=even)


def binned_shape(shape: tuple[int, int], binning: int) -> tuple[int, int]:
    """(y, x) of an image of whole pixels that are `binning` of its own wide."""
    return shape[0] // binning, shape[1] // binning


def bin_sums(sums: FrameSums, binning: int) -> FrameSums:
    """The sums with pixels `binning` times as wide, by cropping their transforms; counts per new pixel.

    Rows and columns at the rim that fill no pixel are cut off. The centre, sample n // 2, stays the centre.
    """
    if binning == 1:
        return sums
    shape = binned_shape(sums.odd.shape, binning)
    window = tuple(
        slice(n // 2 - m * binning // 2, n // 2 - m * binning // 2 + m * binning)
        for n, m in zip(sums.odd.shape, shape, strict=True)
    )
    odd, even = (
        (fourier_rescale(torch.from_numpy(half[window]), shape) * binning**2).numpy() for half in (sums.odd, sums.even)
    )
    return FrameSums(odd=odd, even=even)


def take_back(
    spectrum: torch.Tensor, shift: np.ndarray, shape: tuple[int, int], pixel_size: float, *, prefilter: bool = False
) -> torch.Tensor:
    """Multiply a half spectrum, in place, by exp(2πi k·d) for a displacement d (x, y; Å) of its content; with prefilter
    also by that which turns samples into coefficients of cubic B-splines, 1 / ((4 + 2 cos 2πk) / 6) on each axis."""
    ky = torch.fft.fftfreq(shape[0], dtype=torch.float64)
    kx = torch.fft.rfftfreq(shape[1], dtype=torch.float64)
    for k, d, view in ((kx, shift[0], (1, -1)), (ky, shift[1], (-1, 1))):
        factor = torch.exp(2j * math.pi * k * (float(d) / pixel_size))
        if prefilter:
            factor = factor * (6 / (4 + 2 * torch.cos(2 * math.pi * k)))
        spectrum *= factor.to(spectrum.dtype).reshape(view)
    return spectrum


def _amplitude(shape: tuple[int, int], pixel_size: float, weights: ExposureWeights, frame: int) -> torch.Tensor:
    before, during = (torch.tensor(float(v[frame])) for v in (weights.before, weights.during))
    frequency = frequency_norm(shape, pixel_size)
    critical = exposure_amplitude(frequency, before, during, weights.voltage)
    if weights.amplitude is None:
        return critical
    factor, b_factor = (float(value) for value in weights.amplitude[frame])
    return critical * factor * torch.exp(-b_factor / 4 * frequency**2)


def _add_local(image: torch.Tensor, motion: Motion, frame: int, pixel_size: float, total: np.ndarray) -> None:
    height, width = total.shape
    rows, columns = (np.arange(0, n + 2 * _NODE_STEP, _NODE_STEP) for n in (height, width))
    y, x = (rows - height // 2) * pixel_size, (columns - width // 2) * pixel_size
    local = replace(motion, shift=np.zeros_like(motion.shift))
    field = (grid_displacement(local, frame, y, x) / pixel_size).astype(np.float32)
    nodes_x, nodes_y = (np.ascontiguousarray(field[..., axis]) for axis in (0, 1))
    add_warped(image.numpy(), nodes_x, nodes_y, _NODE_STEP, total)


def _finished(total, shape: tuple[int, int], norm: torch.Tensor | None) -> np.ndarray:
    if total is None:
        return np.zeros(shape, np.float32)
    if isinstance(total, np.ndarray):
        if norm is None:
            return total
        total = torch.fft.rfft2(torch.from_numpy(total))
    if norm is not None:
        total /= norm
    return torch.fft.irfft2(total, s=shape).numpy()
