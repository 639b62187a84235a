"""Memory planned before the run: how many rows at once, and whether the volumes fit beside them."""

import math
import mmap
import tempfile
from dataclasses import dataclass

import numpy as np

from tiltwise.data.errors import StageError
from tiltwise.ops.kernels.straight_projection import BLOCK
from tiltwise.ops.tomogram.straight_projection import stored_rows
from tiltwise.stages.reconstruct.setup import Setup

_PROGRAM = 0.4e9
"""Bytes of the program and its libraries."""
_IMAGE_COPIES = 9
"""Copies of one padded image in float32 while it is cleaned and transformed."""
_SPECTRUM_COPIES = 12
"""Copies of one cropped image while its levels are filtered."""
_MORE_IMAGES, _MORE_SPECTRA = 2, 5
"""The same where an image comes in two parts: one read and one summed, two transforms of one and its coefficients."""
_SOLVER_VOLUMES = {"wbp": 1, "cg": 5, "sirt": 6}
"""Slabs of float32 that each method holds at once; total variation takes 5 more."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class MemoryPlan:
    bytes: float
    """What the run is expected to hold at once, the program included."""
    slabs: tuple[slice, ...]
    """Rows of the tomogram treated together, one slab after the other; they cover it."""
    scratch: bool
    """Whether the volumes lie in a scratch file instead of memory."""
    text: str
    """The plan in one line."""

    def release(self, volumes: list[np.ndarray]) -> None:
        """Give what has been written to the scratch file out of memory."""
        if self.scratch:
            for volume in volumes:
                volume.flush()
                volume._mmap.madvise(mmap.MADV_DONTNEED)


def plan_memory(setup: Setup) -> MemoryPlan:
    """Rows of a slab as many as memory_GB allows, all of them without a bound; StageError if not even 64 fit."""
    bound = math.inf if setup.params.memory_GB is None else setup.params.memory_GB * 1e9
    more = setup.parts - 1
    images = (_IMAGE_COPIES + _MORE_IMAGES * more) * math.prod(setup.grid.padded)
    images = 4 * (images + (_SPECTRUM_COPIES + _MORE_SPECTRA * more) * math.prod(setup.grid.cropped))
    volumes = _volumes(setup) * math.prod(setup.shape) * _dtype(setup).itemsize
    volumes += math.prod(setup.shape) * _volumes(setup) if setup.params.output == "int8" else 0
    whole = -(-setup.shape[1] // BLOCK)
    scratch = _PROGRAM + images + volumes + _slab_bytes(setup, BLOCK) > bound
    fixed = _PROGRAM + images + (0 if scratch else volumes)
    blocks = next((n for n in range(whole, 0, -1) if fixed + _slab_bytes(setup, n * BLOCK) <= bound), 0)
    if not blocks:
        need = (fixed + _slab_bytes(setup, BLOCK)) / 1e9
        raise StageError(
            f"{setup.tilt_series.name}: {need:.1f} GB are the least for this tomogram; raise memory_GB or the voxel"
        )
    rows = BLOCK * -(-whole // -(-whole // blocks))  # slabs of nearly one size
    slabs = tuple(slice(y, min(y + rows, setup.shape[1])) for y in range(0, setup.shape[1], rows))
    total = fixed + _slab_bytes(setup, rows)
    size = " × ".join(str(n) for n in reversed(setup.shape))
    where = "volumes in a scratch file" if scratch else f"{volumes / 1e9:.2f} GB of volumes"
    return MemoryPlan(
        bytes=total,
        slabs=slabs,
        scratch=scratch,
        text=f"planned {total / 1e9:.2f} GB: {size} voxels, {where}, {len(slabs)} slab(s) of {rows} rows",
    )


def new_volumes(setup: Setup, plan: MemoryPlan) -> list[np.ndarray]:
    """The empty tomogram; before two halves where they are asked for."""
    make = _in_scratch if plan.scratch else np.zeros
    return [make(setup.shape, _dtype(setup)) for _ in range(_volumes(setup))]


def _in_scratch(shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
    """A memory map of a file without a name, which ends with it."""
    with tempfile.TemporaryFile(prefix="tiltwise-") as file:
        return np.memmap(file, dtype=dtype, mode="w+", shape=shape)


def _volumes(setup: Setup) -> int:
    return 3 if setup.params.half_tomograms else 1


def _dtype(setup: Setup) -> np.dtype:
    """8-bit numbers are made at the end, when their step is known."""
    return np.dtype(np.float32 if setup.params.output == "float32" else np.float16)


def _slab_bytes(setup: Setup, rows: int) -> int:
    """Straightened images and volumes of a slab; a whole tomogram in float32 is back projected in its place."""
    depth, height, width = setup.shape
    halo = 0 if setup.params.method == "wbp" else 2 * setup.geometry.margin
    stored = 4 * setup.parts * int(setup.planes.start[-1]) * stored_rows(setup.geometry, rows + halo)
    slabs = _SOLVER_VOLUMES[setup.params.method]
    if setup.params.method == "wbp":
        return stored + (0 if rows >= height and _dtype(setup) == np.float32 else 4 * 16 * rows * width)
    slabs += 5 if setup.params.iterative.total_variation else 0
    one_level = 4 * int(setup.geometry.columns.sum()) * stored_rows(setup.geometry, rows + halo)
    return stored + 2 * one_level + 4 * slabs * depth * (rows + halo) * width
