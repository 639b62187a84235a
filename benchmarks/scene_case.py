"""Simulated series of particles of octahedral symmetry at known poses, for benchmarks of what true poses can reach.

24 asymmetric units a particle make the resolution that a real set needs thousands of particles for.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch

from tiltwise.data.particles import Particles
from tiltwise.data.tilt_series import TiltSeries
from tiltwise.ops.fsc import first_crossing
from tiltwise.ops.particles.chunks import CropSettings, ImageSource, PosedParticles
from tiltwise.ops.particles.half_maps import accumulate_halves, maps_and_fsc, posed_particles
from tiltwise.ops.particles.images import TiltWeights
from tiltwise.ops.particles.references import half_map_fsc, sphere_mask
from tiltwise.params.scene import TargetParams
from tiltwise.params.session import SessionParams
from tiltwise.simulate.image_scene import image_scene
from tiltwise.simulate.potential import Scatterer, potential_map
from tiltwise.simulate.scene_session import SceneSeries, prepare_series

SYMMETRY, DIAMETER = "O", 165.0
TARGET = TargetParams(mass=4.8e5, diameter=160.0, symmetry=SYMMETRY, b_factor=20.0, surroundings=False)
"""As heavy as apoferritin."""


@dataclass(frozen=True, kw_only=True)
class Case:
    """Series with their true geometry and CTF, their particles at true poses, and the particle itself."""

    tilt_series: dict[str, TiltSeries]
    particles: Particles
    scatterer: Scatterer

    def map_of_truth(self, box_size: int) -> torch.Tensor:
        """(n, n, n) potential on the grid of an average."""
        pixel_size = next(iter(self.tilt_series.values())).pixel_size
        return torch.from_numpy(potential_map(self.scatterer, pixel_size, box_size).data)


def make_case(
    params: SessionParams, series: int, *, frames: bool, disturb: Callable[[SceneSeries], SceneSeries] | None = None
) -> Case:
    """Image `series` series; with frames they move, and are summed as they are. disturb changes what is imaged."""
    made, parts = {}, []
    for number in range(1, series + 1):
        whole = prepare_series(params, number, frames=frames)
        whole = disturb(whole) if disturb else whole
        still = replace(whole.disturbances, deformation=None)
        images = np.stack(list(image_scene(whole.scene, whole.series, whole.params, whole.seed, disturbances=still)))
        made[whole.series.name] = replace(whole.series, images=images)
        target = whole.scene.populations[0]
        parts.append((whole.series.name, target))
    scatterer = parts[0][1].scatterer
    return Case(tilt_series=made, particles=_particles(parts), scatterer=scatterer)


def _particles(parts: list) -> Particles:
    number = [len(target.position) for _, target in parts]
    total = sum(number)
    rotations = [target.rotation for _, target in parts]
    return Particles(
        tilt_series=np.concatenate([np.full(n, name) for n, (name, _) in zip(number, parts, strict=True)]),
        position=np.concatenate([np.asarray(target.position, dtype=float) for _, target in parts]),
        rotation=type(rotations[0]).concatenate(rotations),
        score=np.ones(total),
        half_set=1 + np.arange(total) % 2,
        region=np.full(total, -1),
    )


def averaged(
    source: ImageSource, posed: PosedParticles, weights: dict[str, TiltWeights]
) -> tuple[dict[int, torch.Tensor], torch.Tensor]:
    """Half maps and their FSC, as the refinement makes them."""
    return maps_and_fsc(accumulate_halves(source, posed, weights=weights, symmetry=SYMMETRY), mask_of(source))


def source_of(case: Case, box_size: int) -> tuple[ImageSource, PosedParticles]:
    """The particles ready to be cut."""
    pixel_size = next(iter(case.tilt_series.values())).pixel_size
    settings = CropSettings(box_size=box_size, pixel_size=pixel_size, particle_radius=DIAMETER / 2, device="cpu")
    return ImageSource(tilt_series=case.tilt_series, settings=settings, ready={}), posed_particles(case.particles)


def mask_of(source: ImageSource) -> torch.Tensor:
    settings = source.settings
    return sphere_mask(settings.box_size, settings.pixel_size, settings.particle_radius)


def fsc_with_truth(maps: dict[int, torch.Tensor], truth: torch.Tensor, source: ImageSource) -> torch.Tensor:
    """(shell,) of the mean of the halves with the truth, in a soft sphere."""
    return half_map_fsc(maps[1] + maps[2], truth, mask_of(source))


def resolution_of(fsc: torch.Tensor, source: ImageSource) -> float:
    """Spacing, Å, where an FSC with the truth first falls below 0.5."""
    width = source.settings.box_size * source.settings.pixel_size
    return first_crossing(torch.arange(len(fsc), dtype=torch.float64) / width, fsc, 0.5)
