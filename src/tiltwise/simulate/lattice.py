"""A hexagonal lattice grown on a sphere, with the cracks that curvature forces on it, gaps and vacancies."""

import math

import numpy as np

_NEAREST = 0.9  # spacings; no two sites are nearer
_SAME_SITE = 0.35  # spacings; proposals of several neighbours nearer than this mean one site


def grow_lattice(
    radius: float, spacing: float, coverage: float, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Unit normals (site, 3) of the sites and unit tangents (site, 3) that point at one of their six neighbours.

    From a random first site each grows neighbours at `spacing` Å along the sphere, in random order, the site being the
    mean of what its neighbours propose, until `coverage` of a full sphere's number stands or nothing fits. A sphere
    has no perfect hexagonal lattice, so that the growth fronts meet in cracks and five-fold sites.
    """
    full = 4 * math.pi * radius**2 / (math.sqrt(0.75) * spacing**2)
    most, angle = round(coverage * full), spacing / radius
    normals, tangents = np.empty((most + 1, 3)), np.empty((most + 1, 3))
    normals[0] = _unit(rng.normal(size=3))
    tangents[0] = _unit(np.cross(normals[0], rng.normal(size=3)))
    proposals, frames = np.empty((6 * (most + 1), 3)), np.empty((6 * (most + 1), 3))
    open_ones: list[int] = []
    number = 0

    def add(normal: np.ndarray, tangent: np.ndarray) -> None:
        nonlocal number
        normals[number], tangents[number] = normal, tangent
        rows = slice(6 * number, 6 * number + 6)
        proposals[rows], frames[rows] = _neighbours(normal, tangent, angle)
        open_ones.extend(range(6 * number, 6 * number + 6))
        number += 1

    add(normals[0], tangents[0])
    while open_ones and number < most:
        proposal = open_ones.pop(int(rng.integers(max(len(open_ones) - 30, 0), len(open_ones))))
        same = np.flatnonzero(proposals[: 6 * number] @ proposals[proposal] > math.cos(_SAME_SITE * angle))
        site = _unit(proposals[same].mean(axis=0))
        if (normals[:number] @ site).max() > math.cos(_NEAREST * angle):
            continue
        add(site, _mean_tangent(frames[same], frames[proposal], site))
    return normals[:number], tangents[:number]


def _neighbours(normal: np.ndarray, tangent: np.ndarray, angle: float) -> tuple[np.ndarray, np.ndarray]:
    """Normals (6, 3) and tangents (6, 3) of the six neighbours, carried along great circles."""
    turn = np.radians(60.0 * np.arange(6))[:, None]
    across = np.cross(normal, tangent)
    along = np.cos(turn) * tangent + np.sin(turn) * across
    new = math.cos(angle) * normal + math.sin(angle) * along
    onward = math.cos(angle) * along - math.sin(angle) * normal
    sideways = np.cross(new, onward)
    return new, np.cos(-turn) * onward + np.sin(-turn) * sideways


def _mean_tangent(tangents: np.ndarray, like: np.ndarray, normal: np.ndarray) -> np.ndarray:
    """Mean of tangents (n, 3) that are equal up to sixths of a turn, each taken as the one nearest to `like`."""
    across = np.cross(normal, like)
    angle = np.arctan2(tangents @ across, tangents @ like)
    turned = np.mean(angle - np.radians(60) * np.round(angle / np.radians(60)))
    mean = math.cos(turned) * like + math.sin(turned) * across
    return _unit(mean - (mean @ normal) * normal)


def _unit(vector: np.ndarray) -> np.ndarray:
    return vector / np.linalg.norm(vector)
