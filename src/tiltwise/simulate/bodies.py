"""Rigid bodies of a scene as one tilt image, or its frames, show them: each in a box of its own, moved exactly.

The points of a body are rotated and projected in slabs of depth, each slab with its own defocus. The sum of the slabs'
transforms is multiplied, frame by frame, by what exposure has left of it and by exp(-2πi k·d) for a displacement d.
"""

import math
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from scipy.fft import next_fast_len
from scipy.spatial.transform import Rotation

from tiltwise.data.optics import Optics
from tiltwise.data.tilt_series import TiltSeries
from tiltwise.ops.ctf import electron_wavelength
from tiltwise.ops.deformation import sample_displacement, warp_displacement
from tiltwise.ops.exposure import exposure_amplitude
from tiltwise.ops.fourier import crop_spectrum, frequency_grid_2d
from tiltwise.ops.geometry import project_points, tilt_rotations
from tiltwise.ops.motion.displacement import frame_displacement
from tiltwise.ops.point_projection import project_points_to_slabs
from tiltwise.params.microscope import MicroscopeParams
from tiltwise.simulate.disturbances import Disturbances
from tiltwise.simulate.microscope import Grid, Transfer, interaction_parameter
from tiltwise.simulate.potential import Scatterer
from tiltwise.simulate.scene import Population
from tiltwise.simulate.transfer import coherent_transfer

_SLAB_PHASE = 0.1  # rad; most by which chi of a point may differ from that of its slab, at the finest frequency
_FINER = 2  # points are spread over pixels so many times finer than the images'
_TAIL = 24.0  # Å beyond the outermost point that are kept: what rings on changes but the last tenth of the band
_BATCH_POINTS = 40_000_000  # numbers in one batch of slabs
_STRONG = ("gold",)  # what shifts the phase by more than a radian: the wave behind it is not linear in the potential
_GOLD_LOSS = 0.234  # -ln of the amplitude per rad of phase: mean free path 129 Å, 25.4 V over ice, at 300 kV
_ENDURING = ("gold", "contamination")  # what exposure does not damage: metal, and ice in crystals


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class BodyGrids:
    """How one kind of body is cut up and imaged."""

    size: int
    """Side, px, of the grid that holds the body's potential alone; half that of the grid of its points."""
    factors: tuple[torch.Tensor, torch.Tensor]
    """(y, x) form factors of the two weights there, over the pixel's area and the transform of the spreading, 1/Å²."""
    box: Grid
    """The grid that also holds what defocus spreads."""
    slabs: int
    """Number of slabs."""
    slab_thickness: float
    """Å."""

    @property
    def slab_depth(self) -> torch.Tensor:
        """(slab,) depth of each slab's middle from the body's centre, Å."""
        return (torch.arange(self.slabs) - (self.slabs - 1) / 2) * self.slab_thickness


def body_grids(scatterer: Scatterer, series: TiltSeries, tilt: int, pixel_size: float) -> BodyGrids:
    """The grids for bodies anywhere in the field of one tilt."""
    wavelength, finest = electron_wavelength(series.optics.voltage), 1 / (2 * pixel_size)
    reach = math.tan(math.radians(min(abs(float(series.geometry.tilt_angle[tilt])), 80.0)))
    widest = float(series.ctf.defocus_u[tilt]) + reach * max(series.image_shape) * pixel_size / 2
    radius = scatterer.radius + _TAIL
    spread = wavelength * widest * finest + 2 * math.sqrt(wavelength * widest)  # of geometric optics, and its fringe
    slabs = max(1, math.ceil(2 * scatterer.radius * math.pi * wavelength * finest**2 / (2 * _SLAB_PHASE)))
    size = 2 * next_fast_len(math.ceil(radius / pixel_size) + 1)
    spreading = torch.sinc(frequency_grid_2d((size, size), pixel_size) * pixel_size / _FINER) ** 2
    factors = scatterer.form_factors(Grid.of(size, pixel_size).radius)
    return BodyGrids(
        size=size,
        factors=tuple(f / (spreading.prod(dim=-1) * pixel_size**2) for f in factors),
        box=Grid.of(2 * next_fast_len(math.ceil((radius + spread) / pixel_size) + 2), pixel_size),
        slabs=slabs,
        slab_thickness=max(2 * scatterer.radius / slabs, 1e-3),
    )


