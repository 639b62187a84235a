"""What the simulated microscope is measured by: figures that tests and benchmarks hold against theory."""

import math
from dataclasses import dataclass, replace

import numpy as np
import torch
from scipy.optimize import minimize_scalar
from scipy.spatial.transform import Rotation

from tiltwise.data.atoms import Atoms
from tiltwise.data.tilt_series import TiltSeries
from tiltwise.ops.ctf import ctf
from tiltwise.ops.fourier import frequency_grid_2d
from tiltwise.ops.geometry import project_points, tilt_rotations
from tiltwise.params.microscope import LensParams, MicroscopeParams
from tiltwise.simulate.bodies import add_population
from tiltwise.simulate.disturbances import Disturbances
from tiltwise.simulate.multislice import multislice_image
from tiltwise.simulate.potential import Scatterer, scatterer_from_atoms
from tiltwise.simulate.scene import Population

_POINT_B = 60.0  # Å², of a point scatterer: an atom, blurred enough to be sampled well
_POINT_POTENTIAL = 100.0  # V Å³, of about one carbon atom: weak
_FINEST = 5.0  # Å, to which the rings of a point are fitted
_COARSEST = 60.0  # Å
_HEAVY_ATOM_MASS = 13.8  # Da of protein to each atom but hydrogen
_VOLUME_PER_DALTON = 1.23006  # Å³, 1.35 g/cm³
_PROTEIN = {"C": 0.63, "N": 0.17, "O": 0.19, "S": 0.01}
_BALL_B = 20.0  # Å²
_SEARCH = 4000.0  # Å to both sides of the defocus of the series


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Agreement:
    """Two images compared ring by ring."""

    frequency: np.ndarray
    """(ring,) 1/Å."""
    correlation: np.ndarray
    """(ring,) Fourier ring correlation."""

    def resolution(self, threshold: float) -> float:
        """Spacing, Å, at which the correlation first falls below the threshold, linear between rings; Nyquist's if it
        never does."""
        below = np.flatnonzero(self.correlation[1:] < threshold) + 1
        if not len(below):
            return 1 / float(self.frequency[-1])
        i = int(below[0])
        (a, b), (f, g) = self.correlation[i - 1 : i + 1], self.frequency[i - 1 : i + 1]
        return 1 / float(f + (g - f) * (a - threshold) / (a - b))


def linear_against_multislice(
    population: Population,
    series: TiltSeries,
    tilt: int,
    params: MicroscopeParams,
    *,
    slice_thickness: float = 20.0,
    width: int = 1,
) -> Agreement:
    """How far linear imaging agrees with multislice for the same bodies in one tilt, without ice, damage and noise; in
    rings `width` frequency steps wide."""
    still = undamaged(series)
    linear = torch.zeros(1, *series.image_shape)
    add_population(linear, population, still, tilt, params, Disturbances())
    wave = multislice_image([population], still, tilt, params.lens, slice_thickness=slice_thickness)
    return compare_rings(linear[0], wave - wave.mean(), series.pixel_size, width)


def compare_rings(first: torch.Tensor, second: torch.Tensor, pixel_size: float, width: int = 1) -> Agreement:
    """Fourier ring correlation of two square images up to Nyquist. Rings of a width of some frequency steps span the
    zeros of the transfer function, where there is no signal to agree on."""
    size = first.shape[-1]
    a, b = (torch.fft.rfft2(image.double()) for image in (first, second))
    step = frequency_grid_2d((size, size), pixel_size).norm(dim=-1) * size * pixel_size / width
    ring = step.round().long().flatten()

    def total(values: torch.Tensor) -> torch.Tensor:
        return torch.zeros(int(ring.max()) + 1, dtype=torch.float64).index_add_(0, ring, values.flatten())

    correlation = total((a * b.conj()).real) / (total(a.abs() ** 2) * total(b.abs() ** 2)).sqrt().clamp_min(1e-300)
    rings = size // (2 * width)
    return Agreement(
        frequency=np.arange(rings) * width / (size * pixel_size), correlation=correlation[:rings].clamp(-1, 1).numpy()
    )


def crowd_of_balls(
    mass: float, fraction: float, size: tuple[float, float, float], rng: np.random.Generator
) -> Population:
    """Balls of protein of `mass` Da at random without overlap, filling a fraction of a box of `size` (3,) Å."""
    scatterer, radius = protein_ball(mass, rng)
    wanted = round(fraction * math.prod(size) / (mass * _VOLUME_PER_DALTON))
    position = np.empty((0, 3))
    while len(position) < wanted:
        one = rng.uniform(-0.5, 0.5, 3) * size
        if not len(position) or ((position - one) ** 2).sum(axis=1).min() > (2 * radius) ** 2:
            position = np.concatenate([position, one[None]])
    rotation = Rotation.random(wanted, random_state=rng)
    return Population(name="target", scatterer=scatterer, position=position, rotation=rotation, half_extent=radius)


