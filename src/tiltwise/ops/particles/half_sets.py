"""Which particles go into which half, and which are the same particle twice."""

import numpy as np
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components
from scipy.spatial import cKDTree

from tiltwise.data.errors import InputError
from tiltwise.data.particles import Particles


def spatial_blocks(particles: Particles, linking_distance: float) -> np.ndarray:
    """(particle,) block number: what is in one block must not be split between the halves.

    A region (>= 0) of a tilt series is a block. Particles of region -1 are joined to blocks of those that lie, link by
    link, closer together than linking_distance (Å): such neighbours may turn out to be one particle.
    """
    blocks = np.empty(len(particles), dtype=np.int64)
    first = 0
    for name in sorted(set(particles.tilt_series.tolist())):
        own = np.flatnonzero(particles.tilt_series == name)
        labels = np.where(particles.region[own] >= 0, particles.region[own], -1)
        single = labels < 0
        labels[single] = labels.max() + 1 + _linked(particles.position[own[single]], linking_distance)
        unique, labels = np.unique(labels, return_inverse=True)
        blocks[own] = first + labels
        first += len(unique)
    return blocks


def _linked(position: np.ndarray, distance: float) -> np.ndarray:
    if len(position) == 0:
        return np.zeros(0, dtype=np.int64)
    pairs = cKDTree(position).query_pairs(distance, output_type="ndarray")
    graph = coo_matrix((np.ones(len(pairs)), (pairs[:, 0], pairs[:, 1])), shape=(len(position),) * 2)
    return connected_components(graph, directed=False)[1].astype(np.int64)


def assign_half_sets(particles: Particles, linking_distance: float, seed: int) -> np.ndarray:
    """(particle,) 1 or 2: whole blocks go to the half with fewer particles, the largest first, ties by a random draw.

    Within each tilt series the halves are balanced, so that both see every series. Halves that are already assigned are
    kept. Raises InputError where everything is one block.
    """
    if set(np.unique(particles.half_set).tolist()) == {1, 2}:
        return particles.half_set.copy()
    blocks = spatial_blocks(particles, linking_distance)
    if blocks.max() == 0:
        raise InputError("particles: all lie in one region, which cannot be split into two independent halves")
    rng = np.random.default_rng(seed)
    halves = np.empty(len(particles), dtype=np.int64)
    total = np.zeros(2, dtype=np.int64)
    for name in sorted(set(particles.tilt_series.tolist())):
        own = particles.tilt_series == name
        labels, count = np.unique(blocks[own], return_counts=True)
        order = np.lexsort((rng.random(len(labels)), -count))
        series = np.zeros(2, dtype=np.int64)
        for label, number in zip(labels[order], count[order], strict=True):
            half = int(np.lexsort((total, series))[0])
            halves[blocks == label] = half + 1
            series[half] += number
            total[half] += number
    return halves


def distinct_particles(names: np.ndarray, position: np.ndarray, score: np.ndarray, distance: float) -> np.ndarray:
    """(particle,) bool: True for the best-scored of every group closer together than distance, whatever their halves.

    names (particle,) of the tilt series; position (particle, 3) and distance in Å. Taken in order of falling score, a
    particle removes all that lie closer to it.
    """
    keep = np.ones(len(names), dtype=bool)
    for name in sorted(set(names.tolist())):
        own = np.flatnonzero(names == name)
        neighbours = cKDTree(position[own]).query_ball_point(position[own], distance)
        for i in np.argsort(-score[own], kind="stable"):
            if keep[own[i]]:
                keep[own[neighbours[i]]] = False
                keep[own[i]] = True
    return keep


def well_explained(names: np.ndarray, half_set: np.ndarray, amplitude: np.ndarray, least: float) -> np.ndarray:
    """(particle,) bool: True where the reference's amplitude in the images is at least `least` times that of good ones.

    Good: the upper quartile of one tilt series and half set, so that no half judges the other. A true particle holds
    the reference with amplitude 1, however many of its images can be used; a wrong pick holds what agrees by chance.
    Where it was not measured (nan) the particle is not judged.
    """
    keep = np.ones(len(amplitude), dtype=bool)
    for name in set(names.tolist()):
        for half in (1, 2):
            own = (names == name) & (half_set == half) & np.isfinite(amplitude)
            if own.any():
                keep[own] = amplitude[own] >= least * np.quantile(amplitude[own], 0.75)
    return keep


def some_of_halves(half_set: np.ndarray, number: int, seed: int) -> np.ndarray:
    """Indices, rising, of at most so many particles of each half, drawn at random."""
    rng = np.random.default_rng([seed, 3])
    drawn = [rng.permutation(np.flatnonzero(half_set == half))[:number] for half in (1, 2)]
    return np.sort(np.concatenate(drawn))
