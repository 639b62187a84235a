"""Tilt series of two molecules made of Gaussians: the second lacks some of the first's. Images from closed forms."""

from dataclasses import dataclass, replace
from itertools import permutations

import numpy as np
from particle_scene import blobs, project_blobs, put_together, tilts_of, with_noise
from scipy.spatial.transform import Rotation

from tiltwise.data.particles import Particles

MISSING = 3
"""Gaussians, of ten, that molecules of class 1 lack."""


@dataclass(frozen=True)
class Mixed:
    tilt_series: dict
    particles: Particles
    truth: np.ndarray
    """(particle,) 0 or 1."""
    centres: np.ndarray


def nine_places(name, rng):
    """A series of which every second tilt is left out, and where nine particles stand in it."""
    empty = replace(tilts_of(name, rng), use=np.arange(21) % 2 == 0)
    lattice = np.stack(np.meshgrid(*[np.arange(-1, 2) * 240.0] * 2, indexing="ij"), -1).reshape(-1, 2)
    position = np.concatenate([lattice, rng.uniform(-100, 100, (len(lattice), 1))], 1)
    return empty, position, Rotation.random(len(position), random_state=int(rng.integers(1000)))


def mixed_scene(series=8, noise=1.5, part=0.5, seed=0, missing=MISSING, elsewhere=0):
    """Series of nine particles each, about `part` of which lack the `missing` Gaussians of least x.

    Half of the particles, drawn by themselves, lack the `elsewhere` Gaussians of largest x. Half sets alternate; every
    second tilt is left out.
    """
    rng = np.random.default_rng(seed)
    centres, made, parts, kinds = blobs(), {}, [], []
    centres = centres[np.argsort(centres[:, 0])]
    for number in range(series):
        name = f"TS_{number + 1}"
        empty, position, rotation = nine_places(name, rng)
        kind = (rng.permutation(len(position)) < part * len(position) + rng.uniform(-0.5, 0.5)).astype(int)
        other = rng.permutation(len(position)) % 2
        clean = np.zeros(empty.images.shape)
        for one in range(2):
            for two in range(2):
                own = (kind == one) & (other == two)
                left = centres[one * missing : len(centres) - two * elsewhere]
                clean = clean + project_blobs(empty, position[own], rotation[own], left)
        images = clean + 3 * noise * clean.std() * rng.normal(size=clean.shape) + 100
        made[name] = replace(empty, images=images.astype(np.float32))
        parts.append((name, position, rotation))
        kinds.append(kind)
    particles = put_together(parts)
    return Mixed(
        tilt_series=made,
        particles=replace(particles, half_set=1 + np.arange(len(particles)) % 2),
        truth=np.concatenate(kinds),
        centres=centres,
    )


@dataclass(frozen=True)
class Kinds:
    tilt_series: dict
    particles: Particles
    truth: np.ndarray
    """(particle,) number of its kind, from 0."""
    centres: np.ndarray
    """(blob, 3) Å, by rising x."""
    kinds: tuple
    """The blobs of each kind, as slices."""


def kinds_scene(kinds, series=6, noise=0.7, seed=0):
    """Series of nine particles each, as many of every kind, which has the Gaussians of its slice alone."""
    rng, made, parts, truth = np.random.default_rng(seed), {}, [], []
    centres = blobs()
    centres = centres[np.argsort(centres[:, 0])]
    for number in range(series):
        name = f"TS_{number + 1}"
        empty, position, rotation = nine_places(name, rng)
        kind = rng.permutation(len(position)) % len(kinds)
        own = [kind == k for k in range(len(kinds))]
        clean = sum(
            project_blobs(empty, position[o], rotation[o], centres[kept]) for o, kept in zip(own, kinds, strict=True)
        )
        made[name] = replace(empty, images=with_noise(clean, noise, rng))
        parts.append((name, position, rotation))
        truth.append(kind)
    particles = put_together(parts)
    particles = replace(particles, half_set=1 + np.arange(len(particles)) % 2)
    return Kinds(tilt_series=made, particles=particles, truth=np.concatenate(truth), centres=centres, kinds=kinds)


def accuracy(number, truth, classes=2):
    """Part of the particles in the right class, classes matched as is best."""
    return max(np.mean(np.array(order)[number - 1] == truth) for order in permutations(range(classes)))
