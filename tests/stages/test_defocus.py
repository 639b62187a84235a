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


def series(images: np.ndarray, shift: np.ndarray, name: str = "synthetic", angles: np.ndarray = ANGLES) -> TiltSeries:
    number = len(angles)
    order = np.argsort(np.argsort(np.abs(angles) + (angles < 0) * 0.5))
    return TiltSeries(
        name=name,
        images=images,
        image_names=tuple(f"{i + 1:06d}@{name}.mrc" for i in range(number)),
        pixel_size=PIXEL,
        optics=Optics(),
        stage_tilt_angle=angles,
        nominal_tilt_axis_angle=AXIS,
        exposure=np.full(number, 3.0),
        pre_exposure=order * 3.0,
        acquisition_order=order,
        use=np.ones(number, bool),
        why_not=("",) * number,
        geometry=TiltGeometry(
            tilt_angle=angles, tilt_axis_angle=np.full(number, AXIS), x_tilt=np.zeros(number), shift=shift
        ),
    )


def plane_specimen(
    seed: int, handedness: int, power: float, angles: np.ndarray = ANGLES
) -> tuple[TiltSeries, np.ndarray]:
    """A flat, random specimen imaged with a CTF that changes across each tilted image, and its defocus at depth 0.

    Written without the package: for the axis phi, a point of the plane z = 0 seen at u lies at depth
    -(u_x cos phi + u_y sin phi) tan theta. power is that of the specimen over that of the noise at the origin.
    """
    random = np.random.default_rng(seed)
    ky, kx = np.fft.fftfreq(SIDE, PIXEL)[:, None], np.fft.rfftfreq(SIDE, PIXEL)[None]
    k, azimuth = np.hypot(kx, ky), np.arctan2(ky, kx)
    critical = 0.24499 * np.maximum(k, 1e-6) ** -1.6649 + 2.8141
    y, x = np.mgrid[:SIDE, :SIDE]
    truth = random.uniform(22000, 33000) + random.normal(0, 200, len(angles))
    shift = random.normal(0, 50, (len(angles), 2))
    images = np.empty((len(angles), SIDE, SIDE), np.float32)
    exposure = series(images, shift, angles=angles).pre_exposure + 1.5
    phi = np.radians(AXIS)
    for i, angle in enumerate(angles):
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
    return series(images, shift, angles=angles), truth


@pytest.mark.parametrize("handedness", [1, -1])
def test_defocus_astigmatism_and_handedness_are_recovered(handedness):
    tilt_series, truth = plane_specimen(10 + handedness, handedness, power=1.0)
    blank, excluded, ringless = 3, 30, 12
    tilt_series.images[blank] = 7.0
    tilt_series.images[ringless] = 1000 + 30 * np.random.default_rng(0).standard_normal((SIDE, SIDE))
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
    assert abs(quality["astigmatism_A"] - 300) < 4 * quality["astigmatism_error_A"]
    assert quality["astigmatism_drift_A"] == 0 and quality["astigmatism_drift_evidence"] < 2
    assert np.all(np.abs(quality["specimen_slope_deg"]) < 4 * np.array(quality["specimen_slope_error_deg"]))
    assert abs((ctf.astigmatism_angle[0] - 30 + 90) % 180 - 90) <= 15
    # a tilt without rings has the others to lean on: an error at least as wide as their spread, and no wild value
    assert ctf.defocus_error[ringless] > max(100, 2 * np.median(ctf.defocus_error[middle]))
    assert abs(error[ringless]) < 4 * ctf.defocus_error[ringless] < 4000
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


def test_three_tilts_are_enough():
    tilt_series, truth = plane_specimen(3, -1, power=1.0, angles=np.array([-30.0, 0.0, 30.0]))
    result = defocus(tilt_series, DefocusParams())
    error = result.tilt_series.ctf.mean_defocus - truth
    assert np.all(np.abs(error) < 4 * result.tilt_series.ctf.defocus_error)
    assert np.abs(error).max() < 400
    assert result.tilt_series.defocus_handedness in (-1, None)


def test_a_pixel_size_that_was_never_set_is_named():
    """Rings of 4 Å pixels lie nowhere in the band of 1 Å pixels; the reason says what to look at."""
    random = np.random.default_rng(5)
    images = random.standard_normal((3, SIDE, SIDE)).astype(np.float32)
    tilt_series = series(images, np.zeros((3, 2)), angles=np.array([-30.0, 0.0, 30.0]))
    result = defocus(replace(tilt_series, pixel_size=1.0), DefocusParams())
    assert result.tilt_series.ctf is None and "pixel size is exactly 1 Å" in result.quality["reason"]


def test_constant_images_are_named():
    tilt_series = series(np.full((len(ANGLES), SIDE, SIDE), 7.0, np.float32), np.zeros((len(ANGLES), 2)))
    result = defocus(tilt_series, DefocusParams())
    assert result.tilt_series.ctf is None and "not blank" in result.quality["reason"]
    json.dumps(result.quality, allow_nan=False)


@pytest.mark.parametrize("phase_shift", [0.0, 75.0])
def test_one_untilted_micrograph(phase_shift):
    """1536² of 1.35 Å: white matter and a CTF written out here, at a contrast of 0.3; standard error near 10 Å.

    With the phase shift free it is wider, since both move the rings.
    """
    side, pixel, u, v, direction = 1536, 1.35, 21000.0, 19500.0, 30.0
    random = np.random.default_rng(4)
    ky, kx = np.fft.fftfreq(side, pixel)[:, None], np.fft.rfftfreq(side, pixel)[None]
    square = kx**2 + ky**2
    dz = (u + v + (u - v) * np.cos(2 * (np.arctan2(ky, kx) - np.radians(direction)))) / 2
    chi = np.pi * WAVELENGTH * square * (dz - 0.5 * WAVELENGTH**2 * square * CS)
    transfer = -np.sin(chi + math.asin(W) + math.radians(phase_shift)) * np.exp(-60 * square / 4)
    signal = np.fft.irfft2(np.fft.rfft2(random.standard_normal((side, side))) * transfer, s=(side, side))
    image = 0.3 * signal / signal.std() + random.standard_normal((side, side))
    one = series(image[None].astype(np.float32), np.zeros((1, 2)), angles=np.zeros(1))
    one = replace(one, pixel_size=pixel, exposure=np.zeros(1))
    result = defocus(one, DefocusParams(fit_phase_shift=phase_shift > 0))
    ctf = result.tilt_series.ctf
    assert abs(ctf.mean_defocus[0] - (u + v) / 2) < 4 * ctf.defocus_error[0] < 200
    assert abs(ctf.defocus_u[0] - ctf.defocus_v[0] - (u - v)) < 60
    assert abs(ctf.astigmatism_angle[0] - direction) < 2
    assert abs(ctf.phase_shift[0] - phase_shift) < 6
    if phase_shift:
        assert abs(ctf.phase_shift[0] - phase_shift) < 4 * result.quality["phase_shift_error_deg"] < 10
    assert result.tilt_series.defocus_handedness is None
    assert result.quality["handedness_reason"] == "no tilt shows depth"
    json.dumps(result.quality, allow_nan=False)


def test_needs_geometry():
    tilt_series = replace(series(np.zeros((len(ANGLES), 8, 8), np.float32), np.zeros((len(ANGLES), 2))), geometry=None)
    with pytest.raises(StageError, match="run align first"):
        defocus(tilt_series, DefocusParams())
