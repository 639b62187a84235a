"""Ice and carbon: matter without order, as random fields of projected potential seen through the lens tile by tile.

A field spans all the depths of the tilted specimen. A tile spans few: it is imaged at some depths and every pixel takes
its share of the two nearest, so that the rings of the transfer function change across the image as they do in reality.
"""

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import product

import gemmi
import numpy as np
import torch
from scipy.fft import next_fast_len

from tiltwise.data.tilt_series import TiltSeries
from tiltwise.ops.ctf import electron_wavelength
from tiltwise.ops.fourier import frequency_norm
from tiltwise.ops.motion.displacement import frame_displacement
from tiltwise.params.microscope import MicroscopeParams
from tiltwise.simulate.bodies import frame_amplitude, shift_factor
from tiltwise.simulate.disturbances import Disturbances
from tiltwise.simulate.microscope import Grid, Transfer
from tiltwise.simulate.slab import Layer
from tiltwise.simulate.transfer import coherent_transfer
from tiltwise.simulate.water import WATER_DENSITY, water_form_factor, water_structure_factor

_POTENTIAL_OF_FORM_FACTOR = 47.878  # V Å2
_WATER_MOTION = 28.9  # Å2 of B-factor per e⁻/Å2: 8π²/3 of 1.1 Å2 mean square displacement (McMullan et al. 2015)
_CARBON_DENSITY = 0.0877  # atoms per Å3, 1.75 g/cm3
_CARBON_OVER_ICE = 9.09 - 4.53  # V, mean potential of the film less that of the ice it lies in
_DEPTH_PHASE = 0.7  # rad of chi, at the finest frequency, between two depths at which a tile is imaged
_TILE = 512  # px

Spectrum = Callable[[torch.Tensor], torch.Tensor]
"""Power per molecule of the projected potential, V² Å⁴, at frequency in 1/Å."""


def water_spectrum(frequency: torch.Tensor) -> torch.Tensor:
    """Power of the projected potential of vitreous ice per molecule, V² Å⁴: (47.878 f)² S."""
    return (_POTENTIAL_OF_FORM_FACTOR * water_form_factor(frequency)) ** 2 * water_structure_factor(frequency)


def random_field(
    shape: tuple[int, int], pixel_size: float, power: torch.Tensor, rng: np.random.Generator
) -> torch.Tensor:
    """(y, x) Gaussian field, V Å, of power per area (y, x // 2 + 1) on rfft2's frequencies, V² Å²·Å²."""
    white = torch.from_numpy(rng.standard_normal(shape, dtype=np.float32)) / pixel_size
    return torch.fft.irfft2(torch.fft.rfft2(white) * power.sqrt(), s=shape)


def ice_fields(
    layer: Layer,
    exposures: np.ndarray,
    pixel_size: float,
    spectrum: Spectrum,
    rng: np.random.Generator,
) -> Iterator[torch.Tensor]:
    """The ice of each frame in turn, (y, x) V Å: its molecules wander, so that a frame forgets the one before.

    Two instants N e⁻/Å² apart are correlated by ρ = exp(-B N k² / 4); a frame is their mean over its exposure.
    """
    shape = tuple(layer.path.shape)
    frequency = frequency_norm(shape, pixel_size)
    rate = 0.25 * _WATER_MOTION * frequency**2
    power = WATER_DENSITY * spectrum(frequency)
    state, before = None, 0.0
    for exposure in exposures:
        fresh = random_field(shape, pixel_size, power, rng)
        if state is None:
            state = torch.fft.rfft2(fresh)
        else:
            kept = torch.exp(-rate * (before + float(exposure)) / 2)
            state = state * kept + torch.fft.rfft2(fresh) * (1 - kept**2).sqrt()
        before = float(exposure)
        yield torch.fft.irfft2(state * mean_of_wandering(rate * before), s=shape) * layer.path.sqrt()


def mean_of_wandering(x: torch.Tensor) -> torch.Tensor:
    """Standard deviation of the mean over a time T of a process of variance 1 correlated by exp(-t / τ), x = T / τ."""
    safe = x.clamp_min(1e-3)
    return torch.where(x < 1e-3, 1 - x / 6, (2 * (safe + torch.expm1(-safe))).clamp_min(0).sqrt() / safe)


