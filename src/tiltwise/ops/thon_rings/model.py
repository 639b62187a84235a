"""Thon rings: the model of the power spectra of a tilt series, patch by patch.

Expected power of patch p of tilt i at frequency k, divided by a smooth background:
    mu = exp(b_i(k, az)) · [1 - r / (1 + r) · c_i(k) · cos 2 chi(k; dz_ip(az))],   r = a_i · [s_0(k) · q_i(k)² + s_1(k)]
    dz_ip(az) = d_i + h · depth_ip + A_i cos 2az + B_i sin 2az,   depth_ip from ops.geometry.plane_depth.
r is the power of the signal, averaged over a ring, to that of the noise: s(k) two smooth curves shared by all tilts, of
molecules, of which exposure leaves the amplitude q, and of ice, which it moves but does not wear out; a_i the contrast
of a tilt. A_i = A + Σ_n p_n(i) A_n is shared but for a slow drift, p_n polynomials of the order of the tilts in time;
B_i likewise. sin² chi = (1 - cos 2 chi) / 2, so the mean over a period belongs to the background and what is left goes
as -cos 2 chi, weakened by c: finite patch, spread of depth in it, and the thickness t of the slab, whose layers have
each their own defocus: the mean of cos 2 chi over a path of t / m_z is that of its middle times sinc(λ k² t / m_z),
which changes sign. b_i is a smooth correction of the background.
Powers are exponentially distributed (Whittle's likelihood): log p = - log mu - P / mu for each independent frequency.
"""

import math
from dataclasses import dataclass

import torch

from tiltwise.data.optics import Optics
from tiltwise.ops.ctf import ctf_phase, electron_wavelength
from tiltwise.ops.geometry import plane_depth
from tiltwise.ops.kernels.spectra import fill_pattern
from tiltwise.ops.thon_rings.spectra import PatchLayout, PolarBins, window_coherence, window_correlation


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class RingSpectra:
    """Flattened power spectra of the used tilts with all that is needed to predict their rings; float64."""

    power: torch.Tensor
    """(tilt, patch, sector, ring) power divided by its smooth background."""
    weight: torch.Tensor
    """(tilt, patch, sector, ring) independent measurements behind each value."""
    position: torch.Tensor
    """(tilt, patch, 2) x, y of the patch: image position - image centre - shift, Å."""
    rotations: torch.Tensor
    """(tilt, 3, 3) specimen to image frame."""
    tilt_angle: torch.Tensor
    """(tilt,) degrees."""
    course: torch.Tensor
    """(tilt, 2) linear and quadratic course over the tilts as they were taken, as `drift_course` gives it."""
    damage: torch.Tensor
    """(tilt, ring) power that exposure leaves, q²."""
    coherence: torch.Tensor
    """(tilt, ring) contrast of the rings left by the spread of depth in a patch."""
    bins: PolarBins
    """The sectors and rings of frequency."""
    layout: PatchLayout
    """The patches."""
    pixel_size: float
    """Å."""
    optics: Optics
    """Voltage, Cs, amplitude contrast."""

    @property
    def ring_frequency(self) -> torch.Tensor:
        """(ring,) mean frequency over the sectors, 1/Å."""
        return self.bins.frequency.mean(0)


def drift_course(order: torch.Tensor) -> torch.Tensor:
    """(tilt, 2) polynomials of first and second degree of the tilts' rank in time (order (tilt,)): mean 0 and mean
    square 1 over the tilts, orthogonal to each other; 0 where there are too few tilts."""
    number = len(order)
    course = order.new_zeros((number, 2), dtype=torch.float64)
    if number > 1:
        time = 2 * order.double().argsort().argsort().double() / (number - 1) - 1
        powers = torch.stack([time**n for n in range(min(number, 3))], dim=1)
        course[:, : powers.shape[1] - 1] = torch.linalg.qr(powers)[0][:, 1:] * number**0.5
    return course


def spline_basis(frequency: torch.Tensor, low: float, high: float, number: int) -> torch.Tensor:
    """(..., number) uniform cubic B-splines between low and high, which add up to 1; number is at least 4."""
    u = (frequency - low) / (high - low) * (number - 3)
    centre = torch.arange(number, dtype=frequency.dtype, device=frequency.device) - 1
    x = (u[..., None] - centre).abs()
    inner = 2 / 3 - x**2 + x**3 / 2
    outer = (2 - x).clamp_min(0) ** 3 / 6
    return torch.where(x < 1, inner, outer)


def background_splines(frequency: torch.Tensor) -> torch.Tensor:
    """(ring, number) splines too stiff to follow rings: one knot each 1/50 Å."""
    low, high = float(frequency[0]), float(frequency[-1])
    return spline_basis(frequency, low, high, 4 + round(50 * (high - low)))


def background_basis(bins: PolarBins) -> torch.Tensor:
    """(sector, ring, number) what the background of a tilt is made of: the same in all azimuths, and stiffer splines
    times cos 2az and sin 2az."""
    frequency = bins.frequency.mean(0)
    few = spline_basis(frequency, float(frequency[0]), float(frequency[-1]), 4)
    uneven = [few * angle[..., None] for angle in (bins.cosine, bins.sine)]
    return torch.cat([background_splines(frequency).expand(len(bins.cosine), -1, -1), *uneven], dim=-1)


