"""The microscope: a specimen of known molecules becomes a stack of counted electrons.

For each tilt the points of each molecule are rotated and projected in slabs of depth; each slab has its own defocus. The
phase φ = σ ∫V dz of the slabs gives, to first order, the contrast 2 φ·CTF (weak phase object), damped by the exposure. The
mean count falls with the path through the ice, exp(-t / (Λ cos θ)); the electrons are counted on a detector with a DQE.
No step is shared with the refinement's central slices: points are rotated, not interpolated volumes.
"""

import math
from dataclasses import dataclass

import numpy as np
import torch
from scipy.fft import next_fast_len
from scipy.spatial.transform import Rotation

from tiltwise.data.particles import Particles
from tiltwise.data.progress import Progress, no_progress
from tiltwise.data.tilt_series import TiltSeries
from tiltwise.ops.ctf import astigmatic_defocus, ctf, electron_wavelength
from tiltwise.ops.exposure import exposure_amplitude
from tiltwise.ops.fourier import frequency_grid_2d
from tiltwise.ops.geometry import plane_depth, project_points, tilt_rotations
from tiltwise.ops.point_projection import project_points_to_slabs
from tiltwise.params.simulate import SimulateParams
from tiltwise.simulate.detector import count_electrons
from tiltwise.simulate.potential import Scatterer

_SLAB_THICKNESS = 80.0  # Å; phase error pi lambda k² dz / 2 within a slab is 0.04 rad at 8 Å
_BATCH = 16  # particles at once
_ICE_SLAB = 400.0  # Å of depth within which the ice shares one defocus; between two of them it is blended
_WATER_DENSITY = 0.0311  # molecules per Å3, amorphous ice of 0.93 g/cm3
_WATER_FORM_FACTOR = 3.04  # Å at k = 0
_ICE_STRUCTURE = 0.05  # structure factor of ice below 1/8 Å; independent molecules would have 1


def image_specimen(
    scatterer: Scatterer,
    series: TiltSeries,
    particles: Particles,
    params: SimulateParams,
    rng: np.random.Generator,
    *,
    progress: Progress = no_progress,
) -> np.ndarray:
    """(tilt, y, x) int16 electron counts of particles in ice, at the geometry, CTF and exposure of `series`."""
    camera = camera_of(scatterer, series, params)
    images = np.empty((series.number, params.image_size, params.image_size), dtype=np.int16)
    for tilt in range(series.number):
        path = params.specimen.thickness / math.cos(math.radians(float(series.geometry.tilt_angle[tilt])))
        contrast = particle_contrast(camera, scatterer, series, particles, tilt)
        contrast += ice_contrast(camera, series, tilt, path, rng)
        expected = float(series.exposure[tilt]) * math.exp(-path / params.mean_free_path)
        image = count_electrons(contrast, expected, camera.pixel, rng)
        images[tilt] = np.clip(np.rint(image), -32768, 32767)
        progress((tilt + 1) / series.number, f"{series.name}: image {tilt + 1} of {series.number}")
    return images


def interaction_parameter(voltage: float) -> float:
    """σ in rad/(V Å): phase of an electron wave per projected potential, γ λ / 47.878 V Å2; 6.526e-4 at 300 kV."""
    gamma = 1 + voltage * 1e3 / 510998.95
    return gamma * electron_wavelength(voltage) / 47.878


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Camera:
    """Grids shared by all images of a series. The physical pixel is half that of the images written."""

    pixel: float
    """Physical pixel, Å."""
    size: int
    """Side of the camera, physical px."""
    frequency: torch.Tensor
    """(y, x, 2) 1/Å of the whole camera."""
    box: int
    """Side of the box in which one particle is imaged, physical px: it holds the molecule and what defocus spreads."""
    box_frequency: torch.Tensor
    """(y, x, 2) 1/Å of the box."""
    form_factors: tuple[torch.Tensor, torch.Tensor]
    """(y, x) of the scatterer's two weights, over the pixel's area and the transform of the point spreading, 1/Å2."""


def camera_of(scatterer: Scatterer, series: TiltSeries, params: SimulateParams) -> Camera:
    """The grids for a scatterer, a series and the parameters."""
    pixel, size = params.pixel_size / 2, 2 * params.image_size
    widest = float(series.ctf.defocus_u.max()) + params.image_size * params.pixel_size / 2
    spread = electron_wavelength(series.optics.voltage) * widest / (2 * params.pixel_size)
    box = 2 * next_fast_len(math.ceil((scatterer.radius + spread) / pixel) + 2)
    grid = frequency_grid_2d((box, box), pixel)
    spreading = (torch.sinc(grid * pixel) ** 2).prod(dim=-1) * pixel**2
    return Camera(
        pixel=pixel,
        size=size,
        frequency=frequency_grid_2d((size, size), pixel),
        box=box,
        box_frequency=grid,
        form_factors=tuple(f / spreading for f in scatterer.form_factors(grid.norm(dim=-1))),
    )


