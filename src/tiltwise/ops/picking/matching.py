"""Template matching as a likelihood: one filtered tomogram, compact rotated templates, scores in units of the noise.

A tomogram F(k) = T(k) V_R(k) exp(-2πi k·x) + noise of power P(k) holds the template V, turned by R, at x with the log
likelihood Re<Y, V_R at x> - <W, |V_R|²> / 2, where Y = F T / P and W = T² / P. T is what wedge, contrast transfer and
exposure leave of a density in this tomogram. Y is computed once and V_R stays compact; the score is
<Y, V_R> / sqrt(<W, |V_R|²>), normal with sd 1 where there is only noise: the matched filter, missing wedge included.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import product

import numpy as np
import torch

from tiltwise.data.optics import Optics
from tiltwise.ops.ctf import ctf
from tiltwise.ops.exposure import exposure_amplitude
from tiltwise.ops.interpolate import centred_points, sample_volume
from tiltwise.ops.masks import soft_sphere
from tiltwise.ops.moments import median, slabs
from tiltwise.ops.picking.tiles import Tiling, correlate_tile, cut_tile, kernel_spectra, plan_tiles, settled
from tiltwise.ops.steady import steady_rfftn

_BLOCK_VOXELS = 2_000_000
"""Voxels of the boxes that are worked on at once."""


def boxes_at_once(side: int) -> int:
    """Boxes of a side that are worked on at once, so that large ones are not held by the dozen; 64 at most."""
    return min(max(1, _BLOCK_VOXELS // side**3), 64)


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class TiltTransfer:
    """What each used tilt passes on to the tomogram."""

    rotations: torch.Tensor
    """(tilt, 3, 3) specimen to image frame."""
    widths: torch.Tensor
    """(tilt,) radians of the tilt range that each stands for (ops.projection.tilt_widths)."""
    amplitude: torch.Tensor
    """(tilt, frequency) |CTF| times exposure weight at equally spaced frequencies from 0."""
    frequency_step: float
    """1/Å."""


def tilt_amplitudes(
    frequency: torch.Tensor,
    optics: Optics,
    exposures: tuple[np.ndarray, np.ndarray],
    defocus: np.ndarray | None,
    phase_shift: np.ndarray | None,
) -> torch.Tensor:
    """(tilt, frequency) |CTF_i(k)| q_i(k) / sqrt(mean_j q_j(k)²) of a phase-flipped, exposure-weighted tomogram.

    exposures are pre_exposure and exposure (tilt,); defocus (tilt,) Å, None where the transfer is constant.
    """
    before, dose = (torch.as_tensor(a, dtype=torch.float32)[:, None] for a in exposures)
    q = exposure_amplitude(frequency, before, dose, optics.voltage)
    q = q / q.square().mean(0).sqrt()
    if defocus is None:
        return q
    shift = torch.as_tensor(phase_shift, dtype=torch.float32)[:, None]
    return q * ctf(frequency, torch.as_tensor(defocus, dtype=torch.float32)[:, None], optics, shift).abs()


def box_transfer(transfer: TiltTransfer, shape: tuple[int, int, int], voxel_size: float) -> torch.Tensor:
    """T(k) on the half grid of rfftn of a box (z, y, x): Σ_i Δθ_i |k_perp| · B Λ(B d_i) · amplitude_i(k).

    d_i = k · n_i is the distance of k from slice i, k_perp its part normal to the tilt axis, Λ the triangle and B the
    side of the box: a density that fills a box smears each slice over 1/B. |k_perp| is not taken below 1/(4 B).
    """
    device = transfer.rotations.device
    k = frequency_vectors(shape, voxel_size, device)
    side = min(shape) * voxel_size
    norm = k.norm(dim=-1)
    position = (norm / transfer.frequency_step).clamp_max(transfer.amplitude.shape[1] - 1.001)
    low, part = position.long(), position - position.floor()
    total = torch.zeros(norm.shape, device=device)
    for rotation, width, curve in zip(transfer.rotations.float(), transfer.widths, transfer.amplitude, strict=True):
        distance = k @ rotation[2]
        across = (k[..., 0].square() + k[..., 2].square()).sqrt().clamp_min(1 / (4 * side))
        near = (1 - side * distance.abs()).clamp_min(0) * side
        total += float(width) * across * near * (curve[low] + part * (curve[low + 1] - curve[low]))
    return total


def frequency_vectors(shape: tuple[int, int, int], voxel_size: float, device: torch.device | str) -> torch.Tensor:
    """(z, y, x // 2 + 1, 3) float32 frequencies x, y, z in 1/Å of rfftn of an array (z, y, x)."""
    kz, ky = (torch.fft.fftfreq(n, voxel_size, device=device) for n in shape[:2])
    kx = torch.fft.rfftfreq(shape[2], voxel_size, device=device)
    return torch.stack(torch.meshgrid(kz, ky, kx, indexing="ij")[::-1], dim=-1)


def box_power(volume: torch.Tensor, side: int) -> torch.Tensor:
    """(side, side, side // 2 + 1) mean power of half-overlapping windowed boxes (Welch 1967), 1 for sd 1."""
    window = torch.hann_window(side, device=volume.device)
    window = window[:, None, None] * window[:, None] * window
    window = window / window.square().sum().sqrt()
    total, number = torch.zeros(side, side, side // 2 + 1, device=volume.device), 0
    z, y, x = (_starts(n, side) for n in volume.shape)
    rows, some = product(z, y), boxes_at_once(side)
    for (top, left), first in product(rows, range(0, len(x), some)):
        slab = volume[top : top + side, left : left + side]
        boxes = torch.stack([slab[:, :, start : start + side] for start in x[first : first + some]])
        total += steady_rfftn(boxes * window, 3).abs().square().sum(0)
        number += len(boxes)
    return total / number


def _starts(size: int, side: int) -> list[int]:
    number = max(1, -(-2 * (size - side) // side) + 1)
    return sorted({round(s) for s in np.linspace(0, size - side, number)})


def filter_by_box_response(volume: torch.Tensor, response: torch.Tensor) -> torch.Tensor:
    """Periodic volume filtered, tile by tile, by a real response on the half grid of a small cube.

    Its real-space kernel is made even about the middle of a box of odd side, so that its transform is real.
    """
    kernel = _in_odd_box(torch.fft.fftshift(torch.fft.irfftn(response, s=(response.shape[0],) * 3)))
    tiling = plan_tiles(tuple(volume.shape), len(kernel))
    spectrum = kernel_spectra(((kernel + kernel.flip(0, 1, 2)) / 2)[None], tiling)[0]
    result = torch.empty_like(volume)
    for start in tiling.starts():
        inside = tiling.inside(start)
        part = correlate_tile(steady_rfftn(cut_tile(volume, tiling, start)), spectrum, tiling)
        result[inside] = settled(part, inside)
    return result


def _in_odd_box(kernel: torch.Tensor) -> torch.Tensor:
    """A cube with its middle n // 2 in the middle of a box of odd side, which may be mirrored about it."""
    more = 1 - len(kernel) % 2
    return torch.nn.functional.pad(kernel, (0, more) * 3)


def rotated_templates(
    reference: torch.Tensor, oversampling: float, rotations: torch.Tensor, side: int, radius: float
) -> torch.Tensor:
    """(rotation, side, side, side) templates: the reference turned by each rotation, under a soft sphere.

    One voxel of a template is `oversampling` voxels of the reference, which holds no spacing finer than about four of
    its own voxels, so that linear interpolation is enough. radius in template voxels.
    """
    points = centred_points((side,) * 3, reference.device).float() * oversampling
    mask = soft_sphere((side,) * 3, radius, 1.5, reference.device)
    inside = mask > 0
    selected, result = points[inside], torch.zeros(len(rotations), side, side, side, device=reference.device)
    number = boxes_at_once(side)
    for block, out in zip(rotations.float().split(number), result.split(number), strict=True):
        out[:, inside] = sample_volume(reference, selected @ block) * mask[inside]
    return result


def template_norms(templates: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """(template,) sqrt(<W, |V_R|²>) with W on the half grid of the box; a score divided by it has noise of sd 1."""
    side = templates.shape[-1]
    double = torch.full((side // 2 + 1,), 2.0, device=templates.device)
    double[0] = 1
    if side % 2 == 0:
        double[-1] = 1
    norms = []
    for block in templates.split(boxes_at_once(side)):
        power = torch.view_as_real(steady_rfftn(block, 3)).square().sum(-1)
        norms.append((power.flatten(1) @ (weight * double).flatten()).div(side**3).sqrt())
    return torch.cat(norms)


def correlate_everywhere(
    filtered: torch.Tensor, blocks: Iterable[torch.Tensor], tiling: Tiling
) -> tuple[torch.Tensor, torch.Tensor]:
    """Highest score of all templates at each voxel of Y (z, y, x), and the number of the template that gave it.

    blocks are (template, side, side, side), each over its norm, one block after the other; `tiling.kernels` is the
    number that the tiling has memory for. Y is periodic.
    """
    best = torch.full(tiling.shape, -torch.inf, device=filtered.device)
    which = torch.zeros(tiling.shape, dtype=torch.int32, device=filtered.device)
    first = 0
    for block in blocks:
        spectra = kernel_spectra(block, tiling)
        for start in tiling.starts():
            inside = tiling.inside(start)
            spectrum = steady_rfftn(cut_tile(filtered, tiling, start))
            highest, number = best[inside], which[inside]
            for i, template in enumerate(spectra):
                score = settled(correlate_tile(spectrum, template, tiling), inside)
                number.masked_fill_(score > highest, first + i)
                torch.maximum(highest, score, out=highest)
        first += len(block)
    return best, which


def local_spread(white: torch.Tensor, side: int, radius: float) -> torch.Tensor:
    """Root mean square of a whitened volume in a sphere (radius in voxels) about each voxel over its median, 1 or more.

    Scores divided by it do not rise where the specimen is crowded, torn or holds gold; quiet places are not raised.
    """
    ball = soft_sphere((side,) * 3, radius, 1.0, white.device)
    kernel = _in_odd_box(ball / ball.sum()).flip(0, 1, 2)
    tiling = plan_tiles(tuple(white.shape), len(kernel))
    spectrum = kernel_spectra(kernel[None], tiling)[0]
    spread = torch.empty_like(white)
    for start in tiling.starts():
        inside = tiling.inside(start)
        part = correlate_tile(steady_rfftn(cut_tile(white, tiling, start).square_()), spectrum, tiling)
        spread[inside] = settled(part, inside).clamp_min(0).sqrt()
    return spread.div_(median(lambda: (spread[planes] for planes in slabs(spread.shape)))).clamp_min_(1)
