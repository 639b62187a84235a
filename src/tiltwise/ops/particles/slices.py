"""Central slices through the spectrum of a volume: read them, and insert them back (the adjoint).

The projection of a volume V turned by the rotation M (reference to image frame) is, in Fourier space, the central slice
V̂(Mᵀ [kx, ky, 0]). V̂ is sampled on an oversampled grid (the volume zero-padded) and read by trilinear interpolation;
the fall-off that interpolation causes in real space, sinc²(x / m) along each axis for a grid of m samples, is divided
out beforehand (gridding correction; Pruitt & Epstein; Penczek 2010). Only the ball |k| <= radius is stored.
"""

from dataclasses import dataclass

import numpy as np
import torch

from tiltwise.ops.kernels import slices as kernels
from tiltwise.ops.steady import steady_rfftn

OVERSAMPLING = 2
_GROUPS = 2  # partial sums of an insertion: fixed, so that the bits do not depend on the number of threads


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class SpectralGrid:
    """The ball of low frequencies of a volume's spectrum, phases referred to the volume's centre n // 2."""

    values: torch.Tensor
    """(2r + 3, 2r + 3, r + 2) over z, y, x, origin at (r + 1, r + 1, 0); complex64, or float32 for weights."""
    step: float
    """Grid steps per 1 / (box_size · voxel size)."""
    box_size: int
    """Side of the volume and of the images whose frequencies the points count, px."""

    @property
    def radius(self) -> int:
        """Largest frequency index held along an axis, in grid steps."""
        return self.values.shape[-1] - 2


