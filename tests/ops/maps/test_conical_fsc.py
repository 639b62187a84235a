"""Conical FSC: the same in all directions for an even map, and worse along an axis where the data lack."""

import torch

from tiltwise.ops.fourier import frequency_norm
from tiltwise.ops.fsc import fourier_shell_correlation
from tiltwise.ops.maps.conical_fsc import conical_fsc, directional_resolution, half_sphere
from tiltwise.ops.maps.fsc_precision import independent_values

N, VOXEL = 64, 2.0


def halves(signal_filter, seed=0):
    generator = torch.Generator().manual_seed(seed)
    spectrum = torch.fft.rfftn(torch.randn(N, N, N, generator=generator)) * signal_filter
    signal = torch.fft.irfftn(spectrum, s=(N, N, N))
    return [signal + 0.3 * torch.randn(N, N, N, generator=generator) for _ in range(2)]


def frequency():
    return torch.arange(N // 2 + 1, dtype=torch.float64) / (N * VOXEL)


def damping(norm, b_factor):
    return torch.exp(-b_factor / 4 * norm**2)


def test_an_even_map_is_as_good_in_every_direction():
    maps = halves(damping(frequency_norm((N, N, N), VOXEL), 300.0))
    found = conical_fsc(*maps)
    whole = fourier_shell_correlation(*maps)
    # a cone of 20 degrees holds 1 - cos(20°) = 6 % of a shell: 190 independent values of shell 16
    values = found.fsc[:, 16]
    assert abs(float(values.mean() - whole[16])) < 0.03
    expected = float(1 - whole[16] ** 2) / (0.5 * 0.06 * 4 * torch.pi * 16**2) ** 0.5
    assert 0.6 * expected < float(values.std()) < 1.5 * expected


def test_a_damped_axis_is_found():
    kz = torch.fft.fftfreq(N, VOXEL)
    kx = torch.fft.rfftfreq(N, VOXEL)
    norm = frequency_norm((N, N, N), VOXEL)
    cosine = (kz[:, None, None].expand(N, N, len(kx)) / norm.clamp_min(1e-9)).abs()
    maps = halves(damping(norm, 200.0 + 1200.0 * cosine**2))
    found = conical_fsc(*maps)
    spacing = directional_resolution(frequency(), found.fsc, independent_values(N), 0.143)
    worst, best = found.direction[spacing.argmax()], found.direction[spacing.argmin()]
    assert float(worst[2]) > 0.9 and float(best[2]) < 0.35
    # along an axis of B the FSC falls to 0.143 where 0.09 · 0.1669 = exp(-B k² / 2)
    k = (-2 / 200.0 * torch.log(torch.tensor(0.09 * 0.1669))).sqrt()
    assert abs(float(spacing.min()) * float(k) - 1) < 0.1


def test_directions_are_even_and_of_one_half():
    points = half_sphere(100)
    assert torch.allclose(points.norm(dim=1), torch.ones(100, dtype=torch.float64))
    assert bool((points[:, 2] > 0).all())
    near = (points @ points.T).abs().fill_diagonal_(0).max(dim=1).values
    assert float(torch.rad2deg(near.acos()).min()) > 8 and float(torch.rad2deg(near.acos()).max()) < 20
