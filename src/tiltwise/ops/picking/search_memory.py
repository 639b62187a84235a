"""What a template search will hold at once, said before it starts: whole volumes, and work of bounded size."""

import math

from tiltwise.ops.moments import slabs
from tiltwise.ops.picking.matching import boxes_at_once
from tiltwise.ops.picking.template_search import level_sampling
from tiltwise.ops.picking.tiles import WORK_BYTES, plan_tiles

_PROGRAM = 0.4e9
"""Bytes of the program and its libraries."""
_SLAB_COPIES = 10
"""Of the planes that are shrunk, counted or compared at once, in float32."""
_BOX_BYTES = 48
"""For a voxel of the boxes worked on at once: points turned, values, transforms."""
_TEMPLATE_BYTES = 400
"""For a voxel of a reference: turned points in float64, transforms, its decoys."""


def search_bytes(
    shape: tuple[int, int, int], voxel_size: float, diameter: float, step: float, references: int, template_side: int
) -> float:
    """Most bytes that the search of a tomogram (z, y, x) is expected to hold, the program included.

    step in degrees, that of the fine level; references with the decoys; template_side in voxels of the given map. The
    tomogram's file, where it is a memory map, comes on top as pages that the system can take back. On an accelerator
    all but the program is in its memory.
    """
    tomogram = 4 * math.prod(shape)
    sizes = [level_sampling(shape, voxel_size, diameter, angle) for angle in (2 * step, step)]
    coarse, fine = (4 * math.prod(small) for small, _, _ in sizes)
    first, second = (_preparing(shape, small, side) for small, _, side in sizes)
    maps = 2 * references * coarse
    small, _, side = sizes[0]
    searching = max(plan_tiles(small, side).bytes + _boxes(side), _slab(small) + coarse // 2)
    places = WORK_BYTES + _boxes(sizes[1][2])
    template = _TEMPLATE_BYTES * template_side**3
    matching = 2 * coarse + 2 * fine + template + max(maps + searching, maps + places)
    return _PROGRAM + tomogram + max(_slab(shape), first, 2 * coarse + second, matching)


def _preparing(shape: tuple[int, int, int], small: tuple[int, int, int], side: int) -> int:
    """Of a level: planes that are shrunk and the volume of them, then the volume and two that are filtered from it."""
    volume = 4 * math.prod(small)
    filtering = 2 * volume + max(plan_tiles(small, side + 1).bytes, _boxes(side), _slab(small))
    if small == shape:
        return filtering
    planes = 4 * (shape[0] + small[0]) * small[1] * small[2]  # zeros are added to less than twice the planes
    return max(planes + volume + _slab(shape), volume + filtering)


def _slab(shape: tuple[int, int, int]) -> int:
    return 4 * _SLAB_COPIES * slabs(shape)[0].stop * shape[1] * shape[2]


def _boxes(side: int) -> int:
    return _BOX_BYTES * boxes_at_once(side) * side**3
