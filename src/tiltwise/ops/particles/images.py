"""The images of particles: crops of the tilt images at their projected positions, as whitened Fourier transforms.

The forward model (methods.md section 1): the transform of the crop of particle p in tilt i is
F(k) = s_i q_i(k) CTF_i(k; defocus_i + h depth_p) V̂(A_pᵀ R_iᵀ [k, 0]) exp(-2 pi i k·t) + noise, of power σ²_i(k) in
each of its real and imaginary parts. Divided by σ_i it reads data = transfer · V̂ · phase + unit noise, as all sums use
it. q_i is the critical-exposure curve, or what takes its place (ops/particles/exposure_weights.py).
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from tiltwise.data.tilt_series import TiltSeries
from tiltwise.ops.ctf import astigmatic_defocus, ctf
from tiltwise.ops.deformation import specimen_in_images
from tiltwise.ops.exposure import exposure_amplitude
from tiltwise.ops.geometry import tilt_rotations
from tiltwise.ops.kernels.crops import cut_windows_compiled, read_points_compiled
from tiltwise.ops.particles.trajectories import trajectory_basis
from tiltwise.ops.steady import steady_mean, steady_sum

_OUTLIER = 5.0  # robust standard deviations beyond which a pixel (a gold bead, a hot pixel) is set to the local mean
_MOST_OUTLIERS = 0.05  # if more pixels than this are beyond it, they are signal, and all are kept


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class TiltWeights:
    """What is known of signal and noise in each used tilt of a series."""

    scale: torch.Tensor
    """(tilt,) float64 amplitude s_i of the signal, in units of the reference."""
    decay: torch.Tensor
    """(tilt, shell) float64 amplitude q_i(k) that exposure, or all that was measured, leaves at |k| = shell / box."""
    noise: torch.Tensor
    """(tilt, shell) float64 noise power σ² of each real component at |k| = shell / box."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class ParticleImages:
    """Whitened transforms of the crops of some particles in all used tilts of their series."""

    data: torch.Tensor
    """(particle, tilt, point) complex64 F / σ, the particle's expected position at phase 0."""
    transfer: torch.Tensor
    """(particle, tilt, point) float32 s q CTF / σ; 0 where the crop leaves the image."""
    rotations: torch.Tensor
    """(tilt, 3, 3) float64 from tomogram to image frame."""
    points: torch.Tensor
    """(point, 2) float32 frequencies in 1 / (box_size · pixel_size), |k| rising."""
    box_size: int
    """Side of the crops, px."""
    pixel_size: float
    """Å."""

    def band(self, radius: float) -> "ParticleImages":
        """The same images cut to |k| <= radius, in 1 / (box · pixel)."""
        number = int((self.points.square().sum(-1) <= radius**2).sum())
        return ParticleImages(
            data=self.data[..., :number],
            transfer=self.transfer[..., :number],
            rotations=self.rotations,
            points=self.points[:number],
            box_size=self.box_size,
            pixel_size=self.pixel_size,
        )

    def of(self, index: torch.Tensor) -> "ParticleImages":
        """Those of some particles."""
        return replace(self, data=self.data[index], transfer=self.transfer[index])


def on_grid(images: ParticleImages, box_size: int) -> ParticleImages:
    """The same frequencies, counted as those of a box as wide in Å but of box_size pixels, for smaller volumes."""
    width = images.box_size * images.pixel_size
    return replace(images, box_size=box_size, pixel_size=width / box_size)


def normalised_images(
    tilt_series: TiltSeries, background_size: float, device: torch.device | str = "cpu"
) -> torch.Tensor:
    """(used tilt, y, x) float32 images of mean 0 and standard deviation 1, with gold beads and hot pixels taken out.

    The mean over squares of side background_size (Å) is taken off; it should be well above the particle's diameter.
    Pixels beyond 5 robust standard deviations (median absolute deviation) are set to 0, the local mean.
    """
    width = background_size / tilt_series.pixel_size
    used = np.flatnonzero(tilt_series.use)
    read = (np.array(tilt_series.images[i], dtype=np.float32) for i in used)
    return torch.stack([_normalise(torch.as_tensor(image, device=device), width) for image in read])


