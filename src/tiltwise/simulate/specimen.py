"""A molecule made by a procedure: ideal alpha helices packed into the domains of an asymmetric globule.

Nothing is downloaded, and the molecule has what averaging needs: protein density, helices 10 Å apart (a strong
10 Å signal, as in real proteins), clefts between domains, and an outline without symmetry.
"""

import math

import numpy as np
from scipy.spatial import cKDTree
from scipy.spatial.transform import Rotation

from tiltwise.data.atoms import Atoms
from tiltwise.params.simulate import SpecimenParams

RESIDUE_WEIGHT = 110.0  # Da, mean of proteins
RESIDUE_VOLUME = 135.0  # Å3
_FILLED = 0.75  # part of the outline that is protein; the rest are clefts between domains
_RISE, _TWIST = 1.5, 100.0  # Å and degrees per residue of a right-handed alpha helix
_HELIX_SPACING = 10.2  # Å; a hexagonal lattice of this side holds one residue per 135 Å3: 1.35 g/cm3
_HELIX_WANDER, _HELIX_LEAN = 1.0, 2.0  # Å and degrees, sd from the lattice: leaves the 10 Å signal that proteins have
DOMAIN_SPACING = 60.0  # Å between the centres of neighbouring domains
_DOMAIN_GAP = 3.5  # Å from a helix axis to the wall of its domain
_SHORTEST_HELIX = 6  # residues

_BACKBONE = {  # cylindrical coordinates about the helix axis: radius Å, azimuth degrees, height Å
    "N": (1.55, -27.5, -0.88),
    "CA": (2.29, 0.0, 0.0),
    "C": (1.66, 26.3, 1.06),
    "O": (2.01, 22.9, 2.25),
    "CB": (3.30, -19.0, -0.70),
}
_SIDE_CHAIN_ATOMS = 3.0  # beyond CB, mean; with implicit hydrogens a residue then weighs 110 Da
_SIDE_CHAIN_ELEMENTS = {"C": 0.75, "N": 0.10, "O": 0.15}


def procedural_molecule(params: SpecimenParams, seed: int) -> Atoms:
    """Atoms of a protein-like globule of `molecular_weight` and about `diameter`, centred on its centre of mass.

    The same seed gives the same atoms. Without clashes worth the name: helices keep their spacing within a domain and
    stay clear of its walls.
    """
    rng = np.random.default_rng([seed, 1])
    residues = round(params.molecular_weight / RESIDUE_WEIGHT)
    lobes = _draw_lobes(residues * RESIDUE_VOLUME / _FILLED, params.diameter, rng)
    axis_point, azimuth, frame = _helix_residues(lobes, params.diameter, rng)
    depth = depth_in_lobes(axis_point, *lobes)
    keep = np.sort(np.argsort(-depth, kind="stable")[:residues])
    position, element, _ = residue_atoms(axis_point[keep], azimuth[keep], frame[keep], rng)
    position -= position.mean(axis=0)
    return Atoms(position=position, element=element, b_factor=np.full(len(position), params.b_factor))


