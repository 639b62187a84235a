"""Where bodies may lie: the untilted field, what tilting brings into view beside it, and the height in the slab."""

import math

import numpy as np

from tiltwise.params.scene import IceParams
from tiltwise.simulate.scene import Field, IceSlab

_GRID = 200  # points along each side of the grid on which areas are counted


def ice_slab(params: IceParams, rng: np.random.Generator) -> IceSlab:
    """The slab of these parameters, its direction of rise drawn if it is not given."""
    drawn = rng.uniform(-180, 180)
    azimuth = math.radians(drawn if params.azimuth is None else params.azimuth)
    slope = math.tan(math.radians(params.incline))
    rise = [math.degrees(math.atan(slope * c)) for c in (math.cos(azimuth), math.sin(azimuth))]
    return IceSlab(
        thickness=params.thickness, incline=(rise[0], rise[1]), curvature=1 / params.bend if params.bend else 0.0
    )


def surface_numbers(ice: IceSlab) -> tuple[float, float, float]:
    """Slopes along x and y, and curvature in 1/Å, of the middle surface."""
    return math.tan(math.radians(ice.incline[0])), math.tan(math.radians(ice.incline[1])), ice.curvature


def middle_height(ice: IceSlab, xy: np.ndarray) -> np.ndarray:
    """(point,) z of the middle surface at (point, 2), Å."""
    slope_x, slope_y, curvature = surface_numbers(ice)
    return xy[:, 0] * slope_x + xy[:, 1] * slope_y + (xy**2).sum(axis=1) * curvature / 2


def surface_normals(ice: IceSlab, xy: np.ndarray) -> np.ndarray:
    """(point, 3) unit normals of the middle surface at (point, 2), pointing to +z."""
    slope_x, slope_y, curvature = surface_numbers(ice)
    normal = np.column_stack([-slope_x - xy[:, 0] * curvature, -slope_y - xy[:, 1] * curvature, np.ones(len(xy))])
    return normal / np.linalg.norm(normal, axis=1, keepdims=True)


def distance_from_field(field: Field, xy: np.ndarray) -> np.ndarray:
    """(point,) greater of |u|, |v| less half the side for (point, 2) Å: negative inside the untilted field."""
    turn = math.radians(field.tilt_axis_angle)
    u = xy[:, 0] * math.cos(turn) - xy[:, 1] * math.sin(turn)
    v = xy[:, 0] * math.sin(turn) + xy[:, 1] * math.cos(turn)
    return np.maximum(np.abs(u), np.abs(v)) - field.side / 2


def in_view(field: Field, xy: np.ndarray, thickness: float) -> np.ndarray:
    """(point,) bool: whether an image of some tilt within ± tilt_max sees matter at (point, 2) in a slab.

    The tilt θ brings a point to x' = x cos θ + z sin θ, |z| <= thickness / 2, and leaves y: x' takes all values from
    x cos(tilt_max) - T to x + T with T = (thickness / 2) sin(tilt_max), and the point is seen if one lies in the
    square.
    """
    tilt, turn = math.radians(field.tilt_max), math.radians(field.tilt_axis_angle)
    half, spread = field.side / 2, thickness / 2 * math.sin(tilt)
    ends = np.sort(np.stack([xy[:, 0] * math.cos(tilt), xy[:, 0]]), axis=0)
    low, high = ends[0] - spread, ends[1] + spread
    for along, across in ((math.cos(turn), -math.sin(turn)), (math.sin(turn), math.cos(turn))):
        if abs(along) < 1e-9:
            high = np.where(np.abs(xy[:, 1] * across) > half, -np.inf, high)
            continue
        bounds = np.sort(np.stack([(s * half - xy[:, 1] * across) / along for s in (-1, 1)]), axis=0)
        low, high = np.maximum(low, bounds[0]), np.minimum(high, bounds[1])
    return high >= low


def view_extent(field: Field, thickness: float) -> tuple[float, float]:
    """Half sides along x and y, Å, of a rectangle that holds all that is in view."""
    tilt, turn = math.radians(field.tilt_max), math.radians(field.tilt_axis_angle)
    half = field.side / 2 * (abs(math.cos(turn)) + abs(math.sin(turn)))
    return half / math.cos(tilt) + thickness / 2 * math.tan(tilt), half


def view_area(field: Field, thickness: float, outside: float = -math.inf) -> float:
    """Area in view, Å², farther than `outside` from the field, counted on a grid."""
    x, y = view_extent(field, thickness)
    steps = (np.arange(_GRID) + 0.5) / _GRID * 2 - 1
    xy = np.stack(np.meshgrid(x * steps, y * steps), axis=-1).reshape(-1, 2)
    counted = in_view(field, xy, thickness) & (distance_from_field(field, xy) > outside)
    return float(counted.mean()) * 4 * x * y


def draw_in_field(field: Field, inset: float, number: int, rng: np.random.Generator) -> np.ndarray:
    """(number, 2) places in the untilted field, `inset` Å within its edges."""
    turn = math.radians(field.tilt_axis_angle)
    u, v = (field.side / 2 - inset) * rng.uniform(-1, 1, (2, number))
    return np.column_stack([u * math.cos(turn) + v * math.sin(turn), v * math.cos(turn) - u * math.sin(turn)])


def draw_in_view(
    field: Field, thickness: float, number: int, rng: np.random.Generator, *, outside: float = -math.inf
) -> np.ndarray:
    """(at most number, 2) places that some tilt sees, farther than `outside` Å from the untilted field."""
    xy = np.array(view_extent(field, thickness)) * rng.uniform(-1, 1, (number, 2))
    return xy[in_view(field, xy, thickness) & (distance_from_field(field, xy) > outside)]


def lift_into_slab(ice: IceSlab, xy: np.ndarray, inset: float, rng: np.random.Generator) -> np.ndarray:
    """(point, 3) centres at (point, 2), at a random height at least `inset` Å below the surfaces."""
    height = rng.uniform(-1, 1, len(xy)) * max(ice.thickness / 2 - inset, 0.0)
    return np.column_stack([xy, middle_height(ice, xy) + height / surface_normals(ice, xy)[:, 2]])


def height_in_slab(ice: IceSlab, points: np.ndarray) -> np.ndarray:
    """(point,) distance along the normal of points (point, 3) from the middle surface, Å; exact to first order."""
    return (points[:, 2] - middle_height(ice, points[:, :2])) * surface_normals(ice, points[:, :2])[:, 2]
