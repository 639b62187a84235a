"""The camera of a scene: the electrons of an image, or of the frames of a movie behind an uneven gain.

A stack holds what `detector.count_electrons` describes. A raw movie holds whole counts: a pixel counts each electron
at most once and in one place, so that n ~ Poisson(DQE(0) N (1 + F⁻¹ √(DQE / DQE(0)) F contrast) / gain).
"""

import numpy as np
import torch

from tiltwise.ops.fourier import frequency_norm
from tiltwise.params.microscope import CameraParams
from tiltwise.simulate.detector import Response, count_electrons


def response_of(camera: CameraParams) -> Response:
    """DQE and MTF as functions of the frequency relative to Nyquist of the physical pixel."""

    def respond(relative: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        x = relative.clamp_max(1.0)
        return tuple(c[0] + c[1] * x + c[2] * x**2 for c in (camera.dqe, camera.mtf))

    return respond


def record_image(
    intensity: torch.Tensor, exposure: float, camera: CameraParams, rng: np.random.Generator
) -> np.ndarray:
    """(y, x) int16 counts at an intensity (y, x) relative to the beam, whose exposure is in e⁻/Å²."""
    mean = float(intensity.mean())
    contrast = intensity / max(mean, 1e-12) - 1
    counts = count_electrons(
        contrast, exposure * mean, camera.pixel_size, rng, finer=camera.binning, response=response_of(camera)
    )
    return np.clip(np.rint(counts), -32768, 32767).astype(np.int16)


def record_frame(
    intensity: torch.Tensor, exposure: float, gain: np.ndarray, camera: CameraParams, rng: np.random.Generator
) -> np.ndarray:
    """(y, x) uint8 raw counts of one frame; gain (y, x) is what they are multiplied by later, 0 for a dead pixel."""
    shape = tuple(intensity.shape)
    dqe, _ = response_of(camera)(frequency_norm(shape, camera.pixel_size) * 2 * camera.pixel_size / camera.binning)
    seen = torch.fft.irfft2(torch.fft.rfft2(intensity) * (dqe / camera.dqe[0]).sqrt(), s=shape).clamp_min(0)
    mean = seen.numpy().astype(np.float64) * (camera.dqe[0] * exposure * camera.pixel_size**2)
    sensitivity = np.divide(1.0, gain, out=np.zeros(shape), where=gain > 0)
    return np.minimum(rng.poisson(mean * sensitivity), 255).astype(np.uint8)


def draw_gain(camera: CameraParams, rng: np.random.Generator) -> np.ndarray:
    """(y, x) float32 gain reference, mean 1 where it is not 0: blocks of the chip, columns and pixels differ."""
    n = camera.image_size
    blocks = np.kron(rng.normal(0, 1, (4, 4)), np.ones((-(-n // 4),) * 2))[:n, :n]
    sum_of_parts = 0.5 * blocks + 0.3 * rng.normal(0, 1, n) + 0.8 * rng.standard_normal((n, n), dtype=np.float32)
    gain = np.clip(1 + camera.gain_spread * sum_of_parts, 0.5, 2.0)
    gain[rng.random((n, n)) < camera.dead_pixels] = 0
    return (gain / gain[gain > 0].mean()).astype(np.float32)
