"""Several starts towards a first map, and which of them to trust.

A start is trusted for the particles that did not make it. With V the map of a start and X the images of a particle
left out, log p(X | V) averages, over particles, to a constant less the Kullback-Leibler distance of p(X | V) from what
the images really follow: the higher, the nearer is V to the truth, and noise that V has taken up costs. Over the
particles that made V the same sum is too high by what V has fitted of their noise, by another amount in each start. All
starts of a half are held against the same particles, so that the difference of two is known to the standard error of
the particles' own differences. How well the map agrees with those of other starts is told beside it, not decided by:
starts can agree on a wrong map.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Start:
    """What one start came to."""

    map: torch.Tensor
    """(n, n, n) masked."""
    fitted: float
    """Mean log likelihood of the particles that made it, against no particle."""
    held_out: np.ndarray
    """(particle,) log likelihood of those that did not."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class FirstMap:
    """The first map of a half, and the starts of which one became it."""

    map: torch.Tensor
    """(n, n, n) masked, low-passed: the trusted start, gone on with all particles."""
    starts: tuple[Start, ...]
    """In the order made."""
    trusted: int
    """Which of them."""


def trusted_start(starts: Sequence[Start]) -> int:
    """The start under which the particles held out are most likely."""
    return int(np.argmax([start.held_out.mean() for start in starts]))


def standard_errors_behind(starts: Sequence[Start], trusted: int) -> list[float]:
    """Of each start: by how many standard errors its mean log likelihood of the particles held out is below that of the
    trusted one."""
    result = []
    for start in starts:
        difference = starts[trusted].held_out - start.held_out
        error = difference.std(ddof=1) / np.sqrt(len(difference))
        result.append(float(difference.mean() / error) if error > 0 else 0.0)
    return result
