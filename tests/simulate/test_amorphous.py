"""Ice and carbon: their power, their rings, their motion."""

import numpy as np
import pytest
import torch
from optical_bench import COHERENT, clean_microscope, exact_series

from tiltwise.ops.fourier import frequency_norm
from tiltwise.simulate.amorphous import add_layer, film_field, ice_fields, mean_of_wandering, random_field
from tiltwise.simulate.disturbances import Disturbances
from tiltwise.simulate.microscope import Grid
from tiltwise.simulate.slab import Layer
from tiltwise.simulate.transfer import coherent_transfer

SIZE, PIXEL = 256, 4.0


def flat(path: float) -> Layer:
    return Layer(depth=torch.zeros(SIZE, SIZE), path=torch.full((SIZE, SIZE), path))


def white(frequency):
    return torch.full_like(frequency, 1000.0)


def test_power_of_a_random_field():
    """|F|² px⁴ / area has the mean asked for: of 256 · 129 frequencies of weight two, to 5 / √32000."""
    field = random_field((SIZE, SIZE), PIXEL, torch.full((SIZE, SIZE // 2 + 1), 7.0), np.random.default_rng(0))
    power = (torch.fft.rfft2(field).abs() ** 2).double().mean() * PIXEL**2 / SIZE**2
    assert float(power) == pytest.approx(7.0, rel=0.03)


def test_the_mean_of_a_wandering_molecule():
    """√(2 (x - 1 + exp(-x))) / x: at x = 1, √(2/e) = 0.8578; 1 for no time at all."""
    values = mean_of_wandering(torch.tensor([0.0, 1.0, 100.0]))
    assert values.tolist() == pytest.approx([1.0, 0.85776, 0.14071], abs=1e-4)


def test_power_of_the_ice_grows_with_its_path():
    """n · path · power per molecule: 0.0311 · 500 · 1000 where in a short exposure nothing has moved."""
    (field,) = ice_fields(flat(500.0), np.array([1e-4]), PIXEL, white, np.random.default_rng(1))
    power = (torch.fft.rfft2(field).abs() ** 2).double().mean() * PIXEL**2 / SIZE**2
    assert float(power) == pytest.approx(0.0311 * 500 * 1000, rel=0.03)


def test_frames_of_ice_forget_each_other():
    """Means over 2 e⁻/Å² each, middles 2 apart: correlation of about exp(-B 2 k² / 4), B = 28.9, at low frequency and
    about 1/10 Å, less some per cent, since the means, too, have a length."""
    first, second = ice_fields(flat(500.0), np.array([2.0, 2.0]), PIXEL, white, np.random.default_rng(2))
    a, b = torch.fft.rfft2(first), torch.fft.rfft2(second)
    k = frequency_norm((SIZE, SIZE), PIXEL)
    for low, high in ((1 / 11, 1 / 9), (1 / 40, 1 / 20)):
        band = (k > low) & (k < high)
        seen = (a * b.conj()).real[band].sum() / (a.abs()[band] * b.abs()[band]).sum()
        expected = float(torch.exp(-28.9 * 2 * k[band] ** 2 / 4).mean())
        assert float(seen) == pytest.approx(expected, abs=0.12)


def test_a_flat_layer_shows_the_transfer_of_its_depth():
    """Tiles of one depth, blended between the rungs of the ladder, against one transform of the whole field: away from
    the border they differ by the blend's loss, at most 1 - cos 0.35 = 6 % at Nyquist and 24 % in the corners of the
    spectrum, where rungs lie twice as many radians apart; over the whole band less than 8 %."""
    series, params = exact_series(SIZE, PIXEL), clean_microscope(SIZE, PIXEL)
    field = random_field((SIZE, SIZE), PIXEL, torch.full((SIZE, SIZE // 2 + 1), 7.0), np.random.default_rng(0))
    image = torch.zeros(1, SIZE, SIZE)
    add_layer(image, [field], torch.full((SIZE, SIZE), 700.0), series, 1, params, Disturbances())
    transfer = coherent_transfer(Grid.of(SIZE, PIXEL), PIXEL, series, 1, COHERENT)
    whole = torch.fft.irfft2(torch.fft.rfft2(field) * transfer.at(torch.tensor(700.0)), s=(SIZE, SIZE))
    inner = slice(64, -64)
    difference = image[0, inner, inner] - whole[inner, inner]
    assert float(difference.std() / whole[inner, inner].std()) < 0.08


def test_carbon_stands_out():
    """4.56 V more than ice along a path of 100 Å is a mean of 456 V Å."""
    field = film_field(flat(100.0), PIXEL, np.random.default_rng(0))
    assert float(field.mean()) == pytest.approx(456.0, rel=0.01)
    assert float(field.std()) > 0
