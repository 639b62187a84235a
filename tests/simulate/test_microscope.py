"""The laws of the simulated microscope, each against a closed form or an independent calculation."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from tiltwise.data.particles import Particles
from tiltwise.data.tilt_series import TiltSeries
from tiltwise.ops.ctf import electron_wavelength
from tiltwise.ops.geometry import project_points, tilt_rotations
from tiltwise.params.simulate import ErrorParams, SimulateParams
from tiltwise.simulate.acquisition import acquire
from tiltwise.simulate.microscope import interaction_parameter, optics_of, particle_contrast
from tiltwise.simulate.potential import Scatterer, scatterer_from_atoms
from tiltwise.simulate.session import simulate_tilt_series
from tiltwise.simulate.specimen import procedural_molecule

EXACT = ErrorParams(
    shift_step=0.0, tilt_angle=0.0, tilt_axis_angle=0.0, tilt_axis_jitter=0.0, defocus=0.0, astigmatism=0.0
)


def cloud_scatterer(weight: float, number: int = 300) -> Scatterer:
    """Points in a cloud of 10 Å sd, of potentials in V Å3 and without ice: its transform is a sum of known waves.
    Spread over pixels bilinearly, one point alone has aliases of a few per cent; of a cloud they are negligible."""
    position = np.random.default_rng(9).normal(0, 10, (number, 3))
    return Scatterer(
        position=(position - position.mean(axis=0)).astype(np.float32),
        weight=np.tile(np.array([weight / number, 0.0], dtype=np.float32), (number, 1)),
        scattering_gaussians=np.array([[0.7, 200.0], [0.3, 300.0]]),
        displaced_volume=20.0,
    )


def still_series(params: SimulateParams, defocus: float) -> TiltSeries:
    """A series without errors, damage or astigmatism, tilted about image y."""
    series = acquire(params.model_copy(update={"nominal_tilt_axis_angle": 0.0}), "TS_01", np.random.default_rng(0))
    tilts = np.full(series.number, defocus)
    ctf = replace(series.ctf, defocus_u=tilts, defocus_v=tilts)
    return replace(series, ctf=ctf, exposure=np.full(series.number, 1e-6), pre_exposure=np.zeros(series.number))


def _particles(position: np.ndarray) -> Particles:
    n = len(position)
    return Particles(
        tilt_series=np.full(n, "TS_01"),
        position=position,
        rotation=Rotation.identity(n),
        score=np.ones(n),
        half_set=np.zeros(n, int),
        region=np.full(n, -1),
    )


@pytest.mark.parametrize(("voltage", "sigma"), [(100, 9.2440e-4), (200, 7.2884e-4), (300, 6.5262e-4)])
def test_interaction_parameter(voltage, sigma):
    """Notes on physics, table 4.1, rad/(V Å)."""
    assert interaction_parameter(voltage) == pytest.approx(sigma, rel=1e-4)


@pytest.mark.parametrize("handedness", [1, -1])
def test_defocus_of_a_high_molecule_against_wave_propagation(handedness):
    """Points about 1500 Å up the beam or down it, imaged by complex waves: exit wave i φ behind each point, carried
    to the plane of focus by exp(-i π λ k² s) over the distance s that the electrons still travel, then exp(+i χ) of
    the lens; |1 + w|² - 1 = 2 Re w to first order.

    The gun stands at -z for handedness +1 and at +z for -1, so that +z is downstream for +1.
    """
    params = SimulateParams(pixel_size=4.0, image_size=128, tilt_max=10.0, tilt_step=10.0, errors=EXACT)
    series = replace(still_series(params, defocus=20000.0), defocus_handedness=handedness)
    scatterer = cloud_scatterer(weight=100.0)
    optics = optics_of(scatterer, series, params)
    image = particle_contrast(optics, scatterer, series, _particles(np.array([[0.0, 0.0, 1500.0]])), 1).double()
    depth = 1500.0 + torch.as_tensor(scatterer.position[:, 2])
    expected = _wave_image(scatterer, params, downstream=handedness * depth)
    wrong = _wave_image(scatterer, params, downstream=-handedness * depth)
    scale = expected.abs().max()
    assert float((image - expected).abs().max() / scale) < 0.02
    assert float((image - wrong).abs().max() / scale) > 0.1


def _wave_image(scatterer: Scatterer, params: SimulateParams, downstream: torch.Tensor) -> torch.Tensor:
    """(128, 128) contrast of the cloud in the middle of an image, at 20000 Å underfocus of the plane downstream = 0."""
    wavelength, cs = electron_wavelength(300.0), 2.7e7
    k = torch.fft.fftfreq(128, 4.0).double()
    kx, ky = k[None, :], k[:, None]
    k2 = kx**2 + ky**2
    atom = sum(float(a) * torch.exp(-0.25 * float(b) * k2) for a, b in scatterer.scattering_gaussians)
    phase = interaction_parameter(300.0) * atom * torch.exp(-0.25 * params.motion_b_factor * k2) / 16.0  # px of 16 Å2
    lens = torch.pi * wavelength * k2 * (20000.0 - 0.5 * wavelength**2 * cs * k2) + np.arcsin(0.07)
    wave = torch.zeros(128, 128, dtype=torch.complex128)
    for (x, y, _), weight, below in zip(scatterer.position, scatterer.weight[:, 0], downstream, strict=True):
        travel = -below  # from the point to the plane of focus, along the beam
        place = 2 * torch.pi * (kx * float(x) + ky * float(y))
        wave += 1j * phase * float(weight) * torch.exp(1j * (lens - torch.pi * wavelength * k2 * travel - place))
    return torch.fft.fftshift(2 * torch.fft.ifft2(wave).real)


def test_a_particle_appears_where_the_geometry_says():
    """With amplitude contrast alone and no defocus to speak of, the centroid of a molecule's contrast is its centre."""
    params = SimulateParams(
        pixel_size=4.0, image_size=192, tilt_max=50.0, tilt_step=25.0, amplitude_contrast=1.0, defocus_min=100.0,
        defocus_max=100.1, errors=ErrorParams(defocus=0.0, shift_step=15.0),
    )  # fmt: skip
    series = acquire(params, "TS_01", np.random.default_rng(3))
    scatterer = cloud_scatterer(weight=100.0)
    optics = optics_of(scatterer, series, params)
    position = np.array([[60.0, -45.0, 30.0]])
    place, _ = project_points(
        torch.as_tensor(position), tilt_rotations(series.geometry), torch.as_tensor(series.geometry.shift)
    )
    axis = (torch.arange(192) - 96) * 4.0
    for tilt in range(series.number):
        image = particle_contrast(optics, scatterer, series, _particles(position), tilt).double()
        centroid = torch.stack([(image.sum(0) * axis).sum(), (image.sum(1) * axis).sum()]) / image.sum()
        assert torch.allclose(centroid, place[tilt, 0], atol=0.1)


