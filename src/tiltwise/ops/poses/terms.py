"""What every image of every particle says of its pose, as one quadratic each: the evidence of all geometric blocks.

About where a particle stands the log likelihood of its image in tilt i is

    L(y) = L(0) + g·y - y·H·y / 2,     y = (w, t),

w a rotation vector about the reference's axes (radians), t a shift of the image (Å), H the Fisher information
(Gauss-Newton). Shifts of tilts, their angles, warps and deformations all act through y, so that one pass over the
images serves them all (methods.md section 6). Terms of several species are put in a row: they share the geometry.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from tiltwise.ops.particles.chunks import ImageSource, PosedParticles, particle_chunks
from tiltwise.ops.particles.images import TiltWeights
from tiltwise.ops.particles.slices import SpectralGrid
from tiltwise.ops.poses.refinement import slice_terms

_UPPER = np.triu_indices(3)


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class PoseTerms:
    """Quadratics of the images of the particles of one series."""

    index: np.ndarray
    """(particle,) which of the posed particles each is."""
    position: np.ndarray
    """(particle, 3) Å, where the images were cut."""
    rotation: np.ndarray
    """(particle, 3, 3) reference to tomogram."""
    half_set: np.ndarray
    """(particle,) 1 or 2."""
    likelihood: np.ndarray
    """(particle, tilt) log likelihood at y = 0, against no particle at all."""
    gradient: np.ndarray
    """(particle, tilt, 5) g."""
    information: np.ndarray
    """(particle, tilt, 5, 5) H."""

    def __len__(self) -> int:
        return len(self.index)

    def __getitem__(self, keep: np.ndarray) -> "PoseTerms":
        """Those of an integer or boolean index array."""
        return PoseTerms(**{name: getattr(self, name)[keep] for name in self.__slots__})


def collect_terms(
    source: ImageSource,
    particles: PosedParticles,
    grids: Mapping[int, SpectralGrid],
    *,
    weights: Mapping[str, TiltWeights],
    resolution: float,
) -> dict[str, PoseTerms]:
    """By series, the terms of all particles of half sets 1 and 2, each under the reference of its own half.

    grids: spectra of the references by half set; resolution: finest spacing compared, Å.
    """
    parts: dict[str, list[PoseTerms]] = {}
    for name, half, index, images in particle_chunks(source, particles, weights=weights, resolution=resolution):
        still = torch.zeros(len(index), images.data.shape[1], 2, dtype=torch.float64, device=images.data.device)
        terms = slice_terms(images, grids[half], particles.rotation[index], still).cpu().numpy()
        parts.setdefault(name, []).append(
            PoseTerms(
                index=index,
                position=particles.position[index].cpu().numpy(),
                rotation=particles.rotation[index].cpu().numpy(),
                half_set=particles.half_set[index],
                likelihood=terms[..., 0] - 0.5 * terms[..., 1],
                gradient=terms[..., 2:7],
                information=_information(terms),
            )
        )
    return {name: join_terms(own) for name, own in parts.items()}


def join_terms(parts: Sequence[PoseTerms]) -> PoseTerms:
    """The terms of several chunks or species of one series in a row."""
    names = PoseTerms.__slots__
    return PoseTerms(**{name: np.concatenate([getattr(part, name) for part in parts]) for name in names})


def _information(terms: np.ndarray) -> np.ndarray:
    """(particle, tilt, 5, 5) from terms 7 to 21 of `slice_terms`."""
    result = np.zeros((*terms.shape[:2], 5, 5))
    result[..., _UPPER[0], _UPPER[1]] = result[..., _UPPER[1], _UPPER[0]] = terms[..., 7:13]
    cross = terms[..., 13:19].reshape(*terms.shape[:2], 3, 2)
    result[..., :3, 3:] = cross
    result[..., 3:, :3] = cross.swapaxes(-1, -2)
    for row, column, term in ((3, 3, 19), (3, 4, 20), (4, 3, 20), (4, 4, 21)):
        result[..., row, column] = terms[..., term]
    return result
