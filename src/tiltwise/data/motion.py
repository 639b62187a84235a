"""Motion of the specimen while a tilt image is taken as a movie: as it is simulated, and as it is estimated."""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Motion:
    """Displacement of the content of each frame: what lies at r in the sum lies at r + d_f(r) in frame f.

    d_f(r) = shift_f + Σ_tyx coefficient_tyx B_t(f) B_y(r) B_x(r), uniform cubic B-splines over the exposure and the
    image. Its mean over the frames is zero, so that the sum lies where the sum of unmoved frames would on average lie.
    """

    exposure: np.ndarray
    """(frame,) exposure of each frame, e⁻/Å²."""
    shift: np.ndarray
    """(frame, 2) x, y of what moves as a whole, Å."""
    coefficient: np.ndarray | None
    """(t, y, x, 2) control values of the local part along image x, y, Å; None where the whole image moves as one."""
    extent: tuple[float, float]
    """Sides of the image along x, y, Å; the local part is defined within them."""

    @property
    def frames(self) -> int:
        """Number of frames."""
        return len(self.shift)


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
