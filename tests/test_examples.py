"""The lessons run, and teach what they say."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest

EXAMPLES = Path(__file__).parents[1] / "examples"


def load(name):
    spec = importlib.util.spec_from_file_location(f"lesson_{name}", EXAMPLES / name / "lesson.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_signal_to_noise_grows_with_the_root(capsys):
    """The correlation over 48² px, half of them independent, has an error of 0.03: 5 % of the SNR at N = 16 and 3 % at
    64, which leaves the slope an error of 0.05."""
    found = load("signal_to_noise").main(seed=1)
    slope = np.log(found[64] / found[16]) / np.log(4)
    assert slope == pytest.approx(0.5, abs=0.15)
    assert found[1] < 0.5 and found[64] > 1
    assert "Four times as many particles" in capsys.readouterr().out


def test_resolution_is_honest_only_with_independent_noise(capsys):
    lesson = load("resolution")
    halves, truth, shared, nothing = lesson.main(seed=1).values()
    nyquist = 2 * lesson.PIXEL_SIZE
    assert halves == pytest.approx(truth, rel=0.2) and truth > 1.2 * nyquist
    assert shared == pytest.approx(nyquist, rel=0.02)
    assert nothing < 1.2 * nyquist
    assert "images of nothing" in capsys.readouterr().out
