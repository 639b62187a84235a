"""All that lies beside the target: the crowd of other molecules, gold beads, carbon, and ice on the surfaces."""

import math
from dataclasses import replace

import numpy as np
from scipy.spatial.transform import Rotation

from tiltwise.ops.packing import ball_shape, shape_of_points
from tiltwise.params.scene import CarbonParams, ContaminationParams, CrowdParams, GoldParams
from tiltwise.simulate import filling, region
from tiltwise.simulate.filling import Draw, Ground, Kind
from tiltwise.simulate.potential import Scatterer, merge_points, scatterer_from_atoms
from tiltwise.simulate.scene import CarbonFilm, IceSlab, Population
from tiltwise.simulate.solids import gold_bead, ice_lump
from tiltwise.simulate.symmetric_particle import symmetric_particle

PROTEIN_VOLUME = 1.227
"""Å3 per Da: 135 Å3 and 110 Da a residue."""
_CROWD_FILLED = 0.58  # of the ball within which a molecule of the crowd lies
_GOLD_SIZES = 4  # diameters in which beads come
_GOLD_GAP = 10.0  # Å
_LUMP_GAP = 5.0  # Å between a lump and the surface it lies on


def crowd_molecules(params: CrowdParams, seed: int) -> list[Scatterer]:
    """One procedural molecule without symmetry for each mass, heaviest first."""
    result = []
    for number, mass in enumerate(sorted(params.masses, reverse=True)):
        diameter = 2 * (3 * mass * PROTEIN_VOLUME / (4 * math.pi * _CROWD_FILLED)) ** (1 / 3)
        atoms = symmetric_particle(mass, diameter, "C1", seed + 1000 * (number + 1))
        result.append(scatterer_from_atoms(atoms))
    return result


def place_crowd(params: CrowdParams, seed: int, ground: Ground, rng: np.random.Generator) -> list[Population]:
    """Molecules of all masses, equal in volume, wherever there is room in what any tilt sees; heaviest first."""
    if not params.fraction:
        return []
    populations = []
    for mass, scatterer in zip(sorted(params.masses, reverse=True), crowd_molecules(params, seed), strict=True):
        wide = replace(ground, field=replace(ground.field, side=ground.field.side + 2 * scatterer.radius))
        volume = region.view_area(wide.field, ground.ice.thickness) * ground.ice.thickness
        number = round(params.fraction / len(params.masses) * volume / (mass * PROTEIN_VOLUME))
        shape = shape_of_points(scatterer.position, params.gap + 10.0)
        kind = Kind(name="crowd", scatterer=merge_points(scatterer, params.detail), shape=shape, gap=params.gap)
        populations += filling.fill(ground, kind, ((filling.anywhere_in_view(wide, -math.inf), number),), rng)
    return populations


def place_gold(params: GoldParams, ground: Ground, rng: np.random.Generator) -> list[Population]:
    """Beads under the two surfaces of the slab, in at most four sizes, in the field and beside it."""
    sizes = _GOLD_SIZES if params.diameter_max > params.diameter_min else 1
    share = np.bincount(rng.integers(sizes, size=params.number), minlength=sizes)
    populations = []
    for diameter, number in zip(np.linspace(params.diameter_min, params.diameter_max, sizes), share, strict=True):
        bead = gold_bead(float(diameter), rng)
        kind = Kind(name="gold", scatterer=bead, shape=ball_shape(bead.radius), gap=_GOLD_GAP)
        within = _under_surfaces(ground, filling.anywhere_in_field(ground, 0.0), bead.radius)
        beside = _under_surfaces(ground, filling.anywhere_in_view(ground, 0.0), bead.radius)
        around = filling.number_beside(ground, int(number), 0.0)
        populations += filling.fill(ground, kind, ((within, int(number)), (beside, around)), rng)
    return [p for p in populations if len(p.position)]


def place_contamination(params: ContaminationParams, ground: Ground, rng: np.random.Generator) -> list[Population]:
    """Lumps of ice on both surfaces of the slab, each of its own shape, in the field and beside it, not overlapping."""
    wanted = (params.number, filling.number_beside(ground, params.number, 0.0))
    draws = (filling.anywhere_in_field(ground, 0.0), filling.anywhere_in_view(ground, 0.0))
    populations: list[Population] = []
    for number, draw in zip(wanted, draws, strict=True):
        for _ in range(number):
            lump = ice_lump(float(rng.uniform(params.diameter_min, params.diameter_max)), rng)
            found = _lay_on_surface(lump, ground, draw, populations, rng)
            if found is not None:
                populations.append(filling.population("contamination", lump, *found))
    return populations


def carbon_film(params: CarbonParams, ice: IceSlab, rng: np.random.Generator) -> CarbonFilm | None:
    """The film on the lower side of the slab, where its edge is in reach."""
    drawn = float(rng.uniform(-180, 180))
    if params.distance is None:
        return None
    return CarbonFilm(
        azimuth=drawn if params.azimuth is None else params.azimuth,
        distance=params.distance,
        thickness=params.thickness,
        height=-max(ice.thickness - params.thickness, 0.0) / 2,
    )


def _under_surfaces(ground: Ground, draw: Draw, radius: float) -> Draw:
    """The same draws moved to just below either surface of the slab."""
    height = max(ground.ice.thickness / 2 - ground.margin - radius - 1.5 * _GOLD_GAP, 0.0)

    def moved(number: int, rng: np.random.Generator) -> tuple[np.ndarray, Rotation]:
        centre, rotation = draw(number, rng)
        signed = height * rng.choice([-1, 1], len(centre))
        xy = centre[:, :2]
        z = region.middle_height(ground.ice, xy) + signed / region.surface_normals(ground.ice, xy)[:, 2]
        return np.column_stack([xy, z]), rotation

    return moved


def _lay_on_surface(
    lump: Scatterer, ground: Ground, draw: Draw, others: list[Population], rng: np.random.Generator
) -> tuple[np.ndarray, Rotation] | None:
    """A pose at which the lump touches the slab from outside, apart from other lumps; None where none is found."""
    for _ in range(200):
        centre, rotation = draw(8, rng)
        if not len(centre):
            continue
        centre, rotation = centre[:1], rotation[:1]
        xy, side = centre[:, :2], float(rng.choice([-1, 1]))
        normal = side * region.surface_normals(ground.ice, xy)[0]
        points = rotation[0].apply(lump.position)
        height = ground.ice.thickness / 2 + _LUMP_GAP - float((points @ normal).min())
        foot = np.append(xy[0], region.middle_height(ground.ice, xy)[0])
        place = foot + height * normal
        if all(np.linalg.norm(place - o.position[0]) > lump.radius + o.half_extent for o in others):
            return place[None], rotation
    return None
