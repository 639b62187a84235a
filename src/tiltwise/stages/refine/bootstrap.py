"""The first references of the halves where none is given."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import torch

from tiltwise.data.errors import InputError, StageError
from tiltwise.data.progress import Progress, no_progress
from tiltwise.data.volume import Volume
from tiltwise.ops.maps.superpose import move_map
from tiltwise.ops.particles.chunks import particle_chunks
from tiltwise.ops.particles.images import TiltWeights
from tiltwise.ops.particles.references import masked_reference
from tiltwise.ops.poses.ab_initio import AbInitioSettings, ab_initio_map
from tiltwise.ops.poses.alignment import SearchGrid, search_grid
from tiltwise.ops.poses.map_search import find_map
from tiltwise.ops.poses.search import ParticleVectors, joined, particle_vectors
from tiltwise.ops.poses.starts import FirstMap, standard_errors_behind
from tiltwise.ops.poses.symmetry_breaking import BreakingSettings, first_reference, turned_onto
from tiltwise.ops.poses.symmetry_setting import standard_setting
from tiltwise.ops.symmetry import symmetrise_volume, symmetry_order
from tiltwise.params.refine import RefineParams
from tiltwise.stages.refine.setup import Setup

_PARTICLES = 400  # of each half that make its first reference, where directions are given
_FREE_PARTICLES = 160  # the same where they are not: every particle is weighed over every pose
_FEWEST = 8  # of each half: six that make a map from nothing, and two that judge it
_PER_DIAMETER = 4.0  # spacings to a diameter in a map from nothing, or the low-pass if coarser
_ATTEMPTS = 3
_AGREEMENT = 0.9  # of the halves' first maps: 0.97 to 0.99 where both are right, 0.78 where they were seen to differ


def bootstrap(
    setup: Setup, weights: dict[str, TiltWeights], params: RefineParams, progress: Progress = no_progress
) -> tuple[dict[int, torch.Tensor], dict]:
    """References by half set from the particles alone, and a record of all starts and of how well the halves agree.

    Each half makes its own from its own particles: from their directions where these are given (search_cone <= 60),
    from their places alone where they are not. The second is then moved onto the first, seen at the low-pass of the
    first references only. Halves that do not agree start again, from other particles and turns. Raises InputError for a
    symmetry that cannot be brought to its setting, StageError if the halves never agree or show no such symmetry.
    """
    if not params.directions_given:
        _check_free(setup, params)
    for attempt in range(_ATTEMPTS):

        def told(fraction: float, text: str, attempt: int = attempt) -> None:
            progress((attempt + fraction) / _ATTEMPTS, f"first references, attempt {attempt + 1}: {text}")

        references, record = _attempt(setup, weights, params, attempt, told)
        if record["correlation_of_halves"] >= _AGREEMENT:
            return _in_setting(setup, references, record | {"attempts": attempt + 1}, params)
    raise StageError(
        f"refine: without a reference the halves came to different first maps (correlation "
        f"{record['correlation_of_halves']:.2f}, {_ATTEMPTS} attempts); give a reference or a larger box, or name the "
        "symmetry if it is known"
    )


def _check_free(setup: Setup, params: RefineParams) -> None:
    """What a first map from places alone cannot be made for."""
    if params.symmetry.strip().upper().startswith("H"):
        raise InputError(
            "refine: no reference is given, and the axis of a helix is not found without one: give starting directions "
            "(search_cone <= 60), or a reference"
        )
    fewest = min(int((setup.particles.half_set == half).sum()) for half in (1, 2))
    if fewest < _FEWEST:
        raise InputError(
            f"refine: no reference is given, and {fewest} particles of a half are too few to make one ({_FEWEST} are "
            "needed); give a reference, or starting directions and search_cone <= 60"
        )


def _resolution(params: RefineParams) -> float:
    """Finest spacing of the first references, Å."""
    if params.directions_given:
        return params.reference_lowpass
    return max(params.reference_lowpass, params.particle_diameter / _PER_DIAMETER)


def _attempt(
    setup: Setup, weights: dict[str, TiltWeights], params: RefineParams, attempt: int, progress: Progress
) -> tuple[dict[int, torch.Tensor], dict]:
    """References by half set, the second brought onto the first, and the record."""
    found: dict[int, FirstMap] = {}
    for half in (1, 2):
        rng = np.random.default_rng([params.seed, half, attempt] if attempt else [params.seed, half])

        def told(part: float, half: int = half) -> None:
            progress((half - 1 + part) / 2, f"half {half}")

        members = np.flatnonzero(setup.particles.half_set == half)
        chosen = np.sort(rng.permutation(members)[: _PARTICLES if params.directions_given else _FREE_PARTICLES])
        vectors = _vectors(setup, weights, chosen, _resolution(params))
        found[half] = _first_map(vectors, setup, params, rng, told)
    pixel_size = setup.source.settings.pixel_size
    grid = _motions(params)
    record = {"halves": [_starts_record(found[h], found[3 - h], pixel_size, grid) for h in (1, 2)]}
    first, second = found[1].map, found[2].map
    if not params.directions_given:
        motion, agreement = find_map(second, first, pixel_size, grid)
        placed = Volume(data=second.cpu().numpy(), voxel_size=pixel_size)
        moved = move_map(placed, motion, placed).to(second.device)
        second = masked_reference(moved, setup.mask)
    else:
        second, agreement = turned_onto(second, first, pixel_size, params.reference_lowpass, params.search_shift)
    return {1: first, 2: second}, record | {"correlation_of_halves": agreement}


def _first_map(
    vectors: ParticleVectors,
    setup: Setup,
    params: RefineParams,
    rng: np.random.Generator,
    told: Callable[[float], None],
) -> FirstMap:
    shared = {
        "resolution": _resolution(params),
        "diameter": params.particle_diameter,
        "cone": params.search_cone,
        "shift": params.search_shift,
    }
    if not params.directions_given:
        return ab_initio_map(vectors, setup.mask, AbInitioSettings(**shared), rng, told)
    told(0.0)
    return first_reference(vectors, setup.mask, BreakingSettings(**shared, symmetry=params.symmetry), rng, told)


def _motions(params: RefineParams) -> SearchGrid:
    """Of the map of one start against another's: as free as their particles are."""
    cone = params.search_cone if params.directions_given else 180.0
    symmetry = params.symmetry if params.directions_given else "C1"
    return search_grid(_resolution(params), params.particle_diameter, cone, params.search_shift, symmetry)


