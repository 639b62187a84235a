"""The images of particles in each frame of a tilt's movie, whitened, and the model of them.

F_f is the transform of the crop of frame f about r + d_f(r), where the motion d so far puts what lies at r in the sum
of the frames: as if the motion had been taken back. Of the signal of the whole tilt and of the noise of its power a
frame has its share s_f of the exposure, so with the whitened model m of the whole tilt (`ops.particles.images`)

    X_f = F_f / sqrt(s_f N),    X_f = sqrt(s_f) m + noise of variance 1 in either component.

N(k) is measured on the frames themselves, by how much they differ: Σ_f |F_f - s_f Σ F|² / (s_f (F - 1)). All that the
frames have in common, signal and other bodies, drops out of it, and out of every difference between frames as well.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

import numpy as np
import torch

from tiltwise.data.motion import Motion
from tiltwise.data.tilt_series import TiltSeries
from tiltwise.ops.motion.model import displacement
from tiltwise.ops.particles.chunks import CropSettings, PosedParticles
from tiltwise.ops.particles.images import (
    TiltWeights,
    crop_transforms,
    ctf_values,
    image_positions,
    inside_image,
    local_mean_removed,
    shell_mean,
    spread_shells,
)
from tiltwise.ops.particles.slices import SpectralGrid, extract_slices


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class SeenParticles:
    """Where the particles of a series appear in its used tilts."""

    place: torch.Tensor
    """(tilt, particle, 2) float64 x, y, Å from the image centre."""
    depth: torch.Tensor
    """(tilt, particle) float64 Å."""
    inside: torch.Tensor
    """(tilt, particle) bool: the particle's disc is in the image."""
    turned: torch.Tensor
    """(tilt, particle, 3, 3) float64 reference to image frame."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class FrameImages:
    """Particles of one tilt in each of its frames."""

    data: np.ndarray
    """(frame, particle, point) complex64 X."""
    model: np.ndarray
    """(particle, point) complex64 m under the reference of the particle's own half."""
    other: np.ndarray
    """(particle, point) complex64 m under that of the other half."""
    share: np.ndarray
    """(frame,) part of the exposure; sums to 1."""
    place: np.ndarray
    """(particle, 2) x, y, Å from the image centre."""
    half_set: np.ndarray
    """(particle,) 1 or 2, those of half 1 first."""
    points: np.ndarray
    """(point, 2) int64 frequencies in 1 / width."""
    width: float
    """Of the box, Å."""

    def of(self, half: int) -> "FrameImages":
        """Those of one half set; a view of the same memory."""
        first, last = np.searchsorted(self.half_set, (half, half + 1))
        own = slice(int(first), int(last))
        return replace(
            self,
            data=self.data[:, own],
            model=self.model[own],
            other=self.other[own],
            place=self.place[own],
            half_set=self.half_set[own],
        )


