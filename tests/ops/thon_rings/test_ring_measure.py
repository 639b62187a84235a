"""Spectra of coarsened images are those of the images themselves, in their band and at their places."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from tiltwise.data.optics import Optics
from tiltwise.data.tilt_series import TiltGeometry, TiltSeries
from tiltwise.ops.thon_rings.measure import _coarsen, _coarsening, measure_rings, usable_tilts
from tiltwise.params.defocus import DefocusParams


@pytest.mark.parametrize(
    ("pixel", "parts"),
    [
        (1.0, 4),  # 8 · 2.1 / 5 = 3.4
        (1.35, 5),  # 4.5
        (0.5, 2),
        (2.1, 8),  # 7.06: seven eighths are not worth it
        (4.0, 8),
    ],
)
def test_coarsening_keeps_the_band(pixel, parts):
    assert _coarsening(pixel, max(5.0, 2.1 * pixel)) == parts


@pytest.mark.parametrize("shape", [(64, 64), (61, 70)])
def test_coarsening_keeps_centre_and_level(shape):
    """A Gaussian at the centre n // 2 stays at the centre m // 2 and, being smooth, keeps its height."""
    y, x = (torch.arange(n) - n // 2 for n in shape)
    image = 100 + 20 * torch.exp(-(y[:, None] ** 2 + x**2) / 32.0)
    coarse = _coarsen(image, 5)
    assert coarse.shape == tuple(-(-n // 8) * 5 for n in shape)
    peak = np.unravel_index(int(coarse.argmax()), coarse.shape)
    assert peak == tuple(n // 2 for n in coarse.shape)
    assert float(coarse.max()) == pytest.approx(120, abs=0.5)


def series_of(image: np.ndarray, pixel: float) -> TiltSeries:
    zero = np.zeros(1)
    return TiltSeries(
        name="one",
        images=image[None],
        image_names=("",),
        pixel_size=pixel,
        optics=Optics(),
        stage_tilt_angle=zero,
        nominal_tilt_axis_angle=None,
        exposure=zero,
        pre_exposure=zero,
        acquisition_order=np.zeros(1, int),
        use=np.ones(1, bool),
        why_not=("",),
        geometry=TiltGeometry(tilt_angle=zero, tilt_axis_angle=zero, x_tilt=zero, shift=np.array([[30.0, -40.0]])),
    )


def test_a_fine_image_is_measured_as_its_coarse_self():
    """512² of 1.35 Å against the same field on 320² of 2.16 Å: patches of one physical size at the same places."""
    fine = np.random.default_rng(0).standard_normal((512, 512)).astype(np.float32)
    coarse = _coarsen(torch.from_numpy(fine), 5).numpy()
    params = DefocusParams(resolution_high=5.0)
    one, other = (
        measure_rings(s, usable_tilts(s), params) for s in (series_of(fine, 1.35), series_of(coarse, 1.35 * 8 / 5))
    )
    assert one.pixel_size == pytest.approx(2.16)
    torch.testing.assert_close(one.position, other.position)
    torch.testing.assert_close(one.power, other.power, rtol=1e-4, atol=1e-4)


def test_blank_and_excluded_images_are_left_out():
    images = np.random.default_rng(0).standard_normal((3, 64, 64)).astype(np.float32)
    images[1] = 7
    series = series_of(images[0], 2.0)
    fields = {"images": images, "use": np.array([True, True, False])}

    assert usable_tilts(replace(series, **fields)).tolist() == [0]
