"""How far the beam travels through ice and carbon on its way to each pixel, and at what depth it meets them."""

from dataclasses import dataclass

import numpy as np
import torch

from tiltwise.data.tilt_series import TiltSeries
from tiltwise.ops.geometry import tilt_rotations
from tiltwise.simulate.scene import CarbonFilm, IceSlab

_STEPS = (
    3  # of Newton's method: the surface is a paraboloid of small curvature, each squares the error; one for a plane
)


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Layer:
    """A sheet of matter as one tilt image sees it."""

    depth: torch.Tensor
    """(y, x) depth of its middle surface, Å."""
    path: torch.Tensor
    """(y, x) length of the beam's way through it, Å; 0 where there is none."""


def ice_layer(ice: IceSlab, series: TiltSeries, tilt: int) -> Layer:
    """The ice in one image. Its path is thickness / |n·beam|, n the normal where the beam crosses the middle."""
    depth, point, beam = _meet_surface(ice, 0.0, series, tilt)
    return Layer(depth=depth, path=ice.thickness / _cosine(ice, point, beam))


def film_layer(film: CarbonFilm, ice: IceSlab, series: TiltSeries, tilt: int) -> Layer:
    """The carbon in one image. At its edge, which is upright, the beam passes through a part of the thickness."""
    depth, point, beam = _meet_surface(ice, film.height, series, tilt)
    path = film.thickness / _cosine(ice, point, beam)
    direction = np.radians(film.azimuth)
    c, s = float(np.cos(direction)), float(np.sin(direction))
    beyond = point[0] * c + point[1] * s - film.distance
    reach = abs(float(beam[0]) * c + float(beam[1]) * s) * path / 2 + series.pixel_size / 2
    return Layer(depth=depth, path=path * ((beyond + reach) / (2 * reach)).clamp(0, 1))


def _meet_surface(
    ice: IceSlab, height: float, series: TiltSeries, tilt: int
) -> tuple[torch.Tensor, tuple[torch.Tensor, ...], torch.Tensor]:
    """Depth (y, x) and specimen point, three of (y, x), where the beam of each pixel crosses a surface `height` above
    the middle of the ice, and the beam's direction in the specimen."""
    matrix = tilt_rotations(series.geometry)[tilt].float()
    y, x = (
        (torch.arange(n, dtype=torch.float32) - n // 2) * series.pixel_size - float(s)
        for n, s in zip(series.image_shape, series.geometry.shift[tilt][::-1], strict=True)
    )
    beam = matrix[2]
    start = [matrix[0, axis] * x[None, :] + matrix[1, axis] * y[:, None] for axis in range(3)]
    depth = torch.zeros(series.image_shape)
    for _ in range(_STEPS if ice.curvature else 1):
        point = tuple(s + float(b) * depth for s, b in zip(start, beam, strict=True))
        slope = _slope(ice, point)
        above = point[2] - _surface(ice, point) - height
        depth = depth - above / (beam[2] - slope[0] * beam[0] - slope[1] * beam[1])
    return depth, tuple(s + float(b) * depth for s, b in zip(start, beam, strict=True)), beam


def _surface(ice: IceSlab, point: tuple[torch.Tensor, ...]) -> torch.Tensor:
    a, b = (float(np.tan(np.radians(angle))) for angle in ice.incline)
    return a * point[0] + b * point[1] + 0.5 * ice.curvature * (point[0] ** 2 + point[1] ** 2)


def _slope(ice: IceSlab, point: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, torch.Tensor]:
    a, b = (float(np.tan(np.radians(angle))) for angle in ice.incline)
    return a + ice.curvature * point[0], b + ice.curvature * point[1]


def _cosine(ice: IceSlab, point: tuple[torch.Tensor, ...], beam: torch.Tensor) -> torch.Tensor:
    """(y, x) |cosine| of the angle between the beam and the surface's normal."""
    sx, sy = _slope(ice, point)
    return ((beam[2] - sx * beam[0] - sy * beam[1]) / (1 + sx**2 + sy**2).sqrt()).abs()
