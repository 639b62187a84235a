"""Crops of frames: where the motion puts the particles, in the sum's own pixels, and whitened by how frames differ."""

import numpy as np
import pytest
import torch

from tiltwise.data.motion import Motion
from tiltwise.ops.frames.frame_images import cut_frames, frame_images, frame_shares
from tiltwise.ops.motion.model import displacement
from tiltwise.ops.particles.chunks import CropSettings
from tiltwise.ops.particles.slices import band_points

RAW, SHAPE, BOX = 2.0, (240, 300), 40
WIDTH, SIGMA, FRAMES = 2 * RAW * BOX, 9.0, 4


def motion(rng):
    shift = rng.normal(0, 6, (FRAMES, 2))
    inside = rng.normal(0, 2, (4, 4, 4, 2))
    extent = (SHAPE[1] * RAW, SHAPE[0] * RAW)
    return Motion(exposure=np.full(FRAMES, 0.5), shift=shift - shift.mean(0), coefficient=inside, extent=extent)


def spots(place):
    """(y, x) Gaussians of standard deviation SIGMA Å at places (point, 2), Å from the centre pixel n // 2."""
    y, x = ((np.arange(n) - n // 2) * RAW for n in SHAPE)
    return sum(
        np.outer(np.exp(-((y - v) ** 2) / (2 * SIGMA**2)), np.exp(-((x - u) ** 2) / (2 * SIGMA**2))) for u, v in place
    )


@pytest.mark.parametrize("place", [(-130.0, -90.0), (60.3, 71.7), (120.0, -95.5)])
def test_crops_stand_where_the_motion_puts_them(place):
    """The transform of a Gaussian about its own place, 2πσ² exp(-2π² σ² k²) over a pixel of the frames, in all of them;
    the mean over two boxes about it is level within its own box, so only k = 0 knows of it. Its tails are cut at nine
    standard deviations. What is left is that of single precision, and of the slope of the mean where the image is
    mirrored at its rim."""
    rng = np.random.default_rng(0)
    place, known = np.array([place]), motion(rng)
    moved = place + displacement(known, place)
    frames = (torch.from_numpy(spots(one).astype(np.float32)) for one in moved)
    points = band_points(BOX, 9.0)
    crops = np.zeros((FRAMES, 1, len(points)), np.complex64)
    cut_frames(frames, known, place, points, crops, pixel_size=RAW, width=WIDTH)
    k = points.norm(dim=1).numpy() / WIDTH
    expected = 2 * np.pi * SIGMA**2 / RAW**2 * np.exp(-2 * np.pi**2 * SIGMA**2 * k**2)
    assert np.abs(crops - expected).max() < 0.02 * expected.max()


def test_whitened_noise_has_unit_power_whatever_the_frames_share():
    """Frames that share a strong picture, with noise of a power that falls with k: the noise alone is whitened. Its
    mean power over 4 · 60 · 200 and more values is known to 1 %."""
    rng = np.random.default_rng(1)
    share = np.array([0.1, 0.2, 0.3, 0.4])
    points = band_points(BOX, 12.0)
    colour = 5 / (1 + points.norm(dim=1).numpy() / 4)
    picture = 30 * (rng.normal(size=(60, len(points), 2)) @ [1, 1j])
    noise = colour * (rng.normal(size=(4, 60, len(points), 2)) @ [1, 1j]) * np.sqrt(share)[:, None, None]
    crops = (share[:, None, None] * picture + noise).astype(np.complex64)
    known = Motion(exposure=3 * share, shift=np.zeros((4, 2)), coefficient=None, extent=(1.0, 1.0))
    assert np.allclose(frame_shares(known), share)
    tilt = torch.from_numpy((7.0 * crops.sum(axis=0)).astype(np.complex64))  # images in units of their own
    model = torch.from_numpy((7.0 * picture).astype(np.complex64))
    settings = CropSettings(box_size=BOX, pixel_size=2.0, particle_radius=20.0, device="cpu")
    where = (np.zeros((60, 2)), 1 + np.arange(60) // 30)
    found = frame_images(crops, known, tilt, {"own": model, "other": model}, points, settings, where)
    rest = found.data - np.sqrt(share)[:, None, None] * found.model
    assert (np.abs(rest) ** 2).mean() / 2 == pytest.approx(1, abs=0.03)
    outer = points.norm(dim=1).numpy() > 8
    assert (np.abs(rest[..., outer]) ** 2).mean() / 2 == pytest.approx(1, abs=0.03)
