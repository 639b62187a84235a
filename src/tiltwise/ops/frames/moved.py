"""A motion with further shifts put into it.

Content that lies at r in the sum lies at r + e_f(r) once the motion d is taken back, so at r + e + d_f(r + e) in the
frame: d + e, up to e times the slope of d, some thousandths. Monomials to second order are exactly cubic splines: with
control value j at ξ_j = (j - 1) / (n - 3), x has the control values ξ_j and x² has ξ_j² - h² / 3, h = 1 / (n - 3).
"""

from dataclasses import replace

import numpy as np

from tiltwise.data.motion import Motion
from tiltwise.ops.motion.model import LEAST_CONTROLS, bspline_basis, frame_times

_EXTRA = 2
"""Control values over the exposure beyond the number of frames: splines then pass any values in the frames."""


def add_shifts(motion: Motion, coefficient: np.ndarray, scale: float) -> Motion:
    """The motion d + e: coefficient (frame, 6, 2), Å, of 1, x, y, x², y², xy of the position over scale, Å."""
    shift = motion.shift + coefficient[:, 0]
    if not coefficient[:, 1:].any():
        return replace(motion, shift=shift)
    ny, nx = (LEAST_CONTROLS, LEAST_CONTROLS) if motion.coefficient is None else motion.coefficient.shape[1:3]
    time = frame_times(motion.exposure)
    monomials = _monomial_controls(motion.extent, (ny, nx), scale)
    inside = np.einsum("jyx,fjc->fyxc", monomials[1:], coefficient[:, 1:])
    if motion.coefficient is not None:
        inside = inside + np.einsum("ft,tyxc->fyxc", bspline_basis(time, len(motion.coefficient)), motion.coefficient)
    basis = bspline_basis(time, motion.frames + _EXTRA)
    controls = np.linalg.pinv(basis) @ inside.reshape(motion.frames, -1)
    return replace(motion, shift=shift, coefficient=controls.reshape(-1, ny, nx, 2))


def _monomial_controls(extent: tuple[float, float], controls: tuple[int, int], scale: float) -> np.ndarray:
    """(6, y, x) control values of 1, x, y, x², y², xy of the position from the image centre over scale, Å."""
    line = []
    for number, side in zip(controls, extent[::-1], strict=True):
        spacing = side / (number - 3)
        place = (np.arange(number) - 1) * spacing - side / 2
        line.append((place / scale, (place**2 - spacing**2 / 3) / scale**2))
    (y, y2), (x, x2) = line
    one = np.ones((len(y), len(x)))
    return np.stack([one, one * x, one * y[:, None], one * x2, one * y2[:, None], y[:, None] * x])
