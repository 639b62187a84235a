"""A cheap specimen for tests of the defocus fit: a tilted slab of ice, filled evenly with protein in random places.

Matter without a place has no phases to remember: its image is a Gaussian random field whose power spectrum follows the
local defocus. Depth is cut into layers of one defocus each, and the fields of the layers are independent, weighted by
how much of the slab lies in the layer at each point of the image:
    contrast(u) = Σ_l √(path_l(u)) · F⁻¹[2 √(P_protein(k) q(k)² + P_ice(k)) E(k) CTF(k; defocus + h z_l) · white_l](u)
with path_l(u) (Å) the length of the beam's path at u within slab and layer and P the power of the phase per path:
(γλ)² n Σf²(k) of protein of mass n in a volume, and that of ice (simulate.water), which exposure does not wear out.
"""

import math
from collections.abc import Callable
from dataclasses import replace
from functools import partial

import numpy as np
import torch
from scipy.fft import next_fast_len

from tiltwise.data.progress import Progress, no_progress
from tiltwise.data.tilt_series import TiltSeries
from tiltwise.ops.ctf import electron_wavelength
from tiltwise.ops.exposure import exposure_amplitude
from tiltwise.ops.fourier import frequency_grid_2d
from tiltwise.ops.geometry import plane_depth, tilt_rotations
from tiltwise.params.simulate import SimulateParams
from tiltwise.simulate.detector import detector_response
from tiltwise.simulate.microscope import Grid, interaction_parameter, transfer_of_tilt
from tiltwise.simulate.potential import POTENTIAL_OF_FORM_FACTOR
from tiltwise.simulate.water import water_phase_spectrum

_LAYER = 250.0  # Å; the phase within a layer strays by ± π λ k² 125 Å: 0.3 rad at 5 Å, 0.12 rad at 8 Å
_PROTEIN_FORM = (400.0, 5.5)  # Å² per kDa and Å²: Σf² = a exp(-b k²) is 390, 343, 271, 217 at 10, 6, 4, 3 Å
_PROTEIN_DENSITY = 0.81e-3  # kDa per Å3, 1.35 g/cm3
_NORMAL = torch.tensor([0.0, 0.0, 1.0], dtype=torch.float64)


def image_slab(
    series: TiltSeries,
    params: SimulateParams,
    protein_fraction: float,
    rng: np.random.Generator,
    *,
    contrast_of_tilt: Callable[..., np.ndarray] | None = None,
    progress: Progress = no_progress,
) -> TiltSeries:
    """The series with images (tilt, y, x) int16 of electron counts: of a level slab of ice through the origin, of
    params.specimen.thickness, protein_fraction of its volume protein. contrast_of_tilt is slab_contrast if not given,
    or plane_field.plane_contrast.

    Geometry, CTF, exposure and handedness are those of the series. The detector is one of the image's own pixels:
    Poisson counts with √DQE on the signal.
    """
    images = np.empty((series.number, params.image_size, params.image_size), dtype=np.int16)
    for tilt in range(series.number):
        contrast = (contrast_of_tilt or slab_contrast)(series, params, protein_fraction, tilt, rng)
        mean = electrons_reaching(series, params, tilt)[0] * params.pixel_size**2
        images[tilt] = rng.poisson(np.clip(mean * (1 + contrast), 0, None)).clip(max=32767)
        progress((tilt + 1) / series.number, f"{series.name}: image {tilt + 1} of {series.number}")
    return replace(series, images=images)


def slab_contrast(
    series: TiltSeries, params: SimulateParams, protein_fraction: float, tilt: int, rng: np.random.Generator
) -> np.ndarray:
    """(y, x) float32 contrast of one tilt, √DQE on it."""
    reach = delocalisation(series, params, tilt)
    depth = _middle_depth(series, params, tilt, reach)
    cosine = math.cos(math.radians(float(series.geometry.tilt_angle[tilt])))
    half = params.specimen.thickness / (2 * cosine)
    first, last = float(depth.min()) - half, float(depth.max()) + half
    number = max(1, math.ceil((last - first) / _LAYER))
    edges = np.linspace(first, last, number + 1)
    contrast = np.zeros(depth.shape, dtype=np.float32)
    for low, high in zip(edges[:-1], edges[1:], strict=True):
        path = np.clip(np.minimum(depth + half, high) - np.maximum(depth - half, low), 0, None)
        columns = np.flatnonzero(path.any(axis=0))
        rows = np.flatnonzero(path.any(axis=1))
        if len(columns) == 0:
            continue
        box = slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)
        matter = np.sqrt(path[box], dtype=np.float32) * rng.standard_normal(path[box].shape, dtype=np.float32)
        image = partial(_image, series, params, protein_fraction, (tilt, (low + high) / 2))
        add_spread(contrast, box, image, matter, reach)
    return contrast[reach:-reach, reach:-reach]


def delocalisation(series: TiltSeries, params: SimulateParams, tilt: int) -> int:
    """How far, px, the image of a point is spread at the largest defocus of a tilt: λ k Δz at the Nyquist frequency.

    Matter is made so far beyond the field too.
    """
    half = params.image_size * params.pixel_size * 0.75  # of the diagonal, with room for shifts
    height = half * abs(math.tan(math.radians(float(series.geometry.tilt_angle[tilt])))) + params.specimen.thickness
    defocus = float(series.ctf.defocus_u[tilt]) + height
    return math.ceil(electron_wavelength(series.optics.voltage) * defocus / (2 * params.pixel_size) / params.pixel_size)


