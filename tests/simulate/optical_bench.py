"""Small series and bodies that several tests image."""

from dataclasses import replace

import numpy as np

from tiltwise.data.tilt_series import TiltSeries
from tiltwise.params.microscope import CameraParams, LensParams, MicroscopeParams, MotionParams
from tiltwise.params.simulate import ErrorParams, SimulateParams
from tiltwise.simulate.acquisition import acquire

EXACT = ErrorParams(
    shift_step=0.0, tilt_angle=0.0, tilt_axis_angle=0.0, tilt_axis_jitter=0.0, defocus=0.0, astigmatism=0.0
)
COHERENT = LensParams(energy_spread=0.0, convergence=0.0)


def exact_series(size: int, pixel_size: float, *, tilt: float = 30.0, axis: float = 85.0, hand: int = 1) -> TiltSeries:
    """Three tilts, -tilt, 0 and tilt, at 20000 Å, without error, astigmatism or exposure to speak of."""
    params = SimulateParams(
        pixel_size=pixel_size,
        image_size=size,
        tilt_max=tilt,
        tilt_step=min(tilt, 30.0),
        nominal_tilt_axis_angle=axis,
        errors=EXACT,
        handedness=hand,
    )
    series = acquire(params, "TS_01", np.random.default_rng(0))
    defocus = np.full(series.number, 20000.0)
    ctf = replace(series.ctf, defocus_u=defocus, defocus_v=defocus)
    return replace(series, ctf=ctf, exposure=np.full(series.number, 1e-6), pre_exposure=np.zeros(series.number))


def clean_microscope(size: int, pixel_size: float, lens: LensParams = COHERENT) -> MicroscopeParams:
    """A microscope that blurs nothing."""
    return MicroscopeParams(
        lens=lens,
        camera=CameraParams(pixel_size=pixel_size, image_size=size),
        motion=MotionParams(b_factor=0.0),
    )
