"""What every step that works on particles' images asks of its input."""

import math
from collections.abc import Mapping

import numpy as np

from tiltwise.data.errors import InputError
from tiltwise.data.particles import Particles
from tiltwise.data.tilt_series import TiltSeries


def check_particles(tilt_series: Mapping[str, TiltSeries], particles: Particles, stage: str) -> float:
    """The pixel size, Å, that all series share; InputError with one line where particles or series cannot be used."""
    if len(particles) == 0:
        raise InputError(f"particles: there are none to {stage}")
    unknown = sorted(set(particles.tilt_series.tolist()) - set(tilt_series))
    if unknown:
        raise InputError(f"particles: tilt series {unknown[0]} is not in the project")
    for name in sorted(set(particles.tilt_series.tolist())):
        series = tilt_series[name]
        if series.geometry is None:
            raise InputError(f"{name}: not aligned; run align before {stage}")
        if not np.any(series.use):
            raise InputError(f"{name}: no tilt is used")
    sizes = sorted({round(series.pixel_size, 4) for series in tilt_series.values()})
    if sizes[-1] > 1.001 * sizes[0]:
        raise InputError(f"tilt series: pixel sizes {sizes[0]} and {sizes[-1]} Å differ; {stage} needs one")
    return next(iter(tilt_series.values())).pixel_size


def good_box_size(least: float) -> int:
    """The smallest even number not below `least` whose only prime factors are 2, 3 and 5: fast to transform."""
    size = 2 * math.ceil(least / 2)
    while True:
        rest = size
        for prime in (2, 3, 5):
            while rest % prime == 0:
                rest //= prime
        if rest == 1:
            return size
        size += 2
