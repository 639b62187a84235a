"""Paths of single particles over the exposure, beside the deformation that all share.

    D_p(N) = Σ_j c_pj cos(π j N / N_end),   j = 1 ... MODES,

in the specimen's frame, Å; N is the exposure up to the middle of a tilt, N_end that of the whole series. These are the
principal modes of a Brownian path from which its mean is taken off (the mean is where the particle is): eigenfunctions
cos π j s with variances in proportion to 1 / j², of the covariance min(s, t) - s + s²/2 - t + t²/2 + 1/3.
"""

import numpy as np

from tiltwise.data.tilt_series import TiltSeries
from tiltwise.ops.deformation import middle_exposure

MODES = 3


def trajectory_basis(tilt_series: TiltSeries, modes: int = MODES) -> np.ndarray:
    """(used tilt, mode) values of the modes."""
    end = float((tilt_series.pre_exposure + tilt_series.exposure).max())
    along = middle_exposure(tilt_series)[np.flatnonzero(tilt_series.use)] / max(end, 1e-9)
    return np.cos(np.pi * along[:, None] * np.arange(1, modes + 1))


def mode_deviations(width: float, modes: int = MODES) -> np.ndarray:
    """(mode,) standard deviations of the coefficients of a Brownian path, `width` (Å) that of the first."""
    return width / np.arange(1, modes + 1)
