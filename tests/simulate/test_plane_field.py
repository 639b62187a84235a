"""The slab imaged in strips has the power of the slab imaged layer by layer, and its rings follow the tilted plane."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from tiltwise.ops.ctf import ctf_phase
from tiltwise.params.simulate import ErrorParams, SimulateParams, SpecimenParams
from tiltwise.simulate.acquisition import acquire
from tiltwise.simulate.plane_field import plane_contrast
from tiltwise.simulate.slab_field import slab_contrast

SIDE, PIXEL, PATCH, FRACTION = 256, 3.0, 64, 0.2
STILL = ErrorParams(shift_step=0, tilt_angle=0, tilt_axis_angle=0, tilt_axis_jitter=0, defocus=0, astigmatism=0)
PARAMS = SimulateParams(
    pixel_size=PIXEL,
    image_size=SIDE,
    tilt_max=60,
    tilt_step=30,
    motion_b_factor=0.0,
    specimen=SpecimenParams(thickness=600.0),
    errors=STILL,
)
K = np.hypot(np.fft.fftfreq(PATCH, PIXEL)[:, None], np.fft.rfftfreq(PATCH, PIXEL)[None])
WINDOW = np.outer(np.hanning(PATCH), np.hanning(PATCH))


def series_of(handedness: int, axis: float, shift: tuple[float, float] = (0.0, 0.0)):
    params = PARAMS.model_copy(update={"handedness": handedness, "nominal_tilt_axis_angle": axis})
    series = acquire(params, "strips", np.random.default_rng(0))
    return replace(series, geometry=replace(series.geometry, shift=np.full((series.number, 2), shift)))


def patch_power(contrast, series, tilt: int, corner: tuple[int, int], number: int) -> np.ndarray:
    """Mean power of one patch over a number of images."""
    random, total = np.random.default_rng(5), 0
    rows, columns = (slice(c, c + PATCH) for c in corner)
    for _ in range(number):
        patch = contrast(series, PARAMS, FRACTION, tilt, random)[rows, columns]
        total = total + np.abs(np.fft.rfft2(patch * WINDOW)) ** 2 / number
    return total


@pytest.mark.parametrize(("tilt", "corner"), [(2, (96, 96)), (4, (16, 96))])
def test_power_is_that_of_the_layers(tilt, corner):
    """Over rings of frequency; the mean of n m powers, m of them independent of their neighbours under the window
    (Hann: 1 of 2.25 a side), strays by 1 / √(n m)."""
    series, number = series_of(1, 85.0), 40
    strips, layers = (patch_power(c, series, tilt, corner, number) for c in (plane_contrast, slab_contrast))
    for low, high in ((1 / 24, 1 / 15), (1 / 15, 1 / 11), (1 / 11, 1 / 9), (1 / 9, 1 / 7.5), (1 / 7.5, 1 / 6.5)):
        inside = (low <= K) & (high > K)
        error = math.sqrt(2 / (number * inside.sum() / 2.25**2))
        assert strips[inside].sum() == pytest.approx(layers[inside].sum(), rel=4 * error)


@pytest.mark.parametrize(
    ("handedness", "axis", "corner", "sign"),
    [
        # z = -(x cos φ + y sin φ) tan θ at 60°: for φ = 90° a patch above the centre (y > 0) lies at negative depth
        (+1, 90.0, (192, 96), -1),
        (-1, 90.0, (192, 96), +1),
        (+1, 90.0, (0, 96), +1),
        (+1, 0.0, (96, 192), -1),  # for φ = 0° one to the right
        (-1, 180.0, (96, 192), -1),
    ],
)
def test_defocus_follows_the_tilted_plane(handedness, axis, corner, sign):
    """The patch's middle is 96 px = 288 Å off the axis: 499 Å of depth at 60°, more or less than the defocus there."""
    series, tilt = series_of(handedness, axis), 4
    assert series.geometry.tilt_angle[tilt] == 60
    power = patch_power(plane_contrast, series, tilt, corner, 40)
    band, frequency = (K > 1 / 25) & (K < 1 / 9), torch.as_tensor(K)

    def agreement(offset: float) -> float:
        defocus = torch.tensor(float(series.ctf.defocus_u[tilt]) + offset)
        rings = torch.sin(ctf_phase(frequency, defocus, series.optics)).square().numpy()
        level = power[band] / np.polyval(np.polyfit(K[band], power[band], 3), K[band])
        return float(np.corrcoef(level, rings[band])[0, 1])

    offset = sign * 288 * math.tan(math.radians(60))
    assert agreement(offset) > 0.3
    assert agreement(offset) > agreement(-offset) + 0.05


def test_a_shift_moves_the_axis():
    """By 96 px along y: the patch above the centre, without it at -499 Å, is now on the axis at the series' own
    defocus."""
    series, tilt = series_of(1, 90.0, shift=(0.0, 288.0)), 4
    power = patch_power(plane_contrast, series, tilt, (192, 96), 40)
    band, frequency = (K > 1 / 25) & (K < 1 / 9), torch.as_tensor(K)
    level = power[band] / np.polyval(np.polyfit(K[band], power[band], 3), K[band])

    def agreement(offset: float) -> float:
        chi = ctf_phase(frequency, torch.tensor(float(series.ctf.defocus_u[tilt]) + offset), series.optics)
        return float(np.corrcoef(level, torch.sin(chi).square().numpy()[band])[0, 1])

    assert agreement(0) > 0.3
    assert agreement(0) > agreement(-2 * 499) + 0.05  # -998 Å is what the shift to the other side would give


def test_an_x_tilt_is_refused():
    series = series_of(1, 85.0)
    series = replace(series, geometry=replace(series.geometry, x_tilt=np.full(series.number, 2.0)))
    with pytest.raises(ValueError, match="knows no x-tilt"):
        plane_contrast(series, PARAMS, FRACTION, 2, np.random.default_rng(0))
