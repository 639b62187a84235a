import numpy as np
import pytest
import torch
from scipy.ndimage import map_coordinates, spline_filter

from tiltwise.data.motion import Motion
from tiltwise.ops.exposure import exposure_amplitude
from tiltwise.ops.kernels.warp import add_warped
from tiltwise.ops.motion.frame_sum import ExposureWeights, FrameSums, bin_sums, sum_frames
from tiltwise.ops.motion.model import grid_displacement

PIXEL, SHAPE = 1.5, (90, 128)


def still(frames, coefficient=None):
    extent = (SHAPE[1] * PIXEL, SHAPE[0] * PIXEL)
    return Motion(exposure=np.ones(frames), shift=np.zeros((frames, 2)), coefficient=coefficient, extent=extent)


def noise(frames, seed=0):
    rng = np.random.default_rng(seed)
    return [torch.from_numpy(rng.standard_normal(SHAPE, dtype=np.float32)) for _ in range(frames)]


def smooth(y, x):
    return np.sin(2 * np.pi * (3 * x / SHAPE[1] + 2 * y / SHAPE[0])) + np.cos(2 * np.pi * 5 * x / SHAPE[1])


def test_odd_and_even_make_the_whole():
    frames = noise(5)
    sums = sum_frames(iter(frames), still(5), PIXEL)
    assert np.allclose(sums.odd, sum(frames[::2]).numpy(), atol=1e-5)
    assert np.allclose(sums.odd + sums.even, sum(frames).numpy(), atol=1e-5)


def test_a_shift_is_taken_back_exactly():
    y, x = np.mgrid[: SHAPE[0], : SHAPE[1]].astype(float)
    shift = np.array([[2.3, -1.1], [-2.3, 1.1]]) * PIXEL  # content of the first frame lies to the right of the sum's
    frames = [torch.from_numpy(smooth(y - dy, x - dx).astype(np.float32)) for dx, dy in shift / PIXEL]
    motion = Motion(exposure=np.ones(2), shift=shift, coefficient=None, extent=(1.0, 1.0))
    assert np.allclose(sum_frames(frames, motion, PIXEL).odd, smooth(y, x), atol=1e-4)


def test_local_motion_is_taken_back():
    y, x = np.mgrid[: SHAPE[0], : SHAPE[1]].astype(float)
    coefficient = np.random.default_rng(0).normal(0, 2.0, (4, 4, 4, 2))
    motion = still(4, coefficient)
    rows, columns = ((np.arange(n) - n // 2) * PIXEL for n in SHAPE)
    frames = []
    for frame in range(4):
        field, moved = grid_displacement(motion, frame, rows, columns) / PIXEL, np.zeros((*SHAPE, 2))
        for _ in range(6):
            at = [y - moved[..., 1], x - moved[..., 0]]
            moved = np.stack([map_coordinates(field[..., c], at, order=3, mode="nearest") for c in (0, 1)], axis=-1)
        frames.append(torch.from_numpy(smooth(y - moved[..., 1], x - moved[..., 0]).astype(np.float32)))
    sums = sum_frames(frames, motion, PIXEL)
    inner = (slice(8, -8), slice(8, -8))  # content leaves at the edges
    # the field is linear between nodes 64 px apart, wide for an image this small; its steepest bend there is 0.3 px
    assert np.abs((sums.odd + sums.even) / 4 - smooth(y, x))[inner].max() < 0.1
    assert np.abs(sum(frames).numpy() / 4 - smooth(y, x))[inner].max() > 0.25


def test_the_kernel_is_its_plain_twin():
    rng = np.random.default_rng(0)
    image = rng.standard_normal((48, 64))
    coefficients = spline_filter(image, order=3, mode="grid-wrap").astype(np.float32)
    nodes = rng.normal(0, 3, (2, 5, 6)).astype(np.float32)
    total = np.zeros((48, 64), np.float32)
    add_warped(coefficients, nodes[0], nodes[1], 16, total)
    y, x = np.mgrid[:48, :64].astype(float)
    dx, dy = (map_coordinates(n.astype(float), [y / 16, x / 16], order=1) for n in nodes)
    twin = map_coordinates(image, [y + dy, x + dx], order=3, mode="grid-wrap")
    assert np.abs(total - twin).max() < 1e-4


def test_no_displacement_gives_the_image_back():
    frames = noise(1)
    sums = sum_frames(frames, still(1, np.zeros((1, 4, 4, 2))), PIXEL)
    assert np.abs(sums.odd - frames[0].numpy()).max() < 1e-5
    assert not sums.even.any()


def test_weights_are_the_closed_form():
    before, during = np.array([0.0, 3.0, 40.0]), np.array([3.0, 3.0, 3.0])
    frames = noise(3)
    sums = sum_frames(frames, still(3), PIXEL, ExposureWeights(before=before, during=during, voltage=300.0))
    total = torch.fft.rfft2(torch.from_numpy(sums.odd + sums.even))
    ky, kx = 7, 11
    k = torch.tensor(np.hypot(kx / (SHAPE[1] * PIXEL), ky / (SHAPE[0] * PIXEL)))
    q = [
        float(exposure_amplitude(k, torch.tensor(b), torch.tensor(d), 300.0))
        for b, d in zip(before, during, strict=True)
    ]
    each = [complex(torch.fft.rfft2(frame)[ky, kx]) for frame in frames]
    expected = sum(a * f for a, f in zip(q, each, strict=True)) / np.sqrt(np.mean(np.square(q)))
    assert complex(total[ky, kx]) == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("shape", [(90, 128), (91, 127), (93, 130)])
@pytest.mark.parametrize("binning", [2, 3])
def test_binned_sums_are_the_image_at_wider_pixels_about_the_same_centre(shape, binning):
    """A wave that fits the window is the same wave at the new samples, which lie at multiples of the binning from the
    centre; counts are those of the pixels that each new one holds."""
    small = tuple(n // binning for n in shape)
    window = tuple(m * binning for m in small)
    y, x = (np.arange(n) - n // 2 for n in shape)
    new_y, new_x = ((np.arange(m) - m // 2) * binning for m in small)

    def wave(y, x):
        return 2 + np.cos(2 * np.pi * (3 * x[None, :] / window[1] - 4 * y[:, None] / window[0]) + 0.7)

    odd, even = (wave(y, x).astype(np.float32) * scale for scale in (1.0, 0.5))
    binned = bin_sums(FrameSums(odd=odd, even=even), binning)
    assert binned.odd.shape == small
    assert np.allclose(binned.odd, wave(new_y, new_x) * binning**2, atol=2e-5 * binning**2)
    assert np.allclose(binned.even, wave(new_y, new_x) * binning**2 / 2, atol=2e-5 * binning**2)
