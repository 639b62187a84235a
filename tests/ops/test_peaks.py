"""Peaks: which are kept, where they lie between voxels, and which the noise explains."""

import numpy as np
import pytest
import torch

from tiltwise.ops.peaks import (
    expected_above,
    keep_separate,
    local_maxima,
    noise_tail,
    parabola_offset,
    parabola_top,
)


def test_local_maxima_come_best_first_and_apart():
    score = torch.zeros(9, 9, 9)
    score[2, 3, 4], score[2, 3, 6], score[7, 7, 1] = 5.0, 4.0, 6.0
    index, value = local_maxima(score, 2, 10)
    assert index[:2].tolist() == [[7, 7, 1], [2, 3, 4]] and value[:2].tolist() == [6.0, 5.0]
    assert [2, 3, 6] not in index.tolist()  # within 2 voxels of a higher one


def test_maxima_do_not_depend_on_the_planes_looked_at_together(monkeypatch):
    score = torch.randn(30, 12, 13, generator=torch.Generator().manual_seed(2))
    score[:, :2] = score[5, 5, 5]  # equals keep the order of the voxels
    whole = local_maxima(score, 2, 50)
    for planes in (1, 2, 7):
        monkeypatch.setattr("tiltwise.ops.moments._SLAB_VOXELS", planes * 12 * 13)
        assert all(torch.equal(one, other) for one, other in zip(whole, local_maxima(score, 2, 50), strict=True))


def test_parabola_finds_its_own_vertex():
    x = torch.tensor([-1.0, 0.0, 1.0])
    for vertex in (-0.4, 0.0, 0.3):
        samples = 5 - 2 * (x - vertex) ** 2
        assert abs(float(parabola_offset(*samples)) - vertex) < 1e-6
    assert float(parabola_offset(torch.tensor(1.0), torch.tensor(0.0), torch.tensor(1.0))) == 0


def test_the_better_of_two_neighbours_stays():
    position = np.array([[0.0, 0, 0], [0, 0, 9.0], [0, 0, 20.0]])
    assert keep_separate(position, np.array([1.0, 2.0, 0.5]), 10.0).tolist() == [1, 2]
    assert sorted(keep_separate(position, np.array([1.0, 2.0, 0.5]), 9.0).tolist()) == [0, 1, 2]


def peaks_of_noise(seed):
    torch.manual_seed(seed)
    k = torch.fft.fftfreq(48)
    envelope = torch.exp(-30 * (k[:, None, None] ** 2 + k[:, None] ** 2 + k[: 48 // 2 + 1] ** 2))
    field = torch.fft.irfftn(torch.fft.rfftn(torch.randn(48, 48, 48)) * envelope, s=(48, 48, 48))
    return local_maxima(field / field.std(), 3, 10_000)[1].double().numpy()


def test_the_tail_of_noise_tells_how_many_to_expect():
    """Fitted on one field's peaks, it predicts the count above the 99th centile of ten others within a factor of 2."""
    peaks = [peaks_of_noise(seed) for seed in range(11)]
    tail = noise_tail(peaks[0])
    limit = np.quantile(np.concatenate(peaks[1:]), 0.99)
    expected = float(expected_above(np.array(limit), tail, len(peaks[0])))
    assert 0.5 < expected / (0.01 * len(peaks[0])) < 2


@pytest.mark.parametrize(("centre", "found"), [(-2.3, -2.3), (1.4, 1.4), (7.0, 3.0), (-9.0, -3.0)])
def test_the_top_of_a_line_is_that_of_its_parabola_and_never_beyond_its_ends(centre, found):
    place = np.linspace(-3, 3, 13)
    assert parabola_top(place, 5 - (place - centre) ** 2) == pytest.approx(found)


def test_the_top_of_a_line_that_rises_ever_faster_is_its_end():
    place = np.arange(5.0)
    assert parabola_top(place, np.exp(place)) == 4.0
    assert parabola_top(place, np.zeros(5)) == 1.0
