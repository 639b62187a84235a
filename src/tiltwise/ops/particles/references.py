"""References for alignment: a given volume brought to box and pixel, half maps masked and filtered by their FSC."""

import numpy as np
import torch

from tiltwise.data.volume import Volume
from tiltwise.ops.filters import low_pass, radial_filter
from tiltwise.ops.fsc import fourier_shell_correlation
from tiltwise.ops.interpolate import centred_points, sample_volume
from tiltwise.ops.masks import soft_sphere
from tiltwise.ops.steady import steady_sum

_SIGNIFICANT = 0.143
_MOST = 0.95
_SMALLEST, _LARGEST = 0.4, 1.3
"""Extents of a reference, in particle diameters, that pass: thin bodies hold their density near the centre."""


def resampled_reference(reference: Volume, box_size: int, pixel_size: float, lowpass: float) -> torch.Tensor:
    """(n, n, n) float32 the reference on the grid of the crops, about its centre, low-passed to `lowpass` (Å).

    Cubic interpolation; outside the given volume it is 0.
    """
    given = low_pass(torch.as_tensor(np.array(reference.data, dtype=np.float32)), lowpass, reference.voxel_size)
    points = centred_points((box_size,) * 3) * (pixel_size / reference.voxel_size)
    placed = sample_volume(given, points, method="cubic")
    return low_pass(placed.float(), lowpass, pixel_size)


def size_notes(reference: Volume, diameter: float) -> tuple[str, ...]:
    """What to say of a reference of another size than the particle, of `diameter` Å; nothing where they fit.

    Its extent is the diameter of the ball about the centre that holds 95 % of the squared density, less the mean of the
    box's faces.
    """
    data = np.array(reference.data, dtype=np.float64)
    width = min(data.shape) * reference.voxel_size
    if width < diameter:
        return (
            f"the reference's box is {width:.0f} Å wide, less than the particle_diameter of {diameter:.0f} Å: its "
            "particle may be cut; is the voxel size right?",
        )
    faces = np.concatenate([data[[0, -1]].ravel(), data[:, [0, -1]].ravel(), data[:, :, [0, -1]].ravel()])
    square = ((data - faces.mean()) ** 2).ravel()
    radius = centred_points(data.shape).norm(dim=-1).numpy().ravel() * reference.voxel_size
    order = np.argsort(radius)
    inside = np.searchsorted(square[order].cumsum(), _MOST * square.sum())
    extent = 2 * float(radius[order][min(inside, len(order) - 1)])
    if _SMALLEST * diameter <= extent <= _LARGEST * diameter:
        return ()
    return (
        f"the reference's density is {extent:.0f} Å across, but particle_diameter is {diameter:.0f} Å: is it the right "
        "map, its voxel size right?",
    )


def sphere_mask(box_size: int, pixel_size: float, radius: float) -> torch.Tensor:
    """(n, n, n) float32 ball of a radius in Å with a soft edge of a tenth of the box, within the box."""
    edge = max(3.0, 0.1 * box_size)
    inner = min(radius / pixel_size, box_size / 2 - 1 - edge)
    return soft_sphere((box_size,) * 3, inner, edge)


def masked_reference(volume: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """The volume less its mean along the mask's edge, within the mask: no step is left where the mask ends."""
    edge = (mask * (1 - mask)).double()
    background = steady_sum(volume.double() * edge) / steady_sum(edge).clamp_min(1e-30)
    return ((volume - background) * mask).float()


def half_map_fsc(first: torch.Tensor, second: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """(shell,) FSC of the two maps within the mask."""
    return fourier_shell_correlation(masked_reference(first, mask), masked_reference(second, mask))


def signal_weight(fsc: torch.Tensor) -> torch.Tensor:
    """(shell,) the Wiener filter of a half map: its FSC, smoothed; 0 beyond the last shell that is used in alignment.

    Shell 0, of which the FSC says nothing, takes 1.
    """
    weight = smoothed(fsc).clamp(0, 1)
    weight[0] = 1
    weight[alignment_radius(fsc) + 1 :] = 0
    return weight


def signal_to_noise(fsc: torch.Tensor) -> torch.Tensor:
    """(shell,) SSNR of a half map, FSC / (1 - FSC) of the smoothed FSC, at least 0.01."""
    value = smoothed(fsc).clamp(0.01, 0.999)
    return value / (1 - value)


def smoothed(fsc: torch.Tensor) -> torch.Tensor:
    """(shell,) weights 1/4, 1/2, 1/4 over neighbouring shells; the ends keep what they have."""
    inner = 0.25 * fsc[:-2] + 0.5 * fsc[1:-1] + 0.25 * fsc[2:]
    return torch.cat([fsc[:1], inner, fsc[-1:]])


def alignment_reference(
    half_map: torch.Tensor, mask: torch.Tensor, fsc: torch.Tensor, voxel_size: float
) -> torch.Tensor:
    """The half map filtered by the FSC of the halves, masked."""
    frequency = torch.arange(len(fsc), dtype=torch.float64) / (len(half_map) * voxel_size)
    return masked_reference(radial_filter(half_map, frequency, signal_weight(fsc), voxel_size), mask)


def alignment_radius(fsc: torch.Tensor) -> int:
    """Last shell before the smoothed FSC stays below 0.143 for three shells, at least 2: a dip does not end it."""
    low = smoothed(fsc) < _SIGNIFICANT
    low[0] = False
    lasting = low[:-2] & low[1:-1] & low[2:]
    first = torch.nonzero(lasting).flatten()
    if len(first):
        return max(2, int(first[0]) - 1)
    above = torch.nonzero(~low).flatten()
    return max(2, int(above[-1]))
