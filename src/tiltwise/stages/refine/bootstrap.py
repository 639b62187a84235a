"""The first references of the halves where none is given."""

from dataclasses import replace

import numpy as np
import torch

from tiltwise.data.errors import InputError
from tiltwise.ops.particle_chunks import particle_chunks
from tiltwise.ops.particle_images import TiltWeights
from tiltwise.ops.pose_search import ParticleVectors, joined, particle_vectors
from tiltwise.ops.symmetry_breaking import BreakingSettings, first_reference, turned_onto
from tiltwise.params.refine import RefineParams
from tiltwise.stages.refine.setup import Setup

_PARTICLES = 400  # of each half that make its first reference


def bootstrap(
    setup: Setup, weights: dict[str, TiltWeights], params: RefineParams
) -> tuple[dict[int, torch.Tensor], dict]:
    """References by half set from the starting directions alone, and how well they agree.

    Each half makes its own from its own particles. The second is then turned about z and shifted onto the first, seen
    at the low-pass of the first references only. Raises InputError if the starting directions are not to be trusted.
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
    references, scores = {}, {}
    for half in (1, 2):
        rng = np.random.default_rng([params.seed, half])
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
