"""The first references of the halves where none is given."""

from dataclasses import replace

import numpy as np
import torch

from tiltwise.data.errors import InputError, StageError
from tiltwise.data.progress import Progress, no_progress
from tiltwise.ops.particles.chunks import particle_chunks
from tiltwise.ops.particles.images import TiltWeights
from tiltwise.ops.poses.search import ParticleVectors, joined, particle_vectors
from tiltwise.ops.poses.symmetry_breaking import BreakingSettings, first_reference, turned_onto
from tiltwise.params.refine import RefineParams
from tiltwise.stages.refine.setup import Setup

_PARTICLES = 400  # of each half that make its first reference
_ATTEMPTS = 3
_AGREEMENT = 0.9  # of the halves' first maps: 0.97 to 0.99 where both are right, 0.78 where they were seen to differ


def bootstrap(
    setup: Setup, weights: dict[str, TiltWeights], params: RefineParams, progress: Progress = no_progress
) -> tuple[dict[int, torch.Tensor], dict]:
    """References by half set from the starting directions alone, and how well they agree.

    Each half makes its own from its own particles. The second is then turned about z and shifted onto the first, seen
    at the low-pass of the first references only. Halves that do not agree start again, from other particles and turns.
    Raises InputError if the starting directions are not to be trusted, StageError if the halves never agree.
    """
    if params.search_cone > 60:
        raise InputError(
            "refine: no reference is given; that needs starting directions (surface normals) and search_cone <= 60"
        )
    settings = BreakingSettings(
        resolution=params.reference_lowpass,
        diameter=params.particle_diameter,
        cone=params.search_cone,
        shift=params.search_shift,
        symmetry=params.symmetry,
    )
    for attempt in range(_ATTEMPTS):

        def told(fraction: float, text: str, attempt: int = attempt) -> None:
            progress((attempt + fraction) / _ATTEMPTS, f"first references, attempt {attempt + 1}: {text}")

        references, record = _attempt(setup, weights, params, settings, attempt, told)
        if record["correlation_of_halves"] >= _AGREEMENT:
            return references, record | {"attempts": attempt + 1}
    raise StageError(
        f"refine: without a reference the halves came to different first maps (correlation "
        f"{record['correlation_of_halves']:.2f}, {_ATTEMPTS} attempts); give a reference or a larger box"
    )


def _attempt(
    setup: Setup,
    weights: dict[str, TiltWeights],
    params: RefineParams,
    settings: BreakingSettings,
    attempt: int,
    progress: Progress,
) -> tuple[dict[int, torch.Tensor], dict]:
    references, scores = {}, {}
    for half in (1, 2):
        progress((half - 1) / 2, f"half {half}")
        rng = np.random.default_rng([params.seed, half, attempt] if attempt else [params.seed, half])
        members = np.flatnonzero(setup.particles.half_set == half)
        chosen = np.sort(rng.permutation(members)[:_PARTICLES])
        vectors = _vectors(setup, weights, chosen, params.reference_lowpass)
        references[half], scores[half] = first_reference(vectors, setup.mask, settings, rng)
    pixel_size = setup.source.settings.pixel_size
    references[2], agreement = turned_onto(
        references[2], references[1], pixel_size, params.reference_lowpass, params.search_shift
    )
    return references, {"score": [scores[1], scores[2]], "correlation_of_halves": agreement}


def _vectors(setup: Setup, weights: dict[str, TiltWeights], chosen: np.ndarray, resolution: float) -> ParticleVectors:
    """Data vectors of the chosen particles in the frames of their starting poses."""
    keep = np.zeros(len(setup.particles), dtype=bool)
    keep[chosen] = True
    own = replace(setup.particles, half_set=np.where(keep, setup.particles.half_set, 0))
    radius = setup.source.settings.radius_of(resolution)
    chunks = particle_chunks(setup.source, own, weights=weights, resolution=resolution)
    return joined([particle_vectors(images, own.rotation[index], radius) for _, _, index, images in chunks])
