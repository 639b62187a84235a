"""Critical exposure and what it leaves, against the figures computed independently for the project's notes."""

import math

import numpy as np
import pytest
import torch

from tiltwise.ops.exposure import critical_exposure, exposure_amplitude

CRITICAL = {3: 4.340, 4: 5.277, 5: 6.386, 6: 7.652, 8: 10.625, 10: 14.139, 15: 25.059, 20: 38.726, 40: 116.69}


def f64(value) -> torch.Tensor:
    return torch.as_tensor(value, dtype=torch.float64)


@pytest.mark.parametrize(("spacing", "value"), CRITICAL.items())
def test_critical_exposure(spacing, value):
    k = f64(1 / spacing)
    assert float(critical_exposure(k, 300.0)) == pytest.approx(value, rel=1e-4)
    assert float(critical_exposure(k, 200.0)) == pytest.approx(0.8 * float(critical_exposure(k, 300.0)))
    assert float(critical_exposure(k, 100.0)) == pytest.approx(0.532 * float(critical_exposure(k, 300.0)))


def test_unknown_voltage_is_an_error():
    with pytest.raises(ValueError, match="120"):
        critical_exposure(f64(0.1), 120.0)


def test_amplitude_is_the_mean_over_the_image():
    k, before, during = f64(0.1), f64(12.0), f64(3.0)
    steps = 12.0 + 3.0 * (np.arange(100000) + 0.5) / 100000
    expected = np.exp(-steps / (2 * float(critical_exposure(k, 300.0)))).mean()
    assert float(exposure_amplitude(k, before, during, 300.0)) == pytest.approx(expected, rel=1e-9)


def test_limits():
    nothing, some = f64(0.0), f64(12.0)
    assert float(exposure_amplitude(f64(0.0), some, f64(3.0), 300.0)) == pytest.approx(1.0)
    critical = float(critical_exposure(f64(0.1), 300.0))
    assert float(exposure_amplitude(f64(0.1), some, nothing, 300.0)) == pytest.approx(math.exp(-6 / critical))
    assert float(exposure_amplitude(f64(0.1), nothing, f64(1e-7), 300.0)) == pytest.approx(1.0)


def orders() -> dict[str, np.ndarray]:
    """Tilt angles in the order in which each scheme takes them: 41 tilts, ±60°, 3°."""
    angles = np.arange(-60, 61, 3)
    symmetric = [0]
    for step in range(1, 21):
        symmetric += [3 * step, -3 * step]
    return {
        "one way": angles,
        "both ways from 0": np.r_[np.arange(0, 61, 3), np.arange(-3, -61, -3)],
        "both ways from -21": np.r_[np.arange(-21, 61, 3), np.arange(-24, -61, -3)],
        "dose-symmetric": np.array(symmetric),
    }


@pytest.mark.parametrize(
    ("scheme", "spacing", "value"),
    [
        ("one way", 20, 0.4095),
        ("both ways from 0", 20, 0.4341),
        ("both ways from -21", 20, 0.4432),
        ("dose-symmetric", 20, 0.4483),
        ("one way", 10, 0.1729),
        ("both ways from 0", 10, 0.2103),
        ("both ways from -21", 10, 0.2168),
        ("dose-symmetric", 10, 0.2207),
        ("one way", 5, 0.0687),
        ("both ways from 0", 5, 0.1023),
        ("both ways from -21", 5, 0.1024),
        ("dose-symmetric", 5, 0.1050),
    ],
)
def test_schemes(scheme, spacing, value):
    """Mean over tilts of cos(theta) times the amplitude left, 120 e/Å² in all."""
    angles = orders()[scheme]
    each = 120 / 41
    left = exposure_amplitude(f64(1 / spacing), f64(np.arange(41) * each), f64(each), 300.0).numpy()
    assert np.mean(np.cos(np.radians(angles)) * left) == pytest.approx(value, abs=6e-5)


@pytest.mark.parametrize(
    ("thickness", "spacing", "value"),
    [
        (2000, 20, 0.1544),
        (2000, 10, 0.0617),
        (2000, 5, 0.0280),
        (2000, 3.5, 0.0210),
        (1000, 20, 0.2178),
        (1000, 10, 0.0852),
        (1000, 5, 0.0385),
        (1000, 3.5, 0.0288),
    ],
)
def test_signal_left_of_a_dose_symmetric_series(thickness, spacing, value):
    """Sum of exposure · amplitude² · unscattered fraction over 120 e/Å², inelastic mean free path 3150 Å."""
    angles = orders()["dose-symmetric"]
    each = 120 / 41
    left = exposure_amplitude(f64(1 / spacing), f64(np.arange(41) * each), f64(each), 300.0).numpy()
    unscattered = np.exp(-thickness / (3150 * np.cos(np.radians(angles))))
    assert np.sum(each * left**2 * unscattered) / 120 == pytest.approx(value, abs=6e-5)
