"""Defocus of a series whose Thon rings are known, and honesty where there are none."""

import json
import math
from dataclasses import replace
from pathlib import Path

import mrcfile
import numpy as np
import pytest

from tiltwise.data.errors import StageError
from tiltwise.data.optics import Optics
from tiltwise.data.tilt_series import TiltGeometry, TiltSeries
from tiltwise.params.defocus import DefocusParams
from tiltwise.stages.defocus import defocus

STACKS = Path(__file__).parents[2].parent / "shared" / "data" / "hiv_empiar10164" / "stacks"
PIXEL, SIDE, AXIS = 4.0, 512, 85.0
ANGLES = np.arange(-60, 60.1, 3.0)
WAVELENGTH, CS, W = 0.0196875, 2.7e7, 0.07  # 300 kV, Å


def series(images: np.ndarray, shift: np.ndarray, name: str = "synthetic") -> TiltSeries:
    number = len(ANGLES)
    order = np.argsort(np.argsort(np.abs(ANGLES) + (ANGLES < 0) * 0.5))
    return TiltSeries(
        name=name,
        images=images,
        image_names=tuple(f"{i + 1:06d}@{name}.mrc" for i in range(number)),
        pixel_size=PIXEL,
        optics=Optics(),
        stage_tilt_angle=ANGLES,
        nominal_tilt_axis_angle=AXIS,
        exposure=np.full(number, 3.0),
        pre_exposure=order * 3.0,
        acquisition_order=order,
        use=np.ones(number, bool),
        why_not=("",) * number,
        geometry=TiltGeometry(
            tilt_angle=ANGLES, tilt_axis_angle=np.full(number, AXIS), x_tilt=np.zeros(number), shift=shift
        ),
    )


