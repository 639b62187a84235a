"""Which way defocus grows with depth, told by the particles: each lies at a depth of its own, and its images know it.

The likelihood of all particle images is computed twice, with h = +1 and -1 in defocus(point) = defocus_i + h · depth,
at the same poses and references. The difference is the evidence. A microscope has one hand, so that of a data set is
decided on the sum over its tilt series. Only the product of this hand and the half-turn of the tilt axis is measured
(docs/conventions.md).
"""

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import torch

from tiltwise.data.tilt_series import TiltSeries
from tiltwise.ops.particles.chunks import ImageSource, PosedParticles
from tiltwise.ops.particles.images import TiltWeights
from tiltwise.ops.particles.slices import volume_spectrum
from tiltwise.ops.poses.terms import collect_terms

ENOUGH = 5.0
"""Log likelihood from which a hand is believed: odds of 150 to 1."""


def handedness_evidence(
    source: ImageSource,
    particles: PosedParticles,
    references: Mapping[int, torch.Tensor],
    *,
    weights: Mapping[str, TiltWeights],
    resolution: float,
) -> dict[str, float]:
    """Log likelihood of h = +1 less that of h = -1, for each series whose CTF is known; resolution in Å."""
    radius = source.settings.radius_of(resolution)
    grids = {half: volume_spectrum(reference, radius + 1) for half, reference in references.items()}
    evidence = {}
    for name in sorted(set(particles.tilt_series[particles.half_set > 0].tolist())):
        if source.tilt_series[name].ctf is None:
            continue
        own = replace(particles, half_set=np.where(particles.tilt_series == name, particles.half_set, 0))
        plus, minus = (
            collect_terms(with_handedness(source, h, (name,)), own, grids, weights=weights, resolution=resolution)
            for h in (1, -1)
        )
        evidence[name] = float(plus[name].likelihood.sum() - minus[name].likelihood.sum())
    return evidence


def decide_handedness(evidence: Mapping[str, float]) -> int | None:
    """+1 or -1 for the data set; None where the particles of all its series together do not tell."""
    total = sum(evidence.values())
    return None if abs(total) < ENOUGH else int(np.sign(total))


def with_handedness(source: ImageSource, handedness: int, names: tuple[str, ...]) -> ImageSource:
    """The same images, with this hand for the series named."""
    changed: dict[str, TiltSeries] = dict(source.tilt_series)
    for name in names:
        changed[name] = replace(changed[name], defocus_handedness=handedness)
    return source.with_series(changed)
