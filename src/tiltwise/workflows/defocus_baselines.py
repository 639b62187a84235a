"""What the joint fit is compared with: the same patches, band, search and likelihood, but each tilt by itself.

Known: the angles are those of the alignment, the slab may not incline. Free: angle and axis are sought on a grid and
then fitted without a prior, as programs do that know of one image only. Strip: angles known, but only patches whose
centre lies within half a patch of the tilt axis count.
"""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import torch

from tiltwise.ops.geometry import rotate_about_y, rotate_about_z
from tiltwise.ops.thon_rings.fit import fit_rings
from tiltwise.ops.thon_rings.model import RingSpectra, depth_spread_loss
from tiltwise.ops.thon_rings.prior import BELIEVED, RingPrior
from tiltwise.ops.thon_rings.search import score_defocus, search_series
from tiltwise.ops.thon_rings.spectra import patch_spread
from tiltwise.params.defocus import DefocusParams

_HELD = replace(BELIEVED, slope_sd=1e-5)
_FREE = replace(BELIEVED, slope_sd=10.0)
_ANGLES = (20.0, 40.0, 60.0)  # degrees, and 0
_AXES = tuple(range(0, 360, 30))  # degrees; the half-turn takes the place of the hand


def defocus_alone(spectra: RingSpectra, handedness: int) -> np.ndarray:
    """(tilt,) Å at depth 0, each tilt alone with known angles."""
    return _each(spectra, lambda own: _fit(own, handedness, _HELD))


def defocus_alone_free(spectra: RingSpectra) -> np.ndarray:
    """(tilt,) Å at depth 0, each tilt alone with unknown angles."""
    return _each(spectra, lambda own: _fit(_best_orientation(own), 1, _FREE))


def defocus_of_strip(spectra: RingSpectra, handedness: int) -> np.ndarray:
    """(tilt,) Å at depth 0, each tilt alone with known angles, from a strip along its axis."""
    return _each(spectra, lambda own: _fit(_strip(own), handedness, _HELD))


def one_tilt(spectra: RingSpectra, tilt: int) -> RingSpectra:
    """The spectra of one tilt."""
    names = ("power", "weight", "position", "rotations", "tilt_angle", "course", "damage", "coherence")
    return replace(spectra, **{name: getattr(spectra, name)[tilt : tilt + 1] for name in names})


def _each(spectra: RingSpectra, estimate: Callable[[RingSpectra], float]) -> np.ndarray:
    return np.array([estimate(one_tilt(spectra, i)) for i in range(len(spectra.tilt_angle))])


def _fit(spectra: RingSpectra, handedness: int, prior: RingPrior) -> float:
    limits = DefocusParams().defocus_min, DefocusParams().defocus_max
    weighted, (search,) = search_series(spectra, *limits, hands=(handedness,), prior=prior)
    return float(fit_rings(weighted, search.fit, prior).defocus[0])


def _strip(spectra: RingSpectra) -> RingSpectra:
    """Without the patches whose centre is farther than half a patch from the axis, which runs along R · y."""
    axis = spectra.rotations[0, :2, 1] / spectra.rotations[0, :2, 1].norm()
    across = spectra.position[0, :, 0] * axis[1] - spectra.position[0, :, 1] * axis[0]
    near = across.abs() <= spectra.layout.size * spectra.pixel_size / 2
    return replace(spectra, weight=spectra.weight * near[:, None, None])


def _best_orientation(spectra: RingSpectra) -> RingSpectra:
    """The spectra of one tilt with the angle and axis of a grid at which the rings are strongest at any defocus."""
    limits = DefocusParams()
    grid = torch.arange(limits.defocus_min, limits.defocus_max, 500.0, dtype=torch.float64)
    shape = torch.tensor([[0.1], [0.02]]).to(spectra.ring_frequency).expand(-1, len(spectra.ring_frequency))
    trials = [_turned(spectra, 0.0, 0.0)] + [_turned(spectra, axis, angle) for angle in _ANGLES for axis in _AXES]
    gains = []
    for trial in trials:
        score, variance = score_defocus(trial, shape, 1, grid)
        gains.append(float((score.clamp_min(0) ** 2 / (2 * variance)).max()))
    return trials[int(np.argmax(gains))]


def _turned(spectra: RingSpectra, axis: float, angle: float) -> RingSpectra:
    """The spectra of one tilt as if its axis and angle (degrees) were these."""
    tilt_angle = torch.tensor([angle], dtype=torch.float64)
    rotation = rotate_about_z(torch.tensor([axis], dtype=torch.float64)) @ rotate_about_y(tilt_angle)
    spread = patch_spread(spectra.layout) * spectra.pixel_size
    coherence = depth_spread_loss(spectra.ring_frequency, tilt_angle, spread, spectra.optics.voltage)
    return replace(spectra, rotations=rotation, tilt_angle=tilt_angle, coherence=coherence)
