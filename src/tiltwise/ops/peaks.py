"""Peaks of a score map: local maxima, their places between voxels, and the better of two that are too close."""

import numpy as np
import torch
from scipy.spatial import cKDTree

from tiltwise.ops.moments import slabs


def local_maxima(score: torch.Tensor, radius: int, number: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Voxels of score (z, y, x) that are the highest of the cube of half-side radius about them, best first.

    Gives (peak, 3) indices z, y, x and (peak,) scores, at most `number`; voxels of -inf are never peaks.
    """
    found = [_maxima_of(score, radius, planes) for planes in slabs(score.shape)]
    index, value = (torch.cat(parts) for parts in zip(*found, strict=True))
    order = torch.argsort(value, descending=True, stable=True)[:number]
    return index[order], value[order]


def _maxima_of(score: torch.Tensor, radius: int, planes: slice) -> tuple[torch.Tensor, torch.Tensor]:
    """Indices and scores of the maxima in some planes, in the order of the voxels."""
    first = max(planes.start - radius, 0)
    part = score[first : planes.stop + radius]
    highest = torch.nn.functional.max_pool3d(part[None, None], 2 * radius + 1, stride=1, padding=radius)[0, 0]
    own = slice(planes.start - first, planes.stop - first)
    index = torch.nonzero((part[own] == highest[own]) & torch.isfinite(part[own]))
    value = part[own][tuple(index.T)]
    index[:, 0] += planes.start
    return index, value


def parabola_offset(before: torch.Tensor, at: torch.Tensor, after: torch.Tensor) -> torch.Tensor:
    """Place of the vertex of the parabola through samples at -1, 0, 1, within ±1/2; 0 where `at` is not the highest."""
    curvature = 2 * at - before - after
    offset = (after - before) / (2 * curvature.clamp_min(1e-30))
    return torch.where(curvature > 0, offset, torch.zeros_like(offset)).clamp(-0.5, 0.5)


def parabola_top(place: np.ndarray, value: np.ndarray) -> float:
    """Highest place of values at evenly spaced places (n,), n >= 3, by the parabola through the best and its
    neighbours; at an end of the line, no farther than the end."""
    best = int(np.clip(value.argmax(), 1, len(value) - 2))
    before, at, after = value[best - 1 : best + 2]
    curvature = 2 * at - before - after
    offset = (after - before) / (2 * curvature) if curvature > 0 else float(np.sign(after - before))
    return float(place[best] + (place[1] - place[0]) * np.clip(offset, -1, 1))


def keep_separate(position: np.ndarray, score: np.ndarray, distance: float) -> np.ndarray:
    """Indices of the points (n, 3) that remain, best first, when each drops all worse ones nearer than distance."""
    order = np.argsort(-score, kind="stable")
    tree, dropped, kept = cKDTree(position), np.zeros(len(position), bool), []
    for i in order:
        if dropped[i]:
            continue
        kept.append(i)
        dropped[tree.query_ball_point(position[i], distance * (1 - 1e-9))] = True
    return np.array(kept, dtype=int)


def noise_tail(score: np.ndarray) -> tuple[float, float]:
    """u and s of the tail P(score > t) = exp((u² - t²) / 2 s²) / 2 of peaks of noise, from median and 85th centile.

    Maxima of a smooth Gaussian field fall off like this. Up to a seventh of the peaks may be true without harm.
    """
    median, upper = np.quantile(score, [0.5, 0.85])
    spread = (upper**2 - median**2) / (2 * np.log(0.5 / 0.15))
    return float(median), float(np.sqrt(max(spread, 1e-12)))


def expected_above(threshold: np.ndarray, tail: tuple[float, float], number: int) -> np.ndarray:
    """How many of a number of peaks of noise with this tail exceed each threshold."""
    median, spread = tail
    return number * 0.5 * np.exp(np.minimum(0.0, (median**2 - np.square(threshold)) / (2 * spread**2)))
