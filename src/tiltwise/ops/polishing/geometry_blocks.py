"""Blocks of parameters of a tilt series' geometry, and how each moves and turns the images of particles.

Every parameter is in units of its prior's standard deviation, so that the prior of all is exp(-|θ|² / 2). A block
gives, for each used tilt, the derivatives of y = (w, t) of `ops.poses.terms` by those of its parameters that touch it:

- shift:    t = d_i.
- angles:   the image frame turns by ω, R_i → exp(ω) R_i, so that w = (R_i A)ᵀ ω and t = (ω × R_i X)_xy, where
            ω = e_z dφ + Rz(φ) e_y dθ for the axis φ and the tilt angle θ.
- magnification: t = r dm.
- sample:   t = (R_i D(X, N_i))_xy, D cubic in x, y, z, its coefficients a random walk over the exposure. A
            shape that stays is none: it is where the particles are, so the walk's mean over the tilts is taken out.
- warp:     t = w_i(r), the leading modes of a Gaussian random field, each tilt by itself. Its covariance 1 / (1 + r² /
            2l²) mixes Gaussian ones of many lengths, 1 / length² distributed exponentially with mean 1 / l² (Rasmussen
            and Williams 2006, eq. 4.19, α = 1): how near two places must be to move together is not known beforehand.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from scipy.interpolate import CubicSpline

from tiltwise.data.tilt_series import TiltSeries
from tiltwise.ops.deformation import CUBIC, middle_exposure, sample_monomials, specimen_in_images, warp_basis
from tiltwise.ops.geometry import rotate_about_z, tilt_rotations

SHIFT, ANGLE, MAGNIFICATION, SAMPLE, WARP = 5.0, 0.3, 0.002, 10.0, 5.0
"""Prior standard deviations: Å, degrees, factor, Å at the edge of the field at the end of the series, Å."""
KNOTS = 5
"""Of a new sample deformation, over the exposure."""
CONTROLS = (9, 9)
"""Control values of a new image warp along y, x."""
_LENGTH = 0.3
"""l of the warp's covariance, in longer sides of the image."""
_KEPT_VARIANCE = 0.99
"""Part of the warp's variance over the image that the modes kept have."""
_MODE_GRID = 41
"""Points along either side over which the variance of modes is taken."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Block:
    """Parameters of one kind for all used tilts of a series."""

    name: str
    """shift, angles, magnification, sample or warp."""
    number: int
    """Of its parameters."""
    at_tilt: Callable[[int], tuple[np.ndarray, np.ndarray]]
    """For a used tilt: (n,) which of its parameters touch it, and (particle, 5, n) derivatives of y by these."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Seen:
    """Where some particles lie in the used tilts of their series."""

    rotations: np.ndarray
    """(tilt, 3, 3) specimen to image frame."""
    axis: np.ndarray
    """(tilt,) tilt axis angle, degrees."""
    place: np.ndarray
    """(tilt, particle, 2) Å from the image centre."""
    position: np.ndarray
    """(particle, 3) Å."""
    rotation: np.ndarray
    """(particle, 3, 3) reference to tomogram."""
    exposure: np.ndarray
    """(tilt,) up to the middle of each tilt, e⁻/Å²."""


def see_particles(tilt_series: TiltSeries, position: np.ndarray, rotation: np.ndarray) -> Seen:
    """Particles at position (particle, 3) Å, rotation (particle, 3, 3), in the used tilts of their series."""
    used = np.flatnonzero(tilt_series.use)
    return Seen(
        rotations=tilt_rotations(tilt_series.geometry).numpy()[used],
        axis=tilt_series.geometry.tilt_axis_angle[used],
        place=specimen_in_images(tilt_series, position, used)[0],
        position=position,
        rotation=rotation,
        exposure=middle_exposure(tilt_series)[used],
    )


def pose_derivatives(seen: Seen, tilt: int) -> np.ndarray:
    """(5, 6) derivatives of y by a particle's own rotation vector (radians) and shift in the tomogram (Å)."""
    result = np.zeros((5, 6))
    result[:3, :3] = np.eye(3)
    result[3:, 3:] = seen.rotations[tilt, :2]
    return result


def shift_block(seen: Seen) -> Block:
    """Two shifts of every tilt."""
    derivatives = np.zeros((len(seen.position), 5, 2))
    derivatives[:, 3:] = SHIFT * np.eye(2)
    return Block(name="shift", number=2 * len(seen.rotations), at_tilt=lambda i: (_own(i, 2), derivatives))


