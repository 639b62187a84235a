"""How far a tomogram stretches what is round, and which angles it lacks: measured on beads, and in closed form.

The transform of a round bead is round; tilts from α to β keep its part at these angles to the xy plane (tilt axis along
y). The curvature at the bead's peak is ∫ k² F along an axis, so that the ratio of its widths along z and x is

    e² = ∫ kx² F / ∫ kz² F = ∫ cos²θ dθ / ∫ sin²θ dθ = (β - α + s) / (β - α - s),      s = (sin 2β - sin 2α) / 2,

for ±a Radermacher's (a + sin a cos a) / (a - sin a cos a): 1.55² at 60°, 1.31² at 70°, whatever the bead's profile. The
same ratio is read here off the transform of the mean bead, with a round Gaussian weight against noise, which cancels in
it; as wide as a bead is, so that the curvature is not that of its flat middle.
"""

import math
from dataclasses import dataclass

import numpy as np
import torch
from scipy.ndimage import gaussian_filter

from tiltwise.ops.peaks import parabola_offset

_WEIGHT_VOXELS, _WEIGHT_RADII = 1.5, 0.6
"""sd in space of the Gaussian weight: so many voxels, or radii of the bead where that is more."""
_BOX_VOXELS, _BOX_DIAMETERS = 32, 4
"""Side of the box cut about a bead: so many voxels, or diameters of the bead where that is more."""
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


def elongation(lowest_tilt: float, highest_tilt: float) -> float:
    """Closed form for even coverage of a range of tilts in degrees; infinite for 0 alone, 1 from -90 to 90."""
    low, high = math.radians(lowest_tilt), math.radians(highest_tilt)
    swing = (math.sin(2 * high) - math.sin(2 * low)) / 2
    across = high - low - swing
    return math.sqrt((high - low + swing) / across) if across > 0 else math.inf


def missing_wedge_fraction(lowest_tilt: float, highest_tilt: float) -> float:
    """Share of Fourier space that a single-axis range in degrees leaves unmeasured: 0.333 for ±60."""
    return 1 - (highest_tilt - lowest_tilt) / 180


def measure_bead_shape(
    volume: np.ndarray, voxel_size: float, positions: np.ndarray, diameter: float
) -> BeadShape | None:
    """Shape of the mean bead of volume (z, y, x) at positions (bead, 3) x, y, z Å from its centre; diameter in Å.

    Each bead is cut in a box about its peak near the place given, seen through the weight, moved to the common centre
    in Fourier space, and weighted alike. Only beads count whose box lies in the volume and that are half a box from any
    other; None if there is none.
    """
    places = np.asarray(positions, float).reshape(-1, 3) / voxel_size
    box = max(_BOX_VOXELS, 2 * math.ceil(_BOX_DIAMETERS * diameter / voxel_size / 2))
    distance = np.linalg.norm(places[:, None] - places, axis=-1) + np.diag(np.full(len(places), np.inf))
    width = max(_WEIGHT_VOXELS, _WEIGHT_RADII * diameter / 2 / voxel_size)
    mean, number = _mean_transform(volume, places[(distance > box / 2).all(axis=1)], box, width)
    if not number:
        return None
    k = torch.fft.fftfreq(box, dtype=torch.float64)
    kz, ky, kx = torch.meshgrid(k, k, k, indexing="ij")
    squared = kx**2 + ky**2 + kz**2
    value = mean.real * torch.exp(-2 * (math.pi * width) ** 2 * squared)
    ratio = float((kx**2 * value).sum() / (kz**2 * value).sum())
    low, high = _measured_range(kx, kz, ky, mean.abs() ** 2)
    return BeadShape(
        elongation=math.sqrt(ratio) if ratio > 0 else math.inf, lowest_angle=low, highest_angle=high, beads=number
    )


def _mean_transform(volume: np.ndarray, places: np.ndarray, box: int, width: float) -> tuple[torch.Tensor, int]:
    """(box, box, box) transform of the mean of the centred beads, and their number; places x, y, z in voxels."""
    total, number = torch.zeros((box,) * 3, dtype=torch.complex128), 0
    centre = np.array([n // 2 for n in volume.shape])
    k = torch.fft.fftfreq(box, dtype=torch.float64)
    for place in places:
        peak = _peak(volume, np.round(place[::-1]).astype(int) + centre, box // 4, width)
        if peak is None:
            continue
        nearest = np.round(peak).astype(int)
        first, last = nearest - box // 2, nearest - box // 2 + box
        if (first < 0).any() or (last > np.array(volume.shape)).any():
            continue
        window = volume[tuple(slice(a, b) for a, b in zip(first, last, strict=True))].astype(float)
        spectrum = torch.fft.fftn(torch.as_tensor(np.fft.ifftshift(window - np.median(window))))
        for axis, offset in enumerate(peak - nearest):
            phase = torch.exp(2j * math.pi * k * offset)
            spectrum = spectrum * phase.reshape([-1 if a == axis else 1 for a in range(3)])
        total, number = total + spectrum, number + 1
    return total / max(number, 1), number


def _peak(volume: np.ndarray, near: np.ndarray, reach: int, width: float) -> np.ndarray | None:
    """z, y, x of the highest place within reach of a voxel, seen through a Gaussian of sd width; None at the edge."""
    margin = reach + math.ceil(3 * width)
    if (near < margin).any() or (near + margin >= np.array(volume.shape)).any():
        return None
    part = volume[tuple(slice(n - margin, n + margin + 1) for n in near)].astype(float)
    blurred = gaussian_filter(part, width)
    inner = blurred[(slice(margin - reach, margin + reach + 1),) * 3]
    highest = np.array(np.unravel_index(int(np.argmax(inner)), inner.shape)) + margin - reach
    about = torch.as_tensor(blurred[tuple(slice(h - 1, h + 2) for h in highest)])
    vertex = [parabola_offset(*about[line]) for line in (np.s_[:, 1, 1], np.s_[1, :, 1], np.s_[1, 1, :])]
    return near - margin + highest + np.array(vertex)


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
