"""Another program's local shifts as our image warp: a least-squares spline through samples of what its formula says."""

from collections.abc import Callable

import numpy as np

from tiltwise.data.deformation import ImageWarp
from tiltwise.ops.motion.model import bspline_basis

_INTERVALS = (2, 4, 8, 12, 16, 24, 32)
"""Tried in turn along the longer and the shorter side alike."""
_SAMPLES = 3
"""A spline interval."""


def fit_warp(
    field: Callable[[int, np.ndarray], np.ndarray], tilts: int, extent: tuple[float, float], exactness: float
) -> tuple[ImageWarp, float]:
    """The warp whose control values fit field(tilt, positions (point, 2) Å) -> (point, 2) Å over images of this extent
    (x, y, Å), and the largest error (Å) at places between its samples.

    The fewest control values that err by no more than exactness (Å) are taken, or the most that are tried.
    """
    for intervals in _INTERVALS:
        samples = (np.arange(_SAMPLES * intervals + 1)) / (_SAMPLES * intervals)
        between = (samples[1:] + samples[:-1]) / 2
        inverse = np.linalg.pinv(bspline_basis(samples, intervals + 3))
        values = np.stack([_at(field, tilt, samples, extent) for tilt in range(tilts)])
        coefficient = np.einsum("ay,tyxc,bx->tabc", inverse, values, inverse, optimize=True)
        basis = bspline_basis(between, intervals + 3)
        found = np.einsum("ya,tabc,xb->tyxc", basis, coefficient, basis, optimize=True)
        truth = np.stack([_at(field, tilt, between, extent) for tilt in range(tilts)])
        error = float(np.linalg.norm(found - truth, axis=-1).max())
        if error <= exactness:
            break
    return ImageWarp(coefficient=coefficient, extent=extent), error


def _at(
    field: Callable[[int, np.ndarray], np.ndarray], tilt: int, along: np.ndarray, extent: tuple[float, float]
) -> np.ndarray:
    """(y, x, 2) of the field at fractions of the sides."""
    x, y = np.meshgrid((along - 0.5) * extent[0], (along - 0.5) * extent[1])
    return field(tilt, np.stack([x.ravel(), y.ravel()], axis=1)).reshape(*x.shape, 2)