def local_mean_removed(image: torch.Tensor, width: float) -> torch.Tensor:
    """An image (y, x) without its mean over squares `width` px wide."""
    odd = int(min(width, min(image.shape) - 1)) | 1
    return image - _running_mean(_running_mean(image, odd).T, odd).T


def _normalise(image: torch.Tensor, width: float) -> torch.Tensor:
    flat = local_mean_removed(image, width)
    deviation = 1.4826 * flat.abs().median()
    beyond = flat.abs() > _OUTLIER * deviation
    if 0 < beyond.count_nonzero() < _MOST_OUTLIERS * beyond.numel():
        flat = torch.where(beyond, torch.zeros_like(flat), flat)
    flat = flat - steady_mean(flat).to(flat)
    deviation = (steady_sum(flat.square()) / (flat.numel() - 1)).sqrt()
    return (flat / deviation.to(flat).clamp_min(1e-12)).float()


def _running_mean(image: torch.Tensor, width: int) -> torch.Tensor:
    """Mean over `width` (odd) samples along x, the image continued by its mirror image."""
    padded = torch.nn.functional.pad(image[None], (width // 2, width // 2), mode="reflect")[0]
    total = torch.nn.functional.pad(padded.double().cumsum(1), (1, 0))
    return ((total[:, width:] - total[:, :-width]) / width).to(image.dtype)


def crop_transforms(images: torch.Tensor, position: torch.Tensor, points: torch.Tensor, box_size: int) -> torch.Tensor:
    """(particle, tilt, point) complex64 transforms of crops about positions, phases referred to the position itself.

    images (tilt, y, x); position (tilt, particle, 2) x, y in px, 0 the first pixel; beyond the image the crop is 0.
    """
    row, column = points[:, 1].long() % box_size, points[:, 0].long()
    corner = torch.floor(position + 0.5).long() - box_size // 2
    angle = 2 * torch.pi / box_size * (position - corner)  # by which a frequency of 1 / box turns, on each axis
    across = unit_phase(angle[..., 0, None] * torch.arange(int(column.max()) + 1, device=images.device))
    down = unit_phase(angle[..., 1, None] * torch.fft.fftfreq(box_size, 1 / box_size, device=images.device))
    result = torch.empty(position.shape[1], len(images), len(points), dtype=torch.complex64, device=images.device)
    for t, image in enumerate(images):
        spectrum = torch.fft.rfft2(cut_windows(image, corner[t], box_size))
        read_points(spectrum, (row, column), (down[t], across[t]), result[:, t])
    return result


def unit_phase(angle: torch.Tensor) -> torch.Tensor:
    """exp(i angle), complex64."""
    return torch.polar(torch.ones_like(angle), angle).to(torch.complex64)


def read_points(
    spectrum: torch.Tensor,
    place: tuple[torch.Tensor, torch.Tensor],
    phase: tuple[torch.Tensor, torch.Tensor],
    values: torch.Tensor,
) -> None:
    """Into values (particle, point): spectrum (particle, y, x) at the rows and columns of place, times the phases
    (particle, y) and (particle, x) there."""
    if spectrum.device.type == "cpu":
        arrays = (one.numpy() for one in (spectrum, *place, *phase, values))
        read_points_compiled(*arrays)
    else:
        read_points_plain(spectrum, place, phase, values)


def read_points_plain(
    spectrum: torch.Tensor,
    place: tuple[torch.Tensor, torch.Tensor],
    phase: tuple[torch.Tensor, torch.Tensor],
    values: torch.Tensor,
) -> None:
    """The plain twin of `read_points`, on any device."""
    row, column = place
    values.copy_(spectrum[:, row, column] * (phase[0][:, row] * phase[1][:, column]))


def cut_windows(image: torch.Tensor, corner: torch.Tensor, size: int) -> torch.Tensor:
    """(particle, size, size) windows of an image (y, x) whose first pixels lie at corner (particle, 2) x, y; 0 beyond
    the image."""
    if image.device.type != "cpu":
        return cut_windows_plain(image, corner, size)
    windows = torch.empty(len(corner), size, size, dtype=image.dtype)
    cut_windows_compiled(image.numpy(), corner.numpy(), windows.numpy())
    return windows


def cut_windows_plain(image: torch.Tensor, corner: torch.Tensor, size: int) -> torch.Tensor:
    """The plain twin of `cut_windows`, on any device."""
    height, width = image.shape
    offset = torch.arange(size, device=image.device)
    rows, columns = corner[:, 1, None] + offset, corner[:, 0, None] + offset
    inside = ((rows >= 0) & (rows < height))[:, :, None] & ((columns >= 0) & (columns < width))[:, None]
    index = rows.clamp(0, height - 1)[:, :, None] * width + columns.clamp(0, width - 1)[:, None]
    return image.reshape(-1)[index] * inside


def image_positions(
    tilt_series: TiltSeries, position: torch.Tensor, trajectory: torch.Tensor | None = None
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Where specimen points (particle, 3), Å, with their paths (particle, mode, 3), Å, lie in the used tilts.

    Gives (tilt, particle, 2) x, y in px from the first pixel, (tilt, particle) depth in Å, (tilt, 3, 3) rotations.
    """
    used = np.flatnonzero(tilt_series.use)
    place, depth = (
        torch.as_tensor(values, device=position.device)
        for values in specimen_in_images(tilt_series, position.cpu().numpy(), used)
    )
    height, width = tilt_series.image_shape
    centre = torch.tensor([width // 2, height // 2], dtype=torch.float64, device=position.device)
    rotations = tilt_rotations(tilt_series.geometry, position.device)[used]
    if trajectory is not None:
        basis = torch.as_tensor(trajectory_basis(tilt_series, trajectory.shape[1]), device=position.device)
        moved = torch.einsum("tj,pjd,tcd->tpc", basis, trajectory, rotations)
        place, depth = place + moved[..., :2], depth + moved[..., 2]
    return place / tilt_series.pixel_size + centre, depth, rotations


def inside_image(position: torch.Tensor, image_shape: tuple[int, int], margin: float) -> torch.Tensor:
    """(tilt, particle) True where a disc of radius margin (px) about position (tilt, particle, 2) is in the image."""
    limit = torch.tensor([image_shape[1], image_shape[0]], dtype=position.dtype, device=position.device) - 1 - margin
    return ((position >= margin) & (position <= limit)).all(-1)


def critical_decay(tilt_series: TiltSeries, box_size: int, device: torch.device | str = "cpu") -> torch.Tensor:
    """(tilt, shell) float64 amplitude that the critical curve leaves in each used tilt at |k| = shell / box."""
    used = np.flatnonzero(tilt_series.use)
    shells = torch.arange(box_size // 2 + 1, dtype=torch.float64, device=device)
    pre, dose = (
        torch.as_tensor(v[used], dtype=torch.float64, device=device)[:, None]
        for v in (tilt_series.pre_exposure, tilt_series.exposure)
    )
    return exposure_amplitude(shells / (box_size * tilt_series.pixel_size), pre, dose, tilt_series.optics.voltage)


def ctf_values(tilt_series: TiltSeries, depth: torch.Tensor, points: torch.Tensor, box_size: int) -> torch.Tensor:
    """(particle, tilt, point) float32 CTF at each particle's depth (tilt, particle), Å.

    Without a fitted CTF it is the constant -1: density is dark.
    """
    used = np.flatnonzero(tilt_series.use)
    if tilt_series.ctf is None:
        return -torch.ones(1, device=points.device).expand(depth.shape[1], len(used), len(points))
    frequency = points.norm(dim=-1) / (box_size * tilt_series.pixel_size)
    fitted = tilt_series.ctf
    u, v, angle, phase = (
        torch.as_tensor(values[used], dtype=torch.float32, device=points.device)[:, None]
        for values in (fitted.defocus_u, fitted.defocus_v, fitted.astigmatism_angle, fitted.phase_shift)
    )
    azimuth = torch.atan2(points[:, 1], points[:, 0])
    handedness = 0 if tilt_series.defocus_handedness is None else tilt_series.defocus_handedness
    defocus = astigmatic_defocus(azimuth, u, v, angle) + handedness * depth.T.float()[..., None]
    return ctf(frequency, defocus, tilt_series.optics, phase)


def cut_under(
    images: torch.Tensor,
    variants: Sequence[TiltSeries],
    position: torch.Tensor,
    points: torch.Tensor,
    *,
    box_size: int,
    particle_radius: float,
    weights: TiltWeights,
    trajectory: torch.Tensor | None = None,
) -> Iterator[ParticleImages]:
    """The whitened images of particles at position (particle, 3), Å, in the used tilts of one series, under each of
    several CTFs: cut once, at the geometry of the first.

    images as `normalised_images` gives them; particle_radius Å: a crop counts where this disc is in the image.
    trajectory (particle, mode, 3), Å: the paths of the particles, where they have some.
    """
    series = variants[0]
    place, depth, rotations = image_positions(series, position, trajectory)
    inside = inside_image(place, series.image_shape, particle_radius / series.pixel_size).T
    deviation = spread_shells(weights.noise, points).sqrt().float()
    data = crop_transforms(images, place, points, box_size).div_(deviation)
    amplitude = spread_shells(weights.scale[:, None] * weights.decay, points).float() / deviation
    for variant in variants:
        transfer = ctf_values(variant, depth, points, box_size) * amplitude * inside[..., None]
        yield ParticleImages(
            data=data,
            transfer=transfer.contiguous(),
            rotations=rotations,
            points=points,
            box_size=box_size,
            pixel_size=series.pixel_size,
        )


def noise_power(values: torch.Tensor, used: torch.Tensor, points: torch.Tensor, box_size: int) -> torch.Tensor:
    """(tilt, shell) float64 mean power of each real component of values (particle, tilt, point), smoothed over shells.

    used (particle, tilt) says which count; shells from 0 to box_size // 2, those without points take their neighbour's.
    """
    power = (values.real**2 + values.imag**2).mul_(used.to(values.real.dtype)[..., None]).sum(0, dtype=torch.float64)
    number = used.double().sum(0)
    return shell_mean(power, number[:, None].expand_as(power) * 2, points, box_size)


def shell_mean(total: torch.Tensor, count: torch.Tensor, points: torch.Tensor, box_size: int) -> torch.Tensor:
    """(tilt, shell) sums of total over shells of points (weights 1/4, 1/2, 1/4 over neighbours) by those of count."""
    shells = points.norm(dim=-1).round().long()
    size = (len(total), box_size // 2 + 1)
    sums = [
        torch.zeros(size, dtype=torch.float64, device=total.device).index_add_(1, shells, v) for v in (total, count)
    ]
    upper, lower = (v + 0.5 * (torch.roll(v, 1, 1) + torch.roll(v, -1, 1)) for v in (_edges(s) for s in sums))
    mean = (upper / lower.clamp_min(1e-30))[:, 1:-1]
    known = torch.nonzero((lower[:, 1:-1] > 0).any(0)).flatten()
    nearest = (torch.arange(size[1], device=total.device)[:, None] - known).abs().argmin(1)
    return mean[:, known[nearest]].clamp_min(1e-30)


def _edges(values: torch.Tensor) -> torch.Tensor:
    return torch.nn.functional.pad(values, (1, 1))


def spread_shells(values: torch.Tensor, points: torch.Tensor) -> torch.Tensor:
    """(..., point) values of shells (..., shell) at the points, linear in |k|."""
    radius = points.norm(dim=-1).double()
    lower = radius.floor().long().clamp_max(values.shape[-1] - 2)
    fraction = (radius - lower).clamp_max(1.0)
    return values[..., lower] * (1 - fraction) + values[..., lower + 1] * fraction
