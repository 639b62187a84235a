"""Where motion carries a point: of the specimen with the exposure, and of the image from frame to frame."""

import numpy as np
from scipy.interpolate import CubicSpline

from tiltwise.data.deformation import SampleDeformation
from tiltwise.data.motion import FrameMotion


def specimen_displacement(deformation: SampleDeformation, position: np.ndarray, exposure: float) -> np.ndarray:
    """(point, 3) Å by which specimen points at `position` (point, 3) Å have moved after an exposure in e⁻/Å².

    Beyond the first and the last knot the shape stays as it is there.
    """
    x, y, z = (np.asarray(position, dtype=float) / deformation.scale).T
    monomials = np.stack([np.ones_like(x), x, y, z, x * x, y * y, z * z, x * y, x * z, y * z], axis=-1)
    within = np.clip(exposure, deformation.exposure[0], deformation.exposure[-1])
    return monomials @ CubicSpline(deformation.exposure, deformation.coefficient)(within)


def frame_displacement(motion: FrameMotion, tilt: int, position: np.ndarray) -> np.ndarray:
    """(frame, point, 2) Å by which image points at `position` (point, 2), Å from the image centre, are moved."""
    x, y = (np.asarray(position, dtype=float) / motion.scale).T
    monomials = np.stack([np.ones_like(x), x, y, x * x, y * y, x * y], axis=-1)
    return np.einsum("pm,fmc->fpc", monomials, motion.coefficient[tilt])
