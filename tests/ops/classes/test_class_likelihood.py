"""The likelihood of classes against closed forms, and posteriors against the counts that they promise."""

import math

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from tiltwise.ops.classes.likelihood import (
    ClassAgreement,
    ClassReferences,
    class_agreement,
    class_posterior,
    class_spectrum,
    fit_mixture,
    log_likelihood,
    mixture_gain,
    ranked_posterior,
)
from tiltwise.ops.particles.images import ParticleImages
from tiltwise.ops.particles.slices import band_points, volume_spectrum
from tiltwise.ops.particles.tilt_weights import model_images
from tiltwise.ops.poses.refinement import likelihood_terms

BOX, PIXEL, PARTICLES, BAND = 24, 5.0, 5, 9


def volume(seed):
    return torch.randn(BOX, BOX, BOX, generator=torch.Generator().manual_seed(seed))


@pytest.fixture(scope="module")
def scene():
    """Poses, tilts and a transfer; references of two classes; images without data."""
    generator = torch.Generator().manual_seed(0)
    points = band_points(BOX, BAND)
    tilts = torch.as_tensor(Rotation.from_euler("y", np.arange(-60, 61, 15)[:, None], degrees=True).as_matrix())
    transfer = torch.rand(PARTICLES, len(tilts), len(points), generator=generator) - 0.5
    rotation = torch.as_tensor(Rotation.random(2 * PARTICLES, random_state=1).as_matrix()).reshape(-1, 2, 3, 3)
    shift = 4 * torch.randn(PARTICLES, 2, 3, dtype=torch.float64, generator=generator)
    empty = ParticleImages(
        data=torch.zeros(transfer.shape, dtype=torch.complex64),
        transfer=transfer,
        rotations=tilts,
        points=points,
        box_size=BOX,
        pixel_size=PIXEL,
    )
    consensus, first, second = (volume_spectrum(scale * volume(s), BAND) for s, scale in ((1, 1), (2, 0.2), (3, 0.2)))
    return empty, ClassReferences(consensus=consensus, differences=(first, second)), rotation, shift


def with_data(images, data):
    return ParticleImages(
        data=data,
        transfer=images.transfer,
        rotations=images.rotations,
        points=images.points,
        box_size=BOX,
        pixel_size=PIXEL,
    )


def shells():
    return int(band_points(BOX, BAND).norm(dim=-1).round().max()) + 1


def test_the_parts_add_up_to_the_likelihood_of_the_whole_reference(scene):
    """Consensus, linear and quadratic term against the kernel of the refinement, for noise and any ρ."""
    empty, references, rotation, shift = scene
    data = torch.randn(empty.data.shape, dtype=torch.complex64, generator=torch.Generator().manual_seed(4))
    images = with_data(empty, data)
    agreement = class_agreement(images, references, rotation, shift)
    whole = torch.ones(2, shells(), dtype=torch.float64)
    ours = log_likelihood(agreement, whole)
    for k in range(2):
        spectrum = class_spectrum(references, k, torch.ones(BAND + 3, dtype=torch.float64))
        theirs, _, _, power = likelihood_terms(images, spectrum, rotation[:, k], shift[:, k])
        assert ((ours[:, k] - theirs).abs() < 1e-4 * power).all()
    assert torch.equal(log_likelihood(agreement, 0 * whole), agreement.base)


def test_images_without_noise_tell_classes_by_half_the_power_of_their_difference(scene):
    """X = A (V + u_1) at one pose: L_1 - L_2 = Σ |A (u_1 - u_2)|² / 2, so the sign of every term is right."""
    empty, references, rotation, shift = scene
    same = rotation[:, :1].repeat(1, 2, 1, 1), shift[:, :1].repeat(1, 2, 1)
    pose = rotation[:, 0], shift[:, 0]
    first, second = (model_images(empty, one, *pose) for one in references.differences)
    images = with_data(empty, model_images(empty, references.consensus, *pose) + first)
    likelihood = log_likelihood(
        class_agreement(images, references, *same), torch.ones(2, shells(), dtype=torch.float64)
    )
    expected = 0.5 * (first - second).abs().square().sum((1, 2)).double()
    assert torch.allclose(likelihood[:, 0] - likelihood[:, 1], expected, rtol=1e-4)
    assert (expected > 10).all()