def band_points(box_size: int, radius: float, device: torch.device | str = "cpu") -> torch.Tensor:
    """(point, 2) float32 integer frequencies kx, ky of one half plane with 0 < |k| <= radius, in order of rising |k|.

    Units of 1 / (box_size · pixel size). kx > 0, or kx = 0 and ky > 0: together with their mirror images they are all
    frequencies but the origin, each once. Nyquist lines are left out.
    """
    limit = min(int(np.floor(radius)), (box_size - 1) // 2)
    ky, kx = np.meshgrid(np.arange(-limit, limit + 1), np.arange(limit + 1), indexing="ij")
    kx, ky = kx.ravel(), ky.ravel()
    square = kx**2 + ky**2
    keep = (square <= radius**2) & ((kx > 0) | (ky > 0))
    order = np.lexsort((ky[keep], kx[keep], square[keep]))
    points = np.stack([kx[keep][order], ky[keep][order]], axis=-1).astype(np.float32)
    return torch.as_tensor(points, device=device)


def empty_grid(
    box_size: int,
    radius: float,
    dtype: torch.dtype,
    oversampling: float = OVERSAMPLING,
    device: torch.device | str = "cpu",
) -> torch.Tensor:
    """Zeros of the shape of a grid that holds |k| <= radius (in 1 / box) with the given oversampling."""
    r = int(np.ceil(radius * oversampling))
    return torch.zeros(2 * r + 3, 2 * r + 3, r + 2, dtype=dtype, device=device)


def volume_spectrum(volume: torch.Tensor, radius: float, oversampling: int = OVERSAMPLING) -> SpectralGrid:
    """Oversampled, gridding-corrected spectrum of a cubic volume (n, n, n) out to |k| = radius, in 1 / (n · voxel)."""
    n = volume.shape[0]
    m = oversampling * n
    padded = _pad(volume * gridding_correction(n, m, volume.device), m)
    spectrum = steady_rfftn(torch.fft.ifftshift(padded.float()))
    r = min(int(np.ceil(radius * oversampling)), m // 2 - 2)
    axis = torch.arange(-r - 1, r + 2, device=volume.device) % m
    values = spectrum[axis][:, axis][:, :, : r + 2].contiguous()
    return SpectralGrid(values=values, step=float(oversampling), box_size=n)


def gridding_correction(n: int, m: int, device: torch.device | str = "cpu") -> torch.Tensor:
    """(n, n, n) float32 factor 1 / (sinc² sinc² sinc²)(x / m): undoes trilinear interpolation on m samples."""
    x = (torch.arange(n, device=device, dtype=torch.float64) - n // 2) / m
    line = 1 / torch.sinc(x) ** 2
    return (line[:, None, None] * line[:, None] * line).float()


def extract_slices(grid: SpectralGrid, rotations: torch.Tensor, points: torch.Tensor) -> torch.Tensor:
    """(slice, point) complex64 values V̂(Mᵀ [kx, ky, 0]).

    rotations (slice, 3, 3) map reference to image frame; points (point, 2) are frequencies in 1 / (box · pixel), as
    `band_points` gives them; with (point, 3) any set of frequencies is turned and read. Beyond the grid all is 0.
    """
    if grid.values.device.type != "cpu":
        return _extract_plain(grid, rotations, points)
    result = np.empty((len(rotations), len(points)), np.complex64)
    arrays = (grid.values.numpy(), _double(rotations), _three(points), float(grid.step), result)
    kernels.extract(*arrays)
    return torch.from_numpy(result)


def insert_slices(
    values: torch.Tensor,
    weights: torch.Tensor,
    rotations: torch.Tensor,
    points: torch.Tensor,
    grid: SpectralGrid,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Sums of values (complex64) and weights (float32), both (slice, point), spread on a grid shaped like `grid`.

    The adjoint of `extract_slices`, each point counted once (its mirror image is left to `hermitian_complete`). Gives
    numerator complex64 and denominator float32. Points of weight 0 are skipped.
    """
    shape = tuple(grid.values.shape)
    if values.device.type != "cpu":
        return _insert_plain(values, weights, rotations, points, grid)
    sums = np.zeros((_GROUPS, *shape, 3), np.float32)
    data = (values.contiguous().numpy(), weights.contiguous().numpy(), _double(rotations), _three(points))
    kernels.insert(*data, float(grid.step), sums)
    total = torch.from_numpy(sums.sum(0))
    return torch.complex(total[..., 0], total[..., 1]), total[..., 2].contiguous()


def hermitian_complete(values: torch.Tensor) -> torch.Tensor:
    """Add to the plane x = 0 the conjugate of its mirror image: what the mirrored points would have inserted there."""
    plane = values[:, :, 0]
    mirrored = torch.flip(plane, (0, 1)).conj() if values.is_complex() else torch.flip(plane, (0, 1))
    result = values.clone()
    result[:, :, 0] = plane + mirrored
    return result


def grid_to_volume(grid: SpectralGrid) -> torch.Tensor:
    """(n, n, n) float32 volume of a Hermitian grid: inverse transform, cut from the padded box, gridding-corrected."""
    n, m = grid.box_size, round(grid.step * grid.box_size)
    r = min(grid.radius, m // 2 - 1)
    spectrum = torch.zeros(m, m, m // 2 + 1, dtype=torch.complex64, device=grid.values.device)
    index = torch.arange(-r, r + 1, device=grid.values.device)
    inner = grid.values[1:-1, 1:-1, : r + 1] if r == grid.radius else grid.values[2:-2, 2:-2, : r + 1]
    spectrum[(index % m)[:, None], index % m, : r + 1] = inner
    padded = torch.fft.fftshift(torch.fft.irfftn(spectrum, s=(m, m, m)))
    first = m // 2 - n // 2
    cut = padded[first : first + n, first : first + n, first : first + n]
    return cut * gridding_correction(n, m, cut.device)


def _pad(volume: torch.Tensor, m: int) -> torch.Tensor:
    """Zero-pad a cube to side m about its centre: sample n // 2 moves to sample m // 2."""
    n = volume.shape[0]
    first = m // 2 - n // 2
    padded = volume.new_zeros(m, m, m)
    padded[first : first + n, first : first + n, first : first + n] = volume
    return padded


def _double(values: torch.Tensor) -> np.ndarray:
    return np.ascontiguousarray(values.cpu().numpy(), np.float64)


def _three(points: torch.Tensor) -> np.ndarray:
    """(point, 3) float64 frequencies: a third component 0 is added to those of a plane."""
    padded = torch.nn.functional.pad(points.double(), (0, 3 - points.shape[-1]))
    return np.ascontiguousarray(padded.cpu().numpy())


def _corners(
    shape: tuple[int, ...], rotations: torch.Tensor, points: torch.Tensor, step: float
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Flat grid index and weight (8, slice, point) of the corners about each point, and where it was mirrored."""
    position = step * torch.einsum("nc,scx->snx", points.double(), rotations[:, : points.shape[1]].double())
    mirrored = position[..., 0] < 0
    position = torch.where(mirrored[..., None], -position, position)
    base = position.floor()
    fraction = (position - base).float()
    centre = shape[0] // 2
    base = base.long() + torch.tensor([0, centre, centre], device=base.device)
    limit = torch.tensor([shape[2] - 2, shape[1] - 2, shape[0] - 2], device=base.device)
    inside = ((base >= 0) & (base <= limit)).all(-1)
    base = torch.where(inside[..., None], base, torch.zeros_like(base))
    indices, weights = [], []
    for dz in (0, 1):
        for dy in (0, 1):
            for dx in (0, 1):
                corner = torch.tensor([dx, dy, dz], device=base.device)
                weight = torch.where(corner.bool(), fraction, 1 - fraction).prod(-1)
                index = base + corner
                indices.append((index[..., 2] * shape[1] + index[..., 1]) * shape[2] + index[..., 0])
                weights.append(torch.where(inside, weight, torch.zeros_like(weight)))
    return torch.stack(indices), torch.stack(weights), mirrored


def _extract_plain(grid: SpectralGrid, rotations: torch.Tensor, points: torch.Tensor) -> torch.Tensor:
    index, weight, mirrored = _corners(tuple(grid.values.shape), rotations, points, grid.step)
    values = (grid.values.reshape(-1)[index] * weight).sum(0)
    return torch.where(mirrored, values.conj(), values)


def _insert_plain(
    values: torch.Tensor, weights: torch.Tensor, rotations: torch.Tensor, points: torch.Tensor, grid: SpectralGrid
) -> tuple[torch.Tensor, torch.Tensor]:
    shape = tuple(grid.values.shape)
    index, corner, mirrored = _corners(shape, rotations, points, grid.step)
    turned = torch.where(mirrored, values.conj(), values)
    size = grid.values.numel()
    numerator = torch.zeros(size, dtype=torch.complex64, device=values.device)
    denominator = torch.zeros(size, dtype=torch.float32, device=values.device)
    used = weights != 0
    numerator.index_add_(0, index.reshape(-1), (corner * turned * used).reshape(-1))
    denominator.index_add_(0, index.reshape(-1), (corner * weights).reshape(-1))
    return numerator.reshape(shape), denominator.reshape(shape)
