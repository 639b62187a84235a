"""Template search everywhere, tile by tile, against one transform of the whole volume: ms per rotation and Mvoxel.

Noise and turned blobs stand for a filtered tomogram and its templates, the time depends on neither. One thread.
`ms_per_rotation_Mvoxel` is of `correlate_everywhere`, templates made beforehand; the alternative (`baseline_ratio` is
its time over ours) transforms the whole volume, and for every rotation the padded template, multiplies, transforms back
and compares, as is usual. `same_score_max` is the largest difference of their scores, which have sd 1. The memory of
each is the highest resident memory above that with the volume alone, best scores and their numbers included;
`planned_GB` is what is said of the tiles beforehand. `peak_GB` is of the whole benchmark, the alternative included.
"""

import resource
import time
from collections.abc import Callable

import torch

from tiltwise.ops.picking.matching import correlate_everywhere
from tiltwise.ops.picking.tiles import plan_tiles
from tiltwise.project.threads import keep_freed_memory

SHAPE, SIDE = (160, 288, 288), 24
"""13.3 Mvoxel: of a tomogram of 1024 × 1024 × 512 voxels the coarse level is as large where it is shrunk by 3.5."""
ROTATIONS = {"tiles": 8, "whole": 3}


def run() -> dict:
    keep_freed_memory()
    torch.set_num_threads(1)
    generator = torch.Generator().manual_seed(1)
    volume = torch.randn(SHAPE, generator=generator)
    templates = torch.randn(max(ROTATIONS.values()), SIDE, SIDE, SIDE, generator=generator)
    templates /= templates.flatten(1).norm(dim=1)[:, None, None, None]
    for search in (search_tiles, search_whole):  # the first transforms set up their library
        search(volume[:32, :32, :32].contiguous(), templates)
    before = peak_bytes()
    tiles, tiles_bytes = timed(search_tiles, volume, templates[: ROTATIONS["tiles"]]), peak_bytes() - before
    few = templates[: ROTATIONS["whole"]]
    whole, whole_bytes = timed(search_whole, volume, few), peak_bytes() - before
    difference = search_tiles(volume, few)[0] - search_whole(volume, few)[0]
    tiling, voxels = plan_tiles(SHAPE, SIDE), volume.numel()
    tiles, whole = tiles / ROTATIONS["tiles"] / voxels, whole / ROTATIONS["whole"] / voxels
    return {
        "ms_per_rotation_Mvoxel": round(1e9 * tiles, 2),
        "whole_ms_per_rotation_Mvoxel": round(1e9 * whole, 2),
        "baseline_ratio": round(whole / tiles, 2),
        "Mvoxel": round(voxels / 1e6, 2),
        "tile": list(tiling.lengths),
        "tiles_GB": round(tiles_bytes / 1e9, 3),
        "whole_GB": round(whole_bytes / 1e9, 3),
        "planned_GB": round((tiling.bytes + 2 * volume.nbytes) / 1e9, 3),
        "same_score_max": float(difference.abs().max()),
    }


def timed(search: Callable, volume: torch.Tensor, templates: torch.Tensor) -> float:
    """CPU seconds."""
    before = time.process_time()
    search(volume, templates)
    return time.process_time() - before


def search_tiles(volume: torch.Tensor, templates: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    tiling = plan_tiles(tuple(volume.shape), SIDE)
    return correlate_everywhere(volume, templates.split(tiling.kernels), tiling)


def search_whole(volume: torch.Tensor, templates: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    shape, half = tuple(volume.shape), (SIDE // 2,) * 3
    spectrum = torch.fft.rfftn(volume)
    best, which = torch.full(shape, -torch.inf), torch.zeros(shape, dtype=torch.int32)
    for number, template in enumerate(templates):
        padded = torch.fft.rfft(template, n=shape[2], dim=2)
        for axis in (1, 0):
            padded = torch.fft.fft(padded, n=shape[axis], dim=axis)
        score = torch.fft.irfftn(spectrum * padded.conj_physical_(), s=shape)
        which.masked_fill_(score > best, number)
        torch.maximum(best, score, out=best)
    return torch.roll(best, half, dims=(0, 1, 2)), torch.roll(which, half, dims=(0, 1, 2))


def peak_bytes() -> int:
    return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