def film_field(layer: Layer, pixel_size: float, rng: np.random.Generator) -> torch.Tensor:
    """(y, x) V Å of the film: atoms at random, and the mean potential by which it stands out from the ice."""
    shape = tuple(layer.path.shape)
    coefficients = gemmi.Element("C").c4322.get_coefs()
    half = len(coefficients) // 2
    k2 = frequency_norm(shape, pixel_size) ** 2
    factor = sum(a * torch.exp(-0.25 * b * k2) for a, b in zip(coefficients[:half], coefficients[half:], strict=True))
    field = random_field(shape, pixel_size, _CARBON_DENSITY * (_POTENTIAL_OF_FORM_FACTOR * factor) ** 2, rng)
    return field * layer.path.sqrt() + _CARBON_OVER_ICE * layer.path


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class TileLens:
    """How a tile, with a margin for what defocus spreads, is imaged at any of a ladder of depths."""

    grid: Grid
    """Of the tile with its margin."""
    tile: int
    """Side of the tile, px."""
    step: float
    """Between the depths of the ladder, Å."""
    transfer: Transfer
    """Of the tilt, undamaged."""
    rungs: dict[int, torch.Tensor]
    """By step: the transfer (y, x // 2 + 1) at that depth; those asked for so far."""

    @property
    def margin(self) -> int:
        """On each side of the tile, px."""
        return (self.grid.size - self.tile) // 2

    def at(self, rung: int) -> torch.Tensor:
        """The transfer at a rung of the ladder."""
        if rung not in self.rungs:
            self.rungs[rung] = self.transfer.at(torch.tensor(rung * self.step))
        return self.rungs[rung]


def tile_lens(series: TiltSeries, tilt: int, params: MicroscopeParams, deepest: float) -> TileLens:
    """Tiles for a tilt whose matter lies within `deepest` Å of depth 0."""
    pixel_size = params.camera.pixel_size
    wavelength, finest = electron_wavelength(series.optics.voltage), 1 / (2 * pixel_size)
    margin = math.ceil(wavelength * (float(series.ctf.defocus_u[tilt]) + deepest) * finest / pixel_size) + 8
    tile = min(_TILE, max(series.image_shape))
    grid = Grid.of(2 * next_fast_len(tile // 2 + margin), pixel_size)
    return TileLens(
        grid=grid,
        tile=tile,
        step=_DEPTH_PHASE / (math.pi * wavelength * finest**2),
        transfer=coherent_transfer(grid, pixel_size, series, tilt, params.lens),
        rungs={},
    )


def add_layer(
    fields: torch.Tensor,
    potentials: Iterable[torch.Tensor],
    depth: torch.Tensor,
    series: TiltSeries,
    tilt: int,
    params: MicroscopeParams,
    disturbances: Disturbances,
) -> None:
    """Add the contrast of a sheet of projected potentials, one (y, x) V Å for each frame, at depth (y, x) Å to fields
    (frame, y, x). A tile moves in each frame as its middle does."""
    lens = tile_lens(series, tilt, params, float(depth.abs().max()))
    amplitude = frame_amplitude(lens.grid, series, tilt, params, disturbances, damaged=False)
    starts = [range(0, n, lens.tile) for n in depth.shape]
    corners = np.array([(x, y) for y, x in product(*starts)])
    middle = (corners + lens.tile / 2 - np.array(depth.shape[::-1]) // 2) * params.camera.pixel_size
    moves = None if disturbances.frames is None else frame_displacement(disturbances.frames, tilt, middle)
    for frame, potential in enumerate(potentials):
        for number, (x, y) in enumerate(corners):
            spectrum = torch.fft.rfft2(_window(potential, x - lens.margin, y - lens.margin, lens.grid.size))
            spectrum = spectrum * amplitude[frame]
            if moves is not None:
                shift = moves[frame, number : number + 1]
                spectrum = spectrum * shift_factor(lens.grid.size, params.camera.pixel_size, shift)[0]
            rows, columns = slice(y, y + lens.tile), slice(x, x + lens.tile)
            _blend_depths(fields[frame, rows, columns], spectrum, depth[rows, columns], lens)


def _blend_depths(target: torch.Tensor, spectrum: torch.Tensor, depth: torch.Tensor, lens: TileLens) -> None:
    """Add to target (y, x) the image of a tile, each pixel of its own depth, from the two rungs next to it."""
    size, low = lens.grid.size, lens.margin
    height = depth / lens.step
    for rung in range(math.floor(float(height.min())), math.ceil(float(height.max())) + 1):
        share = (1 - (height - rung).abs()).clamp_min(0)
        if float(share.max()) > 0:
            image = torch.fft.irfft2(spectrum * lens.at(rung), s=(size, size))
            target.addcmul_(share, image[low : low + depth.shape[0], low : low + depth.shape[1]])


def _window(field: torch.Tensor, x: int, y: int, size: int) -> torch.Tensor:
    """(size, size) from column x, row y on; beyond the border the field is mirrored."""
    rows, columns = (
        torch.as_tensor(np.abs((np.arange(first, first + size) + n - 1) % (2 * n - 2) - (n - 1)))
        for first, n in zip((y, x), field.shape, strict=True)
    )
    return field[rows][:, columns]
