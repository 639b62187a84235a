"""Postprocess: a map of known signal and noise gives its known resolution; a mask cannot make one up."""

import math

import numpy as np
import pytest
import torch

from tiltwise.data.errors import StageError
from tiltwise.data.maps import HalfMaps
from tiltwise.data.volume import Volume
from tiltwise.ops.filters import low_pass
from tiltwise.ops.fsc import correct_for_mask, first_crossing, fourier_shell_correlation, randomise_phases
from tiltwise.ops.interpolate import centred_points
from tiltwise.params.postprocess import PostprocessParams
from tiltwise.stages.postprocess import postprocess

VOXEL = 2.5


def particle(n, seed=0, radius=None):
    """A ball of random density: white inside, so its amplitudes are flat."""
    distance = centred_points((n, n, n)).norm(dim=-1)
    inside = (distance < (radius or 0.28 * n)).double()
    generator = torch.Generator().manual_seed(seed)
    return inside * (1 + torch.randn(n, n, n, dtype=torch.float64, generator=generator))


def halves(signal, noise_sd, seed=1, voxel=VOXEL):
    generator = torch.Generator().manual_seed(seed)
    maps = [signal + noise_sd * torch.randn(signal.shape, dtype=torch.float64, generator=generator) for _ in range(2)]
    a, b = (Volume(data=m.numpy().astype(np.float32), voxel_size=voxel) for m in maps)
    return HalfMaps(half1=a, half2=b)


def damped(n, b_factor, voxel=VOXEL):
    frequency = torch.fft.fftfreq(n, voxel, dtype=torch.float64)
    square = frequency[:, None, None] ** 2 + frequency[None, :, None] ** 2 + frequency[None, None, :] ** 2
    return torch.fft.ifftn(torch.fft.fftn(particle(n)) * torch.exp(-b_factor / 4 * square)).real


@pytest.mark.parametrize("n", [64, 65])
def test_resolution_lies_where_signal_and_noise_say(n):
    b_factor, noise_sd = 400.0, 0.15
    result = postprocess(halves(damped(n, b_factor), noise_sd), PostprocessParams())
    # power in the mask: signal V_ball exp(-B k² / 2), noise noise_sd² Σ mask²; FSC is 1/7 where the SSNR is 1/6
    ball = float((particle(n) != 0).sum()) / float((result.mask.data.astype(float) ** 2).sum())
    expected = 1 / math.sqrt(2 / b_factor * math.log(6 * ball / noise_sd**2))
    assert result.quality["resolution_fsc_A"] == pytest.approx(expected, rel=0.06)
    assert result.quality["resolution_fsc_A"] <= result.quality["resolution_unmasked_A"]
    assert result.map.data.shape == (n, n, n) and np.isfinite(result.map.data).all()
    assert 0.02 < result.quality["mask_fraction"] < 0.4
    assert result.mask.data.min() >= 0 and result.mask.data.max() == 1


def test_the_b_factor_is_found_and_undone():
    n, voxel = 80, 1.5
    result = postprocess(halves(damped(n, 100.0, voxel), 0.02, voxel=voxel), PostprocessParams())
    error = result.quality["b_factor_error_A2"]
    assert result.quality["b_factor_A2"] == pytest.approx(-100, abs=max(3 * error, 10))
    assert error < 10
    given = postprocess(halves(damped(n, 100.0, voxel), 0.02, voxel=voxel), PostprocessParams(b_factor=-50))
    assert given.quality["b_factor_A2"] == -50


def test_no_b_factor_is_said_and_nothing_is_sharpened():
    result = postprocess(halves(damped(48, 2000.0, 4.0), 0.1, voxel=4.0), PostprocessParams())
    assert result.quality["b_factor_A2"] is None
    assert any("not sharpened" in note for note in result.quality["notes"])


def test_a_too_tight_mask_is_unmasked_by_phase_randomisation():
    # signal to 25 Å, nothing but noise beyond, and a hard mask cut along the density: the cut spreads the coarse
    # signal, alike in both halves, over all shells
    n = 64
    body = low_pass(particle(n, radius=10), 25.0, VOXEL)
    maps = halves(3 * body, 0.2)
    a, b = (torch.as_tensor(m.data) for m in (maps.half1, maps.half2))
    tight = (body > 0.6 * body.max()).float()
    frequency = torch.arange(n // 2 + 1, dtype=torch.float64) / (n * VOXEL)
    unmasked = fourier_shell_correlation(a, b)
    first = int(torch.nonzero(unmasked[1:] < 0.8)[0]) + 1
    masked = fourier_shell_correlation(a * tight, b * tight)
    generator = torch.Generator().manual_seed(0)
    c, d = (randomise_phases(m, first, generator) * tight for m in (a, b))
    corrected = correct_for_mask(masked, fourier_shell_correlation(c, d), first)
    assert first_crossing(frequency, masked, 0.143) < 12
    assert first_crossing(frequency, corrected, 0.143) > 15
    assert float(masked[first + 8 :].mean()) > 0.4 > 0.1 > abs(float(corrected[first + 8 :].mean()))


@pytest.mark.parametrize("n", [48, 49])
def test_pure_noise_has_no_resolution(n):
    result = postprocess(halves(torch.zeros(n, n, n, dtype=torch.float64), 1.0), PostprocessParams())
    resolution = result.quality["resolution_fsc_A"]
    assert resolution is None or resolution > n * VOXEL / 5  # one of the first few shells, of a few dozen samples each
    assert np.isfinite(result.map.data).all()


def test_identical_halves_reach_the_sampling_and_say_so():
    result = postprocess(halves(particle(32), 0.0), PostprocessParams())
    assert result.quality["resolution_fsc_A"] == pytest.approx(2 * VOXEL)
    assert any("limited by the voxel size" in note for note in result.quality["notes"])


def test_same_input_same_bits():
    maps = halves(particle(32), 0.5)
    first, second = (postprocess(maps, PostprocessParams(seed=3)) for _ in range(2))
    assert np.array_equal(first.map.data, second.map.data) and first.quality == second.quality


def test_faults_are_named():
    maps = halves(particle(24), 0.1)
    small = halves(particle(22), 0.1)
    with pytest.raises(StageError, match="one size"):
        postprocess(HalfMaps(half1=maps.half1, half2=small.half2), PostprocessParams())
    flat = Volume(data=np.zeros((24, 24, 24), np.float32), voxel_size=VOXEL)
    with pytest.raises(StageError, match="half map 2 is constant"):
        postprocess(HalfMaps(half1=maps.half1, half2=flat), PostprocessParams())
    other = Volume(data=maps.half2.data, voxel_size=3.0)
    with pytest.raises(StageError, match="voxel size"):
        postprocess(HalfMaps(half1=maps.half1, half2=other), PostprocessParams())
    with pytest.raises(StageError, match="overflows"):
        postprocess(maps, PostprocessParams(b_factor=-50000))
