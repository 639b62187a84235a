"""A counting camera: Poisson electrons, quantum efficiency and transfer function."""

from collections.abc import Callable

import numpy as np
import torch

from tiltwise.ops.fourier import crop_spectrum, frequency_norm

_FINER = 2  # physical pixels per pixel of the image, along each side: the image is binned after the counting

Response = Callable[[torch.Tensor], tuple[torch.Tensor, torch.Tensor]]
"""(DQE, MTF) at a frequency relative to Nyquist of the physical pixel."""


def detector_response(relative: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """(DQE, MTF) of a counting camera at 300 kV at a frequency relative to Nyquist; K3's MTF is 0.89 / 0.64 at 1/2 /
    1."""
    relative = relative.clamp_max(1.0)
    return 0.90 - 0.25 * relative - 0.25 * relative**2, 1 - 0.08 * relative - 0.28 * relative**2


def count_electrons(
    contrast: torch.Tensor,
    expected: float,
    pixel_size: float,
    rng: np.random.Generator,
    *,
    finer: int = _FINER,
    response: Response = detector_response,
) -> np.ndarray:
    """Image (y, x) float32 of electrons counted per pixel, from the contrast (y, x) of even sides, px of pixel_size Å.

    expected in e⁻/Å² reach the camera on average. On physical pixels `finer` times as small, n ~ Poisson(N (1 + √DQE ·
    contrast)) and image = MTF / √DQE · (n - N) + N: the signal carries the MTF, the noise power is N MTF² / DQE.
    Binning crops the transform.
    """
    shape = tuple(contrast.shape)
    fine_shape = tuple(finer * n for n in shape)
    pixel = pixel_size / finer
    transformed = torch.fft.rfft2(contrast) * response(frequency_norm(shape, pixel_size) * 2 * pixel)[0].sqrt()
    seen = torch.fft.irfft2(crop_spectrum(transformed, shape, fine_shape) * finer**2, s=fine_shape)
    mean = expected * pixel**2
    counts = rng.poisson((mean * (1 + seen)).clamp_min(0).double().numpy()).astype(np.float32)
    dqe, mtf = response(frequency_norm(shape, pixel_size) * 2 * pixel)
    spectrum = crop_spectrum(torch.fft.rfft2(torch.from_numpy(counts) - mean), fine_shape, shape)
    return torch.fft.irfft2(spectrum * mtf / dqe.sqrt(), s=shape).numpy() + mean * finer**2
