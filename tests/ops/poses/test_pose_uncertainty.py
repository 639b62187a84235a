"""Poses err by what their covariance says: chi squared of 200 particles, intervals, and the floor of interpolation.

Images are the closed form of Gaussians, so that the slices of the refinement meet a truth that is not their own. With
the errors e = (ω, t) of the pose, R_found = R_true exp(ω), and the covariance C, eᵀ C⁻¹ e is χ² of 6 degrees of freedom
where the maximum of the likelihood is efficient. The mean over n particles then is 6 ± sqrt(12 / n).
"""

import math

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation
from scipy.stats import chi2

from tiltwise.ops.particles.images import ParticleImages
from tiltwise.ops.particles.slices import band_points, volume_spectrum
from tiltwise.ops.poses.refinement import refine_poses
from tiltwise.ops.rotations import rotation_vector_to_matrix

BOX, PIXEL, PARTICLES, BAND, SIGMA = 32, 4.0, 200, 10, 1.5
COUNTING_ERRORS = 3.3  # passed by chance once in a thousand


def blobs():
    """(blob, 3) px from the centre."""
    rng = np.random.default_rng(1)
    direction = rng.normal(size=(8, 3))
    return direction / np.linalg.norm(direction, axis=1)[:, None] * rng.uniform(0, 0.28 * BOX, (8, 1))


def errors(amplitude, noise, seed=0):
    """Rotation vectors (degrees) and shifts (Å) from the truth, (particle, 6), and their covariances, of particles
    refined from a degree and an Å away: transfer up to `amplitude`, `noise` in each real component."""
    rng, points, centres = np.random.default_rng(seed), band_points(BOX, BAND), blobs()
    tilts = Rotation.from_euler("z", 85, degrees=True) * Rotation.from_euler(
        "y", np.arange(-60, 61, 6)[:, None], degrees=True
    )
    rotation, shift = Rotation.random(PARTICLES, random_state=seed), rng.normal(0, 3, (PARTICLES, 3))
    body = np.einsum("pij,bj->pbi", rotation.as_matrix(), centres) + shift[:, None] / PIXEL
    place = np.einsum("tij,pbj->ptbi", tilts.as_matrix()[:, :2], body)
    k = points.numpy().astype(float) / BOX
    envelope = (2 * np.pi) ** 1.5 * SIGMA**3 * np.exp(-2 * np.pi**2 * SIGMA**2 * (k**2).sum(1))
    transfer = amplitude * rng.random((PARTICLES, len(tilts), len(k)))
    clean = transfer * envelope * np.exp(-2j * np.pi * (place @ k.T)).sum(2)
    data = clean + noise * (rng.normal(size=clean.shape) + 1j * rng.normal(size=clean.shape))
    images = ParticleImages(
        data=torch.as_tensor(data).to(torch.complex64),
        transfer=torch.as_tensor(transfer).float(),
        rotations=torch.as_tensor(tilts.as_matrix()),
        points=points,
        box_size=BOX,
        pixel_size=PIXEL,
    )
    away = rotation_vector_to_matrix(torch.as_tensor(rng.normal(size=(PARTICLES, 3))))
    start = torch.as_tensor(rotation.as_matrix()) @ away, torch.as_tensor(shift + rng.normal(size=shift.shape))
    found = refine_poses(images, volume_spectrum(reference(centres), BAND + 1), *start, steps=8)
    turned = (rotation.inv() * Rotation.from_matrix(found.rotation.numpy())).as_rotvec(degrees=True)
    return np.concatenate([turned, found.shift.numpy() - shift], axis=1), found.covariance.numpy()


def reference(centres):
    z, y, x = np.meshgrid(*[np.arange(BOX) - BOX // 2] * 3, indexing="ij")
    square = sum((a - c[:, None, None, None]) ** 2 for a, c in zip((x, y, z), centres.T, strict=True))
    return torch.as_tensor(np.exp(-square / (2 * SIGMA**2)).sum(0)).float()


@pytest.fixture(scope="module")
def noisy():
    """Poses known to about 0.4° and 0.1 Å along each axis."""
    return errors(amplitude=0.05, noise=1.0)


def chi_squared(error, covariance):
    return np.einsum("pi,pij,pj->p", error, np.linalg.inv(covariance), error)


def test_chi_squared_is_six_for_each_particle(noisy):
    mean = chi_squared(*noisy).mean()
    assert abs(mean - 6) < COUNTING_ERRORS * math.sqrt(12 / PARTICLES)


@pytest.mark.parametrize("level", [0.68, 0.95])
def test_intervals_cover_what_they_say(noisy, level):
    inside = (chi_squared(*noisy) < chi2.ppf(level, 6)).mean()
    assert abs(inside - level) < COUNTING_ERRORS * math.sqrt(level * (1 - level) / PARTICLES)


@pytest.mark.parametrize("axes", [slice(0, 3), slice(3, 6)])
def test_one_figure_for_rotation_and_one_for_position(noisy, axes):
    """The error's square over the variance, both summed over three axes, is 1 on average; its variance is
    2 tr C² / (tr C)² for each particle."""
    error, covariance = noisy[0][:, axes], noisy[1][:, axes, axes]
    trace, square = np.trace(covariance, axis1=1, axis2=2), np.einsum("pij,pji->p", covariance, covariance)
    ratio = ((error**2).sum(1) / trace).mean()
    assert abs(ratio - 1) < COUNTING_ERRORS * math.sqrt((2 * square / trace**2).sum()) / PARTICLES


def test_interpolation_alone_moves_poses_less_than_noise_does(noisy):
    """Without noise what is left is the interpolation of the slices: it adds less than 1 % to the variances above, the
    difference of 0.06 from 6 that chi squared of 200 particles cannot see."""
    error, _ = errors(amplitude=0.05, noise=0.0)
    added = chi_squared(error, noisy[1]).mean()
    assert added < 0.06