def point_population(position: np.ndarray) -> Population:
    """Single weak scatterers, without ice, at position (point, 3) Å."""
    scatterer = Scatterer(
        position=np.zeros((1, 3), dtype=np.float32),
        weight=np.array([[_POINT_POTENTIAL, 0.0]], dtype=np.float32),
        scattering_gaussians=np.array([[1.0, _POINT_B]]),
        displaced_volume=20.0,
    )
    return Population(
        name="point",
        scatterer=scatterer,
        position=position,
        rotation=Rotation.identity(len(position)),
        half_extent=0.0,
    )


def point_defocus(series: TiltSeries, tilt: int, depth: float, lens: LensParams) -> float:
    """Defocus, Å, fitted to the rings of a multislice image of one point in the middle of the image at that depth.

    The model knows the optics but neither the depth nor the hand: least squares of a · CTF(k; defocus), over a and the
    defocus, to the transform of the image divided by the atom's own.
    """
    frame = np.array([0.0, 0.0, depth]) - np.append(series.geometry.shift[tilt], 0.0)
    position = tilt_rotations(series.geometry)[tilt].numpy().T @ frame
    image = multislice_image([point_population(position[None])], series, tilt, lens, slice_thickness=10.0)
    frequency = frequency_grid_2d(series.image_shape, series.pixel_size).norm(dim=-1).double()
    centred = torch.fft.rfft2(torch.fft.ifftshift(image.double() - image.double().mean())).real
    fitted = (frequency > 1 / _COARSEST) & (frequency < 1 / _FINEST)
    seen = (centred / torch.exp(-0.25 * _POINT_B * frequency**2))[fitted]
    middle = float(series.ctf.mean_defocus[tilt])

    def misfit(defocus: float) -> float:
        model = ctf(frequency[fitted], torch.tensor(defocus, dtype=torch.float64), series.optics)
        scale = (model * seen).sum() / (model * model).sum()
        return float(((seen - scale * model) ** 2).sum())

    start = min(np.arange(middle - _SEARCH, middle + _SEARCH, 50.0), key=misfit)
    return float(minimize_scalar(misfit, bounds=(start - 60, start + 60), method="bounded").x)


def undamaged(series: TiltSeries) -> TiltSeries:
    """The series at next to no exposure."""
    return replace(series, exposure=np.full(series.number, 1e-6), pre_exposure=np.zeros(series.number))


def protein_ball(mass: float, rng: np.random.Generator) -> tuple[Scatterer, float]:
    """Atoms of a protein of `mass` Da at random in a solid sphere of 1.35 g/cm³, and the sphere's radius, Å."""
    number = round(mass / _HEAVY_ATOM_MASS)
    radius = (3 * mass * _VOLUME_PER_DALTON / (4 * math.pi)) ** (1 / 3)
    direction = rng.normal(size=(number, 3))
    distance = radius * rng.random(number) ** (1 / 3)
    position = direction * (distance / np.linalg.norm(direction, axis=1))[:, None]
    element = rng.choice(list(_PROTEIN), number, p=list(_PROTEIN.values()))
    atoms = Atoms(position=position, element=element, b_factor=np.full(number, _BALL_B))
    return scatterer_from_atoms(atoms), radius


def particle_snr(
    population: Population, series: TiltSeries, tilt: int, params: MicroscopeParams, *, path: float, dqe: float
) -> float:
    """Variance of one particle's contrast over its projected disc, over that of the shot noise of a pixel.

    The disc is that of `half_extent` about where the particle lies. path Å of ice attenuates the beam; the variance of
    the noise of the contrast is 1 / (DQE · exposure · exp(-path / Λ) · pixel area). No structural noise.
    """
    field = torch.zeros(1, *series.image_shape)
    add_population(field, population, undamaged(series), tilt, params, Disturbances())
    place, _ = project_points(
        torch.as_tensor(population.position),
        tilt_rotations(series.geometry)[tilt : tilt + 1],
        torch.as_tensor(series.geometry.shift[tilt : tilt + 1]),
    )
    y, x = (
        (torch.arange(n) - n // 2) * series.pixel_size - float(centre)
        for n, centre in zip(series.image_shape, place[0, 0].flip(0), strict=True)
    )
    inside = (y[:, None] ** 2 + x**2).sqrt() < population.half_extent
    counted = dqe * float(series.exposure[tilt]) * math.exp(-path / params.lens.mean_free_path) * series.pixel_size**2
    return float(field[0][inside].var()) * counted


def one_body(scatterer: Scatterer, position: np.ndarray, half_extent: float) -> Population:
    """A population of one, not turned."""
    return Population(
        name="target",
        scatterer=scatterer,
        position=np.asarray(position, dtype=float)[None],
        rotation=Rotation.identity(1),
        half_extent=half_extent,
    )
