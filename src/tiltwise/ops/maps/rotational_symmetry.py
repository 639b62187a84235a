"""Which turns about an axis leave a map as it is: found from two half maps that nothing symmetric was imposed on.

On cylinders about an axis the halves are Fourier series in the azimuth, F_m(ρ, z) = ∫ f e^(-imφ) dφ / 2π. Their
correlation after a turn of one by θ is C(θ) = Σ_m p_m cos(mθ), p_m = Re Σ_{ρ,z} ρ F_m¹ F_m²* over the norms of both.
Noise of the halves is independent, so that it adds nothing to p_m on average. p_0 is the part that has every symmetry;
of the rest,
    S_n = Σ_{n | m, m > 0} p_m / Σ_{m > 0} p_m = (mean_k C(360° k / n) - p_0) / (C(0) - p_0)
is what n-fold turns leave as it is: 1 for a map of symmetry Cn (and for every divisor of n), about 1/n for a map that
has nothing to do with n. Orders are ranked by S_n - 1/n, so that of 6, 3 and 2 the largest that holds wins.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from scipy.optimize import minimize

from tiltwise.ops.filters import low_pass
from tiltwise.ops.fourier import fourier_rescale
from tiltwise.ops.interpolate import sample_volume
from tiltwise.ops.rotations import rotation_vector_to_matrix

_ORDERS = tuple(range(2, 9))
_LEAST_AZIMUTHS = 72
_FINER = 2  # grid of the linear interpolation, to the maps' own
_LEAST = 0.05  # correlation of the halves; what varies about the axis less than that is noise
_MOST_LEAN = 12.0  # degrees of the axis from z
_LOCAL_STEPS = 40  # evaluations in the search for the axis


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class RotationalSymmetry:
    """How the halves of a map agree when one is turned about an axis."""

    order: int
    """n of the greatest S_n - 1/n."""
    share: dict[int, float]
    """S_n by order, about the axis found for it."""
    angle: np.ndarray
    """(angle,) degrees, 0 to 180."""
    correlation: np.ndarray
    """(angle,) C of the halves, one turned by that angle about the axis of `order`."""
    point: np.ndarray
    """(2,) x, y where that axis crosses the middle plane, Å."""
    lean: np.ndarray
    """(2,) degrees by which that axis is turned from z, about x and y."""


def find_rotational_symmetry(
    first: torch.Tensor,
    second: torch.Tensor,
    voxel_size: float,
    *,
    radius: float,
    height: float,
    resolution: float,
    reach: float = 0.0,
    orders: tuple[int, ...] = _ORDERS,
) -> RotationalSymmetry:
    """Rank the orders n of Cn about axes near z, of half maps (n, n, n), within a cylinder of a radius and height, Å.

    Spacings down to `resolution` (Å) are compared. The axis of each order is sought within `reach` (Å) of z, leaning by
    up to 12° from it; reach 0 takes z itself.
    """
    fine = tuple(_FINER * n for n in first.shape)
    halves = [fourier_rescale(low_pass(half.float(), resolution, voxel_size), fine) for half in (first, second)]
    points = _cylinders(radius, height, resolution / 3, resolution)

    def measure(axis: np.ndarray) -> np.ndarray:
        return _powers(halves, voxel_size / _FINER, points, axis)

    tried = [(axis, measure(axis)) for axis in _grid_of_axes(reach, resolution)]
    axes = {}
    for n in orders:
        start = max(tried, key=lambda one, n=n: _share(one[1], n))[0]
        axes[n] = _climbed(measure, start, n, (reach, resolution)) if reach > 0 else start
    powers = {n: measure(axis) for n, axis in axes.items()}
    share = {n: _share(power, n) for n, power in powers.items()}
    order = max(orders, key=lambda n: share[n] - 1 / n)
    angle, m = np.arange(0.0, 180.5, 1.0), np.arange(len(powers[order]))
    return RotationalSymmetry(
        order=order,
        share=share,
        angle=angle,
        correlation=np.cos(np.radians(angle[:, None] * m)) @ powers[order],
        point=axes[order][:2],
        lean=axes[order][2:],
    )


def _cylinders(radius: float, height: float, spacing: float, resolution: float) -> torch.Tensor:
    """(z, ρ, azimuth, 3) points, Å: azimuths fine enough for three to a spacing of `resolution` on the rim."""
    azimuths = max(_LEAST_AZIMUTHS, 2 * int(np.ceil(3 * np.pi * radius / resolution)))
    z = torch.arange(-height / 2, height / 2 + spacing / 2, spacing, dtype=torch.float64)
    rho = torch.arange(spacing / 2, radius, spacing, dtype=torch.float64)
    phi = torch.arange(azimuths, dtype=torch.float64) * (2 * torch.pi / azimuths)
    z, rho, phi = torch.meshgrid(z, rho, phi, indexing="ij")
    return torch.stack([rho * torch.cos(phi), rho * torch.sin(phi), z], dim=-1)


def _powers(halves: list[torch.Tensor], voxel_size: float, points: torch.Tensor, axis: np.ndarray) -> np.ndarray:
    """(m,) p_m about an axis (x, y, lean about x, lean about y; Å and degrees)."""
    turn = rotation_vector_to_matrix(torch.tensor([axis[2], axis[3], 0.0], dtype=torch.float64))
    place = points @ turn.T + torch.tensor([axis[0], axis[1], 0.0], dtype=torch.float64)
    rho = points[..., :1, :2].norm(dim=-1)
    spectra = [torch.fft.rfft(sample_volume(half, place / voxel_size), dim=-1) for half in halves]
    double = torch.full((spectra[0].shape[-1],), 2.0, dtype=torch.float64)
    double[0] = 1
    if points.shape[2] % 2 == 0:
        double[-1] = 1
    cross, one, two = (
        (rho * (spectra[a] * spectra[b].conj()).real).sum((0, 1)) * double for a, b in ((0, 1), (0, 0), (1, 1))
    )
    return (cross / (one.sum() * two.sum()).sqrt()).numpy()


def _share(power: np.ndarray, order: int) -> float:
    """S_n; what is not the same at all azimuths counts as `_LEAST` at least, so that noise alone has no share."""
    return float(power[order::order].sum() / max(float(power[1:].sum()), _LEAST))


def _grid_of_axes(reach: float, resolution: float) -> list[np.ndarray]:
    """Axes along z a third of the resolution apart, within reach of the middle; the middle first."""
    step = resolution / 3
    line = np.arange(-np.floor(reach / step), np.floor(reach / step) + 1) * step
    points = [(x, y) for x in line for y in line if np.hypot(x, y) <= reach + 1e-9]
    return [np.array([x, y, 0.0, 0.0]) for x, y in sorted(points, key=lambda p: np.hypot(*p))]


def _climbed(
    measure: Callable[[np.ndarray], np.ndarray], start: np.ndarray, order: int, limits: tuple[float, float]
) -> np.ndarray:
    """The axis near a first one that has the greatest share: a simplex in place and lean."""
    reach, resolution = limits

    def cost(axis: np.ndarray) -> float:
        outside = max(0.0, float(np.hypot(*axis[:2])) - reach) + max(0.0, float(np.hypot(*axis[2:])) - _MOST_LEAN)
        return outside - _share(measure(axis), order)

    simplex = start + np.concatenate([np.zeros((1, 4)), np.diag([resolution / 8, resolution / 8, 4.0, 4.0])])
    return minimize(cost, start, method="Nelder-Mead", options={"initial_simplex": simplex, "maxfev": _LOCAL_STEPS}).x
