"""The microscope: a specimen of known molecules becomes a stack of counted electrons.

For each tilt the points of each molecule are rotated and projected in slabs of depth; each slab has its own defocus.
The phase φ = σ ∫V dz of the slabs gives, to first order, the contrast 2 φ·CTF (weak phase object), damped by the
exposure. The mean count falls with the path through the ice, exp(-t / (Λ cos θ)); the electrons are counted on a
detector with a DQE. No step is shared with the refinement's central slices: points are rotated, not interpolated
volumes.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from scipy.fft import next_fast_len
from scipy.spatial.transform import Rotation

from tiltwise.data.particles import Particles
from tiltwise.data.progress import Progress, no_progress
from tiltwise.data.tilt_series import TiltSeries
from tiltwise.ops.ctf import astigmatic_defocus, ctf_phase, electron_wavelength
from tiltwise.ops.exposure import exposure_amplitude
from tiltwise.ops.fourier import crop_spectrum, frequency_grid_2d
from tiltwise.ops.geometry import plane_depth, project_points, tilt_rotations
from tiltwise.ops.point_projection import project_points_to_slabs
from tiltwise.params.simulate import SimulateParams
from tiltwise.simulate.detector import count_electrons
from tiltwise.simulate.potential import Scatterer

_SLAB_PHASE = 0.1  # rad; most by which chi of a point may differ from that of its slab, at the finest frequency
_FINER = 2  # points are spread over pixels so many times finer than the images'
_BATCH = 4  # particles at once
_ICE_LAYER = 800.0  # Å of depth between two layers of ice of one defocus; the ice between is a blend of them
_WATER_DENSITY = 0.0311  # molecules per Å3, amorphous ice of 0.93 g/cm3
_WATER_FORM_FACTOR = 3.04  # Å at k = 0
_ICE_STRUCTURE = 0.05  # structure factor of ice below 1/8 Å; independent molecules would have 1


def image_specimen(
    specimen: Sequence[tuple[Scatterer, Particles]],
    series: TiltSeries,
    params: SimulateParams,
    rng: np.random.Generator,
    *,
    progress: Progress = no_progress,
) -> np.ndarray:
    """(tilt, y, x) int16 electron counts of molecules and their copies in ice, at the geometry, CTF and exposure of
    `series`."""
    optics = [optics_of(scatterer, series, params) for scatterer, _ in specimen]
    images = np.empty((series.number, params.image_size, params.image_size), dtype=np.int16)
    for tilt in range(series.number):
        path = params.specimen.thickness / math.cos(math.radians(float(series.geometry.tilt_angle[tilt])))
        copies = zip(optics, specimen, strict=True)
        contrast = sum(particle_contrast(o, scatterer, series, group, tilt) for o, (scatterer, group) in copies)
        contrast = contrast + ice_contrast(optics[0], series, tilt, path, rng)
        expected = float(series.exposure[tilt]) * math.exp(-path / params.mean_free_path)
        image = count_electrons(contrast, expected, params.pixel_size, rng)
        images[tilt] = np.clip(np.rint(image), -32768, 32767)
        progress((tilt + 1) / series.number, f"{series.name}: image {tilt + 1} of {series.number}")
    return images


def interaction_parameter(voltage: float) -> float:
    """σ in rad/(V Å): phase of an electron wave per projected potential, γ λ / 47.878 V Å2; 6.526e-4 at 300 kV."""
    gamma = 1 + voltage * 1e3 / 510998.95
    return gamma * electron_wavelength(voltage) / 47.878


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Grid:
    """Frequencies of the transform of a square image."""

    size: int
    """Side, px."""
    radius: torch.Tensor
    """(y, x) length of the frequency, 1/Å."""
    azimuth: torch.Tensor
    """(y, x) its direction, rad from x towards y."""

    @staticmethod
    def of(size: int, pixel_size: float) -> "Grid":
        frequency = frequency_grid_2d((size, size), pixel_size)
        azimuth = torch.atan2(frequency[..., 1], frequency[..., 0])
        return Grid(size=size, radius=frequency.norm(dim=-1), azimuth=azimuth)


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Optics2D:
    """Grids shared by all images of a series, and how a molecule is cut up to be imaged."""

    pixel_size: float
    """Å, of the images written."""
    field: Grid
    """The whole image."""
    box: Grid
    """The box in which one particle is imaged: it holds the molecule and what defocus spreads."""
    form_factors: tuple[torch.Tensor, torch.Tensor]
    """(y, x) of the scatterer's two weights in the box, over the pixel's area and the transform of the point
    spreading, 1/Å2."""
    slabs: int
    """Number of slabs of depth into which a particle is cut."""
    slab_thickness: float
    """Å."""
    b_factor: float
    """Å2, of the blur of every image."""


def optics_of(scatterer: Scatterer, series: TiltSeries, params: SimulateParams) -> Optics2D:
    """The grids for a scatterer, a series and the parameters."""
    pixel_size, wavelength = params.pixel_size, electron_wavelength(series.optics.voltage)
    finest = 1 / (2 * pixel_size)
    widest = float(series.ctf.defocus_u.max()) + params.image_size * pixel_size / 2
    box = 2 * next_fast_len(math.ceil((scatterer.radius + wavelength * widest * finest) / pixel_size) + 2)
    grid = Grid.of(box, pixel_size)
    fine = pixel_size / _FINER
    spreading = (torch.sinc(frequency_grid_2d((box, box), pixel_size) * fine) ** 2).prod(dim=-1) * pixel_size**2
    slabs = math.ceil(2 * scatterer.radius * math.pi * wavelength * finest**2 / (2 * _SLAB_PHASE))
    return Optics2D(
        pixel_size=pixel_size,
        field=Grid.of(params.image_size, pixel_size),
        box=grid,
        form_factors=tuple(f / spreading for f in scatterer.form_factors(grid.radius)),
        slabs=slabs,
        slab_thickness=2 * scatterer.radius / slabs,
        b_factor=params.motion_b_factor,
    )


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Transfer:
    """Contrast per V Å of projected potential of one tilt, for matter at any depth: 2 σ q CTF."""

    amplitude: torch.Tensor
    """(y, x) 2 σ q, 1/(V Å): twice the interaction parameter times what exposure and blur leave of the signal."""
    phase: torch.Tensor
    """(y, x) chi at depth 0, rad."""
    phase_per_height: torch.Tensor
    """(y, x) π λ k², rad/Å: by how much chi falls for each Å towards the gun."""
    gun: int
    """-1 if the gun is towards -z of the rotated frame (handedness +1), +1 if it is towards +z
    (docs/conventions.md)."""

    def at(self, depth: torch.Tensor) -> torch.Tensor:
        """(..., y, x) for depth (...) Å. A layer nearer the gun has less underfocus, by its height."""
        height = self.gun * depth[..., None, None]
        return -self.amplitude * torch.sin(self.phase - self.phase_per_height * height)


def transfer_of_tilt(
    grid: Grid, series: TiltSeries, tilt: int, b_factor: float = 0.0, *, damaged: bool = True
) -> Transfer:
    """The transfer of one tilt on a grid, with an envelope exp(-B k² / 4); `damaged` by the exposure or as it was."""
    names = ("defocus_u", "defocus_v", "astigmatism_angle", "phase_shift")
    u, v, angle, phase_shift = (torch.as_tensor(float(getattr(series.ctf, n)[tilt])) for n in names)
    pre, own = (torch.as_tensor(float(a[tilt])) for a in (series.pre_exposure, series.exposure))
    damage = exposure_amplitude(grid.radius, pre, own, series.optics.voltage) if damaged else 1.0
    envelope = torch.exp(-0.25 * b_factor * grid.radius**2)
    defocus = astigmatic_defocus(grid.azimuth, u, v, angle)
    return Transfer(
        amplitude=2 * interaction_parameter(series.optics.voltage) * damage * envelope,
        phase=ctf_phase(grid.radius, defocus, series.optics, phase_shift),
        phase_per_height=math.pi * electron_wavelength(series.optics.voltage) * grid.radius**2,
        gun=-series.defocus_handedness,
    )


def particle_contrast(
    optics: Optics2D, scatterer: Scatterer, series: TiltSeries, particles: Particles, tilt: int
) -> torch.Tensor:
    """(y, x) contrast of all particles in one image, relative to the mean; negative where it is dark."""
    matrices = tilt_rotations(series.geometry)[tilt : tilt + 1]
    shift = torch.as_tensor(series.geometry.shift[tilt : tilt + 1])
    place, depth = project_points(torch.as_tensor(particles.position), matrices, shift)
    place, depth = place[0].numpy() / optics.pixel_size, depth[0].float()
    turn = (Rotation.from_matrix(matrices[0].numpy()) * particles.rotation).as_matrix()
    pixel, border = np.rint(place).astype(int), optics.box.size
    field = torch.zeros(optics.field.size + 2 * border, optics.field.size + 2 * border)
    corner = pixel + optics.field.size // 2 - optics.box.size // 2 + border
    inside = np.flatnonzero(((corner > 0) & (corner + optics.box.size < len(field))).all(axis=1))  # those in sight
    transfer = transfer_of_tilt(optics.box, series, tilt, optics.b_factor)
    slab_depth = (torch.arange(optics.slabs) - (optics.slabs - 1) / 2) * optics.slab_thickness
    for start in range(0, len(inside), _BATCH):
        batch = inside[start : start + _BATCH]
        potential = _project_molecule(optics, scatterer, turn[batch], (place - pixel)[batch])
        spectrum = (potential * transfer.at(depth[batch, None] + slab_depth)).sum(dim=1)
        boxes = torch.fft.irfft2(spectrum, s=(optics.box.size,) * 2)
        for box, (x, y) in zip(boxes, corner[batch], strict=True):
            field[y : y + optics.box.size, x : x + optics.box.size] += box
    return field[border:-border, border:-border]


def ice_contrast(
    optics: Optics2D, series: TiltSeries, tilt: int, path: float, rng: np.random.Generator
) -> torch.Tensor:
    """(y, x) contrast of the ice itself: a Gaussian random field, drawn anew for each image as the beam moves water.

    Exposure moves ice but does not wear it out: it is not damped as the molecules are.

    Its phase has the power n t (γ λ f)² S(k) per area, t the path through the ice; its defocus follows the tilted
    plane.
    """
    shape = (optics.field.size,) * 2
    white = torch.from_numpy(rng.standard_normal(shape, dtype=np.float32)) / optics.pixel_size
    amplitude = 47.878 * _WATER_FORM_FACTOR * math.sqrt(_WATER_DENSITY * path * _ICE_STRUCTURE)  # V Å2
    spectrum = torch.fft.rfft2(white) * amplitude
    transfer = transfer_of_tilt(optics.field, series, tilt, optics.b_factor, damaged=False)
    depth = _depth_of_plane(optics, series, tilt) / _ICE_LAYER
    result = torch.zeros(shape)
    for layer in range(math.floor(float(depth.min())), math.ceil(float(depth.max())) + 1):
        image = torch.fft.irfft2(spectrum * transfer.at(torch.tensor(layer * _ICE_LAYER)), s=shape)
        result.addcmul_((1 - (depth - layer).abs()).clamp_min(0), image)
    return result


def _depth_of_plane(optics: Optics2D, series: TiltSeries, tilt: int) -> torch.Tensor:
    """(y, x) depth, Å, at which each pixel sees the middle plane of the ice."""
    axis = (torch.arange(optics.field.size) - optics.field.size // 2) * optics.pixel_size
    position = torch.stack(torch.meshgrid(axis, axis, indexing="xy"), dim=-1)
    normal = tilt_rotations(series.geometry)[tilt : tilt + 1, :, 2].float()
    shift = torch.as_tensor(series.geometry.shift[tilt], dtype=torch.float32)
    return plane_depth(normal, 0.0, (position - shift)[None])[0]


def _project_molecule(optics: Optics2D, scatterer: Scatterer, turn: np.ndarray, offset: np.ndarray) -> torch.Tensor:
    """(particle, slab, y, x) transform of the projected potential, V Å, of molecules `offset` px off the box centre.

    Points are spread over a grid _FINER times as fine, so that its aliases lie outside the band that is kept. The
    transform's origin is the corner of the box, as rfft2 has it; the molecule lies at the centre, box // 2.
    """
    fine = optics.pixel_size / _FINER
    shape = (optics.box.size,) * 2
    fine_shape = (_FINER * optics.box.size,) * 2
    slabs = (optics.slabs, optics.slab_thickness / fine)
    points, weight = scatterer.position / fine, scatterer.weight
    images = project_points_to_slabs(points, weight, turn, _FINER * offset, slabs, fine_shape[0])
    spectra = crop_spectrum(torch.fft.rfft2(torch.from_numpy(images).movedim(-1, 0)), fine_shape, shape)
    return spectra[0] * optics.form_factors[0] - spectra[1] * optics.form_factors[1]
