"""Exposure weights from particles: true amplitudes found, no noise met twice, all choices in one gauge."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from particle_scene import DIAMETER, PIXEL, SIZE, reference, scene

from tiltwise.ops.particles.chunks import CropSettings, ImageSource, particle_chunks
from tiltwise.ops.particles.exposure_record import exposure_record
from tiltwise.ops.particles.exposure_weights import published_weights
from tiltwise.ops.particles.half_maps import (
    accumulate_halves,
    maps_and_fsc,
    measured_curves,
    measured_weights,
    posed_particles,
    weights_to_begin,
)
from tiltwise.ops.particles.images import critical_decay
from tiltwise.ops.particles.references import sphere_mask
from tiltwise.ops.particles.slices import volume_spectrum
from tiltwise.ops.particles.tilt_weights import agreement_sums

BOX, RADIUS = 32, 12
SETTINGS = CropSettings(box_size=BOX, pixel_size=PIXEL, particle_radius=DIAMETER / 2, device="cpu")


def blur_of(series):
    """(tilt,) B in Å²: grows with the exposure, and one image is far worse than its neighbours."""
    b = 200.0 * series.pre_exposure
    b[8] += 3000.0
    return b


@pytest.fixture(scope="module")
def blurred():
    """A scene whose images are blurred by exp(-B k² / 4), and whose noise is not."""
    made = scene(series=2, noise=0.0, seed=4)
    rng, series = np.random.default_rng(5), {}
    k2 = np.fft.fftfreq(SIZE, PIXEL)[:, None] ** 2 + np.fft.rfftfreq(SIZE, PIXEL) ** 2
    for name, one in made.tilt_series.items():
        envelope = np.exp(-0.25 * blur_of(one)[:, None, None] * k2)
        images = np.fft.irfft2(np.fft.rfft2(one.images - 100.0) * envelope, s=(SIZE, SIZE))
        noisy = images + 2.0 * images[10].std() * rng.normal(size=images.shape)
        series[name] = replace(one, images=noisy.astype(np.float32))
    posed = posed_particles(replace(made.particles, half_set=1 + np.arange(len(made.particles)) % 2))
    truth = torch.as_tensor(reference(made.centres, sigma=9.0).data)
    return ImageSource(tilt_series=series, settings=SETTINGS, ready={}), posed, truth


def sums_of(source, posed, references, weights):
    grids = {half: volume_spectrum(one, RADIUS + 1) for half, one in references.items()}
    sums = {}
    for name, half, index, images in particle_chunks(source, posed, weights=weights):
        part = agreement_sums(images, grids[half], posed.rotation[index], torch.zeros(len(index), 3).double())
        sums[name] = sums[name] + part if name in sums else part
    return sums


def test_the_blur_of_each_image_is_found(blurred):
    """In the gauge Σ_i A_i = Σ_i P_i the truth is exp(-B_i k² / 4), times what normalising an image has done to it,
    which is the same at all k and so taken out here by its value at the first shells."""
    source, posed, truth = blurred
    weights = weights_to_begin(source, posed, "measured")
    curves = measured_curves(source, posed, {1: truth, 2: truth}, weights=weights, radius=RADIUS)
    k = torch.arange(BOX // 2 + 1) / (BOX * PIXEL)
    errors = {"measured": [], "critical": []}
    for name, curve in curves.items():
        true = -0.25 * torch.as_tensor(blur_of(source.tilt_series[name]))[:, None] * k**2
        for kind in errors:
            found = getattr(curve, kind).log()
            miss = (found - true)[:, 10] - (found - true)[:, 4]
            errors[kind].append(miss - miss.mean())
    rms = {kind: float(torch.cat(miss).square().mean().sqrt()) for kind, miss in errors.items()}
    # Each image has six particles, whose neighbours overlap their boxes: that error is the images' own, not the fit's.
    assert rms["measured"] < 0.6 * rms["critical"]


def test_every_choice_keeps_the_gauge(blurred):
    """Σ over tilts and series of scale · decay (measured), or of decay (the others), is that of what is expected."""
    source, posed, truth = blurred
    critical = sum(critical_decay(one, BOX).sum(0) for one in source.tilt_series.values())
    for choice in ("none", "critical", "published"):
        begun = weights_to_begin(source, posed, choice)
        weights = measured_weights(
            source, posed, {1: truth, 2: truth}, weights=begun, radius=RADIUS, exposure_weighting=choice
        )
        torch.testing.assert_close(sum(w.decay.sum(0) for w in weights.values()), critical)
    begun = weights_to_begin(source, posed, "measured")
    weights = measured_weights(
        source, posed, {1: truth, 2: truth}, weights=begun, radius=RADIUS, exposure_weighting="measured"
    )
    expected = sum((w.scale[:, None] * w.decay).sum(0) for w in begun.values())  # begun: cosine times critical curve
    torch.testing.assert_close(sum((w.scale[:, None] * w.decay).sum(0) for w in weights.values()), expected)


def test_noise_is_not_met_twice():
    """Images of noise alone: against the other half's average Σ Re(X* m) / √(Σ |m|²) is normal of variance 1 or less
    (the noise is whitened by its own power); against the average that holds the image it is not."""
    made = scene(series=1, noise=0.0, seed=6)
    name, one = next(iter(made.tilt_series.items()))
    noise = np.random.default_rng(7).normal(size=one.images.shape).astype(np.float32)
    source = ImageSource(tilt_series={name: replace(one, images=noise)}, settings=SETTINGS, ready={})
    posed = posed_particles(replace(made.particles, half_set=1 + np.arange(len(made.particles)) % 2))
    weights = weights_to_begin(source, posed, "critical")
    maps, _ = maps_and_fsc(accumulate_halves(source, posed, weights=weights), sphere_mask(BOX, PIXEL, DIAMETER / 2))

    def score(references):
        s = sums_of(source, posed, references, weights)[name]
        return float((s.cross.sum(1) / s.model.sum(1).sqrt()).mean()) * math.sqrt(len(s.number))

    assert abs(score({1: maps[2], 2: maps[1]})) < 4  # standard deviations of the mean over tilts
    assert score(maps) > 8


def test_the_published_formula():
    """By hand: the best exposure has u = 1; one of relative score s has u = exp(-0.75 (1 - s⁴)⁴ exp(7.62 f))."""
    weight = published_weights(torch.tensor([2.0, 6.0, 4.0]).double(), torch.tensor([0.0, 0.25]).double())
    middle = (1 - 0.5**4) ** 4
    u = np.array([[math.exp(-0.75 * r * math.exp(7.62 * f)) for f in (0.0, 0.25)] for r in (1.0, 0.0, middle)])
    np.testing.assert_allclose(weight.numpy(), u / u.mean(0), rtol=1e-12)
    np.testing.assert_allclose(published_weights(torch.ones(3).double(), torch.tensor([0.3]).double()), 1.0)


def test_the_record_holds_all_three_curves(blurred):
    source, posed, truth = blurred
    weights = weights_to_begin(source, posed, "critical")
    curves = measured_curves(source, posed, {1: truth, 2: truth}, weights=weights, radius=RADIUS)
    record = exposure_record(curves, source.tilt_series, SETTINGS, RADIUS)
    assert record["spacing_A"] == [BOX * PIXEL / shell for shell in (3, 6, 9, 12)]
    assert sum(record["images"]) == 2 * 21 and record["exposure"] == sorted(record["exposure"])
    for name in ("critical", "published", "measured", "error", "ssnr"):
        assert np.shape(record[name]) == (len(record["exposure"]), 4)
        assert np.isfinite(record[name]).all()