def see_particles(series: TiltSeries, particles: PosedParticles, radius: float) -> SeenParticles:
    """The particles of a series in its used tilts; radius Å: of the disc that must be in the image."""
    place, depth, rotations = image_positions(series, particles.position, particles.trajectory)
    height, width = series.image_shape
    centre = torch.tensor([width // 2, height // 2], dtype=torch.float64)
    return SeenParticles(
        place=(place - centre) * series.pixel_size,
        depth=depth,
        inside=inside_image(place, series.image_shape, radius / series.pixel_size),
        turned=torch.einsum("tij,pjk->tpik", rotations, particles.rotation),
    )


def frame_shares(motion: Motion) -> np.ndarray:
    """(frame,) part of the exposure in each frame; alike if none is known."""
    exposure = np.asarray(motion.exposure, dtype=float)
    return exposure / exposure.sum() if exposure.sum() > 0 else np.full(motion.frames, 1 / motion.frames)


def cut_frames(
    frames: Iterable[torch.Tensor],
    motion: Motion,
    place: np.ndarray,
    points: torch.Tensor,
    crops: np.ndarray,
    *,
    pixel_size: float,
    width: float,
) -> None:
    """Fill crops (frame, particle, point) complex64 with the transforms of frames (y, x) about places (particle, 2), Å,
    each where the motion puts it, the mean over two boxes taken off. pixel_size of the frames and width of the box in
    Å."""
    moved = place + displacement(motion, place)
    box_size = round(width / pixel_size)
    for number, frame in enumerate(frames):
        height, columns = frame.shape
        position = torch.as_tensor(moved[number]) / pixel_size + torch.tensor([columns // 2, height // 2])
        flat = local_mean_removed(frame, 2 * width / pixel_size)
        crops[number] = crop_transforms(flat[None], position[None], points, box_size)[:, 0].numpy()


def frame_images(
    crops: np.ndarray,
    motion: Motion,
    tilt_crops: torch.Tensor,
    amplitudes: Mapping[str, torch.Tensor],
    points: torch.Tensor,
    settings: CropSettings,
    where: tuple[np.ndarray, np.ndarray],
) -> FrameImages:
    """Whiten crops (frame, particle, point), in place, and their models.

    tilt_crops (particle, point): of the tilt's image, in whose units the models `own` and `other` of amplitudes are;
    the frames' own units follow by regression. where: places (particle, 2), Å, and half sets (particle,).
    """
    share, box_size = frame_shares(motion), settings.box_size
    total = crops.sum(axis=0)
    power = sum((np.abs(one - s * total) ** 2 / s for one, s in zip(crops, share, strict=True)), np.zeros(total.shape))
    power = torch.from_numpy(power.sum(axis=0, dtype=np.float64)[None] / (len(crops) - 1))
    noise = shell_mean(power, torch.full_like(power, 2.0 * len(total)), points, box_size)
    deviation = spread_shells(noise, points)[0].sqrt().numpy().astype(np.float32)
    tilt = tilt_crops.numpy()
    weighted = total / deviation**2
    level = float((tilt * weighted.conj()).real.sum() / (total * weighted.conj()).real.sum())
    for one, s in zip(crops, share, strict=True):
        one /= np.float32(np.sqrt(s)) * deviation
    own, other = (np.ascontiguousarray(amplitudes[name].numpy() / (level * deviation)) for name in ("own", "other"))
    return FrameImages(
        data=crops,
        model=own.astype(np.complex64),
        other=other.astype(np.complex64),
        share=share,
        place=where[0],
        half_set=where[1],
        points=points.numpy().astype(np.int64),
        width=box_size * settings.pixel_size,
    )


def model_amplitudes(
    series: TiltSeries,
    tilt: int,
    seen: SeenParticles,
    index: np.ndarray,
    half_set: np.ndarray,
    grids: Mapping[int, SpectralGrid],
    weights: TiltWeights,
    points: torch.Tensor,
) -> dict[str, torch.Tensor]:
    """(particle, point) complex64 of the particles of an index in one of the used tilts, as the reference of their
    `own` half and that of the `other` predict them, in the units of the tilt's image."""
    used = np.flatnonzero(series.use)
    alone = replace(series, use=np.arange(series.number) == used[tilt])
    box_size = grids[1].box_size
    transfer = ctf_values(alone, seen.depth[tilt : tilt + 1, index], points, box_size)[:, 0]
    transfer = transfer * spread_shells(weights.scale[tilt] * weights.decay[tilt], points).float()
    result = {}
    for name in ("own", "other"):
        slices = torch.empty(len(index), len(points), dtype=torch.complex64)
        for half in (1, 2):
            members = torch.from_numpy(np.flatnonzero(half_set == half))
            if len(members):
                grid = grids[half if name == "own" else 3 - half]
                slices[members] = extract_slices(grid, seen.turned[tilt, index][members], points)
        result[name] = slices * transfer
    return result