def angle_block(seen: Seen) -> Block:
    """Axis angle and tilt angle of every tilt."""

    def at_tilt(i: int) -> tuple[np.ndarray, np.ndarray]:
        turn = rotate_about_z(torch.tensor(float(seen.axis[i]), dtype=torch.float64)).numpy()
        omega = np.radians(ANGLE) * np.stack([[0.0, 0.0, 1.0], turn[:, 1]], axis=1)  # (3, parameter)
        derivatives = np.zeros((len(seen.position), 5, 2))
        derivatives[:, :3] = (seen.rotations[i] @ seen.rotation).transpose(0, 2, 1) @ omega
        turned = seen.position @ seen.rotations[i].T
        derivatives[:, 3:] = np.cross(omega.T[None], turned[:, None])[..., :2].transpose(0, 2, 1)
        return _own(i, 2), derivatives

    return Block(name="angles", number=2 * len(seen.rotations), at_tilt=at_tilt)


def magnification_block(seen: Seen) -> Block:
    """The magnification of every tilt."""

    def at_tilt(i: int) -> tuple[np.ndarray, np.ndarray]:
        derivatives = np.zeros((len(seen.position), 5, 1))
        derivatives[:, 3:, 0] = MAGNIFICATION * seen.place[i]
        return _own(i, 1), derivatives

    return Block(name="magnification", number=len(seen.rotations), at_tilt=at_tilt)


def sample_block(seen: Seen, knots: np.ndarray, scale: float, monomials: int = CUBIC) -> Block:
    """All of so many monomials but the constant, of three components, each a walk of len(knots) - 1 steps."""
    walk = sample_walk(knots, seen.exposure)
    over_exposure = CubicSpline(knots, walk)(np.clip(seen.exposure, knots[0], knots[-1]))  # (tilt, step)
    shape = sample_monomials(seen.position, scale, monomials)[:, 1:]
    number = 3 * shape.shape[1] * walk.shape[1]

    def at_tilt(i: int) -> tuple[np.ndarray, np.ndarray]:
        derivatives = np.zeros((len(seen.position), 5, number))
        part = np.einsum("pm,cd,k->pcmdk", shape, seen.rotations[i, :2], over_exposure[i])
        derivatives[:, 3:] = part.reshape(len(seen.position), 2, number)
        return np.arange(number), derivatives

    return Block(name="sample", number=number, at_tilt=at_tilt)


def sample_walk(knots: np.ndarray, exposure: np.ndarray) -> np.ndarray:
    """(knot, step) values at the knots of unit steps of the prior's walk, whose mean over the exposures is zero."""
    steps = np.tril(np.ones((len(knots), len(knots))), -1)[:, :-1] * SAMPLE / np.sqrt(3 * (len(knots) - 1))
    mean = CubicSpline(knots, steps)(np.clip(exposure, knots[0], knots[-1])).mean(axis=0)
    return steps - mean


def warp_block(seen: Seen, extent: tuple[float, float], controls: tuple[int, int]) -> Block:
    """The leading modes of a smooth warp, x and y, of every tilt; extent and controls as the warp itself has them."""
    modes = warp_modes(extent, controls)
    number = 2 * modes.shape[1]

    def at_tilt(i: int) -> tuple[np.ndarray, np.ndarray]:
        values = warp_basis(seen.place[i], extent, controls) @ modes
        derivatives = np.zeros((len(values), 5, number))
        derivatives[:, 3, : number // 2] = values
        derivatives[:, 4, number // 2 :] = values
        return _own(i, number), derivatives

    return Block(name="warp", number=number * len(seen.rotations), at_tilt=at_tilt)


def warp_modes(extent: tuple[float, float], controls: tuple[int, int]) -> np.ndarray:
    """(y · x control values, mode) of unit coefficients: the principal modes over the image of a Gaussian random field
    of standard deviation WARP there, Å."""
    sides = np.array(extent) / max(extent)
    along = [((np.arange(n) - 1) / (n - 3) - 0.5) * side for n, side in zip(controls, sides[::-1], strict=True)]
    place = np.stack(np.meshgrid(*along, indexing="ij"), axis=-1).reshape(-1, 2)
    square = ((place[:, None] - place) ** 2).sum(axis=-1)
    value, vector = np.linalg.eigh(1 / (1 + square / (2 * _LENGTH**2)))
    root = vector * np.sqrt(value.clip(0))
    grid = np.stack(np.meshgrid(*(np.linspace(-0.5, 0.5, _MODE_GRID) * side for side in extent)), axis=-1)
    over_image = warp_basis(grid.reshape(-1, 2), extent, controls) @ root
    spread, turn = np.linalg.eigh(over_image.T @ over_image / len(over_image))
    falling = spread[::-1].clip(0)
    kept = int((falling.cumsum() < _KEPT_VARIANCE * falling.sum()).sum()) + 1
    modes = WARP / np.sqrt(falling.sum()) * root @ turn[:, ::-1][:, :kept]
    largest = modes[np.abs(modes).argmax(axis=0), np.arange(kept)]
    return modes * np.sign(largest)  # an eigenvector has no sign of its own


def _own(tilt: int, number: int) -> np.ndarray:
    return number * tilt + np.arange(number)
