"""Small tilt series with a geometry, for the tests of this folder."""

import numpy as np

from tiltwise.data.optics import Optics
from tiltwise.data.tilt_series import TiltGeometry, TiltSeries


def geometry(number=13, seed=0, axis=85.0):
    rng = np.random.default_rng(seed)
    return TiltGeometry(
        tilt_angle=np.linspace(-60, 60, number) + rng.normal(0, 0.1, number),
        tilt_axis_angle=np.full(number, axis),
        x_tilt=np.zeros(number),
        shift=rng.normal(0, 50, (number, 2)),
    )


def series(geometry, images=None):
    number = len(geometry.tilt_angle)
    return TiltSeries(
        name="made",
        images=np.zeros((number, 8, 8), np.float32) if images is None else images,
        image_names=tuple(f"{i + 1:06d}@made.mrc" for i in range(number)),
        pixel_size=10.0,
        optics=Optics(),
        stage_tilt_angle=geometry.tilt_angle,
        nominal_tilt_axis_angle=85.0,
        exposure=np.full(number, 3.0),
        pre_exposure=3.0 * np.arange(number),
        acquisition_order=np.arange(number),
        use=np.ones(number, bool),
        why_not=("",) * number,
        geometry=geometry,
    )