def particle_contrast(
    camera: Camera, scatterer: Scatterer, series: TiltSeries, particles: Particles, tilt: int
) -> torch.Tensor:
    """(y, x) contrast of all particles on the physical pixels, relative to the mean; negative where it is dark."""
    matrices = tilt_rotations(series.geometry)[tilt : tilt + 1]
    shift = torch.as_tensor(series.geometry.shift[tilt : tilt + 1])
    place, depth = project_points(torch.as_tensor(particles.position), matrices, shift)
    place, depth = place[0].numpy() / camera.pixel, depth[0].numpy()
    turn = (Rotation.from_matrix(matrices[0].numpy()) * particles.rotation).as_matrix()
    pixel = np.rint(place).astype(int)
    border = camera.box
    field = torch.zeros(camera.size + 2 * border, camera.size + 2 * border)
    corner = pixel + camera.size // 2 - camera.box // 2 + border
    inside = np.flatnonzero(((corner >= 0) & (corner + camera.box <= field.shape[0])).all(axis=1))
    for start in range(0, len(inside), _BATCH):
        batch = inside[start : start + _BATCH]
        projected = _project_molecule(camera, scatterer, turn[batch], (place - pixel)[batch])
        slab_depth = torch.as_tensor(depth[batch, None] + _slab_centres(scatterer), dtype=torch.float32)
        spectrum = (projected * contrast_transfer(camera.box_frequency, series, tilt, slab_depth)).sum(dim=1)
        boxes = torch.fft.irfft2(spectrum, s=(camera.box, camera.box))
        for box, (x, y) in zip(boxes, corner[batch], strict=True):
            field[y : y + camera.box, x : x + camera.box] += box
    return field[border:-border, border:-border]


def contrast_transfer(frequency: torch.Tensor, series: TiltSeries, tilt: int, depth: torch.Tensor) -> torch.Tensor:
    """(..., y, x) contrast per V Å of projected potential of matter at depth (...) Å of one tilt: 2 σ q CTF.

    A layer nearer the gun has travelled further out of focus's plane: its underfocus is smaller by its height. The gun is
    towards -z of the rotated frame for handedness +1, towards +z for -1 (docs/conventions.md).
    """
    height_towards_gun = -series.defocus_handedness * depth[..., None, None]
    u, v, angle, phase_shift, pre, own = (
        torch.as_tensor(float(a[tilt]), dtype=torch.float32)
        for a in (
            series.ctf.defocus_u,
            series.ctf.defocus_v,
            series.ctf.astigmatism_angle,
            series.ctf.phase_shift,
            series.pre_exposure,
            series.exposure,
        )
    )
    radius, azimuth = frequency.norm(dim=-1), torch.atan2(frequency[..., 1], frequency[..., 0])
    defocus = astigmatic_defocus(azimuth, u, v, angle) - height_towards_gun
    damage = exposure_amplitude(radius, pre, own, series.optics.voltage)
    return 2 * interaction_parameter(series.optics.voltage) * damage * ctf(radius, defocus, series.optics, phase_shift)


def ice_contrast(camera: Camera, series: TiltSeries, tilt: int, path: float, rng: np.random.Generator) -> torch.Tensor:
    """(y, x) contrast of the ice itself: a Gaussian random field, drawn anew for each image as the beam moves water.

    Its phase has the power n t (γ λ f)² S(k) per area, t the path through the ice; its defocus follows the tilted plane.
    """
    shape = (camera.size, camera.size)
    white = torch.from_numpy(rng.standard_normal(shape, dtype=np.float32)) / camera.pixel
    amplitude = 47.878 * _WATER_FORM_FACTOR * math.sqrt(_WATER_DENSITY * path * _ICE_STRUCTURE)  # V Å
    spectrum = torch.fft.rfft2(white) * amplitude
    depth = _depth_of_plane(camera, series, tilt)
    first = math.floor(float(depth.min()) / _ICE_SLAB)
    result = torch.zeros(shape)
    for step in range(first, math.ceil(float(depth.max()) / _ICE_SLAB) + 1):
        share = (1 - (depth / _ICE_SLAB - step).abs()).clamp_min(0)
        transfer = contrast_transfer(camera.frequency, series, tilt, torch.tensor(step * _ICE_SLAB))
        result += share * torch.fft.irfft2(spectrum * transfer, s=shape)
    return result


def _depth_of_plane(camera: Camera, series: TiltSeries, tilt: int) -> torch.Tensor:
    """(y, x) depth, Å, at which each physical pixel sees the middle plane of the ice."""
    axis = (torch.arange(camera.size, dtype=torch.float64) - camera.size // 2) * camera.pixel
    position = torch.stack(torch.meshgrid(axis, axis, indexing="xy"), dim=-1)
    normal = tilt_rotations(series.geometry)[tilt : tilt + 1, :, 2]
    return plane_depth(normal, 0.0, (position - torch.as_tensor(series.geometry.shift[tilt]))[None])[0].float()


def _slab_centres(scatterer: Scatterer) -> np.ndarray:
    """(slab,) depth of the slabs into which the molecule is cut, from its centre, Å."""
    number = math.ceil(2 * scatterer.radius / _SLAB_THICKNESS)
    return (np.arange(number) - (number - 1) / 2) * _SLAB_THICKNESS


def _project_molecule(camera: Camera, scatterer: Scatterer, turn: np.ndarray, offset: np.ndarray) -> torch.Tensor:
    """(particle, slab, y, x) transform of the projected potential, V Å, of molecules `offset` px off the box centre.

    The transform's origin is the corner of the box, as rfft2 has it; the molecule lies at box // 2.
    """
    slabs = (len(_slab_centres(scatterer)), _SLAB_THICKNESS / camera.pixel)
    points = scatterer.position / camera.pixel
    images = project_points_to_slabs(points, scatterer.weight, turn, offset, slabs, camera.box)
    spectra = torch.fft.rfft2(torch.from_numpy(images).movedim(-1, 0))
    return spectra[0] * camera.form_factors[0] - spectra[1] * camera.form_factors[1]