def add_spread(
    contrast: np.ndarray,
    box: tuple[slice, slice],
    image: Callable[[torch.Tensor], torch.Tensor],
    matter: np.ndarray,
    reach: int,
) -> None:
    """Add the image of the matter in a box of the field to contrast (y, x), where the lens spreads it `reach` px far.

    What is imaged is the matter, cut where it ends; cutting its image instead would end the rings of the cut too.
    """
    shape = tuple(2 * next_fast_len(-(-(n + 2 * reach) // 2), real=True) for n in matter.shape)
    padded = torch.zeros(shape)
    padded[reach : reach + matter.shape[0], reach : reach + matter.shape[1]] = torch.from_numpy(matter)
    seen = image(padded).numpy()
    target = tuple(
        slice(max(s.start - reach, 0), min(s.stop + reach, n)) for s, n in zip(box, contrast.shape, strict=True)
    )
    source = tuple(slice(t.start - s.start + reach, t.stop - s.start + reach) for t, s in zip(target, box, strict=True))
    contrast[target] += seen[source]


def matter_power(
    series: TiltSeries, params: SimulateParams, protein_fraction: float, tilt: int, frequency: torch.Tensor
) -> torch.Tensor:
    """4 (P_protein q² + P_ice) E² DQE: power of the contrast, Å² for each Å of path, at a CTF of 1.

    frequency in 1/Å, of any shape. The image's own shot noise has 1 / (electrons per Å²) beside it.
    """
    voltage = series.optics.voltage
    pre, own = (torch.as_tensor(float(a[tilt])) for a in (series.pre_exposure, series.exposure))
    left = exposure_amplitude(frequency, pre, own, voltage) ** 2
    mass, (height, fall) = protein_fraction * _PROTEIN_DENSITY, _PROTEIN_FORM
    phase_of_form_factor = interaction_parameter(voltage) * POTENTIAL_OF_FORM_FACTOR
    protein = mass * phase_of_form_factor**2 * height * torch.exp(-fall * frequency**2) * left
    ice = water_phase_spectrum(frequency, 1 - protein_fraction, voltage)
    envelope = torch.exp(-0.5 * params.motion_b_factor * frequency**2)
    return 4 * (protein + ice) * envelope * detector_response(frequency * 2 * params.pixel_size)[0]


def matter_power_on_grid(
    series: TiltSeries, params: SimulateParams, protein_fraction: float, tilt: int, frequency: torch.Tensor
) -> torch.Tensor:
    """The same at very many frequencies, interpolated linearly between 4096 of them: right to 1e-5."""
    knots = torch.linspace(0, float(frequency.max()), 4096, dtype=torch.float64)
    values = matter_power(series, params, protein_fraction, tilt, knots)
    return torch.from_numpy(np.interp(frequency.numpy(), knots.numpy(), values.numpy()).astype(np.float32))


def electrons_reaching(series: TiltSeries, params: SimulateParams, tilt: int) -> tuple[float, float]:
    """Mean electrons per Å² of one image behind the slab, and the beam's path through it, Å."""
    path = params.specimen.thickness / math.cos(math.radians(float(series.geometry.tilt_angle[tilt])))
    return float(series.exposure[tilt]) * math.exp(-path / params.mean_free_path), path


def _middle_depth(series: TiltSeries, params: SimulateParams, tilt: int, reach: int) -> np.ndarray:
    """(y, x) Å, of the slab's middle plane above each pixel of the field and `reach` px beyond."""
    axis = (np.arange(-reach, params.image_size + reach) - params.image_size // 2) * params.pixel_size
    x, y = np.meshgrid(axis, axis)
    position = torch.as_tensor(np.stack([x, y], axis=-1) - series.geometry.shift[tilt])
    normal = tilt_rotations(series.geometry)[tilt : tilt + 1] @ _NORMAL
    return plane_depth(normal, 0.0, position[None])[0].numpy()


def _image(
    series: TiltSeries,
    params: SimulateParams,
    protein_fraction: float,
    layer: tuple[int, float],
    matter: torch.Tensor,
) -> torch.Tensor:
    """(y, x) contrast of white matter at one depth; layer is tilt and depth, Å."""
    tilt, depth = layer
    frequency = frequency_grid_2d(tuple(matter.shape), params.pixel_size)
    azimuth = torch.atan2(frequency[..., 1], frequency[..., 0])
    grid = Grid(size=matter.shape[0], radius=frequency.norm(dim=-1), azimuth=azimuth)
    transfer = transfer_of_tilt(grid, series, tilt, damaged=False)
    ctf = transfer.at(torch.tensor(depth)) / transfer.amplitude
    amplitude = matter_power_on_grid(series, params, protein_fraction, tilt, grid.radius).sqrt() / params.pixel_size
    return torch.fft.irfft2(torch.fft.rfft2(matter) * (ctf * amplitude).float(), s=matter.shape)
