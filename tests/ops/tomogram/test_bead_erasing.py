"""Erased beads leave neither brightness nor a quiet spot behind, and nothing else is touched."""

import numpy as np
import torch
from scipy.ndimage import gaussian_filter

from tiltwise.ops.tomogram.bead_erasing import erase_beads

PIXEL, SIDE, DIAMETER = 10.0, 256, 120.0


def scene(seed=0):
    """Noise with a spectrum of its own on a slope, beads on it, their places in Å; two touch, one is at the edge."""
    rng = np.random.default_rng(seed)
    noise = gaussian_filter(rng.normal(0, 1, (SIDE, SIDE)), 1.0)
    noise = noise / noise.std() + np.linspace(0, 4, SIDE)[None, :]
    places = np.array([[0.0, 0.0], [130.0, 20.0], [-600.0, 500.0], [500.0, -700.0], [-1270.0, 0.0], [700.0, 640.0]])
    image, axis = noise.copy(), (np.arange(SIDE) - SIDE // 2) * PIXEL
    for x, y in places:
        squared = (axis[None, :] - x) ** 2 + (axis[:, None] - y) ** 2
        image -= 20 * np.sqrt(np.maximum(0, 1 - squared / (DIAMETER / 2) ** 2))
    return torch.as_tensor(image).float(), torch.as_tensor(noise).float(), places


def discs(places, radius):
    axis = (np.arange(SIDE) - SIDE // 2) * PIXEL
    squared = [(axis[None, :] - x) ** 2 + (axis[:, None] - y) ** 2 for x, y in places]
    return torch.as_tensor(np.min(squared, axis=0) < radius**2)


def test_beads_vanish_and_the_noise_keeps_its_strength():
    values, means = [], []
    for seed in range(6):
        image, noise, places = scene(seed)
        erased = erase_beads(image, places, DIAMETER, PIXEL)
        inside = discs(places, 0.6 * DIAMETER)
        slope = torch.linspace(0, 4, SIDE)[None, :].expand(SIDE, SIDE)
        values.append((erased - slope)[inside])
        means.append(float((erased - slope)[inside].mean()))
    # six beads of 160 px and a noise whose patches of 12 px agree: 6 · 13 independent values a seed
    assert abs(np.mean(means)) < 0.2
    assert 0.85 < float(torch.cat(values).std()) < 1.15


def test_the_rest_of_the_image_stays():
    image, _, places = scene()
    erased = erase_beads(image, places, DIAMETER, PIXEL)
    outside = ~discs(places, 0.5 * DIAMETER * 1.5 + 1)
    assert torch.equal(erased[outside], image[outside])
    assert torch.isfinite(erased).all()


def test_no_beads_no_change():
    image, _, _ = scene()
    assert torch.equal(erase_beads(image, np.zeros((0, 2)), DIAMETER, PIXEL), image)


def test_beads_without_a_clean_place_get_the_mean():
    image = torch.zeros(32, 32)
    image[10:22, 10:22] = -20
    erased = erase_beads(image, np.zeros((1, 2)), DIAMETER, PIXEL)
    assert float(erased.abs().max()) < 20 and torch.isfinite(erased).all()
