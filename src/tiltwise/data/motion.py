"""Motion of the specimen while a tilt image is taken as a movie: as it is simulated, and as it is estimated."""

from dataclasses import dataclass
from typing import Literal

import numpy as np

from tiltwise.data.defects import DefectMap

Weighting = Literal["plain", "critical", "measured"]
"""How frames are weighted in a sum: alike, by the critical-exposure curve, or by that times what was measured."""


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


@dataclass(frozen=True, kw_only=True, slots=True)
class MovieReading:
    """What was done to the movies of a series as they were read, so that they can be read alike once more."""

    gain_orientation: int | None = None
    """How the gain reference lay (`ops.motion.gain.ORIENTATIONS`); None without one."""
    gain_inverted: bool = False
    """Whether counts were divided by it."""
    defects_orientation: int | None = None
    """How the defect map lay; None without one."""
    find_defects: bool = True
    """Whether defective pixels were looked for in each movie."""
    samples: int = 1
    """For each pixel of the camera along a side, where the movie lists electrons."""
    binning: int = 1
    """Pixels of the frames along a side of one of the sums."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class MovieMotions:
    """By what the movies of a series were corrected and weighted when they were summed."""

    movies: tuple
    """(tilt,) movies, each (frame, y, x), read as they were then; None where a tilt has none that can be read."""
    movie_names: tuple[str, ...]
    """(tilt,) file of each; empty where there is none."""
    faults: tuple[str, ...]
    """(tilt,) why a movie that has a motion cannot be read any more; empty where it can."""
    motion: tuple[Motion | None, ...]
    """(tilt,) what was taken back; None for a tilt without a movie."""
    reading: MovieReading
    """What was done to the frames before."""
    defects: DefectMap | None = None
    """The map of defective pixels, as it was given; None without one."""
    weighting: Weighting = "plain"
    """Of the frames in the sums."""
    amplitude: tuple[np.ndarray | None, ...] = ()
    """(tilt,) of (frame, 2) factor A and B, Å², of A exp(-B k² / 4), by which the critical curve was multiplied; empty
    unless the weights were measured."""


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
