"""Envelopes against the figures of the notes on physics, and beam tilt against the wave that it is."""

import math
from dataclasses import replace

import pytest
import torch
from optical_bench import COHERENT, exact_series

from tiltwise.ops.ctf import electron_wavelength
from tiltwise.params.microscope import LensParams
from tiltwise.simulate.microscope import Grid
from tiltwise.simulate.transfer import beam_tilt_factor, coherent_transfer, spatial_envelope, temporal_envelope

THREE = torch.tensor(1 / 3.0)


def test_temporal_envelope():
    """Cc 2.7 mm, 0.3 eV rms, 300 kV: a focus spread of 33 Å leaves 0.974 at 3 Å (notes on physics, 2.5)."""
    assert float(temporal_envelope(THREE, LensParams(energy_spread=0.3))) == pytest.approx(0.974, abs=5e-4)


@pytest.mark.parametrize(("angle", "left"), [(0.01, 0.77), (0.03, 0.10)])
def test_spatial_envelope(angle, left):
    """5 µm, 3 Å, half-angle 1e-5 and 3e-5 rad (notes on physics, 2.5)."""
    assert float(spatial_envelope(THREE, 50000.0, LensParams(convergence=angle))) == pytest.approx(left, abs=0.006)


def test_no_spread_no_envelope():
    assert float(temporal_envelope(THREE, COHERENT)) == 1.0
    assert float(spatial_envelope(THREE, 50000.0, COHERENT)) == 1.0


def test_beam_tilt_is_the_odd_part_of_the_phase():
    """2π Cs λ² k² (k·τ): 1 mrad, 2.7 mm, 300 kV, along x at 1/4 Å: 2π · 2.7e7 · 0.0196875² · 1e-3 / 64 = 1.0274 rad."""
    lens = LensParams(beam_tilt_x=1.0)
    factor = beam_tilt_factor(64, 1.0, lens)
    wavelength = electron_wavelength(300.0)
    expected = 2 * math.pi * 2.7e7 * wavelength**2 * 1e-3 / 64
    assert expected == pytest.approx(1.0274, abs=1e-3)
    assert float(factor[0, 16].angle()) == pytest.approx(expected, abs=1e-4)
    assert float(factor[16, 0].angle()) == pytest.approx(0.0, abs=1e-6)  # not along y


def test_a_phase_plate_shifts_the_rings():
    """With w = 0 and a phase shift of 90° the transfer at the origin is -1 times its amplitude."""
    series = exact_series(64, 4.0)
    optics = replace(series.optics, amplitude_contrast=0.0)
    ctf = replace(series.ctf, phase_shift=series.ctf.phase_shift + 90.0)
    transfer = coherent_transfer(Grid.of(64, 4.0), 4.0, replace(series, optics=optics, ctf=ctf), 1, COHERENT)
    at_zero = transfer.at(torch.tensor(0.0))[0, 0] / transfer.amplitude[0, 0]
    assert float(at_zero) == pytest.approx(-1.0, abs=1e-6)
