"""The defocus that a particle's own CTF has, tilt by tilt, against numbers written out."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from tiltwise.data.optics import Ctf, Optics
from tiltwise.data.tilt_series import TiltGeometry, TiltSeries
from tiltwise.ops.particles.images import ctf_values, image_positions

PIXEL, BOX = 2.0, 64
WAVELENGTH, CS, W = 0.0196875, 2.7e7, 0.07  # 300 kV, Å
POINTS = torch.tensor([[2.0, 1.0], [5.0, -3.0], [0.0, 12.0], [14.0, 9.0], [20.0, -21.0]])  # frequencies, 1/box
FINEST = math.hypot(20, 21) / (BOX * PIXEL)


def one_tilt(handedness: int, x_tilt: float, shift: tuple[float, float]) -> TiltSeries:
    """60° about an axis at 85°, at 30000 Å, without exposure."""
    one = np.ones(1)
    return TiltSeries(
        name="one",
        images=np.zeros((1, 8, 8), np.float32),
        image_names=("",),
        pixel_size=PIXEL,
        optics=Optics(voltage=300.0, spherical_aberration=2.7, amplitude_contrast=W),
        stage_tilt_angle=60 * one,
        nominal_tilt_axis_angle=85.0,
        exposure=0 * one,
        pre_exposure=0 * one,
        acquisition_order=np.zeros(1, int),
        use=np.ones(1, bool),
        why_not=("",),
        geometry=TiltGeometry(
            tilt_angle=60 * one, tilt_axis_angle=85 * one, x_tilt=x_tilt * one, shift=np.array([shift])
        ),
        ctf=Ctf(
            defocus_u=30000 * one,
            defocus_v=30000 * one,
            astigmatism_angle=0 * one,
            phase_shift=0 * one,
            defocus_error=0 * one,
            fit_resolution=0 * one,
        ),
        defocus_handedness=handedness,
    )


@pytest.mark.parametrize("shift", [(0.0, 0.0), (120.0, -340.0)])
@pytest.mark.parametrize(
    ("handedness", "x_tilt", "defocus"),
    [
        # z of Rz(85) Ry(60) (1000, 70, 500): -1000 sin 60 + 500 cos 60 = -866.0254 + 250 = -616.0254
        (+1, 0.0, 29383.9746),
        (-1, 0.0, 30616.0254),
        # Rx(10) first: z' = 70 sin 10 + 500 cos 10 = 12.1554 + 492.4039 = 504.5593; -866.0254 + 252.2796 = -613.7458
        (+1, 10.0, 29386.2542),
        (-1, 10.0, 30613.7458),
    ],
)
def test_the_ctf_of_a_particle_is_that_of_its_depth(handedness, x_tilt, defocus, shift):
    """An error of 1 Å in defocus would change -sin χ by up to π λ k² = 0.0032 at the finest of these frequencies."""
    series = one_tilt(handedness, x_tilt, shift)
    _, depth, _ = image_positions(series, torch.tensor([[1000.0, 70.0, 500.0]], dtype=torch.float64))
    found = ctf_values(series, depth, POINTS, BOX)[0, 0].double()

    def expected(dz: float) -> torch.Tensor:
        k2 = (POINTS.double() / (BOX * PIXEL)).pow(2).sum(-1)
        return -torch.sin(math.pi * WAVELENGTH * k2 * (dz - 0.5 * WAVELENGTH**2 * k2 * CS) + math.asin(W))

    one_angstrom = math.pi * WAVELENGTH * FINEST**2
    assert float((found - expected(defocus)).abs().max()) < one_angstrom
    mirrored = replace(series, defocus_handedness=-handedness)
    wrong = ctf_values(mirrored, depth, POINTS, BOX)[0, 0].double()
    assert float((wrong - expected(defocus)).abs().max()) > 100 * one_angstrom
