"""How much each tilt image counts at a frequency where the central slices of several tilts overlap.

The transform of a specimen of thickness D is smooth over 1/D, so that image i measures it within a slab of that width
about its slice. At k_perp across the tilt axis slice j lies |k_perp sin(θ_i - θ_j)| away, and the share of the slab
that it covers is o_ij = max(0, 1 - D |k_perp sin(θ_i - θ_j)|). With the transfer t_j of image j (CTF times exposure,
or 1) the least-squares estimate within the slab is Σ_j o_ij t_j F_j / (Σ_j o_ij t_j² + c), so that in the sum over all
images

    w_i = (pixel_size / D) / (Σ_j o_ij t_j² + c)

multiplies t_i F_i, c the noise-to-signal power of one image (Wiener). For even steps Δθ and t = 1 the sum is
1 / (D |k_perp| Δθ) and w_i the ramp |k_perp| Δθ; beyond the Crowther frequency 1 / (D Δθ) the slices no longer overlap
and w_i is constant, where a ramp would go on to lift lone slices. Uneven steps, equal angles and one-sided ranges need
no case of their own (after Harauz & van Heel 1986, Optik 73, 146, who overlap with a sinc, which may vanish).
"""

import math

import numpy as np
import torch

from tiltwise.ops.kernels.slice_weights import overlap_sum


def slice_weight(
    frequency: tuple[torch.Tensor, torch.Tensor],
    tilt: int,
    tilt_angles: np.ndarray,
    tilt_axis_angle: float,
    power: torch.Tensor,
    thickness: float,
) -> torch.Tensor:
    """(y, x) float32: Σ_j o_ij t_j² of tilt i at the frequencies (ky (y,), kx (x,)) in 1/Å.

    tilt_angles (tilt,) and tilt_axis_angle (from image y) in degrees; power (tilt, step) t_j² at |k| in equal steps
    from 0 to the greatest |k|; thickness D in Å.
    """
    ky, kx = frequency
    step = math.hypot(float(ky.abs().max()), float(kx.abs().max())) / (power.shape[1] - 1)
    across = math.radians(tilt_axis_angle)
    direction = (math.cos(across), math.sin(across))
    sines = thickness * np.abs(np.sin(np.deg2rad(np.asarray(tilt_angles, float) - tilt_angles[tilt])))
    if power.device.type != "cpu":
        return overlap_sum_plain((ky, kx, step), direction, sines, power)
    out = torch.empty(len(ky), len(kx))
    plain = (ky.double().numpy(), kx.double().numpy(), step)
    overlap_sum(plain, direction, sines.astype(np.float32), np.argsort(sines), power.float().numpy(), out.numpy())
    return out


def overlap_sum_plain(
    frequency: tuple[torch.Tensor, torch.Tensor, float],
    direction: tuple[float, float],
    sines: np.ndarray,
    power: torch.Tensor,
) -> torch.Tensor:
    """Plain twin of kernels.slice_weights.overlap_sum, on any device."""
    ky, kx, step = frequency
    across = (kx * direction[0] + ky[:, None] * direction[1]).abs()
    place = (kx**2 + ky[:, None] ** 2).sqrt() / step
    n = place.long().clamp_max(power.shape[1] - 2)
    f = (place - n).clamp_max(1.0)
    total = torch.zeros_like(across)
    for sine, curve in zip(sines.tolist(), power, strict=True):
        total += (1 - across * sine).clamp_min(0) * torch.lerp(curve[n], curve[n + 1], f.to(curve))
    return total.float()
