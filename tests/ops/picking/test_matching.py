"""The matched filter: unit noise, agreement with the defining sums, a transfer that follows the tilts."""

import numpy as np
import pytest
import torch

from tiltwise.data.optics import Optics
from tiltwise.data.tilt_series import TiltGeometry
from tiltwise.ops.geometry import tilt_rotations
from tiltwise.ops.picking import matching
from tiltwise.ops.picking.template_search import shrink_volume
from tiltwise.ops.picking.tiles import plan_tiles
from tiltwise.ops.projection import tilt_widths

ANGLES = np.arange(-60, 61, 3.0)


def transfer():
    n = len(ANGLES)
    geometry = TiltGeometry(
        tilt_angle=ANGLES, tilt_axis_angle=np.full(n, 85.0), x_tilt=np.zeros(n), shift=np.zeros((n, 2))
    )
    return matching.TiltTransfer(
        rotations=tilt_rotations(geometry),
        widths=torch.as_tensor(tilt_widths(ANGLES)),
        amplitude=torch.ones(n, 100),
        frequency_step=1e-3,
    )


def test_transfer_is_one_where_slices_are_dense_and_zero_in_the_wedge():
    shape, voxel = (24, 24, 24), 10.0
    t = matching.box_transfer(transfer(), shape, voxel)
    k = matching.frequency_vectors(shape, voxel, "cpu")
    angle = torch.rad2deg(torch.atan2(k[..., 2], k[..., 0]))
    angle = torch.where(angle > 90, angle - 180, torch.where(angle < -90, angle + 180, angle))
    across = (k[..., 0] ** 2 + k[..., 2] ** 2).sqrt()
    # up to 1/80 Å neighbouring slices, 3 degrees apart, overlap within the 1/240 Å of the box
    measured = (angle.abs() < 45) & (across > 0.01) & (across < 0.03)
    assert (t[measured] - 1).abs().max() < 0.1
    assert t[(angle.abs() > 75) & (across > 0.025)].max() < 1e-6


def test_amplitudes_hold_ctf_and_level_exposure_weights():
    k = torch.arange(0, 0.05, 1e-3)
    exposures = (np.arange(0, 123, 3.0), np.full(41, 3.0))
    plain = matching.tilt_amplitudes(k, Optics(), exposures, None, None)
    assert torch.allclose(plain.square().mean(0), torch.ones(len(k)), atol=1e-5)
    with_ctf = matching.tilt_amplitudes(k, Optics(), exposures, np.full(41, 30000.0), np.zeros(41))
    assert float((with_ctf / plain)[0, 0]) == pytest.approx(0.07, abs=1e-4)  # amplitude contrast alone
    at_20 = matching.tilt_amplitudes(torch.tensor([0.05]), Optics(), exposures, np.full(41, 30000.0), np.zeros(41))
    plain_20 = matching.tilt_amplitudes(torch.tensor([0.05]), Optics(), exposures, None, None)
    assert torch.allclose(at_20, plain_20, rtol=1e-4)  # |CTF| = 1.0000 at 20 Å, 300 kV, 3 µm, Cs 2.7 mm


def test_scores_are_the_defining_sums_and_noise_has_unit_spread():
    """Y and W of white noise with a flat transfer: the score is <noise, V> / |V|, normal with sd 1."""
    torch.manual_seed(0)
    volume, side = torch.randn(32, 36, 40), 12
    weight = torch.ones(side, side, side // 2 + 1)
    templates = torch.zeros(2, side, side, side)
    templates[:, 3:9, 3:9, 3:9] = torch.randn(2, 6, 6, 6)
    norms = matching.template_norms(templates, weight)
    assert torch.allclose(norms, templates.flatten(1).norm(dim=1), rtol=1e-5)
    scaled, tiling = templates / norms[:, None, None, None], plan_tiles(tuple(volume.shape), side)
    score, which = matching.correlate_everywhere(volume, [scaled], tiling)
    z, y, x = 15, 20, 17
    patch = volume[z - 6 : z + 6, y - 6 : y + 6, x - 6 : x + 6]
    sums = (templates * patch).flatten(1).sum(1) / norms
    assert float(score[z, y, x]) == pytest.approx(float(sums.max()), abs=1e-4)
    assert int(which[z, y, x]) == int(sums.argmax())
    single, _ = matching.correlate_everywhere(volume, [scaled[:1]], tiling)
    assert float(single.std()) == pytest.approx(1, abs=0.03)


def test_box_power_of_white_noise_is_one():
    torch.manual_seed(1)
    power = matching.box_power(torch.randn(40, 60, 60), 16)
    assert float(power.mean()) == pytest.approx(1, abs=0.05)


def test_filtering_by_a_box_response_keeps_what_it_should():
    torch.manual_seed(2)
    volume = torch.randn(30, 32, 34)
    assert torch.allclose(matching.filter_by_box_response(volume, torch.ones(12, 12, 7)), volume, atol=1e-4)


def test_local_spread_rises_only_where_it_is_loud():
    torch.manual_seed(3)
    volume = torch.randn(30, 60, 60)
    volume[:, 40:, 40:] *= 5
    spread = matching.local_spread(volume, 12, 5.0)
    assert spread.min() == 1 and spread[15, 10, 10] < 1.2 and spread[15, 50, 50] > 3.5


@pytest.mark.parametrize("shape", [(30, 41, 50), (31, 40, 51)])
def test_shrinking_keeps_the_centre(shape):
    volume = torch.zeros(shape)
    axes = torch.meshgrid(*[torch.arange(n) - n // 2 for n in shape], indexing="ij")
    volume = torch.exp(-sum(a**2 for a in axes) / (2 * 3.0**2))
    small, voxel = shrink_volume(volume, 10.0, 16.0)
    assert voxel == pytest.approx(16.25, abs=1.3) and voxel <= 16.0
    assert torch.nonzero(small == small.max())[0].tolist() == [n // 2 for n in small.shape]
