"""Lipid bilayers, closed into spheres or flat, made of rigid patches of points.

Numbers of a bilayer of POPC, C42 H82 N O8 P: area 64.3 Å2 and volume 1256 Å3 a lipid, 331 Å3 of them head group
(C10 H18 N O8 P, glycerol and carbonyls included), heads 38 Å apart (after Kučerka et al., Biochim. Biophys. Acta 1808,
2011; quoted from memory). With isolated atoms of Peng heads have 8.4 V and tails 5.9 V in their volumes; less 4.53 V
of ice a leaflet adds 20 V Å in a sheet of heads and 20 V Å spread over its tails: in images, two dark lines on a grey
band.
"""

import math
from dataclasses import dataclass

import gemmi
import numpy as np
from scipy.spatial.transform import Rotation

from tiltwise.ops.symmetry import symmetry_rotations
from tiltwise.simulate.potential import POTENTIAL_OF_FORM_FACTOR, Scatterer
from tiltwise.simulate.solids import even_scatterer

LIPID_AREA, _LIPID_VOLUME, _HEAD_VOLUME = 64.3, 1256.0, 331.0  # Å2, Å3, Å3
HEAD = {"C": 10, "H": 18, "N": 1, "O": 8, "P": 1}
TAILS = {"C": 32, "H": 64}
_HEAD_HEIGHT = 19.0  # Å, of the heads from the middle
_TAIL_HEIGHTS = (3.6, 10.8)  # Å; 925 Å3 of tails on 64.3 Å2 are 14.4 Å thick
HALF_THICKNESS = 24.0
"""Å from the middle of a bilayer to where other bodies begin."""
_SPACING = 7.0  # Å, of points within a layer
_PATCH = 250.0  # Å; about the side of the patches of a sphere
_TILE_POINTS = 18  # along each side of a flat patch


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Patches:
    """Copies of one patch of membrane."""

    scatterer: Scatterer
    """The patch about its own centre."""
    position: np.ndarray
    """(patch, 3) centres, Å."""
    rotation: Rotation
    """(patch,) patch to specimen."""


