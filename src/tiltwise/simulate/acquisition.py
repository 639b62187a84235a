"""The scheme of a tilt series and the true state of the microscope at each tilt: what it says, and what it did."""

from dataclasses import dataclass

import numpy as np

from tiltwise.data.optics import Ctf, Optics
from tiltwise.data.tilt_series import TiltGeometry, TiltSeries
from tiltwise.ops.tilt_schemes import order_of_range
from tiltwise.params.simulate import SimulateParams


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Scheme:
    """Which tilts are taken, in which order and at which exposure."""

    tilt_angle: np.ndarray
    """(tilt,) of the stage, rising, degrees."""
    order: np.ndarray
    """(tilt,) 0 for the one taken first."""
    exposure: np.ndarray
    """(tilt,) e⁻/Å²."""

    @staticmethod
    def of(angle_and_order: tuple[np.ndarray, np.ndarray], exposure: float) -> "Scheme":
        """A scheme of one exposure for all tilts."""
        angle, order = angle_and_order
        return Scheme(tilt_angle=angle, order=order, exposure=np.full(len(angle), exposure))

    @property
    def pre_exposure(self) -> np.ndarray:
        """(tilt,) exposure before each tilt, e⁻/Å²."""
        if np.ptp(self.exposure) == 0:
            return self.order * self.exposure  # exact, where a sum would round
        in_time = np.argsort(self.order)
        taken = self.exposure[in_time]
        return (np.cumsum(taken) - taken)[self.order]


def acquire(params: SimulateParams, name: str, rng: np.random.Generator, *, scheme: Scheme | None = None) -> TiltSeries:
    """A tilt series without images whose geometry, CTF and handedness are the true ones.

    The nominal numbers of the same series (stage angles, axis, defocus) are what the microscope writes down. Without a
    scheme it is dose-symmetric, by the params.
    """
    scheme = scheme or Scheme.of(order_of_range("dose_symmetric", params.tilt_max, params.tilt_step), params.exposure)
    stage_angle, order = scheme.tilt_angle, scheme.order
    number, errors = len(stage_angle), params.errors
    target = rng.uniform(params.defocus_min, params.defocus_max)
    axis_error = rng.uniform(-errors.tilt_axis_angle, errors.tilt_axis_angle)
    geometry = TiltGeometry(
        tilt_angle=stage_angle + rng.normal(0, errors.tilt_angle, number),
        tilt_axis_angle=params.nominal_tilt_axis_angle + axis_error + rng.normal(0, errors.tilt_axis_jitter, number),
        x_tilt=np.zeros(number),
        shift=_random_walk(number, errors.shift_step, rng)[order],
    )
    mean = target + rng.normal(0, errors.defocus, number)
    half_astigmatism = rng.uniform(0, errors.astigmatism) / 2
    ctf = Ctf(
        defocus_u=mean + half_astigmatism,
        defocus_v=mean - half_astigmatism,
        astigmatism_angle=np.full(number, rng.uniform(-90, 90)),
        phase_shift=np.zeros(number),
        defocus_error=np.zeros(number),
        fit_resolution=np.full(number, np.nan),
    )
    return TiltSeries(
        name=name,
        images=np.empty((number, params.image_size, params.image_size), dtype=np.int16),
        image_names=tuple(f"{i + 1:06d}@{name}.mrc" for i in range(number)),
        pixel_size=params.pixel_size,
        optics=Optics(
            voltage=params.voltage,
            spherical_aberration=params.spherical_aberration,
            amplitude_contrast=params.amplitude_contrast,
        ),
        stage_tilt_angle=stage_angle,
        nominal_tilt_axis_angle=params.nominal_tilt_axis_angle,
        exposure=scheme.exposure,
        pre_exposure=scheme.pre_exposure,
        acquisition_order=order,
        nominal_defocus=np.full(number, np.round(target, -3)),
        use=np.ones(number, dtype=bool),
        why_not=("",) * number,
        geometry=geometry,
        ctf=ctf,
        defocus_handedness=microscope_handedness(params),
    )


def microscope_handedness(params: SimulateParams) -> int:
    """+1 or -1: one microscope has one hand, the same for all series; drawn by the seed if it is not set."""
    return params.handedness or int(np.random.default_rng([params.seed, 7]).choice([-1, 1]))


def _random_walk(number: int, step: float, rng: np.random.Generator) -> np.ndarray:
    """(step, 2) Å: the tracking error after each move of the stage, zero at the first image."""
    return np.concatenate([np.zeros((1, 2)), rng.normal(0, step, (number - 1, 2)).cumsum(axis=0)])