def test_contrast_of_the_demo_molecule():
    """Protein of 2.5 MDa, 3.1 V over ice, some 180 Å thick: 2 σ V t sin χ is 3 to 8 % dark where rings have averaged
    out."""
    params = SimulateParams(image_size=256)
    series = still_series(params, defocus=25000.0)
    scatterer = scatterer_from_atoms(procedural_molecule(params.specimen, 0))
    optics = optics_of(scatterer, series, params)
    image = particle_contrast(optics, scatterer, series, _particles(np.zeros((1, 3))), series.number // 2)
    axis = (torch.arange(256) - 128) * 4.0
    inside = (axis[:, None] ** 2 + axis**2).sqrt() < 60
    assert -0.08 < float(image[inside].mean()) < -0.03


def test_counts_fall_with_the_path_through_ice(small_params):
    """ln of the mean count against 1 / cos θ is a line of slope -t / Λ. Poisson error of a mean of 96² px of 90 e⁻ is
    1e-3; contrast of four particles shifts it by less than 1 %."""
    series = simulate_tilt_series(_light(), small_params, 1).truth
    mean = np.array([image.mean() for image in series.images])
    inverse = 1 / np.cos(np.radians(series.geometry.tilt_angle))
    slope, level = np.polyfit(inverse, np.log(mean), 1)
    assert slope == pytest.approx(-small_params.specimen.thickness / small_params.mean_free_path, abs=0.005)
    assert np.exp(level) == pytest.approx(small_params.exposure * small_params.pixel_size**2, rel=0.01)


def test_same_seed_same_bits(small_scatterer, small_params):
    first, again = (simulate_tilt_series(small_scatterer, small_params, 1) for _ in range(2))
    assert np.array_equal(first.truth.images, again.truth.images)
    assert np.array_equal(first.particles.position, again.particles.position)
    other = simulate_tilt_series(small_scatterer, small_params.model_copy(update={"seed": 1}), 1)
    assert not np.array_equal(first.truth.images, other.truth.images)
    second = simulate_tilt_series(small_scatterer, small_params, 2)
    assert not np.array_equal(first.particles.position, second.particles.position)


def test_recorded_series_knows_only_what_a_microscope_writes(small_scatterer, small_params):
    recorded = simulate_tilt_series(small_scatterer, small_params, 1).recorded
    assert recorded.geometry is None and recorded.ctf is None and recorded.defocus_handedness is None
    assert recorded.nominal_tilt_axis_angle == small_params.nominal_tilt_axis_angle


def _light():
    return cloud_scatterer(weight=1e-3)