def layer_table() -> np.ndarray:
    """(layer, 3) height Å, potential V Å and displaced ice Å of the layers of a bilayer, per area."""

    def potential(formula: dict[str, int]) -> float:
        total = 0.0
        for symbol, number in formula.items():
            coefficients = gemmi.Element(symbol).c4322.get_coefs()
            total += number * sum(coefficients[: len(coefficients) // 2])
        return POTENTIAL_OF_FORM_FACTOR * total / LIPID_AREA

    head = (potential(HEAD), _HEAD_VOLUME / LIPID_AREA)
    tail = (potential(TAILS) / len(_TAIL_HEIGHTS), (_LIPID_VOLUME - _HEAD_VOLUME) / LIPID_AREA / len(_TAIL_HEIGHTS))
    upper = [(_HEAD_HEIGHT, *head), *((height, *tail) for height in _TAIL_HEIGHTS)]
    return np.array([*upper, *((-height, v, ice) for height, v, ice in upper)])


def sphere_patches(centre: np.ndarray, radius: float, rotation: Rotation) -> list[Patches]:
    """A spherical bilayer, the middle of its two leaflets at `radius` Å, turned as a whole by `rotation`.

    Its points are those of the 20 faces of an icosahedron, equal up to rotation, so that there are no seams; a face
    is cut into as many patches as make them about 250 Å wide.
    """
    direction, solid_angle = _face_points(radius)
    number = max(1, round(4 * math.pi * radius**2 / 20 / _PATCH**2))
    owner = _cut(direction, number)
    turns = rotation * Rotation.from_matrix(_face_rotations())
    result = []
    for patch in range(number):
        mine = owner == patch
        points, potential, displaced = _stack_layers(
            direction[mine] * radius, direction[mine], solid_angle[mine], radius
        )
        middle = points.mean(axis=0)
        result.append(
            Patches(
                scatterer=even_scatterer(points - middle, potential, displaced, _SPACING),
                position=centre + turns.apply(middle),
                rotation=turns,
            )
        )
    return result


def sheet_patch() -> tuple[Scatterer, np.ndarray, float]:
    """A flat square patch with its normal along z, the points that fill it for collisions, and its side in Å.

    Patches side by side at multiples of the side make a sheet without seams.
    """
    side = _TILE_POINTS * _SPACING
    steps = (np.arange(_TILE_POINTS) + 0.5) * _SPACING - side / 2
    middle = np.stack([*(a.ravel() for a in np.meshgrid(steps, steps)), np.zeros(_TILE_POINTS**2)], axis=-1)
    normal = np.broadcast_to([0.0, 0.0, 1.0], middle.shape)
    points, potential, displaced = _stack_layers(middle, normal, np.full(len(middle), _SPACING**2), math.inf)
    return even_scatterer(points, potential, displaced, _SPACING), _filled(middle, normal), side


def _stack_layers(
    middle: np.ndarray, normal: np.ndarray, area: np.ndarray, radius: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Points (point, 3) of all layers over those of the middle surface, their potentials V Å3 and ice volumes Å3.

    `area` is that of each point in the middle: in Å2 where radius is infinite, else its solid angle.
    """
    points, potential, displaced = [], [], []
    for height, volts, ice in layer_table():
        own = area if math.isinf(radius) else area * (radius + height) ** 2
        points.append(middle + height * normal)
        potential.append(volts * own)
        displaced.append(ice * own)
    return np.concatenate(points), np.concatenate(potential), np.concatenate(displaced)


def _filled(middle: np.ndarray, normal: np.ndarray) -> np.ndarray:
    return np.concatenate([middle + h * normal for h in np.linspace(-HALF_THICKNESS, HALF_THICKNESS, 9)])


def _face_points(radius: float) -> tuple[np.ndarray, np.ndarray]:
    """Unit vectors (point, 3) to the middles of small triangles that tile one face of an icosahedron, and their solid
    angles; on a sphere of this radius a point has an area of about _SPACING²."""
    corner = _face_corners()
    steps = max(2, math.ceil(math.sqrt(4 * math.pi * radius**2 / 20) / _SPACING))
    i, j = (a.ravel() for a in np.meshgrid(np.arange(steps), np.arange(steps), indexing="ij"))

    def node(i: np.ndarray, j: np.ndarray) -> np.ndarray:
        weights = np.stack([i, j, steps - i - j], axis=-1) / steps
        points = weights @ corner
        return points / np.linalg.norm(points, axis=1, keepdims=True)

    up, down = i + j < steps, i + j < steps - 1
    corners = [
        np.concatenate([node(i[up] + a, j[up] + b), node(i[down] + c, j[down] + d)])
        for (a, b), (c, d) in (((0, 0), (1, 0)), ((1, 0), (1, 1)), ((0, 1), (0, 1)))
    ]
    middle = sum(corners)
    return middle / np.linalg.norm(middle, axis=1, keepdims=True), _solid_angle(*corners)


def _solid_angle(a: np.ndarray, b: np.ndarray, c: np.ndarray) -> np.ndarray:
    """Of spherical triangles with corners (triangle, 3) on the unit sphere (Van Oosterom and Strackee 1983)."""
    volume = np.abs((a * np.cross(b, c)).sum(axis=1))
    return 2 * np.arctan2(volume, 1 + (a * b).sum(axis=1) + (b * c).sum(axis=1) + (c * a).sum(axis=1))


def _face_corners() -> np.ndarray:
    """(3, 3) unit vectors to the corners of one face of the icosahedron of the group I."""
    golden = (1 + math.sqrt(5)) / 2
    first = np.array([golden, 0.0, 1.0]) / math.hypot(golden, 1)
    vertices = symmetry_rotations("I").numpy() @ first
    near = vertices[np.abs(vertices @ first - 1 / math.sqrt(5)) < 1e-6]
    second = near[0]
    third = near[np.abs(near @ second - 1 / math.sqrt(5)) < 1e-6][0]
    return np.stack([first, second, third])


def _face_rotations() -> np.ndarray:
    """(20, 3, 3) rotations of the group I that take one face to all faces."""
    group = symmetry_rotations("I").numpy()
    middles = np.round(group @ _face_corners().sum(axis=0), 6) + 0.0
    return group[np.sort(np.unique(middles, axis=0, return_index=True)[1])]


def _cut(direction: np.ndarray, number: int) -> np.ndarray:
    """(point,) which of `number` compact parts a point belongs to: k-means from evenly spaced points, five rounds."""
    seeds = direction[np.linspace(0, len(direction) - 1, number).astype(int)]
    for _ in range(5):
        owner = np.argmax(direction @ seeds.T, axis=1)
        seeds = np.stack(
            [direction[owner == n].mean(axis=0) if (owner == n).any() else seeds[n] for n in range(number)]
        )
        seeds /= np.linalg.norm(seeds, axis=1, keepdims=True)
    return np.unique(np.argmax(direction @ seeds.T, axis=1), return_inverse=True)[1]