def test_posterior_is_bayes():
    likelihood = torch.tensor([[0.0, math.log(3.0)], [500.0, -500.0]], dtype=torch.float64)
    posterior = class_posterior(likelihood, torch.tensor([0.75, 0.25], dtype=torch.float64))
    assert torch.allclose(posterior, torch.tensor([[0.5, 0.5], [1.0, 0.0]], dtype=torch.float64))


def population(number, signal, noise, part=0.35, seed=0, dimensions=60):
    """Residuals of particles of two classes, -t and t, with unit noise, against references that are wrong themselves.

    The difference of the references holds signal of power `signal` and, at right angles to it, noise of power `noise`,
    in four shells alike.
    """
    rng = np.random.default_rng(seed)
    shell = np.repeat(np.arange(1, 5), dimensions // 4)
    t, error = np.zeros(dimensions), np.zeros(dimensions)
    for s in range(1, 5):
        axes = np.linalg.qr(rng.normal(size=(dimensions // 4, 2)))[0]
        t[shell == s], error[shell == s] = axes[:, 0] * np.sqrt(signal / 16), axes[:, 1] * np.sqrt(noise / 16)
    truth = (rng.random(number) < part).astype(int)
    images = np.where(truth, 1, -1)[:, None] * t + rng.normal(size=(number, dimensions))
    references = np.stack([-t - error, t + error])
    cross, power = np.zeros((number, 2, 5)), np.zeros((number, 2, 5))
    for s in range(1, 5):
        cross[..., s] = images[:, shell == s] @ references[:, shell == s].T
        power[..., s] = (references[:, shell == s] ** 2).sum(1)
    table = [torch.as_tensor(values) for values in (np.zeros((number, 2)), cross, power)]
    return ClassAgreement(base=table[0], cross=table[1], power=table[2]), truth


@pytest.mark.parametrize(("signal", "noise"), [(4.0, 0.0), (4.0, 4.0), (9.0, 20.0)])
def test_posteriors_are_calibrated_though_references_are_noisy(signal, noise):
    """In ten groups of rising posterior as many particles are of class 2 as their posteriors say.

    Each count is a sum of independent draws of variance Σ γ (1 - γ): within 4 standard deviations, ten times over.
    """
    agreement, truth = population(6000, signal, noise)
    mixture = fit_mixture(agreement, ranked_posterior(agreement))
    posterior = mixture.posterior.numpy()
    if np.mean((posterior.argmax(1)) == truth) < 0.5:
        posterior = posterior[:, ::-1]
    second = posterior[:, 1]
    for group in np.array_split(np.argsort(second), 10):
        spread = np.sqrt((second[group] * (1 - second[group])).sum())
        assert abs(truth[group].sum() - second[group].sum()) < 4 * spread + 1
    rho = float(mixture.shrinkage[:, 1:].mean())
    assert abs(rho - signal / (signal + noise)) < 5 / np.sqrt(6000 * float(agreement.power[0, 0].sum()))


def test_unshrunk_posteriors_would_not_be_calibrated():
    """The same check fails at ρ = 1: it is the shrinkage that makes posteriors honest."""
    agreement, truth = population(6000, 9.0, 20.0)
    likelihood = log_likelihood(agreement, torch.ones(2, 5, dtype=torch.float64))
    second = class_posterior(likelihood, torch.tensor([0.65, 0.35], dtype=torch.float64))[:, 1].numpy()
    sure = second > 0.99
    assert np.mean(truth[sure] == 0) > 0.05  # 1 % were promised at most


def test_one_kind_of_particle_gives_no_gain():
    """References that differ by noise alone: the mixture falls back to one class, and gains nothing to speak of."""
    agreement, _ = population(4000, 0.0, 25.0)
    half = ClassAgreement(base=agreement.base[:2000], cross=agreement.cross[:2000], power=agreement.power[:2000])
    rest = ClassAgreement(base=agreement.base[2000:], cross=agreement.cross[2000:], power=agreement.power[2000:])
    mixture = fit_mixture(half, ranked_posterior(half))
    gain = mixture_gain(rest, mixture)
    assert float(gain.mean()) < 3 * float(gain.std()) / math.sqrt(2000)
    assert float(mixture.posterior.amax(1).mean() - mixture.prior.max()) < 0.05
