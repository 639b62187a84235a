"""A periodic volume correlated with small kernels tile by tile (overlap-save), in memory that is known beforehand.

out(v) = Σ_u kernel(u) volume(v + u - s // 2), u over a kernel of side s. A tile is cut with s - 1 more voxels along an
axis and correlated in Fourier space; its first voxels, all but s - 1, are those of the whole volume, for only the
others see the tile's own period. An axis that fast transforms fit is not cut unless it must be: the transform is then
periodic where the volume is.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product

import torch
from scipy.fft import next_fast_len

WORK_BYTES = 256e6
"""Bytes of work beside the volumes: of a tile, its transforms and those of kernels; of samples at places."""
_WORK_ARRAYS = 10
"""Of the size of a tile: itself, its transform, a product, its way back with what the transforms copy, two scores."""
_KERNELS = (8, 16)
"""Least and most kernels whose transforms are kept for all tiles: a tile's own costs little beside theirs."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Tiling:
    """How a volume is cut into tiles."""

    shape: tuple[int, int, int]
    """(z, y, x) voxels of the volume."""
    side: int
    """Voxels of a kernel's side."""
    lengths: tuple[int, int, int]
    """(z, y, x) voxels that are transformed at once."""
    steps: tuple[int, int, int]
    """(z, y, x) voxels that each tile settles."""
    kernels: int
    """Kernels whose transforms are kept at once."""

    @property
    def bytes(self) -> int:
        """What correlating by these tiles holds beside the volume and the result."""
        spectrum = 8 * self.lengths[0] * self.lengths[1] * (self.lengths[2] // 2 + 1)
        return (self.kernels + _WORK_ARRAYS) * spectrum + 4 * self.kernels * self.side**3

    def starts(self) -> Iterator[tuple[int, int, int]]:
        """(z, y, x) first voxel of each tile."""
        return product(*(range(0, n, step) for n, step in zip(self.shape, self.steps, strict=True)))

    def inside(self, start: tuple[int, int, int]) -> tuple[slice, ...]:
        """Where the voxels lie that the tile from `start` settles."""
        return tuple(slice(s, min(s + step, n)) for s, step, n in zip(start, self.steps, self.shape, strict=True))


def plan_tiles(shape: tuple[int, int, int], side: int, work_bytes: float = WORK_BYTES) -> Tiling:
    """The fewest tiles, as near to cubes as they can be, that keep within work_bytes with the least kernels.

    Tiles are not made so small that more than half of an axis is the kernel's reach, whatever work_bytes.
    """
    cuts = [[_cut(n, side, count) for count in range(1, max(1, n // side) + 1)] for n in shape]
    most = work_bytes / 4 / (_KERNELS[0] + _WORK_ARRAYS)
    counts = [0, 0, 0]
    while math.prod(cuts[a][counts[a]][0] for a in range(3)) > most:
        free = [a for a in range(3) if counts[a] + 1 < len(cuts[a])]
        if not free:
            break
        counts[max(free, key=lambda a: cuts[a][counts[a]][0])] += 1
    lengths, steps = zip(*(cuts[a][counts[a]] for a in range(3)), strict=True)
    fitting = int(work_bytes / 4 / math.prod(lengths)) - _WORK_ARRAYS
    return Tiling(
        shape=shape, side=side, lengths=lengths, steps=steps, kernels=min(max(fitting, _KERNELS[0]), _KERNELS[1])
    )


def _cut(size: int, side: int, count: int) -> tuple[int, int]:
    """Length of the transform and voxels that it settles, for an axis in `count` parts."""
    if count == 1 and side <= size and next_fast_len(size, real=True) == size:
        return size, size
    length = next_fast_len(-(-size // count) + side - 1, real=True)
    return length, min(length - side + 1, size)


def cut_tile(volume: torch.Tensor, tiling: Tiling, start: tuple[int, int, int]) -> torch.Tensor:
    """The tile from `start` (z, y, x) with what the kernels reach of the periodic volume, of the tiling's lengths."""
    z, y, x = (
        (torch.arange(length, device=volume.device) + first - tiling.side // 2) % n
        for first, length, n in zip(start, tiling.lengths, tiling.shape, strict=True)
    )
    return volume[z[:, None, None], y[:, None], x]


def kernel_spectra(kernels: torch.Tensor, tiling: Tiling) -> torch.Tensor:
    """Conjugate transforms of kernels (kernel, z, y, x) in the corner of a tile: axis by axis, so that rows of zeros
    are not transformed; one by one, since each is padded on the way."""
    nz, ny, nx = tiling.lengths
    result = torch.empty(len(kernels), nz, ny, nx // 2 + 1, dtype=torch.complex64, device=kernels.device)
    for kernel, spectrum in zip(kernels, result, strict=True):
        rows = torch.fft.fft(torch.fft.rfft(kernel, n=nx, dim=2), n=ny, dim=1)
        torch.conj_physical(torch.fft.fft(rows, n=nz, dim=0), out=spectrum)
    return result


def correlate_tile(spectrum: torch.Tensor, kernel: torch.Tensor, tiling: Tiling) -> torch.Tensor:
    """What the tile of this transform settles for a kernel, of which `kernel_spectra` gave the other: (z, y, x) steps.

    Axis by axis, so that rows which the tile does not settle are not transformed.
    """
    (nz, ny, nx), (_, _, width) = tiling.steps, tiling.lengths
    part = torch.fft.ifft(spectrum * kernel, dim=0)[:nz]
    part = torch.fft.ifft(part, dim=1)[:, :ny]
    return torch.fft.irfft(part, n=width, dim=2)[:, :, :nx]


def settled(part: torch.Tensor, inside: tuple[slice, ...]) -> torch.Tensor:
    """The voxels of a tile that lie in the volume: the last tile of an axis reaches beyond it."""
    return part[tuple(slice(0, one.stop - one.start) for one in inside)]