def _draw_lobes(volume: float, diameter: float, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Centres (lobe, 3) and radii of balls whose union is the outline: of many drawn, the one nearest to `diameter`."""
    outlines = [_scale_to_volume(*_grow_lobes(rng), volume) for _ in range(40)]
    return min(outlines, key=lambda lobes: abs(_greatest_diameter(*lobes) - diameter))


def _grow_lobes(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Balls of falling size, each half sunk into one of the first three; units of the first radius."""
    radius, centre = [1.0], [np.zeros(3)]
    for size in (0.85, 0.75, 0.62, 0.54, 0.46):
        parent = rng.integers(min(len(centre), 3))
        direction = rng.normal(size=3)
        radius.append(size)
        centre.append(centre[parent] + 0.65 * (radius[parent] + size) * direction / np.linalg.norm(direction))
    return np.array(centre), np.array(radius)


def _scale_to_volume(centre: np.ndarray, radius: np.ndarray, volume: float) -> tuple[np.ndarray, np.ndarray]:
    axis = np.arange(-4.0, 4.0, 0.2)
    grid = np.stack(np.meshgrid(axis, axis, axis, indexing="ij"), axis=-1).reshape(-1, 3)
    inside = np.zeros(len(grid), dtype=bool)
    for c, r in zip(centre, radius, strict=True):
        inside |= ((grid - c) ** 2).sum(axis=1) < r**2
    scale = (volume / (inside.sum() * 0.2**3)) ** (1 / 3)
    return centre * scale, radius * scale


def _greatest_diameter(centre: np.ndarray, radius: np.ndarray) -> float:
    distance = np.linalg.norm(centre[:, None] - centre, axis=-1)
    return float((distance + radius[:, None] + radius).max())


def depth_in_lobes(points: np.ndarray, centre: np.ndarray, radius: np.ndarray) -> np.ndarray:
    """(point,) depth below the surface of the deepest lobe, relative to its radius; negative outside all of them."""
    distance = np.linalg.norm(points[:, None] - centre, axis=-1)
    return (1 - distance / radius).max(axis=1)


def _helix_residues(
    lobes: tuple[np.ndarray, np.ndarray], diameter: float, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Points on helix axes (residue, 3) Å, azimuths (residue,) degrees and frames (residue, 3, 3) of all domains."""
    middle = lobes[0].mean(axis=0)
    centres = scattered_points(middle, 0.75 * diameter, DOMAIN_SPACING, rng)
    centres = centres[depth_in_lobes(centres, *lobes) > -1.0]
    tree = cKDTree(centres)
    points, azimuths, frames = [], [], []
    for index, centre in enumerate(centres):
        frame = Rotation.random(random_state=rng).as_matrix()
        local, azimuth = helix_lattice(1.2 * DOMAIN_SPACING, rng)
        point = centre + local @ frame.T
        distance, nearest = tree.query(point, k=2)
        inside = (nearest[:, 0] == index) & ((distance[:, 1] - distance[:, 0]) / 2 > _DOMAIN_GAP)
        inside = long_runs(inside & (depth_in_lobes(point, *lobes) > -0.5))
        points.append(point[inside])
        azimuths.append(azimuth[inside])
        frames.append(np.broadcast_to(frame, (int(inside.sum()), 3, 3)))
    return np.concatenate(points), np.concatenate(azimuths), np.concatenate(frames)


def scattered_points(middle: np.ndarray, radius: float, spacing: float, rng: np.random.Generator) -> np.ndarray:
    """Random points of a ball, none nearer than `spacing` to another, tried until full."""
    candidates = middle + rng.uniform(-radius, radius, size=(4000, 3))
    chosen: list[np.ndarray] = []
    for point in candidates:
        if all(np.linalg.norm(point - other) > spacing for other in chosen):
            chosen.append(point)
    return np.array(chosen)


def helix_lattice(radius: float, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Residues of parallel helices on a hexagonal lattice: axis points (residue, 3) with axes along z, and azimuths."""
    steps = math.ceil(radius / _HELIX_SPACING)
    i, j = (a.ravel() for a in np.meshgrid(np.arange(-2 * steps, 2 * steps + 1), np.arange(-steps, steps + 1)))
    x, y = _HELIX_SPACING * (i + 0.5 * j), _HELIX_SPACING * math.sqrt(0.75) * j
    inside = x**2 + y**2 < radius**2
    x, y = x[inside], y[inside]
    height = _RISE * np.arange(-math.ceil(radius / _RISE), math.ceil(radius / _RISE) + 1)
    start_height, start_azimuth = rng.uniform(0, _RISE, len(x)), rng.uniform(0, 360, len(x))
    z = start_height[:, None] + height
    azimuth = start_azimuth[:, None] + _TWIST * np.arange(len(height))
    wander = rng.normal(0, _HELIX_WANDER, (2, len(x), 1))
    slope = np.tan(np.radians(rng.normal(0, _HELIX_LEAN, (2, len(x), 1))))
    point = np.stack([x[:, None] + wander[0] + slope[0] * z, y[:, None] + wander[1] + slope[1] * z, z], axis=-1)
    return point.reshape(-1, 3), azimuth.ravel()


def long_runs(inside: np.ndarray) -> np.ndarray:
    """Keep only runs of at least _SHORTEST_HELIX consecutive residues."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], inside, [False]]).astype(int)))
    result = np.zeros(len(inside), dtype=bool)
    for start, stop in zip(edges[::2], edges[1::2], strict=True):
        if stop - start >= _SHORTEST_HELIX:
            result[start:stop] = True
    return result


def residue_atoms(
    axis_point: np.ndarray, azimuth: np.ndarray, frame: np.ndarray, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Positions (atom, 3) Å, elements and residues (atom,) of the backbone, CB and a side chain that grows outwards."""
    radius = [np.full(len(azimuth), r) for r, _, _ in _BACKBONE.values()]
    angle = [azimuth + a for _, a, _ in _BACKBONE.values()]
    height = [np.full(len(azimuth), h) for _, _, h in _BACKBONE.values()]
    element = [np.full(len(azimuth), name[0]) for name in _BACKBONE]
    owner = [np.arange(len(azimuth))] * len(_BACKBONE)
    length = rng.poisson(_SIDE_CHAIN_ATOMS, len(azimuth))
    r, a, h = radius[-1], angle[-1], height[-1]
    for step in range(int(length.max())):
        grows = length > step
        r = np.minimum(r + rng.uniform(0.5, 1.3, len(r)), 6.5)
        a = a + rng.normal(0, 14.0, len(a))
        h = h + rng.normal(-0.3, 0.9, len(h))
        radius.append(r[grows])
        angle.append(a[grows])
        height.append(h[grows])
        owner.append(np.flatnonzero(grows))
        element.append(rng.choice(list(_SIDE_CHAIN_ELEMENTS), grows.sum(), p=list(_SIDE_CHAIN_ELEMENTS.values())))
    rho, phi, z = np.concatenate(radius), np.radians(np.concatenate(angle)), np.concatenate(height)
    which = np.concatenate(owner)
    order = np.argsort(which, kind="stable")  # atoms of one residue side by side: neighbours in memory are neighbours
    local = np.stack([rho * np.cos(phi), rho * np.sin(phi), z], axis=-1)[order]
    which = which[order]
    return axis_point[which] + np.einsum("aij,aj->ai", frame[which], local), np.concatenate(element)[order], which
