"""Tiles: what they settle is what the whole volume gives, at its faces too, whatever their size and its shape."""

import math

import pytest
import torch
from scipy.fft import next_fast_len

from tiltwise.ops.masks import soft_sphere
from tiltwise.ops.picking import matching
from tiltwise.ops.picking.tiles import WORK_BYTES, plan_tiles

EPS = 1.2e-7
SHAPES = [(31, 41, 50), (30, 64, 65), (12, 40, 33), (17, 29, 23), (13, 60, 61)]


def noise(*shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(math.prod(shape)))


def padded(box, shape, middle):
    """A box in zeros of a shape, its voxel `middle` at index 0, periodic."""
    whole = torch.zeros(shape)
    whole[tuple(slice(0, n) for n in box.shape)] = box
    return torch.roll(whole, (-middle,) * 3, dims=(0, 1, 2))


def correlated_whole(volume, kernel, middle):
    """Σ_u kernel(u) volume(v + u - middle) by one transform of the whole periodic volume, in float64."""
    spectrum = torch.fft.rfftn(volume.double()) * torch.fft.rfftn(padded(kernel, volume.shape, middle).double()).conj()
    return torch.fft.irfftn(spectrum, s=tuple(volume.shape))


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("side", [11, 12])
@pytest.mark.parametrize("work", [3e5, WORK_BYTES])
def test_scores_of_tiles_are_those_of_the_whole(shape, side, work):
    """Templates of norm 1 on noise of sd 1: scores of sd 1. Each is a sum by transforms whose rounding is some
    eps log2 N of the largest that a score can be, the norm of what a template covers, sqrt(side³)."""
    volume, templates = noise(*shape), noise(7, side, side, side)
    templates = templates / templates.flatten(1).norm(dim=1)[:, None, None, None]
    tiling = plan_tiles(shape, side, work)
    whole = torch.stack([correlated_whole(volume, one, side // 2) for one in templates])
    highest, number = whole.max(0)
    score, which = matching.correlate_everywhere(volume, templates.split(3), tiling)
    tolerance = EPS * math.log2(math.prod(tiling.lengths)) * side**1.5
    assert score.shape == which.shape == shape
    assert (score - highest).abs().max() < tolerance < 5e-4
    # the same winner, or one that is as good
    assert (highest - whole.gather(0, which[None].long())[0]).abs().max() < 2 * tolerance
    assert ((which != number) & (highest - whole.topk(2, 0).values[1] > 2 * tolerance)).sum() == 0


def test_small_work_means_many_tiles():
    """What the test above compares is cut: along every axis that has room for two tiles of twice the side."""
    assert [len(list(plan_tiles((31, 41, 50), 12, work).starts())) for work in (3e5, WORK_BYTES)] == [24, 1]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("work", [3e5, WORK_BYTES])
def test_filters_of_tiles_are_those_of_the_whole(shape, work, monkeypatch):
    """A response of order 1 on noise of order 1 and the mean square in a ball, against whole transforms in float64."""
    monkeypatch.setattr(matching, "plan_tiles", lambda shape, side: plan_tiles(shape, side, work))
    volume, side = noise(*shape), 12
    k = matching.frequency_vectors((side,) * 3, 1.0, "cpu").norm(dim=-1)
    response = torch.exp(-5 * k) * (k > 0.1)
    kernel = torch.fft.fftshift(torch.fft.irfftn(response.double(), s=(side,) * 3))
    both = (correlated_whole(volume, kernel, side // 2), correlated_whole(volume, kernel.flip(0, 1, 2), side // 2 - 1))
    tolerance = EPS * 20 * float(volume.abs().max())
    assert (matching.filter_by_box_response(volume, response) - sum(both) / 2).abs().max() < tolerance
    ball = soft_sphere((side,) * 3, 4.0, 1.0)
    rms = correlated_whole(volume**2, ball / ball.sum(), side // 2).sqrt()
    expected = (rms / rms.flatten().median()).clamp_min(1)
    assert (matching.local_spread(volume, side, 4.0) - expected).abs().max() < EPS * 20 * float(volume.square().max())


@pytest.mark.parametrize("side", [8, 24, 41, 120])
@pytest.mark.parametrize("work", [1e7, WORK_BYTES])
def test_tiles_fit_their_work_and_cover_the_volume(side, work):
    for shape in ((512, 1024, 1024), (509, 1021, 1000), (125, 1024, 300)):
        tiling = plan_tiles(shape, side, work)
        least = [min(n, 2 * side) for n in shape]
        smallest = math.prod(next_fast_len(n + side - 1, real=True) for n in least)
        assert tiling.bytes <= max(1.1 * work, 200 * smallest)
        assert all(length == next_fast_len(length, real=True) for length in tiling.lengths)
        for n, length, step in zip(shape, tiling.lengths, tiling.steps, strict=True):
            assert step == n == length or length - side + 1 >= step >= min(n, side)
        settled = sum(math.prod(i.stop - i.start for i in tiling.inside(start)) for start in tiling.starts())
        assert settled == math.prod(shape)


def test_work_does_not_grow_with_the_volume():
    sizes = [plan_tiles((n // 2, n, n), 24).bytes for n in (256, 512, 1024, 2048)]
    assert max(sizes) <= 1.1 * WORK_BYTES
