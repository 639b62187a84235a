"""From the parameters of a specimen to every body in the ice and where it lies."""

import math

import numpy as np

from tiltwise.data.atoms import Atoms
from tiltwise.ops.packing import Bounds, Packing
from tiltwise.params.scene import SceneParams, TargetParams
from tiltwise.simulate import background, region, targets
from tiltwise.simulate.filling import Ground
from tiltwise.simulate.membrane_placement import Membranes, place_membranes
from tiltwise.simulate.potential import Scatterer, scatterer_from_atoms
from tiltwise.simulate.scene import CarbonFilm, Field, IceSlab, Population, Scene
from tiltwise.simulate.symmetric_particle import symmetric_particle


def build_scene(params: SceneParams, field: Field, rng: np.random.Generator, *, model: Atoms | None = None) -> Scene:
    """The specimen of these parameters about a field; the same state of rng gives the same bits.

    The target is `model`, or else a procedural particle that depends on params.target.seed alone. No two bodies
    overlap. Populations come in the order targets of the field, targets beside it, membranes, gold, crowd (heaviest
    first), contamination. Raises InputError where so many bodies do not fit.
    """
    ice = region.ice_slab(params.ice, rng)
    film = background.carbon_film(params.carbon, ice, rng)
    packing = Packing(_bounds(field, ice, film))
    ground = Ground(field=field, ice=ice, film=film, margin=params.ice.margin, packing=packing)
    target = scatterer_from_atoms(target_atoms(params.target) if model is None else model)
    membranes, sheets_and_spheres = place_membranes(params.membranes, ground, rng)
    populations = _targets(target, params, ground, membranes, model is not None, rng)
    populations += sheets_and_spheres
    populations += background.place_gold(params.gold, ground, rng)
    populations += background.place_crowd(params.crowd, params.target.seed, ground, rng)
    populations += background.place_contamination(params.contamination, ground, rng)
    return Scene(populations=tuple(populations), ice=ice, film=film)


def target_atoms(params: TargetParams) -> Atoms:
    """Atoms of the procedural target."""
    numbers = (params.mass, params.diameter, params.symmetry, params.seed)
    return symmetric_particle(*numbers, width=params.width, b_factor=params.b_factor)


def _targets(
    target: Scatterer,
    params: SceneParams,
    ground: Ground,
    membranes: Membranes,
    interlocking: bool,
    rng: np.random.Generator,
) -> list[Population]:
    kind = targets.target_kind(target, params.target)
    if params.target.site == "lattice":
        return targets.lattice_targets(kind, (params.target, params.lattice), ground, membranes, interlocking, rng)
    if params.target.site == "membrane":
        return targets.membrane_targets(kind, params.target, ground, membranes, rng)
    return targets.free_targets(kind, params.target, ground, rng)


def _bounds(field: Field, ice: IceSlab, film: CarbonFilm | None) -> Bounds:
    x, y = region.view_extent(field, ice.thickness)
    corners = region.middle_height(ice, np.array([(a, b) for a in (-x, 0, x) for b in (-y, 0, y)]))
    z = float(np.abs(corners).max()) + ice.thickness
    bounds = Bounds(
        low=np.array([-x, -y, -z]),
        high=np.array([x, y, z]),
        surface=region.surface_numbers(ice),
        half_thickness=ice.thickness / 2,
    )
    if film is None:
        return bounds
    azimuth, half = math.radians(film.azimuth), film.thickness / 2
    edge = (math.cos(azimuth), math.sin(azimuth), film.distance, film.height - half, film.height + half)
    return Bounds(
        low=bounds.low,
        high=bounds.high,
        surface=bounds.surface,
        half_thickness=bounds.half_thickness,
        film=edge,
    )
