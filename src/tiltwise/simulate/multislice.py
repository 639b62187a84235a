"""The reference for linear imaging: an electron wave that passes through the specimen slice by slice.

The beam is followed as it flies: from the gun downwards, through falling physical height, ψ ← F⁻¹[P F(ψ exp(iφ))] with
P = exp(-iπ λ k² dz) for each slice (Cowley & Moodie 1957; Kirkland 2010). The lens then looks back up at the plane in
focus, which for a weak (underfocused) lens lies above the specimen, at the height of the defocus. Only `heights_of`
knows on which side of the specimen's z axis the gun stands; nothing here uses the defocus of a depth.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from scipy.spatial.transform import Rotation

from tiltwise.data.tilt_series import TiltSeries
from tiltwise.ops.ctf import electron_wavelength
from tiltwise.ops.fourier import crop_spectrum, frequency_norm
from tiltwise.ops.geometry import project_points, tilt_rotations
from tiltwise.ops.point_projection import project_points_to_slabs
from tiltwise.params.microscope import LensParams
from tiltwise.simulate.microscope import interaction_parameter
from tiltwise.simulate.potential import Scatterer
from tiltwise.simulate.scene import Population
from tiltwise.simulate.transfer import spatial_envelope, temporal_envelope

_FINER = 2  # the wave's grid is so many times finer than the image's
_BAND = 2 / 3  # of the Nyquist frequency of the wave's grid: what lies beyond would fold back in a product
_ANGSTROM_PER_MM = 1e7


def multislice_image(
    populations: Sequence[Population],
    series: TiltSeries,
    tilt: int,
    lens: LensParams,
    *,
    slice_thickness: float = 20.0,
) -> torch.Tensor:
    """(y, x) intensity, 1 in the empty beam, of one tilt of bodies without ice, damage, motion or noise.

    The field is periodic. Beam tilt is left out. For fields of some hundred pixels.
    """
    pixel_size = series.pixel_size / _FINER
    shape = tuple(_FINER * n for n in series.image_shape)
    slices = Slices.of(populations, series, tilt, slice_thickness)
    wave = exit_wave(slices, lens, shape, pixel_size)
    frequency, azimuth = _plane(shape, pixel_size)
    u, v, angle = (float(a[tilt]) for a in (series.ctf.defocus_u, series.ctf.defocus_v, series.ctf.astigmatism_angle))
    in_focus = (u + v) / 2 + (u - v) / 2 * torch.cos(2 * (azimuth - math.radians(angle)))  # height of the plane seen
    wavelength = electron_wavelength(lens.voltage)
    back_up = math.pi * wavelength * frequency**2 * (in_focus - float(slices.heights[-1]))
    sphere = 0.5 * math.pi * wavelength**3 * lens.spherical_aberration * _ANGSTROM_PER_MM * frequency**4
    plate = torch.where(frequency > 0, math.radians(float(series.ctf.phase_shift[tilt])), 0.0)
    envelope = temporal_envelope(frequency, lens) * spatial_envelope(frequency, (u + v) / 2, lens)
    image = torch.fft.ifft2(torch.fft.fft2(wave) * torch.polar(envelope.double(), back_up - sphere + plate)).abs() ** 2
    spectrum = crop_spectrum(torch.fft.rfft2(image), shape, series.image_shape)
    return (torch.fft.irfft2(spectrum, s=series.image_shape) / _FINER**2).float()


def exit_wave(slices: "Slices", lens: LensParams, shape: tuple[int, int], pixel_size: float) -> torch.Tensor:
    """(y, x) complex wave at the middle of the last slice, on a grid of square shape.

    Amplitude contrast w is the imaginary part of the potential: φ becomes φ exp(i asin w).
    """
    frequency, _ = _plane(shape, pixel_size)
    kept = (frequency < _BAND / (2 * pixel_size)).double()
    fly = torch.polar(kept, -math.pi * electron_wavelength(lens.voltage) * slices.thickness * frequency**2)
    absorption = lens.amplitude_contrast
    wave = torch.ones(shape, dtype=torch.complex128)
    for number in range(len(slices.heights)):
        if number:
            wave = torch.fft.ifft2(torch.fft.fft2(wave) * fly)
        phase = slices.phase(number, shape[0], pixel_size, lens.voltage)
        if phase is not None:
            wave = wave * torch.polar(torch.exp(-absorption * phase), math.sqrt(1 - absorption**2) * phase)
    return torch.fft.ifft2(torch.fft.fft2(wave) * kept)


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Slices:
    """The specimen cut across the beam."""

    thickness: float
    """Å."""
    heights: np.ndarray
    """(slice,) of the middles, falling from the gun down, Å."""
    bodies: tuple[tuple[Scatterer, np.ndarray, np.ndarray, np.ndarray], ...]
    """For each population its form factors, the x, y (point, 2) Å, weights (point, 2) and slices (point,) of all
    points."""

    @staticmethod
    def of(populations: Sequence[Population], series: TiltSeries, tilt: int, thickness: float) -> "Slices":
        """The slices of one tilt."""
        flown = [_points_in_flight(population, series, tilt) for population in populations]
        half = math.ceil(max(float(np.abs(points[:, 2]).max()) for points in flown) / thickness)
        bodies = []
        for population, points in zip(populations, flown, strict=True):
            weight = np.tile(population.scatterer.weight, (len(population.position), 1))
            number = np.rint(points[:, 2] / thickness).astype(int) + half
            bodies.append((population.scatterer, points[:, :2], weight, number))
        heights = (half - np.arange(2 * half + 1)) * thickness
        return Slices(thickness=thickness, heights=heights, bodies=tuple(bodies))

    def phase(self, number: int, size: int, pixel_size: float, voltage: float) -> torch.Tensor | None:
        """(y, x) rad, float64, of one slice; None where it is empty."""
        total = None
        for scatterer, place, weight, slices in self.bodies:
            here = np.flatnonzero(slices == number)
            if len(here):
                part = _projected_potential(scatterer, place[here], weight[here], size, pixel_size)
                total = part if total is None else total + part
        return None if total is None else total.double() * interaction_parameter(voltage)


def heights_of(series: TiltSeries, depth: np.ndarray) -> np.ndarray:
    """Å towards the gun. Handedness +1: the +z of the rotated frame points away from the gun; -1: towards it."""
    return -depth if series.defocus_handedness == 1 else depth


def _points_in_flight(population: Population, series: TiltSeries, tilt: int) -> np.ndarray:
    """(point, 3) x, y from the image centre and the way flown, downwards, from height 0, Å, of all bodies."""
    matrices = tilt_rotations(series.geometry)[tilt : tilt + 1]
    turned = [
        r.apply(population.scatterer.position) + p
        for r, p in zip(population.rotation, population.position, strict=True)
    ]
    place, depth = project_points(
        torch.as_tensor(np.concatenate(turned)), matrices, torch.as_tensor(series.geometry.shift[tilt : tilt + 1])
    )
    return np.concatenate([place[0].numpy(), -heights_of(series, depth[0].numpy())[:, None]], axis=1)


def _projected_potential(
    scatterer: Scatterer, place: np.ndarray, weight: np.ndarray, size: int, pixel_size: float
) -> torch.Tensor:
    """(y, x) V Å of points at place (point, 2) Å; they are spread over a grid twice as fine."""
    fine = pixel_size / 2
    points = np.concatenate([place / fine, np.zeros((len(place), 1))], axis=1)
    turn, offset = Rotation.identity(1).as_matrix(), np.zeros((1, 2))
    image = torch.from_numpy(project_points_to_slabs(points, weight, turn, offset, (1, 1.0), 2 * size)[0, 0])
    along = torch.sinc(torch.fft.fftfreq(size, pixel_size) * fine) ** 2
    half = torch.sinc(torch.fft.rfftfreq(size, pixel_size) * fine) ** 2
    atoms, ice = scatterer.form_factors(frequency_norm((size, size), pixel_size))
    both = crop_spectrum(torch.fft.rfft2(image.movedim(-1, 0)), (2 * size,) * 2, (size,) * 2)
    spectrum = (both[0] * atoms - both[1] * ice) / (along[:, None] * half * pixel_size**2)
    return torch.fft.irfft2(spectrum, s=(size, size))


def _plane(shape: tuple[int, int], pixel_size: float) -> tuple[torch.Tensor, torch.Tensor]:
    """(y, x) length in 1/Å and direction in rad, from x towards y, of the frequencies of fft2."""
    ky = torch.fft.fftfreq(shape[0], pixel_size, dtype=torch.float64)[:, None]
    kx = torch.fft.fftfreq(shape[1], pixel_size, dtype=torch.float64)[None, :]
    return (kx**2 + ky**2).sqrt(), torch.atan2(ky.expand(shape), kx.expand(shape))
