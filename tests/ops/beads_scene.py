"""Tilt series of gold beads in noise, with the truth."""

import numpy as np
import torch

from tiltwise.data.tilt_series import TiltGeometry
from tiltwise.ops.alignment.beads import sphere_transform
from tiltwise.ops.alignment.image_cleaning import Frames
from tiltwise.ops.geometry import project_points, tilt_rotations

PIXEL, SIDE = 10.0, 256


def made_geometry(number=21, seed=0, drift=0.0, axis=84.2):
    rng = np.random.default_rng(seed)
    angles = np.linspace(-60, 60, number)
    return TiltGeometry(
        tilt_angle=angles,
        tilt_axis_angle=axis + drift * angles / 120,
        x_tilt=np.zeros(number),
        shift=rng.normal(0, 40, (number, 2)),
    )


def made_points(number=20, seed=1):
    return np.random.default_rng(seed).uniform(-1, 1, (number, 3)) * [800, 800, 600]


def bead_frames(geometry, points, diameter=100.0, height=6.0, seed=2):
    """Frames with beads of this height above noise of unit variance; beads are drawn in Fourier space, at any place."""
    rng = np.random.default_rng(seed)
    position, _ = project_points(torch.as_tensor(points), tilt_rotations(geometry), torch.as_tensor(geometry.shift))
    ky, kx = (
        torch.fft.fftfreq(SIDE, PIXEL, dtype=torch.float64)[:, None],
        torch.fft.rfftfreq(SIDE, PIXEL, dtype=torch.float64),
    )
    body = sphere_transform((ky**2 + kx**2).sqrt(), diameter / 2)
    middle = height * np.pi * (diameter / 2 / PIXEL) ** 2 * 2 / 3  # mass of a sphere of this height at its middle
    data = []
    for places in position:
        wave = sum(torch.exp(-2j * torch.pi * (ky * y + kx * x)) for x, y in places + SIDE // 2 * PIXEL)
        clean = torch.fft.irfft2(wave * body * middle, s=(SIDE, SIDE))
        data.append(clean.float() + torch.as_tensor(rng.normal(0, 1, (SIDE, SIDE)), dtype=torch.float32))
    return Frames(data=torch.stack(data), pixel_size=PIXEL, window=torch.ones(SIDE, SIDE))
