"""A periodic volume about single voxels: its samples in the shape of a template, and their products with templates.

The search everywhere is periodic (ops/picking/tiles.py), and so is the search at places. On a CPU both are compiled
(ops/kernels/template_search.py); the plain twins here run on any device.
"""

import torch

from tiltwise.ops.kernels import template_search as kernels


def gather_around(volume: torch.Tensor, index: torch.Tensor, offsets: torch.Tensor) -> torch.Tensor:
    """(hit, point) samples of a volume (z, y, x) at voxels (hit, 3) and offsets (point, 3) from each.

    The volume is periodic; a sample lies less than a period beyond its faces.
    """
    if volume.device.type != "cpu":
        return gather_around_plain(volume, index, offsets)
    result = torch.empty(len(index), len(offsets))
    kernels.gather(*(array.contiguous().numpy() for array in (volume, index, offsets, result)))
    return result


def gather_around_plain(volume: torch.Tensor, index: torch.Tensor, offsets: torch.Tensor) -> torch.Tensor:
    """The plain twin of `gather_around`, on any device."""
    flat = torch.zeros(len(index), len(offsets), dtype=torch.long, device=volume.device)
    for axis, (size, stride) in enumerate(zip(volume.shape, volume.stride(), strict=True)):
        flat += (index[:, axis, None] + offsets[:, axis]).remainder_(size).mul_(stride)
    return volume.reshape(-1)[flat]


def score_around(
    volume: torch.Tensor, index: torch.Tensor, offsets: torch.Tensor, templates: torch.Tensor, which: torch.Tensor
) -> torch.Tensor:
    """(hit, 27) products of template `which` (hit,) of (template, point) with the samples at `offsets` (point, 3) about
    voxels (hit, 3) and their neighbours, z slowest."""
    if volume.device.type != "cpu":
        return score_around_plain(volume, index, offsets, templates, which)
    result = torch.empty(len(index), 27)
    kernels.score(*(array.contiguous().numpy() for array in (volume, index, offsets, templates, which, result)))
    return result


def score_around_plain(
    volume: torch.Tensor, index: torch.Tensor, offsets: torch.Tensor, templates: torch.Tensor, which: torch.Tensor
) -> torch.Tensor:
    """The plain twin of `score_around`, on any device."""
    steps = torch.cartesian_prod(*[torch.arange(-1, 2, device=index.device)] * 3)
    own = templates[which]
    return torch.stack([(gather_around_plain(volume, index + step, offsets) * own).sum(1) for step in steps], dim=1)