def patch_depth(spectra: RingSpectra, slope: torch.Tensor) -> torch.Tensor:
    """(tilt, patch) depth, Å, of a specimen plane through the origin with normal (slope_x, slope_y, 1)."""
    normal = torch.cat([slope, slope.new_ones(1)])
    return plane_depth(spectra.rotations @ (normal / normal.norm()), 0.0, spectra.position)


def ring_pattern(
    spectra: RingSpectra, frequency: torch.Tensor, defocus: torch.Tensor, phase_shift: float = 0.0
) -> tuple[torch.Tensor, torch.Tensor]:
    """- c(k) cos 2 chi, c of the finite patch, and its derivative by defocus (1/Å) with c held; arguments broadcast.

    phase_shift in degrees. The derivative by it, in radians, is that by defocus over π λ k².
    """
    if defocus.device.type != "cpu":
        return ring_pattern_plain(spectra, frequency, defocus, phase_shift)
    wavelength, zero = electron_wavelength(spectra.optics.voltage), torch.zeros((), dtype=torch.float64)
    rows = defocus.broadcast_to(torch.broadcast_shapes(frequency.shape, defocus.shape))
    shape, rows = rows.shape, rows.reshape(-1, frequency.numel()).contiguous()
    k = frequency.flatten()
    factors = [
        2 * math.pi * wavelength * k**2,
        2 * ctf_phase(k, zero, spectra.optics, phase_shift),
        2**0.5 * wavelength * k / spectra.pixel_size,
    ]
    pattern, slope = torch.empty_like(rows), torch.empty_like(rows)
    arrays = [a.numpy() for a in (*factors, rows, window_correlation(spectra.layout), pattern, slope)]
    fill_pattern(*arrays)
    return pattern.reshape(shape), slope.reshape(shape)


def ring_pattern_plain(
    spectra: RingSpectra, frequency: torch.Tensor, defocus: torch.Tensor, phase_shift: float = 0.0
) -> tuple[torch.Tensor, torch.Tensor]:
    """Plain twin of `ring_pattern`, on any device."""
    wavelength = electron_wavelength(spectra.optics.voltage)
    twice = 2 * ctf_phase(frequency, defocus, spectra.optics, phase_shift)
    lag = 2 * wavelength * frequency * defocus / spectra.pixel_size
    contrast = window_coherence(spectra.layout, lag)
    return -contrast * torch.cos(twice), contrast * 2 * math.pi * wavelength * frequency**2 * torch.sin(twice)


def thickness_contrast(
    frequency: torch.Tensor, tilt_angle: torch.Tensor, thickness: float, voltage: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """sinc(λ k² t / cos θ) of a slab of thickness t (Å), and its derivative by log t; both (tilt, ring).

    McMullan et al. (2015) saw it in the rings of thick ice; CTFFIND5 (Elferich et al. 2024) fits it to one image.
    """
    path = thickness / torch.cos(torch.deg2rad(tilt_angle))[:, None]
    phase = math.pi * electron_wavelength(voltage) * frequency**2 * path
    value = torch.sinc(phase / math.pi)
    return value, torch.cos(phase) - value


def depth_spread_loss(frequency: torch.Tensor, tilt_angle: torch.Tensor, spread: float, voltage: float) -> torch.Tensor:
    """(tilt, ring) contrast left where depth varies with sd spread · tan(tilt) (Å) within a patch."""
    sd = spread * torch.tan(torch.deg2rad(tilt_angle)).abs()[:, None]
    phase = 2 * math.pi * electron_wavelength(voltage) * frequency**2 * sd
    return torch.exp(-0.5 * phase**2)


def fit_background(power: torch.Tensor, weight: torch.Tensor, basis: torch.Tensor) -> torch.Tensor:
    """Log of the smooth background of exponentially distributed powers: Fisher scoring of Whittle's likelihood.

    power and weight (batch, point), basis (point, number). Gives (batch, point).
    """
    mean = (power * weight).sum(-1) / weight.sum(-1).clamp_min(1e-12)
    flat = torch.linalg.lstsq(basis, basis.new_ones(len(basis), 1)).solution[:, 0]
    coefficients = mean.clamp_min(1e-30).log()[:, None] * flat
    normal = torch.einsum("pa,bp,pc->bac", basis, weight, basis)
    normal = normal + 1e-8 * normal.diagonal(dim1=-2, dim2=-1).mean(-1)[:, None, None].clamp_min(1e-12) * torch.eye(
        basis.shape[1], dtype=basis.dtype, device=basis.device
    )
    for _ in range(12):
        surprise = power * torch.exp(-(coefficients @ basis.T).clamp(-60, 60)) - 1
        step = torch.linalg.solve(normal, torch.einsum("pa,bp->ba", basis, weight * surprise.clamp(max=5)))
        coefficients = coefficients + step.clamp(-2, 2)
    return coefficients @ basis.T