def add_population(
    fields: torch.Tensor,
    population: Population,
    series: TiltSeries,
    tilt: int,
    params: MicroscopeParams,
    disturbances: Disturbances,
) -> None:
    """Add the contrast of all bodies of a population that are in sight of a tilt to fields (frame, y, x)."""
    grids = body_grids(population.scatterer, series, tilt, params.camera.pixel_size)
    place, depth, rotation = _lie(population, series, tilt, disturbances)
    pixel = np.rint(place / params.camera.pixel_size).astype(int)
    corner = pixel + np.array(fields.shape[:0:-1]) // 2 - grids.box.size // 2
    in_sight = np.flatnonzero(((corner + grids.box.size > 0) & (corner < fields.shape[:0:-1])).all(axis=1))
    damage = frame_amplitude(grids.box, series, tilt, params, disturbances, damaged=population.name not in _ENDURING)
    batch = max(1, _BATCH_POINTS // (grids.slabs * (_FINER * grids.size) ** 2 * 2 + grids.slabs * grids.box.size**2))
    for start in range(0, len(in_sight), batch):
        some = in_sight[start : start + batch]
        offset = place[some] / params.camera.pixel_size - pixel[some]
        potential = project_body(grids, population.scatterer, rotation[some], offset, params.camera.pixel_size)
        lens = partial(coherent_transfer, grids.box, params.camera.pixel_size, series, tilt, params.lens)
        imaged = strong_contrast if population.name in _STRONG else weak_contrast
        spectra = torch.stack(
            [
                imaged(pad_to_box(grids, slabs), lens(float(centre)), float(centre) + grids.slab_depth, series.optics)
                for slabs, centre in zip(potential, depth[some], strict=True)
            ]
        )
        moves = None if disturbances.frames is None else frame_displacement(disturbances.frames, tilt, place[some])
        for frame in range(len(fields)):
            moved = spectra * damage[frame]
            if moves is not None:
                moved = moved * shift_factor(grids.box.size, params.camera.pixel_size, moves[frame])
            for image, (x, y) in zip(torch.fft.irfft2(moved, s=(grids.box.size,) * 2), corner[some], strict=True):
                _add_box(fields[frame], image, int(x), int(y))


def frame_amplitude(
    grid: Grid, series: TiltSeries, tilt: int, params: MicroscopeParams, disturbances: Disturbances, *, damaged: bool
) -> torch.Tensor:
    """(frame, y, x) what exposure so far, drift during the frame and other blur leave of a signal."""
    own = torch.as_tensor(disturbances.frame_exposures(series, tilt), dtype=torch.float32)[:, None, None]
    before = float(series.pre_exposure[tilt]) + own.cumsum(dim=0) - own
    blur = torch.exp(-0.25 * params.motion.b_factor * grid.radius**2).expand(len(own), -1, -1)
    if disturbances.frames is not None:
        frequency = frequency_grid_2d((grid.size, grid.size), params.camera.pixel_size)
        drift = torch.as_tensor(disturbances.frames.blur[tilt], dtype=torch.float32)
        blur = blur * torch.sinc(torch.einsum("yxc,fc->fyx", frequency, drift))
    return blur * exposure_amplitude(grid.radius, before, own, series.optics.voltage) if damaged else blur


def project_body(
    grids: BodyGrids, scatterer: Scatterer, rotation: np.ndarray, offset: np.ndarray, pixel_size: float
) -> torch.Tensor:
    """(particle, slab, y, x) projected potential, V Å, of bodies turned by rotation (particle, 3, 3), offset (particle,
    2) px off the middle pixel, on the grid that holds the body alone."""
    fine, size = pixel_size / _FINER, grids.size
    slabs = (grids.slabs, grids.slab_thickness / fine)
    images = project_points_to_slabs(
        scatterer.position / fine, scatterer.weight, rotation, _FINER * offset, slabs, _FINER * size
    )
    both = torch.fft.rfft2(torch.from_numpy(images).movedim(-1, 0))
    atoms, ice = crop_spectrum(both, (_FINER * size,) * 2, (size,) * 2)
    return torch.fft.irfft2(atoms * grids.factors[0] - ice * grids.factors[1], s=(size, size))


def _lie(
    population: Population, series: TiltSeries, tilt: int, disturbances: Disturbances
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Image position (particle, 2), depth (particle,), both Å, and rotation (particle, 3, 3) into the image frame."""
    matrices = tilt_rotations(series.geometry)[tilt : tilt + 1]
    position = np.asarray(population.position, dtype=float)
    if disturbances.deformation is not None:
        middle = float(series.pre_exposure[tilt] + series.exposure[tilt] / 2)
        position = position + sample_displacement(disturbances.deformation, position, middle)
    shift = torch.as_tensor(series.geometry.shift[tilt : tilt + 1])
    place, depth = project_points(torch.as_tensor(position), matrices, shift)
    scale = 1.0 if disturbances.deformation is None else float(disturbances.deformation.magnification[tilt])
    seen = place[0].numpy() * scale
    if disturbances.warp is not None:
        seen = seen + warp_displacement(disturbances.warp, tilt, seen)
    turn = (Rotation.from_matrix(matrices[0].numpy()) * population.rotation).as_matrix()
    return seen, depth[0].numpy(), turn


def pad_to_box(grids: BodyGrids, slabs: torch.Tensor) -> torch.Tensor:
    """(slab, y, x) the grid of a body alone in the middle of its box; middle pixel onto middle pixel."""
    size, small = grids.box.size, grids.size
    low = size // 2 - small // 2
    padded = torch.zeros(len(slabs), size, size)
    padded[:, low : low + small, low : low + small] = slabs
    return padded


def weak_contrast(potential: torch.Tensor, transfer: Transfer, depth: torch.Tensor, optics: Optics) -> torch.Tensor:
    """(y, x // 2 + 1) transform of the contrast of slabs (slab, y, x) of projected potential, V Å, at depth (slab,) Å:
    first order in the potential."""
    return (torch.fft.rfft2(potential) * transfer.at(depth)).sum(dim=0)


def strong_contrast(potential: torch.Tensor, transfer: Transfer, depth: torch.Tensor, optics: Optics) -> torch.Tensor:
    """As `weak_contrast`, to all orders, for a body thin enough to lie at one depth: |1 + w|² - 1.

    w = F⁻¹[E exp(iχ) F(exp(iφ - μ) - 1)]; μ is the loss of electrons scattered too far to be imaged, which takes the
    place of the amplitude contrast in χ. As χ is even, real and imaginary part stay apart.
    """
    strength = interaction_parameter(optics.voltage)
    phase = strength * potential.sum(dim=0)
    left = torch.exp(-_GOLD_LOSS * phase)
    a, b = torch.fft.rfft2(left * torch.cos(phase) - 1), torch.fft.rfft2(left * torch.sin(phase))
    height = transfer.gun * float(depth.mean())
    chi = transfer.phase - math.asin(optics.amplitude_contrast) - transfer.phase_per_height * height
    envelope = transfer.amplitude / (2 * strength)
    c, s = envelope * torch.cos(chi), envelope * torch.sin(chi)
    real, imaginary = (torch.fft.irfft2(f, s=tuple(phase.shape)) for f in (a * c - b * s, a * s + b * c))
    return torch.fft.rfft2(2 * real + real**2 + imaginary**2)


def shift_factor(size: int, pixel_size: float, shift: np.ndarray) -> torch.Tensor:
    """(particle, y, x) complex exp(-2πi k·d) of rfft2 of square images, for shift (particle, 2) Å."""
    d = torch.as_tensor(shift, dtype=torch.float32)
    along_x = -2 * torch.pi * d[:, :1] * torch.fft.rfftfreq(size, pixel_size)
    along_y = -2 * torch.pi * d[:, 1:] * torch.fft.fftfreq(size, pixel_size)
    x, y = (torch.polar(torch.ones_like(angle), angle) for angle in (along_x, along_y))
    return y[:, :, None] * x[:, None, :]


def _add_box(field: torch.Tensor, box: torch.Tensor, x: int, y: int) -> None:
    """Add a box whose first pixel lies at column x, row y, which may be outside, to the part of it within a field."""
    height, width = field.shape
    rows, columns = slice(max(y, 0), min(y + len(box), height)), slice(max(x, 0), min(x + len(box), width))
    field[rows, columns] += box[rows.start - y : rows.stop - y, columns.start - x : columns.stop - x]
