"""A tilt image as the camera records it: frames, and how the specimen moves from one to the next."""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class FrameMotion:
    """Displacement Σ_j c_j p_j(u / scale) in each frame of what lies at image position u, from its mean."""

    exposure: np.ndarray
    """(tilt, frame) exposure of each frame, e⁻/Å²."""
    coefficient: np.ndarray
    """(tilt, frame, 6, 2) Å along image x, y, of the monomials 1, x, y, x², y², xy; the mean over the frames is 0."""
    blur: np.ndarray
    """(tilt, frame, 2) Å along image x, y: how far everything drifts while the frame is taken."""
    scale: float
    """Length by which x, y are divided, Å."""

    @property
    def frames(self) -> int:
        """Number of frames of each tilt."""
        return self.exposure.shape[1]