def _starts_record(own: FirstMap, other: FirstMap, pixel_size: float, grid: SearchGrid) -> dict:
    """Every start of a half: what decides between them, and how its map agrees with others.

    Agreement is the correlation at the best rigid motion, each shell at the same amplitude (ops/poses/map_search.py).
    """
    maps = [start.map for start in own.starts]
    alike = np.eye(len(maps))
    for i, j in zip(*np.triu_indices(len(maps), 1), strict=True):
        alike[i, j] = alike[j, i] = find_map(maps[j], maps[i], pixel_size, grid)[1]
    other_half = other.starts[other.trusted].map
    behind = standard_errors_behind(own.starts, own.trusted)
    return {
        "trusted": own.trusted,
        "starts": [
            {
                "held_out_log_likelihood": float(start.held_out.mean()),
                "standard_errors_behind": behind[i],
                "fitted_log_likelihood": start.fitted,
                "agreement_with_starts": np.delete(alike[i], i).tolist(),
                "agreement_with_other_half": find_map(start.map, other_half, pixel_size, grid)[1],
            }
            for i, start in enumerate(own.starts)
        ],
    }


def _in_setting(
    setup: Setup, references: dict[int, torch.Tensor], record: dict, params: RefineParams
) -> tuple[dict[int, torch.Tensor], dict]:
    """Maps found without symmetry, brought to the setting of the group asked for, by one motion for both, and averaged
    over it."""
    order = symmetry_order(params.symmetry)
    if params.directions_given or order == 1:
        return references, record
    pixel_size, resolution = setup.source.settings.pixel_size, _resolution(params)
    shared = {"resolution": resolution, "diameter": params.particle_diameter}
    motion, share = standard_setting(references[1].cpu(), pixel_size, params.symmetry, **shared)
    if share < _AGREEMENT**2:  # the map and its average over the group correlate by the root of it
        raise StageError(
            f"refine: the first map from the particles alone does not show {params.symmetry} (it leaves {share:.2f} of "
            f"the map as it is, by chance it would be {1 / order:.2f}); refine in C1 first, or give a reference"
        )
    placed = {}
    for half, reference in references.items():
        volume = Volume(data=reference.cpu().numpy(), voxel_size=pixel_size)
        moved = symmetrise_volume(move_map(volume, motion, volume), params.symmetry)
        placed[half] = masked_reference(moved.to(reference.device), setup.mask)
    return placed, record | {"symmetry_share": share}


def _vectors(setup: Setup, weights: dict[str, TiltWeights], chosen: np.ndarray, resolution: float) -> ParticleVectors:
    """Data vectors of the chosen particles in the frames of their starting poses."""
    keep = np.zeros(len(setup.particles), dtype=bool)
    keep[chosen] = True
    own = replace(setup.particles, half_set=np.where(keep, setup.particles.half_set, 0))
    radius = setup.source.settings.radius_of(resolution)
    chunks = particle_chunks(setup.source, own, weights=weights, resolution=resolution)
    return joined([particle_vectors(images, own.rotation[index], radius) for _, _, index, images in chunks])
