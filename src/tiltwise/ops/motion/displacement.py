"""Where motion carries a point of the image from frame to frame."""

import numpy as np

from tiltwise.data.motion import FrameMotion


def frame_displacement(motion: FrameMotion, tilt: int, position: np.ndarray) -> np.ndarray:
    """(frame, point, 2) Å by which image points at `position` (point, 2), Å from the image centre, are moved."""
    x, y = (np.asarray(position, dtype=float) / motion.scale).T
    monomials = np.stack([np.ones_like(x), x, y, x * x, y * y, x * y], axis=-1)
    return np.einsum("pm,fmc->fpc", monomials, motion.coefficient[tilt])
