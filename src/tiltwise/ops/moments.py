"""Moments and the median of the values of a volume."""

import math
from collections.abc import Callable, Iterable, Sequence

import torch

_SLAB_VOXELS = 2**22
_HALF, _ALL_BUT_SIGN = 2**16, 2**31 - 1


def kurtosis(values: torch.Tensor) -> float:
    """Fourth standardised moment (3 for a normal distribution), plane by plane in float64; nan for a constant."""
    mean = sum(float(plane.double().sum()) for plane in values) / values.numel()
    second = sum(float((plane.double() - mean).square().sum()) for plane in values) / values.numel()
    fourth = sum(float(((plane.double() - mean) ** 4).sum()) for plane in values) / values.numel()
    return fourth / second**2 if second > 0 else math.nan


def slabs(shape: Sequence[int]) -> list[slice]:
    """Planes of a volume (z, y, x), some 4 million voxels at a time."""
    planes = max(1, _SLAB_VOXELS // (shape[1] * shape[2]))
    return [slice(z, min(z + planes, shape[0])) for z in range(0, shape[0], planes)]


def median(parts: Callable[[], Iterable[torch.Tensor]]) -> float:
    """The lower median of float32 values in parts, as torch.median gives it, without a copy of them all; nan if any is.

    As whole numbers in the order of their values, halves of 16 bits are counted: first the upper ones of all, then the
    lower ones of those whose upper half is the median's. parts is called twice.
    """
    upper = torch.zeros(_HALF, dtype=torch.int64)
    for part in parts():
        if part.isnan().any():
            return math.nan
        upper += torch.bincount((_ordered(part) >> 16) + _HALF // 2, minlength=_HALF).cpu()
    rank, below = (int(upper.sum()) - 1) // 2, upper.cumsum(0)
    found = int(torch.searchsorted(below, rank, right=True))
    lower = torch.zeros(_HALF, dtype=torch.int64)
    for part in parts():
        order = _ordered(part)
        lower += torch.bincount(order[(order >> 16) + _HALF // 2 == found] & (_HALF - 1), minlength=_HALF).cpu()
    rest = rank - int(below[found] - upper[found])
    order = ((found - _HALF // 2) << 16) + int(torch.searchsorted(lower.cumsum(0), rest, right=True))
    bits = torch.tensor(order if order >= 0 else order ^ _ALL_BUT_SIGN, dtype=torch.int32)
    return float(bits.view(torch.float32))


def _ordered(values: torch.Tensor) -> torch.Tensor:
    """(value,) int32 in the order of float32 values."""
    bits = values.float().reshape(-1).view(torch.int32)
    return torch.where(bits < 0, bits ^ _ALL_BUT_SIGN, bits)