def plane_specimen(seed: int, handedness: int, power: float) -> tuple[TiltSeries, np.ndarray]:
    """A flat, random specimen imaged with a CTF that changes across each tilted image, and its defocus at depth 0.

    Written without the package: for the axis phi, a point of the plane z = 0 seen at u lies at depth
    -(u_x cos phi + u_y sin phi) tan theta. power is that of the specimen over that of the noise at the origin.
    """
    random = np.random.default_rng(seed)
    ky, kx = np.fft.fftfreq(SIDE, PIXEL)[:, None], np.fft.rfftfreq(SIDE, PIXEL)[None]
    k, azimuth = np.hypot(kx, ky), np.arctan2(ky, kx)
    critical = 0.24499 * np.maximum(k, 1e-6) ** -1.6649 + 2.8141
    y, x = np.mgrid[:SIDE, :SIDE]
    truth = random.uniform(22000, 33000) + random.normal(0, 200, len(ANGLES))
    shift = random.normal(0, 50, (len(ANGLES), 2))
    images = np.empty((len(ANGLES), SIDE, SIDE), np.float32)
    exposure = series(images, shift).pre_exposure + 1.5
    phi = np.radians(AXIS)
    for i, angle in enumerate(ANGLES):
        amplitude = np.sqrt(power) * np.exp(-((9 * k) ** 2) - exposure[i] / 2 / critical)
        field = np.fft.rfft2(random.standard_normal((SIDE, SIDE))) * amplitude
        u_x, u_y = (x - SIDE // 2) * PIXEL - shift[i, 0], (y - SIDE // 2) * PIXEL - shift[i, 1]
        depth = -(np.cos(phi) * u_x + np.sin(phi) * u_y) * np.tan(np.radians(angle))
        levels = np.linspace(depth.min(), depth.max() + 1e-6, 2 + int(np.ptp(depth) / 400))
        image = random.standard_normal((SIDE, SIDE))
        for level in levels:
            dz = truth[i] + handedness * level + 150 * np.cos(2 * (azimuth - np.radians(30)))
            chi = np.pi * WAVELENGTH * k**2 * (dz - 0.5 * WAVELENGTH**2 * k**2 * CS) + math.asin(W)
            share = np.clip(1 - np.abs(depth - level) / (levels[1] - levels[0]), 0, 1)
            image += share * np.fft.irfft2(-np.sin(chi) * field, s=(SIDE, SIDE))
        images[i] = 1000 + 30 * image
    return series(images, shift), truth


@pytest.mark.parametrize("handedness", [1, -1])
def test_defocus_astigmatism_and_handedness_are_recovered(handedness):
    tilt_series, truth = plane_specimen(10 + handedness, handedness, power=1.0)
    blank, excluded = 3, 30
    tilt_series.images[blank] = 7.0
    use = tilt_series.use.copy()
    use[excluded] = False
    tilt_series = replace(tilt_series, use=use)
    result = defocus(tilt_series, DefocusParams())
    ctf, quality = result.tilt_series.ctf, result.quality
    error = ctf.mean_defocus - truth
    assert np.sqrt(np.mean(error**2)) <= 300
    middle = slice(18, 23)  # the least damaged tilts
    assert np.all(ctf.defocus_error[middle] <= 130) and np.all(np.abs(error / ctf.defocus_error)[middle] <= 3.5)
    fitted = np.isfinite(ctf.defocus_error)
    assert not fitted[blank] and not fitted[excluded] and fitted.sum() == len(ANGLES) - 2
    assert np.sqrt(np.mean((error / ctf.defocus_error)[fitted] ** 2)) < 1.6  # standard errors are honest
    assert np.nanmin(ctf.fit_resolution) < 11
    assert result.tilt_series.defocus_handedness == quality["handedness"] == handedness
    assert quality["handedness_evidence"] * handedness >= 5
    assert np.all(np.abs(ctf.defocus_u - ctf.defocus_v - 300) <= 200)
    assert abs((ctf.astigmatism_angle[0] - 30 + 90) % 180 - 90) <= 15
    assert len(quality["spectrum_observed"]) == fitted.sum()
    assert all(len(curve) <= 128 for curve in quality["spectrum_frequency"])
    json.dumps(quality, allow_nan=False)


@pytest.mark.parametrize("colour", [0.0, 3.0])
def test_noise_is_not_determined(colour):
    random = np.random.default_rng(5)
    k = np.hypot(np.fft.rfftfreq(SIDE, PIXEL)[None], np.fft.fftfreq(SIDE, PIXEL)[:, None])
    images = random.standard_normal((len(ANGLES), SIDE, SIDE)).astype(np.float32)
    images = np.fft.irfft2(np.fft.rfft2(images) * (1 + colour * np.exp(-((25 * k) ** 2))), s=(SIDE, SIDE))
    result = defocus(series(100 + images, np.zeros((len(ANGLES), 2))), DefocusParams())
    assert result.tilt_series.ctf is None
    assert result.tilt_series.defocus_handedness is None
    assert result.quality["determined"] is False and "no Thon rings" in result.quality["reason"]
    json.dumps(result.quality, allow_nan=False)


@pytest.mark.parametrize("name", ["TS_03", "TS_43"])
def test_previews_without_rings_are_not_determined(name):
    if not STACKS.exists():
        pytest.skip(f"real stacks are not at {STACKS}")
    images = mrcfile.read(STACKS / f"{name}.mrc")
    angle = np.loadtxt(STACKS / f"{name}.rawtlt")
    number = len(angle)
    order = np.argsort(np.argsort(np.abs(angle)))
    geometry = TiltGeometry(
        tilt_angle=angle, tilt_axis_angle=np.full(number, 85.3), x_tilt=np.zeros(number), shift=np.zeros((number, 2))
    )
    tilt_series = TiltSeries(
        name=name,
        images=images,
        image_names=("",) * number,
        pixel_size=10.02,
        optics=Optics(),
        stage_tilt_angle=angle,
        nominal_tilt_axis_angle=85.0,
        exposure=np.full(number, 3.0),
        pre_exposure=order * 3.0,
        acquisition_order=order,
        use=np.ones(number, bool),
        why_not=("",) * number,
        geometry=geometry,
    )
    result = defocus(tilt_series, DefocusParams())
    assert result.tilt_series.ctf is None
    assert result.quality["determined"] is False and result.quality["reason"]


def test_needs_geometry():
    tilt_series = replace(series(np.zeros((len(ANGLES), 8, 8), np.float32), np.zeros((len(ANGLES), 2))), geometry=None)
    with pytest.raises(StageError, match="run align first"):
        defocus(tilt_series, DefocusParams())
