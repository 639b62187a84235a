"""Particles: where they are and how they are turned. No images: crops are cut from the tilt images when needed."""

from dataclasses import dataclass

import numpy as np
from scipy.spatial.transform import Rotation


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Particles:
    tilt_series: np.ndarray
    """(particle,) name of the tilt series, text."""
    position: np.ndarray
    """(particle, 3) x, y, z from the tomogram centre, Å."""
    rotation: Rotation
    """(particle,) maps reference vectors to tomogram vectors."""
    score: np.ndarray
    """(particle,) the score of the last stage that gave one."""
    half_set: np.ndarray
    """(particle,) 1 or 2; 0 while not assigned."""
    region: np.ndarray
    """(particle,) number of the spatial block (virion, membrane, field) within its series; halves never split a block.
    -1 where the particle is its own block."""
    class_posterior: np.ndarray | None = None
    """(particle, class) probability of each class, rows of sum 1; None before a classification."""
    trajectory: np.ndarray | None = None
    """(particle, mode, 3) x, y, z, Å: path over the exposure N, Σ_j cos(π j N / N_end) times the entry of mode j, from
    1, added to the position; None where no path is known."""
    uncertainty: np.ndarray | None = None
    """(particle, 2) standard deviations of rotation (degrees) and position (Å) for one axis, rms over the three, as the
    curvature of the likelihood gives them; nan for a particle, None for all, where unknown."""

    def __len__(self) -> int:
        return len(self.position)

    def __getitem__(self, index: np.ndarray) -> "Particles":
        """The particles of an integer or boolean index array."""
        keep = np.arange(len(self))[index]
        posterior, path, uncertainty = self.class_posterior, self.trajectory, self.uncertainty
        return Particles(
            tilt_series=self.tilt_series[keep],
            position=self.position[keep],
            rotation=self.rotation[keep],
            score=self.score[keep],
            half_set=self.half_set[keep],
            region=self.region[keep],
            class_posterior=None if posterior is None else posterior[keep],
            trajectory=None if path is None else path[keep],
            uncertainty=None if uncertainty is None else uncertainty[keep],
        )

    @property
    def class_number(self) -> np.ndarray | None:
        """(particle,) number of the likeliest class, from 1; None before a classification."""
        return None if self.class_posterior is None else self.class_posterior.argmax(axis=1) + 1
