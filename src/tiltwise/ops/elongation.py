"""How far a tomogram stretches what is round, and which angles it lacks: measured on beads, and in closed form.

The transform of a round bead is round; a tilt range of ±a keeps its part within a of the xy plane (tilt axis along y).
The curvature at the bead's peak is ∫ k² F along an axis, so that the ratio of its widths along z and x is Radermacher's

    e = sqrt(∫ kx² F / ∫ kz² F) = sqrt[(a + sin a cos a) / (a - sin a cos a)]      (1.55 at 60°, 1.31 at 70°)

whatever the bead's profile. The same ratio is read here off the transform of the mean bead, with a round Gaussian
weight against noise, which cancels in it.
"""

import math
from dataclasses import dataclass

import numpy as np
import torch

_WEIGHT_VOXELS = 1.5
"""sd in space, voxels, of the Gaussian weight."""
_DEGREES = 2
"""Width of the angular bins in which the missing wedge is looked for."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class BeadShape:
    elongation: float
    """Width along z over width along x."""
    lowest_angle: float
    """Degrees from the xy plane; on this side of it nothing was measured beyond (half of the median power)."""
    highest_angle: float
    """The same on the other side."""
    beads: int
    """How many were averaged."""


def elongation(max_tilt: float) -> float:
    """Closed form for even coverage of ±max_tilt degrees; infinite at 0, 1 at 90."""
    a = math.radians(max_tilt)
    product = math.sin(a) * math.cos(a)
    return math.sqrt((a + product) / (a - product)) if a > 0 else math.inf


def missing_wedge_fraction(lowest_tilt: float, highest_tilt: float) -> float:
    """Share of Fourier space that a single-axis range in degrees leaves unmeasured: 0.333 for ±60."""
    return 1 - (highest_tilt - lowest_tilt) / 180


def measure_bead_shape(volume: np.ndarray, voxel_size: float, beads: np.ndarray, box: int) -> BeadShape | None:
    """Shape of the mean bead of volume (z, y, x) at beads (bead, 3) x, y, z Å from its centre; None if none is inside.

    Each bead is cut in a box of so many voxels about its highest voxel near the place given, moved to the common centre
    in Fourier space by the parabola through its peak, and weighted alike.
    """
    mean, number = _mean_transform(volume, np.asarray(beads, float) / voxel_size, box)
    if not number:
        return None
    k = torch.fft.fftfreq(box, dtype=torch.float64)
    kz, ky, kx = torch.meshgrid(k, k, k, indexing="ij")
    squared = kx**2 + ky**2 + kz**2
    value = mean.real * torch.exp(-2 * (math.pi * _WEIGHT_VOXELS) ** 2 * squared)
    ratio = float((kx**2 * value).sum() / (kz**2 * value).sum())
    low, high = _measured_range(kx, kz, ky, mean.abs() ** 2)
    return BeadShape(
        elongation=math.sqrt(ratio) if ratio > 0 else math.inf, lowest_angle=low, highest_angle=high, beads=number
    )


def _mean_transform(volume: np.ndarray, places: np.ndarray, box: int) -> tuple[torch.Tensor, int]:
    """(box, box, box) transform of the mean of the centred beads, and their number; places x, y, z in voxels."""
    total, number = torch.zeros((box,) * 3, dtype=torch.complex128), 0
    centre = np.array([n // 2 for n in volume.shape])
    k = torch.fft.fftfreq(box, dtype=torch.float64)
    for place in places:
        near = np.round(place[::-1]).astype(int) + centre
        peak = _highest(volume, near, box // 4)
        if peak is None or (peak < box // 2 + 1).any() or (peak + box // 2 + 1 > np.array(volume.shape)).any():
            continue
        window = volume[tuple(slice(p - box // 2, p - box // 2 + box) for p in peak)].astype(float)
        offset = [_vertex(volume, peak, axis) for axis in range(3)]
        spectrum = torch.fft.fftn(torch.as_tensor(np.fft.ifftshift(window - np.median(window))))
        for axis in range(3):
            phase = torch.exp(2j * math.pi * k * offset[axis])
            spectrum = spectrum * phase.reshape([-1 if a == axis else 1 for a in range(3)])
        total, number = total + spectrum, number + 1
    return total / max(number, 1), number


def _highest(volume: np.ndarray, near: np.ndarray, reach: int) -> np.ndarray | None:
    """Index of the highest voxel within reach of a place; None where that leaves the volume."""
    if (near < reach).any() or (near + reach >= np.array(volume.shape)).any():
        return None
    part = volume[tuple(slice(n - reach, n + reach + 1) for n in near)]
    return near - reach + np.array(np.unravel_index(int(np.argmax(part)), part.shape))


def _vertex(volume: np.ndarray, peak: np.ndarray, axis: int) -> float:
    """Offset in voxels of the parabola through three voxels along an axis."""
    step = np.eye(3, dtype=int)[axis]
    before, at, after = (float(volume[tuple(peak + s * step)]) for s in (-1, 0, 1))
    curve = before - 2 * at + after
    return float(np.clip((before - after) / (2 * curve), -0.5, 0.5)) if curve < 0 else 0.0


def _measured_range(kx: torch.Tensor, kz: torch.Tensor, ky: torch.Tensor, power: torch.Tensor) -> tuple[float, float]:
    """First and last angle (degrees) from the xy plane whose power is above half of the median within 30 degrees.

    Taken from 5 samples from the tilt axis, where one sample is 11 degrees, to a quarter of the sampling frequency, at
    small |ky|; a round bead has the same power at every angle.
    """
    across = (kx**2 + kz**2).sqrt()
    sample = 1 / len(kx)
    kept = (across > 5 * sample) & (across < 0.25) & (ky.abs() < 2 * sample)
    sign = torch.where(kx < 0, -1.0, 1.0)
    angle = torch.rad2deg(torch.atan2(kz * sign, kx * sign))[kept].numpy()
    value = power[kept].numpy()
    bins = np.clip(((angle + 90) / _DEGREES).astype(int), 0, 180 // _DEGREES - 1)
    count = np.bincount(bins, minlength=180 // _DEGREES)
    level = np.bincount(bins, value, 180 // _DEGREES) / np.maximum(count, 1)
    middle = (np.arange(180 // _DEGREES) + 0.5) * _DEGREES - 90
    enough = (level > 0.5 * np.median(level[(np.abs(middle) < 30) & (count > 0)])) & (count > 0)
    reached = middle[enough]
    return float(reached.min() - _DEGREES / 2), float(reached.max() + _DEGREES / 2)
